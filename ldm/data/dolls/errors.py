"""Errors that a base model makes, drawn on purpose: where they are is known.

    Wearing, rng --an error of GROUPS--> another picture --kept where it may be--> flawed picture, box

What is changed lies where a base model draws (the agnostic mask), can be seen at a quarter of the size, and fills the
box that is told of it; outside of the boxes the flawed picture is the true one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ldm.data.dolls import garments, painting
from ldm.data.dolls.canvas import Canvas
from ldm.data.dolls.figure import SKINS, Figure
from ldm.data.dolls.garments import CALM, COLOURS, NECKS, Garment
from ldm.data.dolls.parsing import where

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; the last two are the first outside

LEAST = 10  # levels of a channel from which on a pixel counts as changed
SEEN, SEEN_LEAST, QUARTER = 24, 6, 4  # at a quarter of the size so many levels, in so many pixels
MOST = 3  # errors in a picture


@dataclass(frozen=True)
class Wearing:
    """Who wears what: `bare` is the figure without garment; `true` and `labels` show it with the garment."""

    figure: Figure
    garment: Garment
    cloth: Image.Image
    bare: Canvas
    true: Image.Image
    labels: Image.Image

    def dressed(self, garment: Garment) -> Image.Image:
        """The same person in another garment."""
        own = (garment.pattern, garment.print) == (self.garment.pattern, self.garment.print)
        return dress(self.figure, garment, self.cloth if own else garments.cloth(garment), self.bare)[0]

    @cached_property
    def cloth_mask(self) -> Image.Image:
        return where(self.labels, "upper clothes")

    @cached_property
    def places(self) -> np.ndarray:
        """(N,2) pixels (x, y) of the garment."""
        return np.argwhere(np.asarray(self.cloth_mask))[:, ::-1]


def dress(figure: Figure, garment: Garment, cloth: Image.Image, bare: Canvas) -> tuple[Image.Image, Image.Image]:
    """A figure without garment, in one -> person (RGB) and labels (L)."""
    canvas = bare.copy()
    painting.wear(canvas, figure.frame, garment, cloth, figure.skin, np.array(figure.creases))
    return canvas.finished()


def flawed(rng: np.random.Generator, wearing: Wearing, allowed: Image.Image) -> tuple[Image.Image, list[Rectangle]]:
    """One to MOST errors inside the mask `allowed` (L) -> the picture, and their boxes, of which no two meet.

    There is at most one of each of GROUPS. Were none to be seen, the picture would be the true one, without a box.
    """
    picture, boxes = wearing.true, list[Rectangle]()
    wanted = rng.integers(1, MOST + 1)
    for group in rng.choice(len(GROUPS), len(GROUPS), replace=False, p=SHARES):
        kinds = GROUPS[group]
        changed = kinds[rng.integers(len(kinds))](rng, wearing, picture)
        found = changed and _kept(picture, changed, allowed)
        if found and not any(_meet(found[1], box) for box in boxes):
            picture, boxes = found[0], [*boxes, found[1]]
        if len(boxes) == wanted:
            break
    return picture, boxes


def _kept(picture: Image.Image, changed: Image.Image, allowed: Image.Image) -> tuple[Image.Image, Rectangle] | None:
    """The change where it is allowed and more than LEAST, and its box; None where it could hardly be seen."""
    difference = _levels(picture, changed)
    around = difference.getbbox()
    if around is None:
        return None
    strong = difference.crop(around).point([255 if level >= LEAST else 0 for level in range(256)])
    mask = Image.new("L", picture.size)
    reach = allowed.crop(around).filter(ImageFilter.MaxFilter(3))  # edges are smooth, and a pixel belongs to both sides
    whole = ImageChops.darker(strong, strong.filter(ImageFilter.MedianFilter(3)))  # without lonely pixels
    mask.paste(ImageChops.darker(whole, reach), around)
    box = mask.getbbox()
    if box is None:
        return None
    result = Image.composite(changed, picture, mask)
    seen = np.asarray(_levels(picture.reduce(QUARTER), result.reduce(QUARTER))) >= SEEN
    return (result, box) if seen.sum() >= SEEN_LEAST else None


def _levels(one: Image.Image, other: Image.Image) -> Image.Image:
    """The largest difference of the three channels (L)."""
    red, green, blue = ImageChops.difference(one, other).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return all(max(one[k], other[k]) < min(one[k + 2], other[k + 2]) for k in (0, 1))


# ---- letters ----


def smeared_letters(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """Letters drawn out sideways until nobody can read them."""
    box = _print_box(wearing)
    smeared = box and _smeared(picture, box, (rng.uniform(7, 12), rng.uniform(1, 3)))
    return smeared and Image.composite(smeared, picture, wearing.cloth_mask)


def wrong_letters(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """Other signs than those of the garment, or the same upside down."""
    text = wearing.garment.print
    if text is None:
        return None
    other = "".join(garments.LETTERS[k] for k in rng.integers(len(garments.LETTERS), size=len(text.text)))
    return _instead(wearing, picture, print=replace(text, text=other, turned=bool(rng.random() < 0.5)))


def moved_letters(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """The print at another place of the torso."""
    text = wearing.garment.print
    if text is None:
        return None
    d, s = text.centre
    centre = (d + rng.choice([-1, 1]) * rng.uniform(0.1, 0.35), s - rng.uniform(0.08, 0.25))
    return _instead(wearing, picture, print=replace(text, centre=centre))


def missing_letters(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """Nothing printed where something should be."""
    return _instead(wearing, picture, print=None) if wearing.garment.print else None


# ---- cloth ----


def shifted_pattern(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A part of the pattern that does not meet the rest."""
    pattern = wearing.garment.pattern
    if pattern.kind in CALM:
        return None
    amount = pattern.period * rng.uniform(0.35, 0.65)
    other = _instead(wearing, picture, pattern=replace(pattern, shift=pattern.shift + amount))
    return Image.composite(other, picture, _patch(rng, wearing))


