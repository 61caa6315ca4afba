"""Figures: a body in a pose, from a random generator.

    rng --figure--> Figure: a frame (torso and two arms, what a garment hangs on), a head, legs, colours

Everything is in pixels of a picture of SIZE, y downwards. "Left" is the picture's left: the person's right.
"""

from dataclasses import dataclass, replace

import numpy as np

SIZE = (192, 256)  # width and height
FINE = 2  # all is drawn at so many times the size, for smooth edges
STATIONS = (-0.4, 0.0, 0.4, 0.72, 1.0)  # heights at which a torso's width is given: 0 the hips, 1 the base of the neck
SHOULDER = (0.86, 0.87)  # (d, s) of the shoulder's joint

Point = tuple[float, float]
Colour = tuple[int, int, int]

SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (250, 209, 178), (241, 194, 155), (232, 179, 134), (214, 158, 114),
    (190, 131, 90), (163, 106, 70), (134, 83, 54), (104, 63, 42), (80, 48, 34),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (36, 28, 26), (58, 40, 30), (88, 58, 38), (126, 84, 48), (176, 128, 70),
    (220, 184, 118), (160, 72, 40), (128, 124, 122), (206, 202, 198), (120, 40, 60),
)  # fmt: skip
LOWERS: tuple[Colour, ...] = (
    (44, 62, 98), (72, 98, 140), (120, 144, 176), (38, 38, 42), (86, 88, 94),
    (190, 172, 140), (232, 228, 218), (94, 102, 70), (110, 70, 50), (112, 40, 52),
)  # fmt: skip
BACKDROPS: tuple[Colour, ...] = (
    (240, 240, 240), (228, 230, 233), (242, 238, 230), (216, 220, 222), (232, 226, 222), (222, 230, 232),
)  # fmt: skip
STYLES = ("cropped", "short", "bob", "long", "bun")  # of hair
STANCES = {
    "down": ((5, 22), (-14, 8)),
    "down and out": ((18, 34), (4, 26)),
    "on the hip": ((34, 48), (-52, -36)),
    "in front": ((8, 18), (-78, -52)),
    "raised": ((60, 84), (158, 188)),
}  # degrees from straight down, outwards, between which the upper arm and the forearm lie
STANCE_SHARES = (0.4, 0.22, 0.16, 0.12, 0.1)


@dataclass(frozen=True)
class Arm:
    """Shoulder, elbow and wrist, and half the arm's width at each of them."""

    joints: tuple[Point, ...]
    widths: tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """What a garment hangs on: a torso with coordinates of its own, and the arms, the picture's left one first.

    The torso's point (d, s) lies s of the way from the hips to the neck, and d half-widths right of the middle.
    `profile` has the half-widths at STATIONS, `bow` how far the waist is bowed to the right, both in pixels; `turn` is
    how far the front is turned to the right, in half-widths: what is printed there moves so far.
    """

    hips: Point
    neck: Point
    profile: tuple[float, ...]
    bow: float
    turn: float
    arms: tuple[Arm, ...] = ()

    def place(self, points: np.ndarray) -> np.ndarray:
        """(N,2) points (d, s) of the torso -> (N,2) pixels (x, y)."""
        d, s = np.asarray(points, float).T
        axis, across = self._axes()
        sideways = d * np.interp(s, STATIONS, self.profile) + self._bowed(s)
        return np.asarray(self.hips) + s[:, None] * axis + sideways[:, None] * across

    def find(self, pixels: np.ndarray) -> np.ndarray:
        """(N,2) pixels (x, y) -> (N,2) points (d, s) of the torso: the inverse of `place`."""
        axis, across = self._axes()
        away = np.asarray(pixels, float) - self.hips
        s = away @ axis / (axis @ axis)
        return np.stack([(away @ across - self._bowed(s)) / np.interp(s, STATIONS, self.profile), s], -1)

    def eased(self, ease: float) -> "Frame":
        """The frame that a loose garment shows: `ease` 0 follows the waist, 1 falls straight from the shoulders."""
        straight = max(self.profile)
        return replace(self, profile=tuple(width + ease * (straight - width) for width in self.profile))

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """From hips to neck, in pixels; the unit vector across it, to the picture's right."""
        axis = np.subtract(self.neck, self.hips)
        return axis, np.array([-axis[1], axis[0]]) / np.hypot(*axis)

    def _bowed(self, s: np.ndarray) -> np.ndarray:
        s = np.clip(s, 0, 1)
        return self.bow * 4 * s * (1 - s)


