"""Random numbers that depend on what they are for, never on when, where or beside what they are drawn.

(seed, epoch, index) -> a generator of that sample in that epoch; so neither the number of processes, nor the split of a
batch, nor a restart changes a training.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def number(seed: int, *place: int | str) -> int:
    """A seed and a place -> 0..2^63-1, a hash of the arguments alone: the same on every machine and version."""
    digest = hashlib.blake2b(repr((int(seed), *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keyed(seed: int, *place: int | str) -> Generator:
    """A seed and a place, such as (epoch, index) or (epoch, index, "data") -> its CPU generator."""
    return Generator().manual_seed(number(seed, *place))


def integers(generators: Sequence[Generator], low: int, high: int) -> Tensor:
    """B generators -> (B,) whole numbers, low <= n < high, row j from generator j alone."""
    return torch.cat([torch.randint(low, high, (1,), generator=generator) for generator in generators])
