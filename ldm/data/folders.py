"""A folder of pictures, at any depth; what is said of them is looked for in this order:

metadata.jsonl, metadata.csv    in any folder: file_name (relative to it), text or caption, label, condition
cat.txt beside cat.jpg          the caption, on one line
cats/1.jpg                      the first folder's name is the class and the caption
nothing                         captions are empty
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ldm.data.items import CONDITIONS, SUFFIXES, TEXTS, Record, digest
from ldm.files import object_of, rows_of, text_of

log = logging.getLogger("ldm")

METADATA = ("metadata.jsonl", "metadata.csv")
Row = tuple[str, dict[str, Any]]  # where it stands, and what it says


class Folder:
    """The pictures of a folder, sorted by path. FileNotFoundError without the folder, ValueError without pictures."""

    def __init__(self, path: Path):
        files = _files(path)
        pictures = _pictures(files)
        metadata = [file for file in files if file.name in METADATA]
        self.path, self.classes = path, list[str]()
        self.records: list[Record] = []
        if metadata:
            self._listed(metadata, pictures)
        elif any(picture.with_suffix(".txt").is_file() for picture in pictures):
            self.records = [self._record(picture, caption=text) for picture, text in _sidecars(pictures)]
        elif pictures and all(picture.parent != path for picture in pictures):
            self._classified(pictures)
        else:
            self.records = [self._record(picture) for picture in pictures]
        if not self.records:
            raise _empty(path)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def identity(self) -> dict[str, Any]:
        said = [(record.name.removeprefix(str(self.path)), record.caption, record.label) for record in self.records]
        return {"kind": "folder", "pictures": len(said), "listing": digest(said)}

    def _record(self, picture: Path, **said: Any) -> Record:
        return Record(str(picture), picture, **said)

    def _classified(self, pictures: list[Path]) -> None:
        """Records of pictures whose first folder names their class."""
        names = [picture.relative_to(self.path).parts[0] for picture in pictures]
        self.classes = sorted(set(names))
        number = {name: i for i, name in enumerate(self.classes)}
        self.records = [
            self._record(picture, caption=in_words(name), label=number[name])
            for picture, name in zip(pictures, names, strict=True)
        ]

    def _listed(self, metadata: list[Path], pictures: list[Path]) -> None:
        """Records of the pictures that metadata files name; the log says how many others there are."""
        rows = [(file, *row) for file in metadata for row in _rows(file)]
        rows.sort(key=lambda row: (row[0].parent / str(row[2].get("file_name"))).parts)
        labels = [row.get("label") for *_, row in rows]
        self.classes, numbers = numbered(labels, str(metadata[0]))
        self.records = [
            _row_record(file.parent, place, row, number)
            for (file, place, row), number in zip(rows, numbers, strict=True)
        ]
        used = {record.picture for record in self.records} | {record.condition for record in self.records}
        if others := [picture for picture in pictures if picture not in used]:
            log.warning("%s: %d pictures are in no metadata file and are left out", self.path, len(others))


def pictures_in(path: Path) -> list[Path]:
    """A folder -> its pictures, at any depth, sorted by path. Raises as `Folder` does."""
    found = _pictures(_files(path))
    if not found:
        raise _empty(path)
    return found


def in_words(name: str) -> str:
    """A folder's name -> a caption: "golden_retriever" -> "golden retriever"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def caption_of(row: dict[str, Any], place: str) -> str:
    """The text of a row, "" where it has none; ValueError where it is no string."""
    column = next((name for name in TEXTS if row.get(name) is not None), None)
    value = "" if column is None else row[column]
    if not isinstance(value, str):
        raise ValueError(f"{place}: {column} is {str(value)[:60]!r}, expected one string")
    return value


def numbered(labels: Sequence[Any], place: str) -> tuple[list[str], list[int | None]]:
    """Labels, numbers or names -> the names of the classes ([] for numbers), and each label's number."""
    if all(label in (None, "") for label in labels):
        return [], [None] * len(labels)
    if any(label in (None, "") for label in labels):
        raise ValueError(f"{place}: label is missing in some rows, expected in all or in none")
    if all(_is_number(label) for label in labels):
        return [], [int(label) for label in labels]
    classes = sorted({str(label) for label in labels})
    number = {name: i for i, name in enumerate(classes)}
    return classes, [number[str(label)] for label in labels]


def _is_number(label: Any) -> bool:
    digits = isinstance(label, str) and label.isdecimal() and len(label) < 10
    return digits or (isinstance(label, int) and not isinstance(label, bool))


def _row_record(folder: Path, place: str, row: dict[str, Any], label: int | None) -> Record:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: file_name is {name!r}, expected a picture's path relative to {folder}")
    shown = next((row[column] for column in CONDITIONS if row.get(column)), None)
    if not isinstance(shown, str | None):
        raise ValueError(f"{place}: the second picture is {str(shown)[:60]}, expected its path relative to {folder}")
    condition = None if shown is None else folder / shown
    return Record(str(folder / name), folder / name, caption_of(row, place), label, condition)


def _rows(file: Path) -> Iterator[Row]:
    """The rows of a metadata file, each with its place such as metadata.jsonl:3."""
    text = text_of(file)
    if file.suffix == ".csv":
        yield from ((f"{file}:{number}", row) for number, row in rows_of(text, str(file)))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", object_of(line, f"{file}:{number}")


def _sidecars(pictures: list[Path]) -> Iterator[tuple[Path, str]]:
    """Pictures and the text beside each, "" where there is none, which the log counts."""
    silent = 0
    for picture in pictures:
        beside = picture.with_suffix(".txt")
        silent += not beside.is_file()
        yield picture, " ".join(text_of(beside).split()) if beside.is_file() else ""
    if silent:
        log.warning("%d of %d pictures have no .txt beside them: their captions are empty", silent, len(pictures))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return sorted((p for p in path.rglob("*") if _visible(p.relative_to(path))), key=lambda p: p.parts)


def _pictures(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _empty(path: Path) -> ValueError:
    return ValueError(f"{path}: no pictures, expected some of {', '.join(SUFFIXES)} there or in its folders")


def _visible(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)