def lost_pattern(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A part in which the pattern has run together into one colour."""
    pattern = wearing.garment.pattern
    if pattern.kind in CALM:
        return None
    mixed = tuple(np.mean(pattern.colours, axis=0).round().astype(int).tolist())
    other = _instead(wearing, picture, pattern=replace(pattern, kind="plain", colours=(mixed, mixed)))
    return Image.composite(other, picture, _patch(rng, wearing))


def faded(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A part that is paler than the cloth, or greyer where that is pale already."""
    patch = _patch(rng, wearing)
    mean = np.asarray(picture.convert("L"))[np.asarray(patch) > 0].mean()
    pale = Image.new("RGB", picture.size, (236, 236, 236) if mean < 150 else (110, 110, 110))
    return Image.composite(Image.blend(picture, pale, rng.uniform(0.45, 0.7)), picture, patch)


def smeared_cloth(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A part drawn out along one direction."""
    patch = _patch(rng, wearing)
    ways = [(rng.uniform(6, 11), 1.5), (1.5, rng.uniform(6, 11))]
    box = patch.getbbox()
    return box and Image.composite(_smeared(picture, box, ways[rng.integers(2)]), picture, patch)


def blotch(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A spot of another colour with a ragged edge: another cloth, or skin where there should be cloth."""
    x, y = wearing.places[rng.integers(len(wearing.places))]
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = rng.uniform(8, 14) * rng.uniform(0.7, 1.2, len(turn))
    mask = Image.new("L", picture.size)
    corners = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], -1)
    ImageDraw.Draw(mask).polygon(corners.ravel().tolist(), fill=255)
    colours = (*COLOURS, *SKINS)
    other = Image.blend(picture, Image.new("RGB", picture.size, colours[rng.integers(len(colours))]), 0.85)
    return Image.composite(other, picture, ImageChops.darker(mask, wearing.cloth_mask))


# ---- cut ----


