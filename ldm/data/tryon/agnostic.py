"""The region of a person that is to be drawn anew, from parse map and key points, for sets that have none.

Along the limbs that a garment may cover it is as wide as any garment, so that what is left does not tell what was worn;
the head and the other half of the body stay. So do VITON-HD's and LaDI-VTON's loaders; the measures are ours.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ldm.data.tryon.parsing import Labels, where
from ldm.data.tryon.pose import sticks

CATEGORIES = ("upper_body", "lower_body", "dresses")
GREY = (128, 128, 128)

HEAD = {"hat", "hair", "glasses", "face"}
UPPER = {"top", "dress", "coat", "skin", "arm"}
LOWER = {"dress", "skirt", "trousers", "belt", "leg"}
FEET = {"shoe", "socks"}
ANEW = {"upper_body": UPPER, "lower_body": LOWER, "dresses": UPPER | LOWER}
KEPT = {
    "upper_body": HEAD | FEET | {"bag"} | LOWER - {"dress"},
    "lower_body": HEAD | FEET | {"bag", "scarf", "glove"} | UPPER - {"dress"},
    "dresses": HEAD | FEET | {"bag"},
}

# Key points along which a garment may lie; those that end where they begin are filled.
TORSO, ARMS, LEGS = (2, 5, 11, 8, 2), ((2, 3, 4), (5, 6, 7)), (8, 9, 10, 13, 12, 11, 8)
LINES = {"upper_body": (TORSO, *ARMS), "lower_body": (LEGS,), "dresses": (TORSO, *ARMS, LEGS)}

# In widths of the shoulders
LIMB = 0.3  # radius of what is drawn along the key points
NECK = 0.4  # radius about the neck
GROWTH = 0.06  # of labelled regions, over their edges
NECKLINE = 0.2  # height over the shoulders from which on a face is kept, since ATR counts the neck as face


def region(parse: Image.Image, points: np.ndarray, labels: Labels, category: str) -> Image.Image:
    """parse map, points (18,2) of `pose`, one of CATEGORIES -> mask (L), 255 what is to be drawn anew.

    `labels` are what the numbers of the parse map stand for. Black all over where nothing shows a garment.
    """
    unit = _shoulders(points, parse.size)
    anew = _grown(where(parse, labels, ANEW[category]), unit) | _limbs(points, parse.size, category, unit)
    kept = where(parse, labels, KEPT[category])
    if category != "lower_body":
        kept &= ~(where(parse, labels, {"face"}) & _under_the_chin(points, parse.size, unit))
    return Image.fromarray((anew & ~kept).astype(np.uint8) * 255)


def greyed(person: Image.Image, mask: Image.Image) -> Image.Image:
    """person (RGB), mask (L) -> person with grey where the mask is white."""
    return Image.composite(Image.new("RGB", person.size, GREY), person, mask)


def _shoulders(points: np.ndarray, size: tuple[int, int]) -> float:
    """The width of the shoulders in pixels; a sixth of the picture's where they are narrower, as from the side."""
    return float(np.fmax(np.linalg.norm((points[2] - points[5]) * size), size[0] / 6))


def _grown(mask: np.ndarray, unit: float) -> np.ndarray:
    """A blur reaches over edges as a maximum filter does, which takes a second where pictures are large."""
    blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(max(1, round(GROWTH * unit))))
    return (np.asarray(blurred) > 0) | mask


def _limbs(points: np.ndarray, size: tuple[int, int], category: str, unit: float) -> np.ndarray:
    canvas = Image.new("L", size)
    draw, placed = ImageDraw.Draw(canvas), points * size
    for line in LINES[category]:
        seen = placed[[i for i in line if np.isfinite(placed[i]).all()]]
        if line[0] == line[-1] and len(seen) > 2:
            draw.polygon([tuple(point) for point in seen], 255)
        sticks(draw, seen, LIMB * unit, 255)
    if category != "lower_body" and np.isfinite(placed[1]).all():
        draw.circle(tuple(placed[1]), NECK * unit, 255)
    return np.asarray(canvas) > 0


def _under_the_chin(points: np.ndarray, size: tuple[int, int], unit: float) -> np.ndarray:
    """(H,W) bool: what lies below a line a little over the shoulders; nothing unless they are seen from the front."""
    (x, y), (other_x, other_y) = points[2] * size, points[5] * size
    rows, columns = np.indices((size[1], size[0]))
    if not abs(other_x - x) > abs(other_y - y):  # NaN among them
        return np.zeros_like(rows, bool)
    return rows > y + (columns - x) * (other_y - y) / (other_x - x) - NECKLINE * unit
