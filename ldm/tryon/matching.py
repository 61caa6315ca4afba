"""Which garment does a person wear? A small network that was taught it, here; its features are what pictures are
compared by where no Inception or LPIPS weights are at hand.

    person (B,3,H,W) --encoder--> (B,D),   garment (B,3,H,W) --encoder--> (B,D);   who belongs together points one way
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.modules import filled
from ldm.checkpoints.tensors import read_tensors
from ldm.files import write_tensors

WIDTHS, FEATURES = (24, 48, 96), 64
WARMTH = 10.0  # what cosines are multiplied by


class Matcher(nn.Module):
    """Two encoders of pictures: levels of convolutions, each half as large as the one before, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.person, self.garment = _encoder(), _encoder()
        self.heads = nn.ModuleList(nn.Linear(WIDTHS[-1] * 6, FEATURES) for _ in range(2))

    def levels(self, x: Tensor) -> list[Tensor]:
        """A person (B,3,H,W) in [-1,1] -> features after each level, the finest first."""
        found = []
        for level in self.person:
            found.append(x := level(x))
        return found

    def persons(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> unit vectors (B,D)."""
        return _vector(self.person(x), self.heads[0])

    def garments(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> unit vectors (B,D)."""
        return _vector(self.garment(x), self.heads[1])

    def forward(self, person: Tensor, garment: Tensor) -> Tensor:
        """B persons and garments -> logits (B,B), high where they belong together."""
        return WARMTH * self.persons(person) @ self.garments(garment).T

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Persons (B,3,H,W) -> how unlike they look (B,): squared differences of features of unit length at each place,
        their mean over places, summed over levels, as LPIPS has it (Zhang et al. 2018), but with features of this
        network and without learnt weights."""
        pairs = zip(self.levels(x), self.levels(y), strict=True)
        found = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).flatten(1).mean(1) for a, b in pairs]
        return torch.stack(found).sum(0)

    def save(self, path: Path) -> None:
        write_tensors(path, self.state_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote, in eval mode; CheckpointError where it does not fit."""
        return filled(cls(), read_tensors(path).tensors, str(path)).requires_grad_(False)


def _encoder() -> nn.Sequential:
    def level(before: int, after: int) -> nn.Sequential:
        convolutions = nn.Conv2d(before, after, 4, 2, 1), nn.SiLU(), nn.Conv2d(after, after, 3, 1, 1), nn.SiLU()
        return nn.Sequential(*convolutions, nn.GroupNorm(8, after))

    return nn.Sequential(*(level(*pair) for pair in pairwise((3, *WIDTHS))))


def _vector(found: Tensor, head: Any) -> Tensor:
    """Features (B,C,h,w) -> (B,D) of unit length: their means over 3 x 2 parts of the picture, then a layer."""
    return F.normalize(head(F.adaptive_avg_pool2d(found, (3, 2)).flatten(1)), dim=1)
