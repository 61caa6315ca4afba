"""Degrading: a clean picture and a generator -> what is to be repaired.

    name         what happens                                        a number, or a range to draw from
    blur         Gaussian blur                                       radius in pixels, 1 to 3
    jpeg         compression                                         quality of 1 to 95, 5 to 30
    downsample   made smaller, and enlarged again                    times, 2 to 4
    mask         rectangles are replaced by noise                    share of the picture, 0.1 to 0.4

Each is written as its name, "blur", with a number, "blur:2", or with a range, "blur:1-3".
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Generator

Degrade = Callable[[Image.Image, Generator], Image.Image]


def degradation(asked: str) -> Degrade:
    """A name of DEGRADATIONS, with a strength or a range -> that of a picture. ValueError for anything else."""
    name, _, strengths = asked.partition(":")
    if name not in DEGRADATIONS:
        raise ValueError(f"degradation {asked!r}: expected one of {', '.join(DEGRADATIONS)}, such as blur:2")
    degrade, (low, high) = DEGRADATIONS[name]
    asked_low, _, asked_high = strengths.partition("-")
    try:
        least, most = float(asked_low or low), float(asked_high or asked_low or high)
    except ValueError:
        raise ValueError(f"degradation {asked!r}: expected numbers, such as {name}:{low}-{high}") from None
    lowest, highest = LIMITS[name]
    if not lowest <= least <= most <= highest:
        raise ValueError(f"degradation {asked!r}: expected a range within {lowest} to {highest}")
    return partial(_degraded, degrade, least, most)


def _degraded(
    degrade: Callable[[Image.Image, float, Generator], Image.Image],
    least: float,
    most: float,
    image: Image.Image,
    generator: Generator,
) -> Image.Image:
    share = torch.rand((), generator=generator).item()
    return degrade(image, least + share * (most - least), generator)


def blur(image: Image.Image, radius: float, generator: Generator) -> Image.Image:
    """Radius is the standard deviation, in pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(image: Image.Image, quality: float, generator: Generator) -> Image.Image:
    """Compressed at that quality, and read again."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(quality))
    return Image.open(file).convert("RGB")


def downsample(image: Image.Image, times: float, generator: Generator) -> Image.Image:
    """Sides that many times smaller, by the mean of the pixels; enlarged again bicubically."""
    width, height = image.size
    small = image.resize((max(1, round(width / times)), max(1, round(height / times))), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def mask(image: Image.Image, share: float, generator: Generator) -> Image.Image:
    """One to three rectangles, of that share of the picture at most (they may overlap), in which is only noise."""
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    pixels, count = np.array(image), int(rng.integers(1, 4))
    for _ in range(count):
        stretch = rng.uniform(0.7, 1.4)
        sides = np.sqrt(share / count) * np.array(pixels.shape[:2]) * [stretch, 1 / stretch]
        height, width = np.clip(np.rint(sides), 1, pixels.shape[:2]).astype(int)
        top, left = (int(rng.integers(0, room + 1)) for room in np.array(pixels.shape[:2]) - (height, width))
        noise = 127.5 + 40 * rng.standard_normal((height, width, 3))
        pixels[top : top + height, left : left + width] = noise.clip(0, 255)
    return Image.fromarray(pixels)


DEGRADATIONS: dict[str, tuple[Callable[[Image.Image, float, Generator], Image.Image], tuple[float, float]]] = {
    "blur": (blur, (1, 3)),
    "jpeg": (jpeg, (5, 30)),
    "downsample": (downsample, (2, 4)),
    "mask": (mask, (0.1, 0.4)),
}
LIMITS = {"blur": (0, 100), "jpeg": (1, 95), "downsample": (1, 64), "mask": (0, 1)}
