"""Emoji scenes as a dataset: an endless stream of pictures with captions, drawn as they are asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ldm.data.items import Item
from ldm.data.scenes import Scene, split_scene

GRAMMAR = 3  # goes up when the same seed begins to draw other scenes, other pictures or other captions


class EmojiScenes:
    """An endless, indexable stream of (picture, caption) in which item i depends on (seed, i) alone."""

    def __init__(self, side: int = 64, seed: int = 0, split: str = "train", length: int = 1_000_000):
        self.side, self.seed, self.split, self.length = side, seed, split, length

    def __len__(self) -> int:
        return self.length

    def rng(self, i: int) -> np.random.Generator:
        """What item i is drawn by."""
        return np.random.default_rng((self.seed, i))

    def scene(self, i: int) -> Scene:
        """What item i shows."""
        return split_scene(self.rng(i), self.split)

    def __getitem__(self, i: int) -> Item:
        rng = self.rng(i)
        scene = split_scene(rng, self.split)
        return Item(scene.draw(rng, self.side), scene.caption(rng))

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(self.length))

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        own = {"side": self.side, "seed": self.seed, "split": self.split, "pictures": self.length}
        return {"kind": "emoji", "grammar": GRAMMAR, **own}
