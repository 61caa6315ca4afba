"""Is what a picture shows well drawn? Its PSNR to the rendering of its true scene that fits it best.

    picture, scene --fitted--> the nearest of all renderings, over size and place --psnr--> dB

A judge among 32 scenes says "recognised", and recognises a dog with one eye; this says how far the drawing is from the
dog. It is defined for one thing on a plain background, where size and place are all that is free.
"""

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from ldm.data.scenes import Scene

FOREGROUND = 0.1  # difference from the background, of a channel's range, from which on something is there
SPECKS = 0.02  # share of the foreground that may lie outside of its extent, on either side
NARROWEST = 0.3  # width of a thing, of the picture's side
FREEDOM = 1.25  # how much wider or narrower than the foreground a thing may be fitted
STRIDE = 1 / 32  # of the picture's side, between the widths that are tried first; then all about the best of them
EQUAL = 100.0  # dB, of equal pictures: JSON has no infinity


def simple(scene: Scene) -> bool:
    """Whether size and place are all that a picture of this scene is free to choose."""
    return len(scene.objects) == scene.count == 1 and scene.setting is None


def psnr(picture: Image.Image, other: Image.Image) -> float:
    """Two pictures of one size -> dB, over all pixels and channels in sRGB; EQUAL for equal ones."""
    return decibels(float(np.square(values(picture) - values(other)).mean(dtype=np.float64)))


def decibels(error: float) -> float:
    """Mean squared error of values in [0,1] -> PSNR in dB, EQUAL at most."""
    return -10 * math.log10(max(error, 10 ** (-EQUAL / 10)))


def values(picture: Image.Image) -> np.ndarray:
    """Picture -> (3,H,W) float32 in [0,1]."""
    return np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / 255


def fidelity(picture: Image.Image, scene: Scene) -> float:
    """PSNR in dB between a picture and the rendering of its scene that fits it best."""
    return psnr(picture, fitted(picture, scene))


def fitted(picture: Image.Image, scene: Scene) -> Image.Image:
    """The rendering of a simple scene that is nearest to a square picture, over whole pixels of width and place.

    The thing is about as large as the foreground: else a bad drawing would fit a tiny thing best. Where there is no
    foreground, the scene is placed as it places itself. ValueError for a picture that is not square.
    """
    side = picture.width
    if picture.height != side:
        raise ValueError(f"picture of {side}x{picture.height}: expected a square one")
    placed = scene.place(np.random.default_rng(0))[0]
    foreground = values(picture) - values(scene.paint((), side))
    if extent(foreground):
        spectrum = np.fft.rfft2(foreground)
        widths, stride = likely_widths(foreground, scene), math.ceil(STRIDE * side)
        middle = max(fit(spectrum, scene, width, side) for width in widths[::stride])[1]
        near = [width for width in widths if abs(width - middle) < stride]
        _, width, left, top = max(fit(spectrum, scene, width, side) for width in near)
        placed = replace(placed, width=width / side, x=(left + width / 2) / side, y=(top + width / 2) / side)
    return scene.paint((placed,), side)


def likely_widths(foreground: np.ndarray, scene: Scene) -> range:
    """Pixels: about as wide as a thing must be for a foreground of this extent."""
    side = foreground.shape[-1]
    width = round(side / 2)
    about = width * extent(foreground) / max(1.0, extent(cornered(scene, width, side)))
    about = min(max(about, NARROWEST * side), side)
    return range(int(about / FREEDOM), min(side, math.ceil(about * FREEDOM)) + 1)


def extent(foreground: np.ndarray) -> float:
    """(3,H,W) -> the larger of its height and width in pixels, 0 where nothing is there."""
    there = np.nonzero(np.abs(foreground).max(0) > FOREGROUND)
    return max(float(np.ptp(np.quantile(places, (SPECKS, 1 - SPECKS)))) for places in there) if len(there[0]) else 0.0


def cornered(scene: Scene, width: int, side: int) -> np.ndarray:
    """(3,side,side): what a thing of this width adds to the background, in the top left corner."""
    centre = width / side / 2
    thing = replace(scene.place(np.random.default_rng(0))[0], width=width / side, x=centre, y=centre)
    return values(scene.paint((thing,), side)) - values(scene.paint((), side))


def fit(spectrum: np.ndarray, scene: Scene, width: int, side: int) -> tuple[float, int, int, int]:
    """Spectrum of a foreground p -> how near a thing r of this width comes to it at its best place inside the picture;
    the width; the place's left and top.

    |p|^2 - |p - r|^2 = 2 <p,r> - |r|^2, with <p,r> of all places at once by the correlation theorem.
    """
    thing = cornered(scene, width, side)
    products = np.fft.irfft2((spectrum * np.fft.rfft2(thing).conj()).sum(0), (side, side))
    inside = products[: side - width + 1, : side - width + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return float(2 * inside[top, left] - np.square(thing).sum()), width, int(left), int(top)
