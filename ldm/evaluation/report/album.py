"""Pictures of a page, on disk until it is written: image --keep--> Shown --uri--> data:image/webp;base64,..."""

import base64
import io
from tempfile import TemporaryFile
from typing import NamedTuple

from PIL import Image

LARGE, SMALL = 512, 160  # pixels of the longer side, at most
EXACT = 96  # up to here a picture is kept as it is: compression would be seen, and its size does not matter
QUALITY = {LARGE: 88, SMALL: 80}


class Kept(NamedTuple):
    """Where a picture lies in the album, and its size in pixels."""

    start: int
    length: int
    width: int
    height: int


class Shown(NamedTuple):
    """A picture in the two sizes that a page has use for."""

    large: Kept
    small: Kept


class Album:
    """Pictures in a temporary file, gone with the album: memory holds one."""

    def __init__(self) -> None:
        self._file = TemporaryFile()

    def keep(self, image: Image.Image) -> Shown:
        """image -> where it lies, reduced to LARGE and to SMALL pixels where it is larger."""
        large = self._add(image, LARGE)
        return Shown(large, self._add(image, SMALL) if max(image.size) > SMALL else large)

    def uri(self, kept: Kept) -> str:
        """The picture as the `src` of an img."""
        self._file.seek(kept.start)
        return "data:image/webp;base64," + base64.b64encode(self._file.read(kept.length)).decode()

    def _add(self, image: Image.Image, side: int) -> Kept:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, "WEBP", quality=QUALITY[side], lossless=max(small.size) <= EXACT)
        start = self._file.seek(0, io.SEEK_END)
        return Kept(start, self._file.write(data.getvalue()), *small.size)
