"""Hugging Face datasets on disk, as save_to_disk wrote them or as parquet files; needs the package `datasets`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldm.checkpoints.faults import reason
from ldm.data.folders import caption_of, in_words, numbered
from ldm.data.items import CONDITIONS, TEXTS, Record

PICTURES = ("image", "img", "picture", "jpg", "png")  # what a picture's column may be called
LABELS = ("label", "labels", "class")


class Table:
    """A dataset's rows: its picture's column, text or caption, label; see PICTURES, TEXTS, LABELS and CONDITIONS.

    ValueError that lists the columns where there is no picture's, or the splits where `split` is none of them, and
    that names the table where it is damaged.
    """

    def __init__(self, path: Path, split: str | None = None):
        import datasets

        table = _table(path, split)
        names = table.column_names
        picture = next((name for name in PICTURES if name in names), None)
        if picture is None:
            raise ValueError(f"{path}: no column of pictures among {', '.join(names)}; expected {', '.join(PICTURES)}")
        self.path, self.picture = path, picture
        self.condition = next((name for name in CONDITIONS if name in names), None)
        with _reading(path):
            for name in filter(None, (picture, self.condition)):
                table = table.cast_column(name, datasets.Image(decode=False))
        self.table, self.texts = table, [name for name in TEXTS if name in names]
        self.classes, self.labels = _labels(table, path)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Record:
        name, label = f"{self.path}, row {index}", self.labels[index]
        with _reading(name):
            row = self.table[index]
        caption = caption_of(row, name)
        if not self.texts and label is not None and self.classes:
            caption = in_words(self.classes[label])
        condition = row[self.condition] if self.condition else None
        return Record(name, _source(row[self.picture], name), caption, label, condition and _source(condition, name))

    def identity(self) -> dict[str, Any]:
        return {"kind": "table", "pictures": len(self), "fingerprint": self.table._fingerprint}


def is_table(path: Path) -> bool:
    known = ("state.json", "dataset_dict.json")
    return any((path / name).is_file() for name in known) or any(path.rglob("*.parquet"))


def _table(path: Path, split: str | None) -> Any:
    import datasets

    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        files = sorted(str(file) for file in path.rglob("*.parquet") if file.name.startswith(split or ""))
        if not files:
            raise ValueError(f"split {split!r}: {path} has no parquet file whose name begins so")
        with _reading(path):
            return datasets.Dataset.from_parquet(files)
    with _reading(path):
        found = datasets.load_from_disk(str(path))
    if not isinstance(found, datasets.DatasetDict):
        if split is not None:
            raise ValueError(f"split {split!r}: {path} has no splits")
        return found
    split = split or ("train" if "train" in found else next(iter(found)))
    if split not in found:
        raise ValueError(f"split {split!r}: {path} has {', '.join(found)}")
    return found[split]


@contextmanager
def _reading(place: object) -> Iterator[None]:
    """What a reader of tables raises, which of damaged files is nearly every kind, as a ValueError in one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{place}: no table that can be read: {reason(error.__cause__ or error)}") from error


def _labels(table: Any, path: Path) -> tuple[list[str], list[int | None]]:
    """Names of the classes, and every row's label."""
    column = next((name for name in LABELS if name in table.column_names), None)
    if column is None:
        return [], [None] * len(table)
    names, place = getattr(table.features[column], "names", None), f"{path}, column {column}"
    with _reading(place):
        labels = list(table[column])
    return (names, labels) if names else numbered(labels, place)


def _source(value: dict[str, Any], name: str) -> bytes | Path:
    """{"bytes", "path"} of an undecoded picture -> its bytes, or its path where it lies beside the table."""
    if not isinstance(value, dict) or not (value.get("bytes") or value.get("path")):
        raise ValueError(f"{name}: it has no picture")
    return value["bytes"] or Path(value["path"])
