"""Sprites, painted and scaled, on their ground."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ldm.data import sprites
from ldm.data.scenes import settings
from ldm.data.scenes.vocabulary import COLOURS

if TYPE_CHECKING:
    from ldm.data.scenes.scene import Placed

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)
DARKEST = 0.12  # of a tint, where a sprite is black
BODY = (50, 250)  # the range of luma in which the body of a sprite is looked for
GLOSS = 64  # of luma, from the body's to that of a highlight that is white


def paint(ground: Image.Image, placed: Sequence["Placed"]) -> Image.Image:
    """A square RGB picture and what stands on it -> another, drawn over in that order."""
    picture, side = ground.copy(), ground.width
    for thing in placed:
        width = max(1, round(thing.width * side))
        sprite = scaled(thing.name, thing.tint, width)
        picture.paste(sprite, (round(thing.x * side - width / 2), round(thing.y * side - width / 2)), sprite)
    return picture


def ground(background: str, setting: str | None, side: int) -> Image.Image:
    """RGB picture, `side` x `side`: a setting, or a plain colour."""
    return settings.painted(setting, side) if setting else Image.new("RGB", (side, side), COLOURS[background])


@lru_cache(maxsize=2_000)
def scaled(name: str, tint: str | None, width: int) -> Image.Image:
    """RGBA picture, `width` x `width`."""
    return coloured(name, tint).resize((width, width), Image.Resampling.LANCZOS)


@lru_cache(maxsize=2_000)
def coloured(name: str, tint: str | None) -> Image.Image:
    """A sprite as it is, or in another colour."""
    return tinted(sprites.sprite(name), COLOURS[tint]) if tint else sprites.sprite(name)


def tinted(sprite: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """RGBA -> RGBA in the shades of one colour: dark outlines and eyes stay dark, highlights stay light.

    The luma runs over a ramp, nearly black -> colour -> nearly white, with the colour where most of the sprite's body
    is: at the median of its luma. Of a body that is white already the highlights are no lighter.
    """
    pixels = np.asarray(sprite)
    luma = pixels[..., :3] @ LUMA
    body = float(np.clip(np.median(luma[pixels[..., 3] > 127]), *BODY))
    gloss = min(1.0, (255 - body) / GLOSS)
    shades = [np.interp(luma, (0, body, 255), (DARKEST * c, c, c + gloss * (255 - c))) for c in colour]
    return Image.fromarray(np.dstack([*shades, pixels[..., 3]]).round().astype(np.uint8))