@dataclass(frozen=True)
class Figure:
    """A frame with all that belongs to a person. `scale` is 1 for a torso of 100 pixels.

    `head` is the centre, `tilt` how far the head leans to the right, in radians. `knees`: the left one first.
    `creases` are strokes (d, s, d, s) on the torso, where cloth is folded.
    """

    frame: Frame
    scale: float
    head: Point
    tilt: float
    knees: tuple[Point, Point]
    skin: Colour
    hair: Colour
    style: str
    skirt: bool
    lower: Colour
    backdrop: Colour
    creases: tuple[tuple[float, float, float, float], ...]


def figure(rng: np.random.Generator) -> Figure:
    """A person at random."""
    scale = rng.uniform(0.93, 1.05)
    frame = _frame(rng, scale)
    lean = float(np.arctan2(frame.neck[0] - frame.hips[0], frame.hips[1] - frame.neck[1]))
    tilt = lean + rng.uniform(-0.12, 0.12)
    legs = frame.place(np.array([(-0.52, 0.0), (0.52, 0.0)])) + [[-rng.uniform(0, 6), 70 * scale],
                                                                 [rng.uniform(0, 6), 70 * scale]]  # fmt: skip
    return Figure(
        frame,
        scale,
        _moved(frame.neck, 28 * scale, np.pi - tilt),
        tilt,
        (_point(legs[0]), _point(legs[1])),
        _one(rng, SKINS),
        _one(rng, HAIRS),
        STYLES[rng.integers(len(STYLES))],
        bool(rng.random() < 0.3),
        _one(rng, LOWERS),
        _one(rng, BACKDROPS),
        tuple(_crease(rng) for _ in range(rng.integers(4, 8))),
    )


def _frame(rng: np.random.Generator, scale: float) -> Frame:
    lean, width = rng.normal(0, 0.055), 37 * scale * rng.uniform(0.94, 1.05)
    hips = (96 + rng.uniform(-7, 7), rng.uniform(174, 182))
    shape = np.array([0.98, 0.92, 0.77, 0.88, 1.0]) * [*rng.uniform(0.94, 1.06, 3), 1, 1]
    neck = _moved(hips, 100 * scale, np.pi - lean)
    bare = Frame(hips, neck, tuple((width * shape).tolist()), rng.uniform(-4, 4), rng.uniform(-0.16, 0.16))
    return replace(bare, arms=tuple(_arm(rng, bare, scale, side, lean) for side in (-1, 1)))


def _arm(rng: np.random.Generator, frame: Frame, scale: float, side: int, lean: float) -> Arm:
    upper, fore = STANCES[rng.choice(list(STANCES), p=STANCE_SHARES)]
    shoulder = _point(frame.place(np.array([(side * SHOULDER[0], SHOULDER[1])]))[0])
    elbow = _moved(shoulder, 51 * scale, side * np.radians(rng.uniform(*upper)) - lean / 2)
    wrist = _moved(elbow, 44 * scale, side * np.radians(rng.uniform(*fore)) - lean / 2)
    return Arm((shoulder, elbow, wrist), (10.5 * scale, 8 * scale, 5.5 * scale))


def _crease(rng: np.random.Generator) -> tuple[float, float, float, float]:
    d, s, angle, length = rng.uniform(-1, 0.8), rng.uniform(-0.1, 0.75), rng.uniform(-0.9, 0.9), rng.uniform(0.2, 0.5)
    return (d, s, d + length * float(np.cos(angle)), s + length / 2 * float(np.sin(angle)))


def _moved(start: Point, distance: float, angle: float) -> Point:
    """So far from a point; 0 is straight down and a quarter turn is to the right, in radians."""
    return (start[0] + distance * float(np.sin(angle)), start[1] + distance * float(np.cos(angle)))


def _point(pixel: np.ndarray) -> Point:
    return (float(pixel[0]), float(pixel[1]))


def _one(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[rng.integers(len(colours))]
