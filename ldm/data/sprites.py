"""The sprite sheet: Noto Color Emoji and its CLDR names, one WebP and one list of names.

The package carries the sheet that this command drew, so that nothing else needs the font:

    python -m ldm.data.sprites --font NotoColorEmoji.ttf      (needs the extra `sprites`, and Pillow with raqm)

Source: Noto Color Emoji by Google, SIL Open Font License 1.1 (`sprites/OFL.txt`); names from Unicode CLDR.
"""

import argparse
import json
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent / "sprites"
SIZE = 96  # pixels of one square sprite
COLUMNS = 44
FONT_SIZE = 109  # the one size at which the font holds bitmaps, 136 x 128


@cache
def names() -> list[str]:
    """The CLDR names of all sprites, in the order of the sheet."""
    return json.loads((FOLDER / "names.json").read_text(encoding="utf-8"))


@cache
def _sheet() -> Image.Image:
    return Image.open(FOLDER / "sheet.webp").convert("RGBA")


def sprite(name: str) -> Image.Image:
    """A CLDR name such as "red apple" -> RGBA picture, SIZE x SIZE, transparent around the object."""
    try:
        row, column = divmod(names().index(name), COLUMNS)
    except ValueError:
        raise ValueError(f"no emoji is called {name!r}; ldm.data.sprites.names() lists them") from None
    return _sheet().crop((column * SIZE, row * SIZE, (column + 1) * SIZE, (row + 1) * SIZE))


def draw(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """One emoji in the font's own colours, centred in a square; None where the font has no single glyph for it."""
    left, top, right, bottom = font.getbbox(character)
    if right - left != 136:  # a missing glyph is narrower, a sequence that the font cannot join is wider
        return None
    canvas = Image.new("RGBA", (136, 136))
    ImageDraw.Draw(canvas).text((-left, 4 - top), character, font=font, embedded_color=True)
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def build(font_path: Path, folder: Path = FOLDER) -> int:
    """Draws every emoji without a skin tone into `folder`; returns how many there are."""
    import emoji

    font = ImageFont.truetype(str(font_path), FONT_SIZE)
    pictures: dict[str, Image.Image] = {}
    for character, entry in emoji.EMOJI_DATA.items():
        toned = any(0x1F3FB <= ord(c) <= 0x1F3FF for c in character)
        name = entry["en"].strip(":").replace("_", " ").replace("’", "'")
        if entry["status"] == emoji.STATUS["fully_qualified"] and not toned and name not in pictures:
            if (picture := draw(character, font)) and picture.getbbox():
                pictures[name] = picture
    sheet = Image.new("RGBA", (COLUMNS * SIZE, -(-len(pictures) // COLUMNS) * SIZE))
    for i, name in enumerate(sorted(pictures)):
        sheet.paste(pictures[name], (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "sheet.webp", quality=90, method=6)
    (folder / "names.json").write_text(json.dumps(sorted(pictures), indent=0, ensure_ascii=False), encoding="utf-8")
    return len(pictures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", type=Path, required=True, help="path of NotoColorEmoji.ttf")
    print(f"{build(parser.parse_args().font)} sprites")
