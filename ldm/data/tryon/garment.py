"""The mask of a garment that was photographed on white."""

import numpy as np
from PIL import Image

LIGHT = 235  # of 255: what is lighter in all channels can be background


def silhouette(garment: Image.Image) -> Image.Image:
    """A garment on white (RGB) -> its mask (L): 255 but for the white that an edge of the picture is in sight of.

    So white letters on a garment belong to it, and the white between its sleeves and its body does not.
    ValueError where nothing but white is there.
    """
    light = np.asarray(garment.convert("RGB")).min(-1) > LIGHT
    sights = [np.flip(np.logical_and.accumulate(np.flip(light, axis), axis), axis) for axis in (0, 1)]
    sights += [np.logical_and.accumulate(light, axis) for axis in (0, 1)]
    mask = ~np.logical_or.reduce(sights)
    if not mask.any():
        raise ValueError("white all over, expected a garment on a white background")
    return Image.fromarray(mask.astype(np.uint8) * 255)
