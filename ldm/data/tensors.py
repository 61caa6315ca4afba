"""Small pictures as numbers, all in memory: for trainings whose steps are shorter than the decoding of a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm


class Tensors:
    """A dataset of items (picture, caption) of one size -> batches (y, labels) that are taken out of one tensor.

    y (B,channels,H,W) is in [0,1], grey where `channels` is 1; labels (B,), or None where the items have none. Kept as
    bytes. ValueError for pictures of several sizes.
    """

    def __init__(self, data: Any, channels: int = 1):
        mode = "L" if channels == 1 else "RGB"
        items = [data[i] for i in tqdm(range(len(data)), desc="reading", disable=None, delay=2)]
        sizes = {picture.size for picture, *_ in items}
        if len(sizes) != 1:
            raise ValueError(f"pictures of {len(sizes)} sizes: expected one, at least of one picture")
        pixels = np.stack([np.asarray(picture.convert(mode)) for picture, *_ in items])
        self.pixels = torch.from_numpy(pixels).view(*pixels.shape[:3], channels).movedim(-1, 1).contiguous()
        labels = [getattr(item, "label", None) for item in items]
        self.labels = None if None in labels else torch.tensor(labels)
        self.classes: list[str] = getattr(data, "classes", [])
        self._identity = data.identity() if hasattr(data, "identity") else {}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        return self.batch([index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """(y, labels) of these items."""
        rows = torch.as_tensor(indices)
        return self.pixels[rows] / 255, None if self.labels is None else self.labels[rows]

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        return {**self._identity, "channels": self.pixels.shape[1]}
