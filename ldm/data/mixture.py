"""Mixtures: "emoji:6+leaves:2+text:1" -> one dataset that takes six of nine pictures from the first, and so on.

(seed, i) --weights--> one of the parts --item i of it--> item i
"""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ldm.data.items import Item

if TYPE_CHECKING:
    import torch


class Items(Protocol):
    """A sequence of items; see `ldm.data` for what else it may have."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item: ...

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        ...


class Mixture:
    """Datasets as one of `length` items, which takes from each as often as its weight says.

    Which part item i is from, and which item of it, depends on (seed, i) alone. A part that is shorter comes round
    again.
    """

    classes: list[str] = []

    def __init__(self, parts: Sequence[Items], weights: Sequence[float], seed: int = 0, length: int = 1_000_000):
        self.parts, self.weights, self.seed, self.length = list(parts), list(weights), seed, length
        self.ends = np.cumsum(np.array(self.weights) / sum(self.weights))[:-1]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        part, place = self.place(index)
        return part[place]

    def draw(self, index: int, generator: "torch.Generator") -> Item:
        """Item `index`, cropped and mirrored as the generator wants where its part is."""
        part, place = self.place(index)
        return part.draw(place, generator) if hasattr(part, "draw") else part[place]

    def place(self, index: int) -> tuple[Items, int]:
        """The part that item `index` is from, and which item of it that is."""
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")  # what ends a loop over the items
        # the parts draw from (seed, index) themselves: a number of the mixture's own must not depend on theirs
        own = np.random.default_rng((self.seed, index, 1)).random()
        part = self.parts[int(np.searchsorted(self.ends, own, side="right"))]
        return part, index % len(part)

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        parts = [{"weight": weight, **part.identity()} for weight, part in zip(self.weights, self.parts, strict=True)]
        return {"kind": "mixture", "seed": self.seed, "pictures": self.length, "parts": parts}


def parts_of(source: str | Path) -> list[tuple[str, float]]:
    """What --data says -> names and weights.

    >>> parts_of("emoji:6+leaves:2+text")
    [('emoji', 6.0), ('leaves', 2.0), ('text', 1.0)]

    A path that is there is one part, whatever signs it has. ValueError for a part without a name and for a weight that
    is not above 0.
    """
    if Path(source).exists():
        return [(str(source), 1.0)]
    return [_part(text, str(source)) for text in str(source).split("+")]


def _part(text: str, source: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    try:
        name, weight = (name, float(number)) if colon else (text, 1.0)
    except ValueError:
        name, weight = text, 1.0  # a colon of its own, such as a drive's
    if not name or not 0 < weight < inf:
        raise ValueError(
            f"{source!r}: expected names, each with a weight above 0 if any, such as emoji:6+leaves:2+text"
        )
    return name, weight
