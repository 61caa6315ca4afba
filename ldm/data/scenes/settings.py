"""The grounds that are more than a colour, as flat shapes: a setting -> a picture of any side.

Everything stands at fixed places, so that a setting has one picture. The ground begins in the upper half: what stands
in the upper row of a scene has its feet on it.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]  # (x, y), of the picture's side: a polygon, or the two corners of an ellipse
Shape = tuple[Colour, Points]
Band = tuple[float, Colour, Colour]  # from this height down to the next band: from one colour to another
FINER = 4  # times as large are the shapes drawn, so that their edges are smooth

WHITE = (255, 255, 255)
AIR = (0.0, (150, 205, 245), (215, 238, 252))


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def disc(x: float, y: float, width: float, height: float | None = None) -> Points:
    height = height or width
    return [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]


def cloud(x: float, y: float, width: float) -> list[Shape]:
    puffs = [(-0.28, 0.05, 0.44, 0.3), (0.02, -0.05, 0.5, 0.46), (0.3, 0.06, 0.4, 0.28)]
    return [(WHITE, disc(x + dx * width, y + dy * width, w * width, h * width)) for dx, dy, w, h in puffs]


def tuft(x: float, y: float) -> Shape:
    blades = [(-0.03, 0.0), (-0.035, -0.04), (-0.012, -0.015), (0.0, -0.06), (0.012, -0.015), (0.035, -0.04), (0.03, 0)]
    return (78, 150, 58), [(x + dx, y + dy) for dx, dy in blades]


def spark(x: float, y: float, reach: float) -> Shape:
    near = reach / 4
    corners = [(0, -reach), (near, -near), (reach, 0), (near, near)]
    corners += [(-dx, -dy) for dx, dy in corners]
    return (255, 244, 190), [(x + dx, y + dy) for dx, dy in corners]


def wave(x: float, y: float) -> list[Shape]:
    foam = (120, 185, 232)
    return [(foam, disc(x, y, 0.15, 0.016)), (foam, disc(x + 0.06, y + 0.022, 0.08, 0.012))]


def board(left: float, y: float, right: float) -> Shape:
    return (164, 108, 62), box(left, y, right, y + 0.007)


MEADOW = [(0.08, 0.52), (0.9, 0.5), (0.5, 0.62), (0.07, 0.8), (0.93, 0.76), (0.3, 0.96), (0.72, 0.97)]
FLAKES = [(0.07, 0.1), (0.22, 0.26), (0.36, 0.07), (0.52, 0.2), (0.66, 0.06), (0.8, 0.24), (0.94, 0.11)]
STARS = [
    (0.1, 0.12, 0.035), (0.9, 0.1, 0.03), (0.06, 0.55, 0.02), (0.94, 0.5, 0.035), (0.12, 0.9, 0.03), (0.88, 0.88, 0.02),
    (0.5, 0.05, 0.02), (0.5, 0.95, 0.03), (0.3, 0.24, 0.015), (0.7, 0.27, 0.015), (0.3, 0.7, 0.015), (0.7, 0.74, 0.015),
]  # fmt: skip
WAVES = [(0.14, 0.4), (0.8, 0.37), (0.5, 0.55), (0.1, 0.68), (0.86, 0.66), (0.32, 0.87), (0.75, 0.92)]
CLOUDS = [(0.18, 0.14, 0.3), (0.8, 0.2, 0.34), (0.2, 0.86, 0.34), (0.82, 0.88, 0.28)]
BOARDS = [(0.06, 0.53, 0.5), (0.6, 0.6, 0.95), (0.04, 0.75, 0.3), (0.45, 0.82, 0.9)]
DASHES = [-0.08, 0.21, 0.5, 0.79]

SETTINGS: dict[str, tuple[list[Band], list[Shape]]] = {
    "grass": ([AIR, (0.42, (128, 196, 88), (98, 170, 68))], [tuft(*place) for place in MEADOW]),
    "beach": (
        [AIR, (0.28, (58, 150, 205), (105, 195, 222)), (0.42, (247, 226, 174), (234, 203, 142))],
        [(WHITE, disc(0.2, 0.425, 0.7, 0.03)), (WHITE, disc(0.8, 0.42, 0.7, 0.025))],
    ),
    "snow": (
        [(0.0, (150, 178, 208), (200, 217, 234)), (0.42, (250, 252, 255), (222, 233, 246))],
        [(WHITE, disc(x, y, 0.03)) for x, y in FLAKES],
    ),
    "night sky": ([(0.0, (14, 18, 52), (48, 48, 110))], [spark(*place) for place in STARS]),
    "sea": ([AIR, (0.3, (74, 155, 222), (24, 84, 160))], [shape for place in WAVES for shape in wave(*place)]),
    "table": (
        [
            (0.0, (247, 237, 218), (238, 224, 200)),
            (0.42, (196, 140, 88), (172, 114, 66)),
            (0.9, (128, 80, 44), (112, 68, 36)),
        ],
        [board(*place) for place in BOARDS],
    ),
    "road": (
        [
            AIR,
            (0.36, (128, 190, 96), (112, 178, 82)),
            (0.46, (214, 214, 210), (206, 206, 202)),
            (0.49, (112, 114, 120), (92, 94, 100)),
        ],
        [(WHITE, box(left, 0.88, left + 0.16, 0.915)) for left in DASHES],
    ),
    "sky": ([(0.0, (96, 172, 238), (190, 226, 250))], [puff for place in CLOUDS for puff in cloud(*place)]),
}  # name: bands from the top down, and the shapes on them


@lru_cache(maxsize=64)
def painted(name: str, side: int) -> Image.Image:
    """RGB picture of a setting, `side` x `side`."""
    bands, shapes = SETTINGS[name]
    large = side * FINER
    picture = banded(bands, large)
    brush = ImageDraw.Draw(picture)
    for colour, points in shapes:
        corners = [(x * large, y * large) for x, y in points]
        (brush.ellipse if len(corners) == 2 else brush.polygon)(corners, fill=colour)
    return picture.resize((side, side), Image.Resampling.BOX)


def banded(bands: list[Band], side: int) -> Image.Image:
    """RGB picture, `side` x `side`: each band fades from its upper colour to its lower one."""
    rows = np.zeros((side, 3))
    ends = [round(top * side) for top, _, _ in bands] + [side]
    for (_, upper, lower), first, last in zip(bands, ends[:-1], ends[1:], strict=True):
        rows[first:last] = np.linspace(upper, lower, last - first)
    return Image.fromarray(np.repeat(rows[:, None].round().astype(np.uint8), side, 1))
