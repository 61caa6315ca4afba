"""Garments: tops of several cuts, their patterns and what is printed on them.

    rng --garment--> Garment --cloth--> its cloth, flat, with pattern and print, FINE times SIZE

The cloth lies on HANGER, the frame that shows a garment by itself: whoever wears it shows the same cloth, warped.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from ldm.data.dolls.figure import FINE, SHOULDER, SIZE, Arm, Colour, Frame, Point
from ldm.data.lettering import font

COLOURS: tuple[Colour, ...] = (
    (250, 250, 247), (232, 226, 212), (188, 190, 194), (120, 124, 130), (62, 64, 70), (26, 26, 30),
    (196, 40, 46), (132, 26, 44), (236, 104, 92), (244, 158, 66), (248, 206, 72), (158, 108, 60),
    (54, 130, 72), (30, 78, 62), (150, 190, 96), (70, 170, 164), (96, 168, 220), (44, 98, 180),
    (28, 42, 92), (104, 76, 168), (178, 140, 206), (238, 168, 190), (214, 66, 130), (246, 226, 196),
)  # fmt: skip
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "gradient", "blocks", "zigzag")
PATTERN_SHARES = (0.26, 0.2, 0.1, 0.14, 0.1, 0.08, 0.06, 0.06)
CALM = ("plain", "gradient")  # letters can be read on these; on others they stand on a plate
NECKS = ("crew", "v", "scoop", "square", "boat", "high")
SLEEVES = {"none": (0.0, 0.0), "short": (0.24, 0.4), "middle": (0.64, 0.78), "long": (0.94, 0.98)}  # of the arm
SLEEVE_SHARES = (0.14, 0.46, 0.12, 0.28)
PRINTED = 0.6  # share of garments with letters
WORDS = (
    "SUN", "SEA", "SKY", "JAZZ", "LOVE", "HELLO", "PARIS", "TOKYO", "ROME", "OSLO", "LIMA", "CAIRO", "MOON", "STAR",
    "WAVE", "WILD", "COOL", "PEACE", "DREAM", "SMILE", "HAPPY", "MUSIC", "OCEAN", "RIVER", "TIGER", "PANDA", "FOX",
    "BEE", "TEAM", "SPORT", "GYM", "RUN", "PLAY", "YES", "WOW", "NEW", "ONE", "ROCK", "SOUL", "ZEBRA", "QUEEN",
    "KING", "FLY", "HI", "OK", "UP",
)  # fmt: skip
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
WIDEST, HIGHEST = 62, 46  # pixels of a print on the hanger
CONTRAST = 95  # grey levels between letters and their ground, at least
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Pattern:
    """One of PATTERNS in two colours; `period` and `shift` in pixels on the hanger; `turn` in degrees."""

    kind: str
    colours: tuple[Colour, Colour]
    period: float
    turn: float
    shift: float = 0.0


@dataclass(frozen=True)
class Print:
    """Letters about the torso's point `centre` (d, s), so many pixels high on the hanger, maybe on a plate."""

    text: str
    centre: tuple[float, float]
    size: int
    ink: Colour
    plate: Colour | None = None
    turned: bool = False  # upside down, as no true print is


@dataclass(frozen=True)
class Garment:
    """A top. `sleeve` is its length, of the arm's; `hem` the torso's height s at which it ends; `ease` its looseness.

    `trim` is the colour of its edges; `sleeve_colour` that of sleeves without the pattern.
    """

    neck: str
    sleeve: float
    hem: float
    ease: float
    pattern: Pattern
    print: Print | None
    trim: Colour
    sleeve_colour: Colour | None


def _hanger() -> Frame:
    bare = Frame((96.0, 182.0), (96.0, 54.0), (44.0, 43.0, 41.0, 43.0, 46.0), 0.0, 0.0)
    return replace(bare, arms=(_hanging(bare, -1), _hanging(bare, 1)))


