"""Boxes around errors, drawn by hand or known: {"NAME.jpg": [[left, top, right, bottom], ...], ...}.

In pixels of that file, right and bottom being the first column and row outside; [] is a picture that was looked at
and has none. A picture without an entry was not looked at.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm.data.tryon.written import file_name, json_object

Box = tuple[float, float, float, float]  # left, top, right, bottom


def read(path: str | Path) -> dict[str, list[Box]]:
    """A JSON file -> the boxes of each picture. FileNotFoundError, or ValueError that names the entry."""
    found = {}
    for name, boxes in json_object(Path(path)).items():
        try:
            found[file_name(name)] = _boxes(boxes)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from None
    return found


def _boxes(values: Any) -> list[Box]:
    if not isinstance(values, list):
        raise ValueError(f"{str(values)[:60]}, expected a list of boxes, [] for none")
    return [_box(value) for value in values]


def _box(value: Any) -> Box:
    expected = "expected [left, top, right, bottom] in pixels, left < right and top < bottom"
    if not isinstance(value, list) or len(value) != 4 or not all(_is_pixel(number) for number in value):
        raise ValueError(f"{str(value)[:60]}, {expected}")
    left, top, right, bottom = value
    if left >= right or top >= bottom:
        raise ValueError(f"{value}, {expected}")
    return left, top, right, bottom


def _is_pixel(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number < math.inf


def covered(boxes: Sequence[Box], picture_size: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """boxes in pixels of a picture of (W, H) -> mask (L) of `size` (H, W): 255 times the share that a box covers.

    Where several lie in one pixel, the largest share; what a box so much as touches is above 0. ValueError for a box
    that reaches beyond the picture.
    """
    width, height = picture_size
    found = np.zeros(size)
    for left, top, right, bottom in boxes:
        if right > width or bottom > height:
            raise ValueError(f"box {[left, top, right, bottom]} reaches beyond the picture, which is {width}x{height}")
        rows, columns = _share(top, bottom, height, size[0]), _share(left, right, width, size[1])
        found = np.maximum(found, np.outer(rows, columns))
    return Image.fromarray(np.ceil(255 * found - 1e-6).astype(np.uint8))  # rounding errors are no touch


def _share(low: float, high: float, length: int, count: int) -> np.ndarray:
    """An interval of 0..length -> (count,), how much of each of so many equal parts it covers, in 0..1."""
    edges = np.linspace(0, length, count + 1)
    return (np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)).clip(0) * count / length
