"""Content that is packed, or whose parts are summed: opened, damaged inside, and closed again as its writer would.

Without this a check sum would refuse nearly every damage before a reader comes to see it.
"""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

PNG = b"\x89PNG\r\n\x1a\n"
BLOCK = tarfile.BLOCKSIZE


class Shell(NamedTuple):
    """content -> its parts; content, number, part -> content with that part in place of its own, closed again."""

    parts: Callable[[bytes], list[bytes]]
    closed: Callable[[bytes, int, bytes], bytes]


def shell_of(content: bytes) -> Shell | None:
    """By the first bytes, as readers see it; None for content without any."""
    if content.startswith(PNG):
        return Shell(_chunks, _with_chunk)
    if content.startswith(b"PK\x03\x04"):
        return Shell(_members, _with_member)
    if content.startswith(b"\x1f\x8b"):
        return Shell(lambda content: [gzip.decompress(content)], lambda content, number, part: gzip.compress(part))
    if content[8:9] == b"{":
        return Shell(_header_and_data, _with_header_or_data)
    return Shell(_heads, _with_head) if content[257:262] == b"ustar" else None


def inside(content: bytes, number: int, damage: Callable[[bytes], bytes]) -> bytes:
    """Content with one of its parts damaged; the whole, where it has no parts or is damaged too much to tell them."""
    shell = shell_of(content)
    try:
        parts = shell.parts(content) if shell else []
    except Exception:  # nearly every kind: a second damage meets what the first has made of it
        parts = []
    if shell is None or not parts:
        return damage(content)
    number %= len(parts)
    return shell.closed(content, number, damage(parts[number]))


# ---- PNG: a length, a name, a body, a sum ----


def _pieces(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _chunks(content: bytes) -> list[bytes]:
    return [body for _, body in _pieces(content)]


def _with_chunk(content: bytes, number: int, part: bytes) -> bytes:
    bodies = [(name, part if i == number else body) for i, (name, body) in enumerate(_pieces(content))]
    return PNG + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in bodies
    )


# ---- zip, which torch's checkpoints are ----


def _members(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _with_member(content: bytes, number: int, part: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as copy:
        for i, name in enumerate(archive.namelist()):
            copy.writestr(zipfile.ZipInfo(name), part if i == number else archive.read(name))
    return out.getvalue()


# ---- safetensors: the length of a header in JSON, the header, numbers ----


def _header_and_data(content: bytes) -> list[bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return [content[8:end], content[end:]]


def _with_header_or_data(content: bytes, number: int, part: bytes) -> bytes:
    parts = _header_and_data(content)
    parts[number] = part
    return len(parts[0]).to_bytes(8, "little") + parts[0] + parts[1]


# ---- tar: a head for each member, which holds its own sum ----


def _places(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [member.offset for member in archive]


def _heads(content: bytes) -> list[bytes]:
    return [content[place : place + BLOCK] for place in _places(content)]


def _with_head(content: bytes, number: int, part: bytes) -> bytes:
    place, head = _places(content)[number], part[:BLOCK].ljust(BLOCK, b"\0")
    summed = sum(head[:148]) + 8 * ord(" ") + sum(head[156:])
    head = head[:148] + b"%06o\0 " % summed + head[156:]
    return content[:place] + head + content[place + BLOCK :]