def _hanging(frame: Frame, side: int) -> Arm:
    """A sleeve that hangs straight, a little outwards."""
    x, y = frame.place(np.array([(side * SHOULDER[0], SHOULDER[1])]))[0].tolist()
    aside, down = side * math.sin(math.radians(20)), math.cos(math.radians(20))
    joints: tuple[Point, ...] = tuple((x + length * aside, y + length * down) for length in (0, 65, 122))
    return Arm(joints, (12.5, 10.0, 7.5))


HANGER = _hanger()


# ---- at random ----


def garment(rng: np.random.Generator) -> Garment:
    """A top at random."""
    pattern = _pattern(rng)
    low, high = SLEEVES[rng.choice(list(SLEEVES), p=SLEEVE_SHARES)]
    contrasting = rng.random() < 0.2
    return Garment(
        NECKS[rng.choice(len(NECKS), p=(0.4, 0.2, 0.14, 0.08, 0.08, 0.1))],
        rng.uniform(low, high),
        rng.uniform(-0.2, 0.02) if rng.random() < 0.85 else rng.uniform(0.06, 0.14),
        rng.uniform(0.1, 0.9),
        pattern,
        _print(rng, pattern) if rng.random() < PRINTED else None,
        _apart(rng, [pattern.colours[0]], 60) if rng.random() < 0.4 else _darker(pattern.colours[0]),
        _apart(rng, [pattern.colours[0]], 50) if contrasting else None,
    )


def _pattern(rng: np.random.Generator) -> Pattern:
    first = COLOURS[rng.integers(len(COLOURS))]
    colours = (first, _apart(rng, [first], 70))
    kind = PATTERNS[rng.choice(len(PATTERNS), p=PATTERN_SHARES)]
    return Pattern(kind, colours, rng.uniform(12, 24), float(rng.choice([0, 0, 90, 45, -45])))


def _print(rng: np.random.Generator, pattern: Pattern) -> Print:
    """A word, or letters and digits without sense: what is read cannot be guessed from its beginning."""
    if rng.random() < 0.5:
        text = WORDS[rng.integers(len(WORDS))]
    else:
        text = "".join(LETTERS[k] for k in rng.integers(len(LETTERS), size=rng.integers(1, 5)))
    size = HIGHEST * rng.uniform(0.75, 1) if len(text) == 1 else min(HIGHEST, WIDEST / (0.68 * len(text)))
    plate = None if pattern.kind in CALM else COLOURS[rng.integers(len(COLOURS))]
    grounds = [plate] if plate else list(pattern.colours[: 1 if pattern.kind == "plain" else 2])
    return Print(text, (0.0, rng.uniform(0.5, 0.58)), int(size), _apart(rng, grounds, CONTRAST), plate)


def _apart(rng: np.random.Generator, grounds: list[Colour], contrast: float) -> Colour:
    """A colour at random, so far from each of the grounds in grey levels; the farthest where there is none."""
    distance = np.array([min(abs(grey(colour) - grey(ground)) for ground in grounds) for colour in COLOURS])
    enough = np.flatnonzero(distance >= min(contrast, distance.max()))
    return COLOURS[rng.choice(enough)]


