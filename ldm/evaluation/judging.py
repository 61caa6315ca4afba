"""Which scene does a picture show? A judge for emoji scenes, without a network.

    picture, scenes --likenesses--> how like it is to each --chosen--> the likeliest of any of them

A scene is likened to the picture by K renderings with jitter in place and size, drawn anew for each picture and with
the same jitter for all scenes, so that the true one has no advantage. What is compared is the detail: each picture
less its own blur. So a plain or blurred picture shows no scene at all, and a background speaks through the contrast
along the objects' contours.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from ldm.data.scenes import Scene

RENDERINGS = 12  # of each candidate
RENDERED_SIDE = 60  # pixels
SIDE = 30  # pixels at which pictures are compared
CELLS = 3  # along each side: the least objects, of a row or five of a kind, have one each
BLUR = 2.0  # standard deviation of the blur that is taken away, in those pixels
PALEST = 2 / 3  # of a rendering's contrast that a picture may have: a slight blur must not pass for another background
SHOWN = 0.3  # least likeness at which a picture shows a scene; that of true renderings is above 0.6
SETTINGS = {"renderings": RENDERINGS, "side": SIDE, "cells": CELLS, "blur": BLUR, "palest": PALEST, "shown": SHOWN}


class Likeness(NamedTuple):
    """Of a picture to a scene: 1 is equal, about 0 unrelated.

    `paler` takes a picture that is paler than a rendering for one of a paler rendering, down to PALEST.
    """

    own: float
    paler: float


def likenesses(picture: Image.Image, scenes: Sequence[Scene], seed: int = 0) -> dict[Scene, Likeness]:
    """How like a picture of any size is to each scene; a function of picture, scene and seed."""
    seen = cells(shifted(detail([picture])[0]))
    return {scene: likeness(seen, rendered(scene, seed)) for scene in scenes}


def chosen(found: dict[Scene, Likeness], scenes: Sequence[Scene], seed: int = 0) -> Scene:
    """The one of these scenes that the picture shows.

    A picture that shows none gets one by lot, so that what says nothing is right one time in len(scenes).
    """
    best = max(scenes, key=lambda scene: found[scene].paler)
    return best if found[best].own >= SHOWN else scenes[int(np.random.default_rng(seed).integers(len(scenes)))]


@cache
def blurring() -> np.ndarray:
    """(SIDE, SIDE) matrix: a Gaussian blur whose rows sum to 1, so that a plain picture stays as it is."""
    pixels = np.arange(SIDE)
    weights = np.exp(-((pixels[:, None] - pixels) ** 2) / (2 * BLUR**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def small(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (N,3,SIDE,SIDE) float32 in [0,1], each brought there by area."""
    resized = [np.asarray(p.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)) for p in pictures]
    return np.ascontiguousarray(np.stack(resized).transpose(0, 3, 1, 2), np.float32) / 255


def detail(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (N,3,SIDE,SIDE) float32: less its own blur."""
    x = small(pictures)
    return x - blurring() @ (x.reshape(-1, SIDE) @ blurring().T).reshape(x.shape)


def shifted(x: np.ndarray) -> np.ndarray:
    """(3,SIDE,SIDE) -> (5,3,SIDE,SIDE): as it is, and one pixel down, up, right and left."""
    return np.stack([np.roll(x, shift, (1, 2)) for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))])


def cells(x: np.ndarray) -> np.ndarray:
    """(N,3,SIDE,SIDE) -> (R,N,F), R = CELLS^2 cells of a picture."""
    side = SIDE // CELLS
    return x.reshape(-1, 3, CELLS, side, CELLS, side).transpose(2, 4, 0, 1, 3, 5).reshape(CELLS**2, len(x), -1)


def likeness(picture: np.ndarray, renderings: np.ndarray) -> Likeness:
    """Cells (R,S,F) of a picture's shifts, (R,K,F) of renderings -> 1 for equal, about 0 for unrelated ones.

    2 <p,r> / (<p,p> + <r,r>): SSIM's contrast and structure, over the whole picture (Wang et al. 2004, section III.B).
    Each cell takes the p and r that are nearest there, because each of several objects has its own jitter.
    """
    own, energies = np.square(picture).sum(-1), np.square(renderings).sum(-1)
    products = picture @ renderings.swapaxes(1, 2)  # (R,S,K)
    paleness = np.sqrt(own[:, 0].sum() / energies.sum(0)).clip(PALEST, 1)  # (K,)
    return Likeness(*(best(own, contrast**2 * energies, contrast * products) for contrast in (1.0, paleness)))


def best(own: np.ndarray, energies: np.ndarray, products: np.ndarray) -> float:
    """<p,p> (R,S), <r,r> (R,K), <p,r> (R,S,K) -> the likeness of the p and r of each cell that are nearest."""
    sums = own[:, :, None] + energies[:, None]
    nearest = np.arange(len(sums)), (sums - 2 * products).reshape(len(sums), -1).argmin(1)
    return float(2 * products.reshape(len(sums), -1)[nearest].sum() / sums.reshape(len(sums), -1)[nearest].sum())


def rendered(scene: Scene, seed: int) -> np.ndarray:
    """(R,K,F): K = RENDERINGS of the scene, in cells."""
    rng = np.random.default_rng(seed)
    return cells(detail([scene.draw(rng, RENDERED_SIDE) for _ in range(RENDERINGS)]))
