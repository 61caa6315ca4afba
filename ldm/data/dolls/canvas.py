"""A canvas on which picture and label map are drawn at once, so that they always agree.

outline, paint, label --Canvas.lay--> picture, shaded as something round, and labels
cloth, frame --on_torso, on_bone--> paint: the cloth as it is seen there
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from ldm.data.dolls.figure import FINE, Colour, Frame, Point
from ldm.data.dolls.garments import HANGER
from ldm.data.dolls.parsing import LABELS, where

Box = tuple[int, int, int, int]
Paint = Colour | Callable[[Box], Image.Image]  # a colour, or what fills a box of the fine picture
NO_CREASES = np.zeros((0, 4))

CELL = 48  # fine pixels: between so distant points a warp is taken as bilinear
COARSE = 4  # shading is computed at so many times fewer pixels
LIGHT = (0.32, 0.22)  # how far shading leans away from the light, of its reach: the light is at the upper left


class Canvas:
    """A picture (RGB) and a label map (L), both FINE times as large as they are asked for in the end."""

    def __init__(self, ground: Image.Image, labels: Image.Image | None = None):
        self.picture, self.labels = ground, labels or Image.new("L", ground.size)

    def copy(self) -> "Canvas":
        return Canvas(self.picture.copy(), self.labels.copy())

    def lay(
        self, outline: np.ndarray, paint: Paint, label: int, depth: float = 0.35, creases: np.ndarray = NO_CREASES
    ) -> None:
        """Fills the polygon (N,2), in pixels of SIZE. `depth` is how dark its edges are.

        `creases` (K,4) are dark strokes on it, from x, y to x, y. What has no depth is flat and in a plain colour.
        """
        corners = np.asarray(outline) * FINE
        if not depth and not callable(paint):
            for part, fill in ((self.picture, paint), (self.labels, label)):
                ImageDraw.Draw(part).polygon(corners.ravel().tolist(), fill=fill)
            return
        left, top = (math.floor(low) for low in corners.min(0))
        right, bottom = (math.ceil(high) + 1 for high in corners.max(0))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((corners - (left, top)).ravel().tolist(), fill=255)
        box = (left, top, right, bottom)
        surface = paint(box) if callable(paint) else Image.new("RGB", mask.size, paint)
        relief = Image.merge("RGB", [_relief(mask, depth, creases * FINE - (left, top) * 2)] * 3)
        self.picture.paste(ImageChops.multiply(surface, relief), box, mask)
        self.labels.paste(label, box, mask)

    def finished(self) -> tuple[Image.Image, Image.Image]:
        """Picture and labels at the size that was asked for; what is garment in part counts as garment."""
        size = (self.labels.width // FINE, self.labels.height // FINE)
        labels = self.labels.resize(size, Image.Resampling.NEAREST)
        partly = where(self.labels, "upper clothes").reduce(FINE)
        labels.paste(LABELS["upper clothes"], mask=partly.point([0, *[255] * 255]))
        return self.picture.reduce(FINE), labels


def _relief(mask: Image.Image, depth: float, creases: np.ndarray) -> Image.Image:
    """A shape (L) -> its light (L): 255 in the middle, down by `depth` towards the edges, most away from the light."""
    small = mask.reduce(COARSE)
    reach = max(1.0, 0.2 * min(small.size))
    pad = math.ceil(2 * reach)
    blurred = ImageOps.expand(small, pad).filter(ImageFilter.BoxBlur(reach))
    if len(creases):
        blurred = ImageChops.multiply(blurred, _creased(blurred.size, creases / COARSE + pad))
    light = Image.blend(Image.new("L", blurred.size, 255), blurred, depth)
    left, top = pad + LIGHT[0] * reach, pad + LIGHT[1] * reach
    part = (left, top, left + mask.width / COARSE, top + mask.height / COARSE)
    return light.resize(mask.size, Image.Resampling.BILINEAR, box=part)


def _creased(size: tuple[int, int], creases: np.ndarray) -> Image.Image:
    picture = Image.new("L", size, 255)
    pen = ImageDraw.Draw(picture)
    for stroke in creases.tolist():
        pen.line(stroke, fill=110, width=2)
    return picture.filter(ImageFilter.BoxBlur(1.3))


# ---- cloth, as it is seen ----


def on_torso(cloth: Image.Image, frame: Frame) -> Paint:
    """The cloth, which lies on HANGER, as the frame's torso wears it."""
    return partial(_warped, cloth, frame)


def on_bone(cloth: Image.Image, frame: Frame, side: int, bone: int) -> Paint:
    """The same on a bone, 0 the upper arm or 1 the forearm, of the left arm, 0, or the right one, 1."""
    own, flat = frame.arms[side], HANGER.arms[side]
    seen, lying = (own.joints[bone], own.joints[bone + 1]), (flat.joints[bone], flat.joints[bone + 1])
    return partial(_turned, cloth, seen, lying, flat.widths[bone] / own.widths[bone])


def _warped(cloth: Image.Image, frame: Frame, box: Box) -> Image.Image:
    width, height = box[2] - box[0], box[3] - box[1]
    columns = np.linspace(0, width, 1 + math.ceil(width / CELL)).round().astype(int)
    rows = np.linspace(0, height, 1 + math.ceil(height / CELL)).round().astype(int)
    grid = np.stack(np.meshgrid(columns, rows), -1)
    d, s = frame.find((grid.reshape(-1, 2) + box[:2]) / FINE).T
    front = d - frame.turn * np.clip(1 - d**2, 0, 1)
    source = (HANGER.place(np.stack([front, s], -1)) * FINE).reshape(grid.shape)
    mesh = [
        (
            (columns[i], rows[j], columns[i + 1], rows[j + 1]),
            tuple(source[[j, j + 1, j + 1, j], [i, i, i + 1, i + 1]].ravel().tolist()),
        )
        for j in range(len(rows) - 1)
        for i in range(len(columns) - 1)
    ]
    return cloth.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _turned(
    cloth: Image.Image, seen: tuple[Point, Point], flat: tuple[Point, Point], narrower: float, box: Box
) -> Image.Image:
    """An affine map: along the bone it stretches to the bone's length, across it by the widths."""
    own, other = np.subtract(seen[1], seen[0]), np.subtract(flat[1], flat[0])
    along, across = own / (own @ own), np.array([-own[1], own[0]]) / np.hypot(*own)
    side = np.array([-other[1], other[0]]) / np.hypot(*other)
    matrix = np.outer(other, along) + narrower * np.outer(side, across)
    offset = FINE * (np.asarray(flat[0]) - matrix @ seen[0]) + matrix @ np.array(box[:2])
    (a, b), (d, e) = matrix.tolist()
    size = (box[2] - box[0], box[3] - box[1])
    return cloth.transform(size, Image.Transform.AFFINE, (a, b, offset[0], d, e, offset[1]), Image.Resampling.BILINEAR)
