"""Pairs (clean, degraded) of pictures of one size, for what repairs: made on the fly, or from two folders."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from tqdm import tqdm

from ldm.data.degrading import Degrade
from ldm.data.folders import Folder
from ldm.data.items import digest
from ldm.images import load

Pair = tuple[Image.Image, Image.Image]


class Pairs(Protocol):
    """A dataset of pairs; what is random in number i comes from its generator alone."""

    def __len__(self) -> int: ...

    def draw(self, index: int, generator: Generator, /) -> Pair: ...

    def identity(self) -> dict[str, Any]:
        """What the pairs are, in JSON."""
        ...


class Degraded:
    """Items (picture, caption) of one size, each degraded anew whenever it is drawn; `how` says by what."""

    def __init__(self, items: Any, degrade: Degrade, how: str):
        self.items, self.degrade, self.how = items, degrade, how

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, index: int, generator: Generator) -> Pair:
        """Picture `index`, and the same degraded as the generator wants it."""
        item = self.items.draw(index, generator) if hasattr(self.items, "draw") else self.items[index]
        clean = item[0].convert("RGB")
        return clean, self.degrade(clean, generator)

    def identity(self) -> dict[str, Any]:
        """What the pairs are, in JSON."""
        return {"kind": "degraded", "how": self.how, "of": self.items.identity()}


class FolderPairs:
    """Pictures of two folders that have the same path but for its ending. ValueError for folders without a common one,
    and, when it is drawn, for a pair of two sizes.
    """

    def __init__(self, degraded: Path, clean: Path):
        found = [_by_name(folder) for folder in (clean, degraded)]
        self.names = sorted(found[0].keys() & found[1].keys())
        if not self.names:
            raise ValueError(f"{degraded} and {clean} have no picture of the same name")
        self.clean, self.degraded = ([files[name] for name in self.names] for files in found)

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, index: int, generator: Generator) -> Pair:
        clean, degraded = load(self.clean[index]), load(self.degraded[index])
        if clean.size != degraded.size:
            sizes = " and ".join("x".join(map(str, picture.size)) for picture in (degraded, clean))
            raise ValueError(f"{self.degraded[index]} and {self.clean[index]}: {sizes}; expected one size")
        return clean, degraded

    def identity(self) -> dict[str, Any]:
        sizes = [(path.name, path.stat().st_size) for path in (*self.clean, *self.degraded)]
        return {"kind": "pairs", "pictures": len(self), "content": digest(sizes)}


class Patches:
    """Pairs, cropped alike to squares of `side` at a random place. ValueError for a picture that is smaller."""

    def __init__(self, pairs: Pairs, side: int):
        self.pairs, self.side = pairs, side

    def __len__(self) -> int:
        return len(self.pairs)

    def draw(self, index: int, generator: Generator) -> Pair:
        clean, degraded = self.pairs.draw(index, generator)
        if min(clean.size) < self.side:
            raise ValueError(f"a picture of {'x'.join(map(str, clean.size))}: expected {self.side} or more")
        left, top = (int(torch.randint(room - self.side + 1, (), generator=generator)) for room in clean.size)
        box = (left, top, left + self.side, top + self.side)
        return clean.crop(box), degraded.crop(box)

    def identity(self) -> dict[str, Any]:
        return {"kind": "patches", "side": self.side, "of": self.pairs.identity()}


class Made:
    """Pairs of one size that were made once: pixels (N,2,H,W,3), bytes; the clean one is the first of each."""

    def __init__(self, pixels: Tensor, made_by: dict[str, Any]):
        self.pixels, self.made_by = pixels, made_by

    @classmethod
    def of(cls, pairs: Pairs) -> "Made":
        """Each of `pairs` drawn once."""
        drawn = (pairs.draw(i, Generator().manual_seed(i)) for i in range(len(pairs)))
        bar = tqdm(drawn, "degrading", len(pairs), disable=None, delay=2)
        return cls(torch.from_numpy(np.stack([[np.asarray(one) for one in pair] for pair in bar])), pairs.identity())

    def __len__(self) -> int:
        return len(self.pixels)

    def draw(self, index: int, generator: Generator) -> Pair:
        clean, degraded = (Image.fromarray(pixels.numpy()) for pixels in self.pixels[index])
        return clean, degraded

    def identity(self) -> dict[str, Any]:
        return self.made_by


def _by_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their paths without ending."""
    pictures: list[Any] = [record.picture for record in Folder(folder).records]
    return {picture.relative_to(folder).with_suffix("").as_posix(): picture for picture in pictures}
