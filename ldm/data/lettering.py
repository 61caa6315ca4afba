"""Text: lines of letters in many sizes and colours, straight or turned, on plain ground or on a gradient.

The font is Pillow's own (Aileron Regular), so that it is at hand wherever the package is.
"""

import string
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.data.gradients import gradient
from ldm.data.palettes import palette

SIZES = (0.06, 0.5)  # of the letters, of the picture's side
SMALLEST = 7  # pixels: below, nobody could read them
CONTRAST = 70  # grey levels between letters and ground, at least
LETTERS = "etaoinsrhldcumfpgwybvkxjqzeeeaaoiinnstr"  # about as often as in English
SIGNS = string.digits + "0123456789" + ".,:;!?-+=/&%()#@$"


def draw(rng: np.random.Generator, side: int) -> Image.Image:
    """RGB picture, `side` x `side`: half of them a page of lines in one size, half words here and there."""
    ground = gradient(rng, side) if rng.random() < 0.3 else Image.new("RGB", (side, side), inks(rng, None)[0])
    return page(rng, ground) if rng.random() < 0.5 else scattered(rng, ground)


def page(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Lines of words in one size from edge to edge; a quarter of the pages turned."""
    side = picture.width
    size = letter_size(rng, side, 0.2)
    step = round(size * rng.uniform(1.05, 1.6))
    lines = [" ".join(word(rng) for _ in range(1 + side // (3 * size))) for _ in range(1 + side // step)]
    mask = Image.new("L", picture.size)
    corner = (float(rng.integers(-size, size + 1)), float(rng.integers(-step, step)))
    ImageDraw.Draw(mask).multiline_text(corner, "\n".join(lines), 255, font(size), spacing=step - size)
    return inked(rng, picture, turned(rng, mask, 0.25))


def scattered(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """One to five words, each in its own size, colour and slant."""
    side = picture.width
    for _ in range(rng.integers(1, 6)):
        size = letter_size(rng, side, SIZES[1])
        mask = Image.new("L", picture.size)
        place = (side * rng.uniform(0.02, 0.98), side * rng.uniform(0.1, 0.9))
        stroke = int(rng.integers(0, 1 + size // 16))
        ImageDraw.Draw(mask).text(place, word(rng), 255, font(size), anchor="mm", stroke_width=stroke)
        inked(rng, picture, turned(rng, mask, 0.5))
    return picture


def inked(rng: np.random.Generator, picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with ink of one colour where the mask is."""
    ground = np.asarray(picture.convert("L")).mean()
    picture.paste(inks(rng, float(ground))[0], mask=mask)
    return picture


def turned(rng: np.random.Generator, mask: Image.Image, share: float) -> Image.Image:
    """A `share` of the masks turned about their centre, slightly or by any angle."""
    if rng.random() >= share:
        return mask
    angle = rng.uniform(-20, 20) if rng.random() < 0.7 else rng.uniform(-180, 180)
    return mask.rotate(angle, Image.Resampling.BICUBIC)


def inks(rng: np.random.Generator, ground: float | None) -> list[tuple[int, ...]]:
    """Colours for letters on a ground of that grey, those that stand out first; of no ground in particular for None."""
    colours = np.vstack([palette(rng, 6), [[0, 0, 0], [255, 255, 255]]]).round().astype(int)
    if ground is not None:
        far = np.abs(colours @ [0.299, 0.587, 0.114] - ground) >= CONTRAST
        colours = colours[np.argsort(~far, kind="stable")]
    elif rng.random() < 0.3:
        colours = colours[::-1]
    return [tuple(colour) for colour in colours.tolist()]


def word(rng: np.random.Generator) -> str:
    """One to nine letters, in small ones, capitals, or both; or a number or signs."""
    length = int(rng.integers(1, 10))
    if rng.random() < 0.15:
        return "".join(SIGNS[i] for i in rng.integers(len(SIGNS), size=1 + length // 2))
    letters = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=length))
    return (letters, letters, letters.capitalize(), letters.upper())[rng.integers(4)]


def letter_size(rng: np.random.Generator, side: int, largest: float) -> int:
    low, high = np.log(SIZES[0] * side), np.log(largest * side)
    return max(SMALLEST, round(np.exp(rng.uniform(low, high))))


@lru_cache(maxsize=512)
def font(size: int) -> ImageFont.FreeTypeFont:
    """ValueError where Pillow was built without FreeType, and so has no font of any size."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise ValueError("pictures of text: expected Pillow with FreeType")
    return found
