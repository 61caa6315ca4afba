"""What a source holds, and what a training is given.

Record (a picture not yet read, and what is said of it) --Pictures--> Item (picture, caption)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ldm.images import Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
TEXTS = ("text", "caption", "prompt")  # what a caption's column may be called
CONDITIONS = ("condition", "conditioning_image")  # the same of a picture's that conditions


class Item(tuple[Image.Image, str]):
    """(picture, caption), as which it unpacks; `label` and `condition` stand beside them.

    The picture is RGB. `label` is the number of its class, None where the data have none; `condition` is a second
    picture (a mask, a layout, a rough version) of the same size and under the same crop, or None.
    """

    label: int | None
    condition: Image.Image | None

    def __new__(
        cls, picture: Image.Image, caption: str, label: int | None = None, condition: Image.Image | None = None
    ) -> Item:
        item = super().__new__(cls, (picture, caption))
        item.label, item.condition = label, condition
        return item

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.picture, self.caption, self.label, self.condition

    @property
    def picture(self) -> Image.Image:
        """RGB."""
        return self[0]

    @property
    def caption(self) -> str:
        """Words, or "" where there are none."""
        return self[1]


@dataclass(frozen=True)
class Record:
    """A picture where it lies, as a path, bytes or a PIL image; `name` is what an error calls it."""

    name: str
    picture: Source
    caption: str = ""
    label: int | None = None
    condition: Source | None = None

    def in_memory(self) -> Record:
        """The record with its files read, so that what is hashed is what is decoded. OSError where there is none."""
        condition = None if self.condition is None else _in_memory(self.condition, self.name)
        return Record(self.name, _in_memory(self.picture, self.name), self.caption, self.label, condition)

    def content(self) -> str:
        """32 hexadecimal digits of what its pictures are made of: the bytes of the files, not their dates or names."""
        digest = hashlib.sha256()
        for source in (self.picture, self.condition):
            data = b"" if source is None else _bytes(_in_memory(source, self.name))
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()[:32]


class RecordSource(Protocol):
    """A sequence of records; `classes` are the names that labels stand for, [] where there are none."""

    classes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def identity(self) -> dict[str, Any]:
        """What the data are, in JSON: for checkpoints and caches."""
        ...


class NamedBytes(io.BytesIO):
    """A file in memory that errors call by its name."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


def _in_memory(source: Source, name: str) -> Source:
    if isinstance(source, Path):
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file")
        source = source.read_bytes()
    return NamedBytes(source, name) if isinstance(source, bytes) else source


def _bytes(source: Source) -> bytes:
    if isinstance(source, NamedBytes):
        return source.getvalue()
    assert isinstance(source, Image.Image)
    return f"{source.mode} {source.size}".encode() + source.tobytes()


def digest(values: Sequence[Any]) -> str:
    """16 hexadecimal digits of a list of JSON values, to tell it from others."""
    sha = hashlib.sha256()
    for value in values:
        sha.update(repr(value).encode() + b"\n")
    return sha.hexdigest()[:16]