def wrong_sleeve(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """One sleeve too long or too short."""
    length = wearing.garment.sleeve
    if length == 0:
        return None
    longer = -1 if length > 0.7 else 1 if length < 0.4 else rng.choice([-1, 1])
    changed = _instead(wearing, picture, sleeve=length + longer * rng.uniform(0.12, 0.25))
    half = Image.new("L", picture.size)
    middle = round((wearing.figure.frame.hips[0] + wearing.figure.frame.neck[0]) / 2)
    half.paste(255, [(0, 0, middle, picture.height), (middle, 0, *picture.size)][rng.integers(2)])
    return Image.composite(changed, picture, half)


def wrong_neck(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """Another neckline."""
    others = [kind for kind in NECKS if kind != wearing.garment.neck]
    return _instead(wearing, picture, neck=others[rng.integers(len(others))])


def wrong_hem(rng: np.random.Generator, wearing: Wearing, picture: Image.Image) -> Image.Image | None:
    """A hem that is too high; the light on the cloth above it stays as it was."""
    hem = wearing.garment.hem + rng.uniform(0.1, 0.2)
    below = wearing.figure.frame.place(np.array([(-2, hem + 0.04), (2, hem + 0.04), (2, -0.6), (-2, -0.6)]))
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).polygon(below.ravel().tolist(), fill=255)
    return Image.composite(_instead(wearing, picture, hem=hem), picture, mask)


Kind = Callable[[np.random.Generator, Wearing, Image.Image], Image.Image | None]
LETTERS: tuple[Kind, ...] = (smeared_letters, smeared_letters, wrong_letters, moved_letters, missing_letters)
PATTERN: tuple[Kind, ...] = (shifted_pattern, lost_pattern)
CLOTH: tuple[Kind, ...] = (faded, smeared_cloth, blotch)
CUT: tuple[Kind, ...] = (wrong_neck, wrong_hem)
GROUPS = (LETTERS, PATTERN, CLOTH, CLOTH, (wrong_sleeve,), CUT)
SHARES = (0.34, 0.22, 0.13, 0.13, 0.09, 0.09)  # of the groups, to be the first that is tried


def _instead(wearing: Wearing, picture: Image.Image, **changes: object) -> Image.Image:
    """The picture, changed by what another garment would have changed in the true one."""
    other = wearing.dressed(replace(wearing.garment, **changes))  # type: ignore[arg-type]
    if picture is wearing.true:
        return other
    differs = _levels(wearing.true, other).point([255 if level else 0 for level in range(256)])
    return Image.composite(other, picture, differs)


def _smeared(picture: Image.Image, box: Rectangle, ratios: tuple[float, float]) -> Image.Image:
    """The picture with a box of it so many times coarser in width and height."""
    part = picture.crop(box)
    size = (max(1, round(part.width / ratios[0])), max(1, round(part.height / ratios[1])))
    picture = picture.copy()
    picture.paste(part.resize(size, Image.Resampling.BOX).resize(part.size, Image.Resampling.BICUBIC), box)
    return picture


def _patch(rng: np.random.Generator, wearing: Wearing) -> Image.Image:
    """A mask (L) of a part of the garment about one of its pixels: a turned rectangle or an ellipse."""
    x, y = wearing.places[rng.integers(len(wearing.places))]
    width, height, turn = rng.uniform(13, 24), rng.uniform(13, 24), rng.uniform(0, np.pi)
    if rng.random() < 0.5:
        shape = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    else:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        shape = np.stack([np.cos(angle), np.sin(angle)], -1)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mask = Image.new("L", wearing.labels.size)
    ImageDraw.Draw(mask).polygon(((shape * (width, height)) @ rotation + (x, y)).ravel().tolist(), fill=255)
    return ImageChops.darker(mask, wearing.cloth_mask)


def _print_box(wearing: Wearing) -> Rectangle | None:
    """Where the print is on the person, with a little room; None without a print."""
    text = wearing.garment.print
    if text is None:
        return None
    frame = wearing.figure.frame.eased(wearing.garment.ease)
    d, s = garments.HANGER.find(garments.outline(text)).T
    front = (d + frame.turn, s)  # exact for a print's middle: turned cloth moves by `turn` there
    corners = frame.place(np.stack(front, -1))
    (left, top), (right, bottom) = corners.min(0) - 2, corners.max(0) + 2
    return (int(left), int(top), int(right), int(bottom))
