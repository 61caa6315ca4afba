"""All the pictures of one person: a function of (seed, i) alone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ldm.data.dolls import errors
from ldm.data.dolls.figure import SIZE, Figure, figure
from ldm.data.dolls.garments import Garment, cloth, garment
from ldm.data.dolls.painting import product, undressed
from ldm.data.dolls.pose import key_points
from ldm.data.tryon import agnostic
from ldm.data.tryon.parsing import CIHP

VERSION = 1  # goes up when the same seed begins to draw other pictures
FIGURE, GARMENT, ERRORS = range(3)  # each from numbers of its own


@dataclass(frozen=True, eq=False)
class Doll:
    """Person i in the garment of person i, every picture of figure.SIZE.

    `person`, `flawed`, `agnostic` and `garment` (its product view, on white) are RGB. `labels` (L) has parsing.LABELS;
    `agnostic_mask` (L) is 255 where the agnostic picture is grey, `garment_mask` (L) where the product view has the
    garment. `points` (18, 2) are pose.key_points. `boxes` are those of the errors in `flawed`, errors.Rectangle.
    """

    figure: Figure
    clothes: Garment
    person: Image.Image
    labels: Image.Image
    points: np.ndarray
    agnostic_mask: Image.Image
    garment: Image.Image
    garment_mask: Image.Image
    flawed: Image.Image
    boxes: list[errors.Rectangle]

    @cached_property
    def agnostic(self) -> Image.Image:
        return agnostic.greyed(self.person, self.agnostic_mask)


def doll(seed: int, i: int) -> Doll:
    """Person i of a seed, with all that belongs to it."""
    who, what = _figure(seed, i), _garment(seed, i)
    fabric, bare, points = cloth(what), undressed(who), key_points(who)
    person, labels = errors.dress(who, what, fabric, bare)
    mask = agnostic.region(labels, points / SIZE, CIHP, "upper_body")
    wearing = errors.Wearing(who, what, fabric, bare, person, labels)
    flawed, boxes = errors.flawed(np.random.default_rng((seed, i, ERRORS)), wearing, mask)
    return Doll(who, what, person, labels, points, mask, *product(what, fabric), flawed, boxes)


def worn(seed: int, i: int, garment_of: int) -> Image.Image:
    """Person i in the garment of another (RGB): what try-on with an unpaired list should draw."""
    who, what = _figure(seed, i), _garment(seed, garment_of)
    return errors.dress(who, what, cloth(what), undressed(who))[0]


def _figure(seed: int, i: int) -> Figure:
    return figure(np.random.default_rng((seed, i, FIGURE)))


def _garment(seed: int, i: int) -> Garment:
    return garment(np.random.default_rng((seed, i, GARMENT)))
