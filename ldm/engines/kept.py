"""Files that are made once and kept: whole and unchanged, or made again.

    path, bytes --keep--> the file, and its checksum beside it;   path --kept--> bytes, or None

They lie in a folder of the user's cache, or where LDM_CACHE says. Whatever is in it may be deleted at any time.
"""

import logging
import os
import zlib
from pathlib import Path

from ldm.files import replacing

log = logging.getLogger("ldm")

PIECE = 1 << 24  # bytes that are summed at once


def home() -> Path:
    """The folder of all that is kept: LDM_CACHE, or `ldm` in the user's cache."""
    if told := os.environ.get("LDM_CACHE"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldm"


def keep(path: Path, content: bytes) -> None:
    """Writes a file and its checksum; where it cannot be written, the log says so and nothing is left."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
        seal(path)
    except (OSError, ValueError) as error:
        log.warning("not kept: %s", error)


def seal(path: Path) -> None:
    """Writes down the checksum of a file that is there."""
    with replacing(_seal(path)) as file:
        file.write(_checksum(path).encode())


def whole(path: Path) -> bool:
    """Whether a file is there as it was sealed."""
    try:
        return _seal(path).read_text() == _checksum(path)
    except (OSError, UnicodeDecodeError):
        return False


def kept(path: Path) -> bytes | None:
    """A file's content; None where it is not there, or not as it was kept."""
    try:
        content, sealed = path.read_bytes(), _seal(path).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    if sealed == _said(zlib.crc32(content), len(content)):
        return content
    log.warning("%s is damaged: made again", path)
    return None


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.crc32")


def _checksum(path: Path) -> str:
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
    return _said(found, path.stat().st_size)


def _said(checksum: int, size: int) -> str:
    return f"{checksum:08x} {size}"
