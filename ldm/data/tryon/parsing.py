"""Parse maps: grey pictures whose values are the numbers of labels, and what these stand for.

VITON-HD's are the 20 of CIHP, DressCode's the 18 of ATR. Left and right share a word here.
"""

from collections.abc import Set
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ldm import images

Labels = tuple[str, ...]  # the word of each number

CIHP: Labels = tuple(
    "background hat hair glove glasses top dress coat socks trousers skin scarf skirt face arm arm leg leg shoe "
    "shoe".split()
)
ATR: Labels = tuple(
    "background hat hair glasses top skirt trousers dress belt shoe shoe face leg leg arm arm bag scarf".split()
)


def read(path: Path, labels: Labels) -> Image.Image:
    """A file -> parse map (L). Palettes are left aside: it is the numbers that count, at any depth.

    FileNotFoundError, or ValueError that names the file for colours and for numbers that stand for nothing.
    """
    values = np.asarray(ImageOps.exif_transpose(images.opened(path)))
    if values.ndim == 3:
        if (values[..., :3] != values[..., :1]).any() and values.shape[-1] != 2:
            raise ValueError(f"{path}: a picture in colours, expected the numbers of labels, 0 to {len(labels) - 1}")
        values = values[..., 0]
    low, high = values.min(), values.max()
    if low < 0 or high >= len(labels):
        raise ValueError(f"{path}: labels from {low} to {high}, expected 0 to {len(labels) - 1}")
    return Image.fromarray(values.astype(np.uint8))


def where(parse: Image.Image, labels: Labels, words: Set[str]) -> np.ndarray:
    """parse map, words -> (H,W) bool: what is labelled with one of them."""
    return np.isin(np.asarray(parse), [number for number, word in enumerate(labels) if word in words])
