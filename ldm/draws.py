"""Random numbers of many samples at once, each from its own source: none depends on its neighbours, or on the device.

B generators, or `Streams`, which are B in one --gaussian, uniform, integers--> (B,...), row j from source j alone
"""

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Generator, Tensor

GOLDEN, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
HALF = np.uint64(32)  # bits


class Streams(Sequence[Generator]):
    """B streams of random bits, each begun by a key of 64 bits (SplitMix64; Steele, Lea and Flood 2014).

    Far faster than as many of torch's generators, for small numbers of numbers. As a sequence it gives these, too,
    seeded by the keys, each made when it is first asked for.
    """

    def __init__(self, keys: np.ndarray):
        self.keys, self.drawn = keys.astype(np.uint64), 0
        self._generators: dict[int, Generator] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Generator: ...
    @overload
    def __getitem__(self, index: slice) -> list[Generator]: ...
    def __getitem__(self, index: int | slice) -> Generator | list[Generator]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._generators:
            self._generators[index] = Generator().manual_seed(int(self.keys[index] >> np.uint64(1)))
        return self._generators[index]

    def bits(self, count: int) -> np.ndarray:
        """The next (B,count) numbers of 64 bits."""
        counts = np.arange(self.drawn + 1, self.drawn + count + 1, dtype=np.uint64)
        self.drawn += count
        return mixed(self.keys[:, None] + counts * GOLDEN)

    def gaussian(self, count: int) -> Tensor:
        """The next (B,count) ~ N(0, 1), two of every 64 bits (Box and Muller 1958)."""
        bits = self.bits(-(-count // 2))
        radius = np.sqrt(-2 * np.log((_halves(bits >> HALF) + 1) / 2**32))
        angle = _halves(bits) * (2 * math.pi / 2**32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        return torch.from_numpy(pairs.reshape(len(bits), -1)[:, :count].astype(np.float32))


def mixed(bits: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits -> as many, each bit of which depends on all bits of its own (Stafford's "Mix13")."""
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND
    return bits ^ (bits >> np.uint64(31))


def _halves(bits: np.ndarray) -> np.ndarray:
    """The lower 32 bits."""
    return (bits & np.uint64(2**32 - 1)).astype(np.float64)


def gaussian(sources: Sequence[Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """B sources, shape (C,H,W) -> eps (B,C,H,W) ~ N(0, I) in float32."""
    if isinstance(sources, Streams):
        return sources.gaussian(math.prod(shape)).unflatten(1, tuple(shape)).to(device)
    return torch.stack([torch.randn(*shape, generator=generator) for generator in sources]).to(device)


def uniform(sources: Sequence[Generator]) -> Tensor:
    """B sources -> (B,) uniform in [0, 1)."""
    if isinstance(sources, Streams):
        return torch.from_numpy(((sources.bits(1)[:, 0] >> np.uint64(40)) / 2**24).astype(np.float32))
    return torch.cat([torch.rand(1, generator=generator) for generator in sources])


def integers(sources: Sequence[Generator], low: int, high: int) -> Tensor:
    """B sources -> (B,) whole numbers, low <= n < high."""
    if isinstance(sources, Streams):
        share = sources.bits(1)[:, 0] >> HALF
        return torch.from_numpy(low + (share * np.uint64(high - low) >> HALF).astype(np.int64))
    return torch.cat([torch.randint(low, high, (1,), generator=generator) for generator in sources])
