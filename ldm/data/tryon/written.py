"""What is written of a set: lists of pairs and JSON; what is wrong in them is said by file and line."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 64 * 2**20  # bytes of one list or JSON file


@dataclass(frozen=True)
class Pair:
    """A line of a list: the files of a person and of a garment; `category` as it is written there, or None."""

    person: str
    garment: str
    category: str | None = None


def pairs(path: Path, unusable: Callable[[str, Exception], None]) -> list[Pair]:
    """A list of pairs -> what its lines say, in their order; `unusable` is told the place and the fault of the others.

    A line has the names of two files, and in DressCode's lists at the root the number of a category; empty lines are
    passed over. FileNotFoundError without the file, ValueError where it is no text.
    """
    found = []
    for number, line in enumerate(text(path).split("\n"), 1):
        try:
            if line.strip():
                found.append(_pair(line.split()))
        except ValueError as error:
            unusable(f"{path}:{number}", error)
    return found


def _pair(words: list[str]) -> Pair:
    if len(words) not in (2, 3):
        raise ValueError(f"{len(words)} words, expected the names of two files: a person's and a garment's")
    return Pair(file_name(words[0]), file_name(words[1]), *words[2:])


def file_name(word: str) -> str:
    """The name of a file in its folder, unchanged; ValueError for a path, which could lead out of the set."""
    if not word or not word.isprintable() or word.startswith(".") or set(word) & set("/\\:"):
        raise ValueError(f"{word[:80]!r}: expected a file's name without folders")
    return word


def text(path: Path) -> str:
    """A file in UTF-8 -> its text. FileNotFoundError, or ValueError, of one line that names the file."""
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > LIMIT:
        raise ValueError(f"{path}: more than {LIMIT >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file -> the object in it. FileNotFoundError, or ValueError for what is none or says a key twice."""
    try:
        value = json.loads(text(path), object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]!r} stands there twice") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in members:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found
