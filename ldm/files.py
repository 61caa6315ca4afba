"""Files that appear whole or not at all."""

import csv
import io
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """path -> a file to write beside it, which takes its place on success and is removed on any failure.

    A kill at any moment leaves the old file as it was. FileNotFoundError where there is no such folder, ValueError for
    whatever else forbids the writing, a full disk among it: one line that names the path.
    """
    target = Path(os.path.realpath(path))  # through a link, not over it
    temporary = target.with_name(f".{uuid4().hex}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: cannot be written, there is no folder {target.parent}") from None
    except (OSError, ValueError, OverflowError, struct.error) as error:  # the last two: a side too long for a field
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be written: {reason}") from error


def text_of(path: Path) -> str:
    """A file in UTF-8 -> its text, without a mark. FileNotFoundError, or ValueError that names the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None


def object_of(text: str | bytes, place: str) -> dict[str, Any]:
    """JSON -> the object that it is; ValueError that names the place for what is no JSON, or no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a JSON object, found {type(value).__name__}")
    return value


def rows_of(text: str, place: str) -> Iterator[tuple[int, dict[str, str]]]:
    """A table in CSV -> (line, row by the names of the first); ValueError that names a line of another width."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if None in row or None in row.values():
                width = len(reader.fieldnames or [])
                raise ValueError(f"{place}, line {reader.line_num}: expected {width} columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{place}, line {reader.line_num + 1}: no CSV: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON in UTF-8, which has escapes for what is no UTF-8 in a file's name."""
    with replacing(path) as file:
        file.write(f"{json_text(value)}\n".encode())


def json_text(value: Any, encoding: str = "utf-8") -> str:
    """A value as indented JSON; all beyond ASCII is escaped where the encoding lacks some of it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2, default=str)
    return text


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, with strings beside them."""
    from safetensors.torch import save

    with replacing(path) as file:
        file.write(save({name: value.contiguous() for name, value in tensors.items()}, metadata or {"format": "pt"}))


def slug(text: str) -> str:
    """Any text -> a file's name without suffix: small letters, digits and dashes, at most 60."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "picture"
