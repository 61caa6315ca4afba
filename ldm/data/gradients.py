"""Gradients and flat areas: what clear skies, painted walls and slides are made of.

where (H,W) in [0,1] --colours at a few stops--> picture;  a few plates of other gradients may lie on it
"""

import numpy as np
from PIL import Image, ImageDraw

from ldm.data.palettes import palette

FINE = 3  # what has edges is drawn at so many times the size, so that they are smooth


def draw(rng: np.random.Generator, side: int) -> Image.Image:
    """RGB picture, `side` x `side`: one gradient, in two of three pictures with one to four plates on it."""
    picture = gradient(rng, side)
    for _ in range(max(0, int(rng.integers(-1, 5)))):
        picture.paste(gradient(rng, side), mask=plate(rng, side))
    return picture


def gradient(rng: np.random.Generator, side: int) -> Image.Image:
    """RGB picture: between two and six colours, smoothly, or in bands of one colour each; a quarter of one colour."""
    if rng.random() < 0.25:
        return Image.new("RGB", (side, side), tuple(palette(rng, 1)[0].round().astype(int).tolist()))
    colours = palette(rng, int(rng.integers(2, 7)))
    stops = np.sort(rng.random(len(colours)))
    banded = rng.random() < 0.2
    where = FIELDS[rng.integers(len(FIELDS))](rng, side * (FINE if banded else 1))
    where = (where - where.min()) / max(float(np.ptp(where)), 1e-6)
    if banded:
        x = colours[np.searchsorted(stops[1:], where)]
    else:
        x = np.stack([np.interp(where, stops, channel) for channel in colours.T], -1)
    return Image.fromarray(x.round().astype(np.uint8)).reduce(FINE if banded else 1)


def linear(rng: np.random.Generator, side: int) -> np.ndarray:
    x, y = _grid(side)
    turn = rng.uniform(0, 2 * np.pi)
    return np.cos(turn) * x + np.sin(turn) * y


def radial(rng: np.random.Generator, side: int) -> np.ndarray:
    x, y = _grid(side)
    centre, stretch = rng.uniform(-0.7, 0.7, 2), np.exp(rng.normal(0, 0.3))
    return np.hypot((x - centre[0]) * stretch, (y - centre[1]) / stretch)


def conic(rng: np.random.Generator, side: int) -> np.ndarray:
    x, y = _grid(side)
    centre = rng.uniform(-0.7, 0.7, 2)
    return np.abs(np.arctan2(y - centre[1], x - centre[0]))  # back to its beginning: no edge but what stops make


def hilly(rng: np.random.Generator, side: int) -> np.ndarray:
    cells = rng.standard_normal((rng.integers(2, 5),) * 2, np.float32)
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))


FIELDS = (linear, linear, radial, conic, hilly)


def plate(rng: np.random.Generator, side: int) -> Image.Image:
    """A mask, `side` x `side`: a rectangle, maybe with round corners, or an ellipse."""
    mask = Image.new("L", (FINE * side, FINE * side))
    (left, right), (top, bottom) = np.sort(rng.uniform(-0.2, 1.2, (2, 2)) * FINE * side).tolist()
    pen = ImageDraw.Draw(mask)
    if rng.random() < 0.4:
        pen.ellipse((left, top, right, bottom), fill=255)
    else:
        pen.rounded_rectangle((left, top, right, bottom), rng.choice([0, 0.05, 0.2]) * FINE * side, fill=255)
    return mask.reduce(FINE)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1,W) and y (H,1) of the pixels, from -1 to 1."""
    at = np.linspace(-1, 1, side, dtype=np.float32)
    return at[None], at[:, None]
