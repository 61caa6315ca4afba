"""Shards in WebDataset's layout: tar files whose members of one name, such as 0001.jpg and 0001.txt, are one sample.

    shard --index (once)--> name, offset, size of every member --record(i)--> one seek and one read

The index is kept beside the shard as NAME.tar.index.json, or in the user's cache folder where that cannot be written;
so the order is exact and any sample is reached without reading those before it.
"""

import hashlib
import json
import logging
import os
import re
import tarfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ldm.data.folders import caption_of
from ldm.data.items import SUFFIXES, Record, digest
from ldm.files import replacing

log = logging.getLogger("ldm")


class Member(NamedTuple):
    """A file in a shard: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


Sample = dict[str, Member]  # by ending: "jpg", "txt", "cls", "json", "condition.png"


class Tars:
    """The samples of tar shards, in the order of the shards' names and of their members."""

    def __init__(self, paths: list[Path]):
        self.classes: list[str] = []
        self.shards = [(path, samples(path)) for path in paths]
        self.ends = list(accumulate(len(found) for _, found in self.shards))
        if not paths or not self.ends[-1]:
            where = ", ".join(map(str, paths[:3])) or "no shard"
            raise ValueError(f"{where}: no pictures, expected members such as 0001.jpg and 0001.txt")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Record:
        shard = bisect_right(self.ends, index)
        path, found = self.shards[shard]
        key, sample = found[index - self.ends[shard] + len(found)]
        picture, condition = _picture(sample), _picture(sample, "condition")
        assert picture is not None
        name = f"{path}/{key}"
        caption, label = _said(path, sample, name)
        return Record(name, read(path, picture), caption, label, None if condition is None else read(path, condition))

    def identity(self) -> dict[str, Any]:
        listing = [(path.name, key, sorted(sample.items())) for path, found in self.shards for key, sample in found]
        return {"kind": "tars", "pictures": len(self), "listing": digest(listing)}


def shards_of(source: str) -> list[Path]:
    """A tar, a folder of tars, or a pattern such as "train-*.tar" or "train-{000..012}.tar" -> its shards, sorted.

    FileNotFoundError where there are none.
    """
    paths = [path for name in _expanded(source) for path in _matching(name)]
    if not paths:
        raise FileNotFoundError(f"{source}: no tar there")
    return sorted(paths)


def _matching(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return list(path.glob("*.tar"))
    if any(sign in path.name for sign in "*?["):
        return list(path.parent.glob(path.name))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return [path]


def _expanded(pattern: str) -> list[str]:
    """ "train-{008..010}.tar" -> the three names; anything else is itself."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return [name for n in numbers for name in _expanded(pattern[: found.start()] + n + pattern[found.end() :])]


def samples(path: Path) -> list[tuple[str, Sample]]:
    """A shard -> (key, members) of each sample that has a picture, in order; the log says how many have none."""
    found: dict[str, Sample] = {}
    for member in members(path):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if stem and not stem.startswith("._"):  # what macOS adds
            found.setdefault(f"{folder}/{stem}" if folder else stem, {})[ending.lower()] = member
    pictured = [(key, sample) for key, sample in found.items() if _picture(sample)]
    if len(pictured) < len(found):
        missing = len(found) - len(pictured)
        log.warning("%s: %d of %d samples have no picture and are left out", path, missing, len(found))
    return pictured


def members(path: Path) -> list[Member]:
    """A shard's files, from its index if that is of this very file, else from the tar, whose index is then kept."""
    status = path.stat()
    made_of = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    places = _index_paths(path)
    for place in places:
        if listed := _listed(place, made_of):
            return listed
    listed = _scanned(path)
    content = json.dumps({**made_of, "members": listed}).encode()
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(content)
            return listed
        except (OSError, ValueError):
            continue
    log.warning("%s: its index can be kept neither beside it nor in %s", path, places[-1].parent)
    return listed


def _index_paths(path: Path) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldm" / "tars"
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return [path.with_name(f"{path.name}.index.json"), cache / f"{name}.json"]


def _listed(place: Path, made_of: dict[str, int]) -> list[Member] | None:
    """The members that an index names; None where it is of another file, or none at all."""
    try:
        index = json.loads(place.read_text(encoding="utf-8"))
        if {key: index[key] for key in made_of} != made_of:
            return None
        found = [Member(*member) for member in index["members"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if all(_is_within(member, made_of["size"]) for member in found) else None


def _is_within(member: Any, size: int) -> bool:
    name, *numbers = member
    return isinstance(name, str) and all(isinstance(number, int) and 0 <= number <= size for number in numbers)


def _scanned(path: Path) -> list[Member]:
    try:
        with tarfile.open(path, "r:") as tar:  # a packed one has no place to seek to
            return [Member(info.name, info.offset_data, info.size) for info in tar if info.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: not a whole, unpacked tar: {error}") from None


def read(path: Path, member: Member) -> bytes:
    """The bytes of a member; ValueError where the shard ends before them."""
    if member.offset + member.size > path.stat().st_size:
        raise ValueError(f"{path}/{member.name}: the shard ends within it")
    with open(path, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _picture(sample: Sample, prefix: str = "") -> Member | None:
    """The member that is a picture, "jpg" or "condition.jpg"."""
    endings = (f"{prefix}{suffix}".removeprefix(".") for suffix in SUFFIXES)
    return next((sample[ending] for ending in endings if ending in sample), None)


def _said(path: Path, sample: Sample, name: str) -> tuple[str, int | None]:
    """Caption (.txt, else .json) and label (.cls, else .json) of a sample."""
    try:
        row = json.loads(read(path, sample["json"])) if "json" in sample else {}
        row = row if isinstance(row, dict) else {}
        caption = " ".join(read(path, sample["txt"]).decode().split()) if "txt" in sample else caption_of(row, name)
        label = read(path, sample["cls"]).decode() if "cls" in sample else row.get("label")
        return caption, None if label is None else int(label)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: its caption or label cannot be read: {error}") from None