def _darker(colour: Colour) -> Colour:
    return (colour[0] * 4 // 5, colour[1] * 4 // 5, colour[2] * 4 // 5)


def grey(colour: Colour) -> float:
    """Its luma, 0..255."""
    return float(np.dot(colour, LUMA))


# ---- the cloth ----


def cloth(garment: Garment) -> Image.Image:
    """RGB picture of the cloth on HANGER, FINE times SIZE, from edge to edge, with pattern and print, unshaded."""
    picture = patterned(garment.pattern)
    if garment.print:
        _stamp(picture, garment.print)
    return picture


def patterned(pattern: Pattern) -> Image.Image:
    """RGB picture of the pattern alone, FINE times SIZE."""
    width, height = SIZE[0] * FINE, SIZE[1] * FINE
    first, second = pattern.colours
    if pattern.kind == "plain":
        return Image.new("RGB", (width, height), first)
    x, y = (np.arange(count, dtype=np.float32) / FINE for count in (width, height))
    share = SHARES[pattern.kind](pattern, x[None], y[:, None])
    mask = np.broadcast_to((255 * share).astype(np.uint8), (height, width))
    return Image.composite(
        Image.new("RGB", (width, height), second),
        Image.new("RGB", (width, height), first),
        Image.fromarray(np.ascontiguousarray(mask)),
    )


def outline(text: Print) -> np.ndarray:
    """(4,2) corners of the print on the hanger, in pixels: letters, and the plate if there is one."""
    x, y = HANGER.place(np.array([text.centre]))[0]
    left, top, right, bottom = font(text.size * FINE).getbbox(text.text, anchor="mm", stroke_width=_bold(text))
    margin = 4 if text.plate else 1
    left, top, right, bottom = left / FINE - margin, top / FINE - margin, right / FINE + margin, bottom / FINE + margin
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) + (x, y)


def _stamp(picture: Image.Image, text: Print) -> None:
    """Draws the print onto the cloth."""
    left, top, right, bottom = (outline(text)[[0, 2]] * FINE).round().astype(int).ravel().tolist()
    pen = ImageDraw.Draw(picture)
    if text.plate:
        pen.rounded_rectangle((left, top, right, bottom), 4 * FINE, fill=text.plate)
    x, y = HANGER.place(np.array([text.centre]))[0] * FINE
    pen.text((x, y), text.text, text.ink, font(text.size * FINE), anchor="mm", stroke_width=_bold(text))
    if text.turned:
        part = picture.crop((left, top, right, bottom))
        picture.paste(part.transpose(Image.Transpose.ROTATE_180), (left, top))


def _bold(text: Print) -> int:
    return max(1, text.size * FINE // 22)


def _wave(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where along the pattern each place is, in periods; at turn 0 it goes downwards."""
    if pattern.turn in (0, 90):
        return ((x if pattern.turn else y) + pattern.shift) / pattern.period
    turn = float(np.radians(pattern.turn))
    return (math.cos(turn) * (y + pattern.shift) + math.sin(turn) * (x + pattern.shift)) / pattern.period


def _stripes(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (_wave(pattern, x, y) % 1 < 0.5).astype(np.float32)


def _pinstripes(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (_wave(pattern, x, y) % 1 < 0.2).astype(np.float32)


def _checks(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    across, down = ((place + pattern.shift) / pattern.period % 1 < 0.5 for place in (x - SIZE[0] / 2, y))
    return 0.5 * across + 0.5 * down


def _dots(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Dots in rows, every other row moved by half."""
    y = (y + pattern.shift) / pattern.period
    x = (x + pattern.shift) / pattern.period + 0.5 * (np.floor(y) % 2)
    return np.clip((0.3 - np.hypot(x % 1 - 0.5, y % 1 - 0.5)) * pattern.period * FINE, 0, 1)


def _gradient(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.clip((y - 60 + pattern.shift) / 130, 0, 1)


def _blocks(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The lower part in the second colour, and a band of it above."""
    y = y + pattern.shift
    return ((y > 132) | ((y > 88) & (y < 88 + pattern.period / 2))).astype(float)


def _zigzag(pattern: Pattern, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    folded = np.abs((x - SIZE[0] / 2) % pattern.period - pattern.period / 2)
    return ((y + folded + pattern.shift) / pattern.period % 1 < 0.5).astype(np.float32)


SHARES = {
    "stripes": _stripes, "pinstripes": _pinstripes, "checks": _checks, "dots": _dots, "gradient": _gradient,
    "blocks": _blocks, "zigzag": _zigzag,
}  # kind: (pattern, x (1,W), y (H,1)) -> how much of the second colour, in [0,1]  # fmt: skip
