"""The normal numbers that torch's CPU generator draws, by NumPy: a seed means the same picture without torch.

Mersenne Twister (Matsumoto and Nishimura 1998), seeded by the lower 32 bits; of each number 24 bits make a float;
sixteen floats at a time become normal (Box and Muller 1958), the first eight radii, the other eight angles. Where the
count is no multiple of sixteen, the last sixteen are drawn anew. Equal to `torch.randn` to 3e-7: its logarithms and
cosines are rounded otherwise.
"""

import math
from collections.abc import Sequence

import numpy as np

SIXTEEN = 16  # fewer numbers torch draws in another way


def gaussian(seeds: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Seeds in 0..2^63-1, shape (C,H,W) -> eps (B,C,H,W) ~ N(0, I), float32. ValueError below 16 numbers a picture."""
    return np.stack([_normal(seed, math.prod(shape)).reshape(shape) for seed in seeds])


def _normal(seed: int, count: int) -> np.ndarray:
    if count < SIXTEEN:
        raise ValueError(f"{count} normal numbers: expected {SIXTEEN} or more")
    twister = np.random.MT19937()
    twister._legacy_seeding(seed % 2**32)  # type: ignore[attr-defined]
    found = _pairs(_uniform(twister, count)[: count - count % SIXTEEN])
    if count % SIXTEEN:
        found = np.concatenate([found[: count - SIXTEEN], _pairs(_uniform(twister, SIXTEEN))])
    return found


def _uniform(twister: np.random.MT19937, count: int) -> np.ndarray:
    """The next numbers in [0, 1), float32."""
    bits = twister.random_raw(count).astype(np.uint32) & np.uint32(2**24 - 1)
    return bits.astype(np.float32) * np.float32(2**-24)


def _pairs(uniform: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), a multiple of sixteen -> as many ~ N(0, 1)."""
    halves = uniform.reshape(-1, 2, SIXTEEN // 2)
    radius = np.sqrt(np.float32(-2) * np.log1p(-halves[:, 0]))
    angle = np.float32(2 * math.pi) * halves[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
