"""Small pictures as numbers, all in memory: for trainings whose steps are shorter than the decoding of a picture."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm import data
from ldm.data.digits import is_idx
from ldm.data.moving import MovingDigits

MOVING = "moving"


def numbers(
    source: str,
    split: str | None,
    side: int,
    channels: int = 1,
    count: int = 10_000,
    length: int = 12,
    seed: int = 0,
    binarise: bool = False,
) -> "Tensors | MovingDigits":
    """Any source that `ldm.data.open` takes, or "moving" digits -> what its pictures of `side` x `side` are made of.

    Without a split, the training's where there is one; "all" is all there is. `count` is how many of what has no end,
    `length` how many frames a sequence has. `binarise` makes black and white of what is grey (see
    `Tensors.binarised`). ValueError for sequences that are to be black and white, or of colours.
    """
    if source == MOVING:
        if binarise or channels != 1:
            raise ValueError("moving digits are grey: expected one channel, and no binarising")
        return MovingDigits(split or "train", side, length, count, seed)
    names = [part for part, _ in data.parts_of(source)]
    endless = len(names) > 1 or source in data.DRAWN
    part = None if split == "all" else split or ("train" if parted(source) else None)
    found = data.open(source, side, split=part, count=count if endless else None, seed=seed)
    made = Tensors(found, channels)
    return made.binarised(seed) if binarise else made


def parted(source: str) -> bool:
    """Whether a source that is read has splits, train and test among them."""
    return source == "digits" or is_idx(Path(source)) or (Path(source) / "train").is_dir()


class Tensors:
    """A dataset of items (picture, caption) of one size -> batches (y, labels) that are taken out of one tensor.

    y (B,channels,H,W) is in [0,1], grey where `channels` is 1; labels (B,), or None where the items have none. Kept as
    bytes. ValueError for pictures of several sizes.
    """

    def __init__(self, items: Any, channels: int = 1):
        found = [items[i] for i in tqdm(range(len(items)), desc="reading", disable=None, delay=2)]
        sizes = {picture.size for picture, *_ in found}
        if len(sizes) != 1:
            raise ValueError(f"pictures of {len(sizes)} sizes: expected one, at least of one picture")
        pixels = np.stack([np.asarray(picture.convert("RGB")) for picture, *_ in found])
        if channels == 1:  # the mean, as `Autoencoder.to_y` takes it
            pixels = np.rint(pixels.mean(-1, keepdims=True)).astype(np.uint8)
        self.pixels = torch.from_numpy(pixels).movedim(-1, 1).contiguous()
        labels = [getattr(item, "label", None) for item in found]
        self.labels = None if None in labels else torch.tensor(labels)
        self.classes: list[str] = getattr(items, "classes", [])
        self._identity = items.identity() if hasattr(items, "identity") else {}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """(y, labels) of these items."""
        rows = torch.as_tensor(indices)
        return self.pixels[rows].float().mul_(1 / 255), None if self.labels is None else self.labels[rows]

    def binarised(self, seed: int = 0) -> "Tensors":
        """The same, every number drawn once to be 0 or 1, its brightness the probability (Salakhutdinov and Murray
        2008): so Bernoulli's likelihood is a true one, and nats are comparable with those of binarised MNIST.
        """
        found = copy.copy(self)
        shares = torch.rand(self.pixels.shape, generator=torch.Generator().manual_seed(seed))
        found.pixels = (shares * 255 < self.pixels).to(torch.uint8) * 255
        found._identity = {**self._identity, "binarised": seed}
        return found

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        return {**self._identity, "channels": self.pixels.shape[1]}
