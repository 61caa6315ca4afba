"""Aspect buckets: pictures of many shapes in batches of one shape each, so that little is cropped away.

    picture --nearest aspect--> one of a few sizes (W, H) of one area; only pictures of one size share a batch

NovelAI 2022, "Aspect Ratio Bucketing".
"""

import io
import math
from collections.abc import Sequence

from PIL import Image
from tqdm import tqdm

from ldm.data.items import RecordSource
from ldm.data.pictures import Size

LIMIT = 2.0  # the longer side over the shorter
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def bucket_sizes(side: int, unit: int = 64, limit: float = LIMIT) -> list[Size]:
    """Sizes (W, H) of at most side x side pixels and nearly as many, sides multiples of `unit`, from tall to wide.

    ValueError where `side` is no multiple of `unit`.
    """
    if unit < 1 or side < 1 or side % unit:
        raise ValueError(f"side {side}: expected a multiple of the buckets' unit, {unit}")
    short = range(unit, side + 1, unit)
    tall = [(width, side * side // (width * unit) * unit) for width in short]
    tall = [(width, height) for width, height in tall if height <= limit * width]
    return tall + [(height, width) for width, height in reversed(tall) if width != height]


def nearest(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect is nearest to that of `size`, by its logarithm."""
    aspect = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - aspect))


def assigned(source: RecordSource, side: int, unit: int = 64) -> list[Size]:
    """The bucket of every picture of a source. One that cannot be read gets the square one, and is met later."""
    buckets = bucket_sizes(side, unit)
    places = tqdm(range(len(source)), desc="shapes", unit="picture", disable=None, delay=2)
    return [nearest(_shape(source, i) or (side, side), buckets) for i in places]


def _shape(source: RecordSource, index: int) -> Size | None:
    """(W, H) of a picture as it stands upright, by its head alone; None where it cannot be read."""
    try:
        picture = source[index].picture
        if not isinstance(picture, Image.Image):
            picture = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)  # type: ignore[arg-type]
        # a PNG without EXIF before its pixels would be decoded to look for one behind them
        searched = picture.format != "PNG" or "exif" in picture.info
        turned = searched and picture.getexif().get(0x0112) in TURNED
        return picture.size[::-1] if turned else picture.size
    except Exception:  # as many as Pillow's decoders raise; what is wrong is said when the picture is met
        return None
