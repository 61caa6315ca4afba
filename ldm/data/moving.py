"""Moving digits: sequences without end, each of one of scikit-learn's digits that flies and bounces off the walls.

After Srivastava et al. 2015 ("Moving MNIST"), from the digits that are at hand.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.data.digits import small_digits

SPEED = 2  # pixels from a frame to the next along each axis, at most; never still


class MovingDigits:
    """`count` sequences of `length` frames of `side` x `side` pixels; sequence i is a function of `seed` and i alone.

    Of `split` "train" or "test", whose digits and flights are other ones. ValueError for a side below that of a digit,
    8, or less than one frame.
    """

    classes = [str(label) for label in range(10)]

    def __init__(self, split: str = "train", side: int = 16, length: int = 12, count: int = 10_000, seed: int = 0):
        self.digits = small_digits(split)
        room = side - self.digits.pixels.shape[1]
        if room < 0 or length < 1 or count < 1:
            raise ValueError(f"side {side}, length {length}, count {count}: expected 8 or more, and 1 or more of each")
        self.split, self.side, self.length, self.count, self.seed, self.room = split, side, length, count, seed, room

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Frames y (B,T,1,H,W) in [0,1] and labels (B,)."""
        frames, labels = zip(*[self._sequence(index) for index in indices], strict=True)
        return torch.from_numpy(np.stack(frames)).unsqueeze(2) / 255, torch.tensor(labels)

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        told = {"split": self.split, "side": self.side, "length": self.length, "count": self.count, "seed": self.seed}
        return {"kind": "moving digits", **told}

    def _sequence(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([self.seed, index, self.split == "test"])
        number = int(rng.integers(len(self.digits)))
        start, speed = rng.uniform(0, self.room, 2), rng.integers(1, SPEED + 1, 2) * rng.choice([-1, 1], 2)
        frames = np.zeros((self.length, self.side, self.side), np.uint8)
        height, width = self.digits.pixels.shape[1:]
        for frame, (top, left) in zip(frames, self._places(start, speed), strict=True):
            frame[top : top + height, left : left + width] = self.digits.pixels[number]
        return frames, int(self.digits.labels[number])

    def _places(self, start: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """(T,2): rows and columns of the upper left corner, mirrored where they would leave the picture."""
        if not self.room:
            return np.zeros((self.length, 2), int)
        straight = start + np.arange(self.length)[:, None] * speed
        folded = np.abs((straight + self.room) % (2 * self.room) - self.room)
        return np.rint(folded).astype(int)
