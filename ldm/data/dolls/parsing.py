"""Label maps as VITON-HD has them: the numbers of CIHP, in which 10 is the skin of neck and torso."""

from PIL import Image

# Left and right are the person's.
LABELS = {
    "background": 0, "hair": 2, "upper clothes": 5, "trousers": 9, "torso": 10, "skirt": 12, "face": 13,
    "left arm": 14, "right arm": 15, "left leg": 16, "right leg": 17,
}  # fmt: skip


def palettised(labels: Image.Image) -> Image.Image:
    """A map L of label numbers -> the same numbers as a palette picture, in the colours of PASCAL VOC."""
    picture = labels.copy()
    picture.putpalette(PALETTE)
    return picture


def where(labels: Image.Image, *names: str) -> Image.Image:
    """A mask L, 255 where the label is one of those names'."""
    wanted = {LABELS[name] for name in names}
    return labels.point([255 if number in wanted else 0 for number in range(256)])


def _palette() -> list[int]:
    """PASCAL VOC's colours: the bits of a number, spread over the channels from the highest bit down."""
    spread = [[sum(((number >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(3)) for c in range(3)]
              for number in range(256)]  # fmt: skip
    return [channel for colour in spread for channel in colour]


PALETTE = _palette()
