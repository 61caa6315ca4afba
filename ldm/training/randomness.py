"""Random numbers that depend on what they are for, never on when, where or beside what they are drawn.

(seed, epoch, index) -> a generator of that sample in that epoch; so neither the number of processes, nor the split of a
batch, nor a restart changes a training.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import Generator

from ldm.draws import GOLDEN, Streams, mixed


def number(seed: int, *place: int | str) -> int:
    """A seed and a place -> 0..2^63-1, a hash of the arguments alone: the same on every machine and version."""
    digest = hashlib.blake2b(repr((int(seed), *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keyed(seed: int, *place: int | str) -> Generator:
    """A seed and a place, such as (epoch, index) or (epoch, index, "data") -> its CPU generator."""
    return Generator().manual_seed(number(seed, *place))


def streams(seed: int, places: Sequence[tuple[int, int]]) -> Streams:
    """A seed and the places (epoch, index) of samples -> their random numbers."""
    starts = np.array([_start(seed, epoch) for epoch, _ in places], np.uint64)
    return Streams(mixed(starts ^ mixed(np.array([index for _, index in places], np.uint64) + GOLDEN)))


@lru_cache(maxsize=8)
def _start(seed: int, epoch: int) -> int:
    return number(seed, epoch, "samples")
