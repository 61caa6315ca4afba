"""Looks in memory: every part of every look as bytes, taken out as pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.tryon import Look, TryOn, parsing
from ldm.data.tryon.look import Files
from ldm.training.randomness import keyed
from ldm.tryon.given import Given

Rows = Sequence[int] | slice
WORN = {  # the words of a parse map that are the garment
    "upper_body": {"top", "dress", "coat"},
    "lower_body": {"skirt", "trousers"},
    "dresses": {"dress"},
}
PICTURES, MASKS = ("person", "garment", "agnostic", "pose"), ("garment_mask", "agnostic_mask")


class Looks:
    """N looks of one size: pixels of each part (N,C,H,W) as bytes, the names of the persons, and which are synthetic.

    `synthetic` (N,) is 1 for a garment that was taken off the photograph (H2G), 0 for a true pair.
    """

    def __init__(self, parts: dict[str, Tensor], names: Sequence[str], identity: Any, synthetic: Tensor | None = None):
        self.parts, self.names, self._identity = parts, list(names), identity
        self.synthetic = torch.zeros(len(self.names), dtype=torch.long) if synthetic is None else synthetic

    @classmethod
    def read(cls, source: TryOn) -> "Looks":
        """A set -> its looks; of one that was read in place of another, one."""
        rows: dict[str, dict[str, Tensor]] = {}
        for index in tqdm(range(len(source)), desc="reading", disable=None, delay=2):
            look = source[index]
            rows[look.name] = _parts(look, source.files(index))
        parts = {name: torch.stack([row[name] for row in rows.values()]) for name in next(iter(rows.values()))}
        flags = torch.tensor([int(name in source.synthetic) for name in rows])
        return cls(parts, list(rows), source.identity(), flags)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.parts["person"].shape[-2], self.parts["person"].shape[-1]

    def pixels(self, name: str, rows: Rows = slice(None)) -> Tensor:
        """A part (B,C,H,W): pictures in [-1,1], masks in [0,1]."""
        found = self.parts[name][rows].float() / 255
        return 2 * found - 1 if name in PICTURES else found

    def given(self, rows: Rows = slice(None)) -> Given:
        """What a try-on model is told of them."""
        return Given(*(self.pixels(name, rows) for name in ("garment", "agnostic", "agnostic_mask", "pose", "person")))

    def some(self, rows: Sequence[int]) -> "Looks":
        """Those of some rows alone."""
        parts = {name: part[list(rows)] for name, part in self.parts.items()}
        return Looks(parts, [self.names[row] for row in rows], [self._identity, list(rows)], self.synthetic[list(rows)])

    def parted(self, share: float, seed: int = 0) -> tuple["Looks", "Looks"]:
        """A random share of them, at least one, and the others."""
        order = torch.randperm(len(self), generator=keyed(seed, "known")).tolist()
        count = max(1, round(share * len(self)))
        return self.some(sorted(order[:count])), self.some(sorted(order[count:]))

    def joined(self, others: "Looks") -> "Looks":
        """These, and then the others."""
        parts = {name: torch.cat([part, others.parts[name]]) for name, part in self.parts.items()}
        flags = torch.cat([self.synthetic, others.synthetic])
        return Looks(parts, self.names + others.names, [self._identity, others.identity()], flags)

    def identity(self) -> Any:
        """What the looks are, in JSON."""
        return self._identity


def _parts(look: Look, files: Files) -> dict[str, Tensor]:
    """A look's pictures and masks (C,H,W) as bytes; "worn" is where the person wears the garment."""
    found = {name: np.asarray(getattr(look, name)) for name in (*PICTURES, *MASKS)}
    found["worn"] = parsing.where(look.parse, files.labels, WORN[files.category]).astype(np.uint8) * 255
    return {
        name: torch.from_numpy(values.copy()).view(*values.shape[:2], -1).movedim(-1, 0)
        for name, values in found.items()
    }


def as_bytes(x: Tensor) -> Tensor:
    """x in [-1,1] -> bytes."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()
