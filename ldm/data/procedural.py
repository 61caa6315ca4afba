"""Pictures that are drawn from a number: no files, no end of them, and the same ones everywhere.

(seed, i) --generator--> draw(generator, side) --> item i, with the empty caption
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ldm.data import gradients, leaves, lettering
from ldm.data.items import Item

Draw = Callable[[np.random.Generator, int], Image.Image]  # (generator, side) -> RGB picture, side x side
DRAWS: dict[str, Draw] = {"leaves": leaves.draw, "gradients": gradients.draw, "text": lettering.draw}

VERSION = 1  # goes up when the same seed begins to draw other pictures


class Procedural:
    """An indexable stream of (picture, "") in which item i depends on (seed, i) alone.

    ValueError for a side below 8, IndexError for an item that is none.
    """

    classes: list[str] = []

    def __init__(self, kind: str, draw: Draw, side: int = 64, seed: int = 0, length: int = 1_000_000):
        if side < 8:
            raise ValueError(f"side {side}: expected 8 or more")
        self.kind, self.picture, self.side, self.seed, self.length = kind, draw, side, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Item:
        if not 0 <= i < self.length:
            raise IndexError(f"item {i} of {self.length}")  # what ends a loop over the items
        return Item(self.picture(np.random.default_rng((self.seed, i)), self.side), "")

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        own = {"side": self.side, "seed": self.seed, "pictures": self.length}
        return {"kind": self.kind, "version": VERSION, **own}
