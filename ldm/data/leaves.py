"""Dead leaves: opaque shapes of every size, fallen one over the other (Lee, Mumford and Huang 2001).

    radii of density ~ r^-3, places at random --polygons, the last on top--> picture --texture, light, lens--> picture

Such pictures have the statistics of natural ones at every scale: sharp edges, things hidden by others, and a power
spectrum that falls like 1/f^2.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ldm.data.palettes import palette

COVER = 3.0  # how often a point is covered on average; e^-COVER of the ground is seen
FINE = 2  # leaves are drawn at so many times the size, for smooth edges
CORNERS = {5: 8, 20: 20, np.inf: 48}  # of the polygon that a leaf of up to so many pixels of radius is, as drawn
DEPTH = 36  # grey levels that the strongest texture adds


def draw(rng: np.random.Generator, side: int) -> Image.Image:
    """RGB picture, `side` x `side`."""
    size = FINE * side
    radius = radii(rng, size)
    colour = palette(rng, len(radius) + 1).astype(int)
    surface = np.where(rng.random(len(radius) + 1) < rng.random(), rng.integers(0, 256, len(radius) + 1), 0)
    fills = list(map(tuple, np.column_stack([colour, surface]).tolist()))
    canvas = Image.new("RGBA", (size, size), fills[0])
    pen = ImageDraw.Draw(canvas)
    for outline, fill in zip(outlines(rng, radius, size), fills[1:], strict=True):
        pen.polygon(outline, fill=fill)
    flat = np.asarray(canvas.convert("RGB").reduce(FINE), np.float32)
    lit = textured(rng, flat, np.asarray(canvas.getchannel("A"))[::FINE, ::FINE])
    return seen(rng, Image.fromarray(lit.clip(0, 255).astype(np.uint8)))


def radii(rng: np.random.Generator, size: int) -> np.ndarray:
    """(N,) radii in pixels of the leaves that touch a square of `size`, of density ~ r^-3 between two limits.

    A leaf touches the square, roughly, where its centre lies within (size + 2r)^2: so many of each radius there are.
    """
    low, high = size * np.exp(rng.uniform(np.log(0.01), np.log(0.03))), size * rng.uniform(0.3, 0.8)
    r = np.geomspace(low, high, 256)
    rate = COVER / (np.pi * np.log(high / low))  # leaves to a square pixel, times r^-3 dr
    count = np.append(0, np.cumsum(np.diff(r) * (rate * r**-3 * (size + 2 * r) ** 2)[1:]))
    return np.interp(rng.uniform(0, count[-1], round(count[-1])), count, r)


def outlines(rng: np.random.Generator, radius: np.ndarray, size: int) -> list[list[float]]:
    """(N,) radii -> N polygons, flat lists of x and y: ellipses, lobed blobs and figures of three to five corners.

    Stretched and turned at random, without a change of area.
    """
    count = len(radius)
    kinds = rng.choice(3, count, p=rng.dirichlet([1.5, 1, 1.5]))
    sides = np.where(kinds == 2, rng.integers(3, 6, count), 0)
    wobble = np.where(kinds == 1, rng.uniform(0.1, 0.35, count), 0)
    stretch = np.exp(rng.exponential(rng.uniform(0.05, 0.6), count))
    turn, lean = rng.uniform(0, 2 * np.pi, (2, count))
    x, y = rng.uniform(-radius, size + radius, (2, count))
    leaves = np.column_stack([x, y, radius, stretch, turn, lean, sides, wobble, rng.integers(2, 6, count)])
    polygons: list[list[float]] = [[]] * count
    least = 0.0
    for most, corners in CORNERS.items():
        places = np.flatnonzero((radius >= least) & (radius < most))
        for place, polygon in zip(places.tolist(), corners_of(leaves[places], corners).tolist(), strict=True):
            polygons[place] = polygon
        least = most
    return polygons


def corners_of(leaves: np.ndarray, corners: int) -> np.ndarray:
    """(N, 9) leaves -> (N, 2 corners) x and y by turns; a figure of fewer corners has some of them twice."""
    x, y, radius, stretch, turn, lean, sides, wobble, lobes = leaves.T[..., None]
    n = np.where(sides > 0, sides, corners)
    angle = 2 * np.pi * np.floor(np.arange(corners) / corners * n) / n
    distance = radius * (1 + wobble * np.cos(lobes * angle))
    along, across = distance * np.cos(angle + turn) * stretch, distance * np.sin(angle + turn) / stretch
    cos, sin = np.cos(lean), np.sin(lean)
    return np.stack([x + cos * along - sin * across, y + sin * along + cos * across], -1).reshape(-1, 2 * corners)


def textured(rng: np.random.Generator, flat: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Colours (H,W,3) and surfaces (H,W), 0..255 -> colours: each leaf with its texture, all in one uneven light.

    A surface's two highest bits say which texture (none, grain, clouds, stripes), the others how strong it is.
    """
    side = len(flat)
    plain = np.zeros((side, side), np.float32)
    fields = np.stack([plain, clouds(rng, side, side // 2, 2), clouds(rng, side, 3, 5), stripes(rng, side)])
    strength = (surface & 63) * np.float32(DEPTH / 63)
    chosen = np.take_along_axis(fields, surface[None] >> 6, 0)[0]
    light = 1 + np.float32(rng.uniform(0, 0.3)) * clouds(rng, side, 2, 2)
    return (flat + (strength * chosen)[..., None]) * light[..., None]


def clouds(rng: np.random.Generator, side: int, cells: int, octaves: int) -> np.ndarray:
    """(side, side) noise of deviation about 1: `octaves` of equal strength, the first of so many cells to the side."""
    noise = rng.standard_normal((cells, cells), np.float32)
    for octave in range(1, octaves):
        finer = cells * 2**octave
        noise = enlarged(noise, finer) + rng.standard_normal((finer, finer), np.float32)
    return enlarged(noise, side) / np.float32(octaves**0.5)


def enlarged(field: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC))


def stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side) waves of one direction and length, a little bent."""
    at = np.arange(side, dtype=np.float32) / np.float32(side)
    turn, waves = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(2, side / 4)
    along = np.float32(waves * np.cos(turn)) * at[None] + np.float32(waves * np.sin(turn)) * at[:, None]
    return np.sin(along + np.float32(rng.uniform(0, 2)) * clouds(rng, side, 3, 2))


def seen(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """What a camera makes of it: a quarter out of focus, a quarter with noise."""
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0) * picture.width / 128))
    if rng.random() < 0.25:
        noise = rng.uniform(1, 5) * rng.standard_normal((picture.height, picture.width, 3), np.float32)
        picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return picture
