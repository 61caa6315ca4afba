"""Pictures that are to be repaired: what the base model draws, paired and unpaired, and a set's flawed ones."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ldm.data.tryon import TryOn, boxes
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.training.tryon.looks import Looks
from ldm.training.tryon.stages import Rough, draw_all
from ldm.tryon.given import Given, beside
from ldm.tryon.model import TryOnModel

log = logging.getLogger("ldm")

DRAWN, FLAWED, UNPAIRED = "drawn", "flawed", "unpaired"


@dataclass(frozen=True, eq=False)
class Truth:
    """What N pictures should be, and where they are not."""

    photographs: Tensor  # (N,3,H,W)
    where: Tensor  # (N,1,H,W), 1 in the true boxes
    layers: Sequence[Tensor]  # of each picture, its boxes one by one (K,H,W)


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures x_1 (N,3,H,W) of one kind; of persons in a garment that they never wore, no truth is known."""

    kind: str
    x_1: Tensor
    maps: Tensor  # (N,1,H,W), the classifier's
    told: Given
    given: Tensor  # conditions of the bridges (N,10,H,W)
    truth: Truth | None = None

    @classmethod
    def of(cls, kind: str, model: TryOnModel, looks: Looks, x_1: Tensor, truth: Truth | None = None) -> "Case":
        """Looks, and what was drawn for them, as bytes."""
        told = looks.given()
        given = beside(LatentSpace.identity(), told, model.base.worn(told))
        x_1 = told.pasted(x_1 / 127.5 - 1)
        return cls(kind, x_1, model.error_map(x_1, told), told, given, truth)


def cases(folder: Path, run: Path, model: TryOnModel, looks: Looks) -> Iterator[Case]:
    """Looks of a set's test part -> the cases with known truth.

    What the base model draws, with boxes where it differs most; and the set's flawed pictures, where it has some.
    """
    rough = Rough.of(folder, looks, draw_all(run / "drawn" / "test", model.base, looks), "test")
    for i, kind in enumerate((DRAWN, FLAWED)[: rough.kinds]):
        rows = slice(i * len(looks), (i + 1) * len(looks))
        layers = [to_layers(own, looks.size) for own in rough.boxes[rows]]
        where = torch.stack([(own.sum(0, keepdim=True) > 0).float() for own in layers])
        yield Case.of(kind, model, looks, rough.x_1[rows], Truth(looks.pixels("person"), where, layers))


def unpaired(folder: Path, run: Path, model: TryOnModel, size: tuple[int, int]) -> Iterator[Case]:
    """The case of a set's unpaired list, where it has one."""
    try:
        looks = Looks.read(TryOn(folder, "test", paired=False, size=size))
    except FileNotFoundError as error:
        log.warning("no unpaired figures: %s", error)
        return
    yield Case.of(UNPAIRED, model, looks, draw_all(run / "drawn" / "unpaired", model.base, looks))


def size_of(run: Path) -> tuple[int, int]:
    """(H, W) of what a run learnt: its pictures are kept."""
    first = next(iter(sorted((run / "drawn" / "train").glob("*.png"))), None)
    if first is None:
        raise FileNotFoundError(f"{run / 'drawn' / 'train'} holds no pictures: expected a run of ldm train tryon")
    with Image.open(first) as picture:
        return picture.height, picture.width


def to_layers(marked: Sequence[boxes.Box], size: tuple[int, int]) -> Tensor:
    """K boxes in pixels of a picture of `size` -> (K,H,W), 1 where at least half of a pixel lies in each."""
    if not marked:
        return torch.zeros(0, *size)
    covered = [boxes.covered([box], size[::-1], size).convert("RGB") for box in marked]
    return (to_pixels(covered)[:, 0] >= 0).float()
