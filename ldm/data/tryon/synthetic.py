"""Pairs whose garments were made, as from what a person wears (H2G), not photographed: who they are, and a set of them.

set, garments made of some looks --write--> a set of the same layout, and synthetic.json, which names their persons
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from ldm.data.tryon.written import json_object
from ldm.files import replacing, write_json

if TYPE_CHECKING:
    from ldm.data.tryon.looks import TryOn

FLAGS = "synthetic.json"  # {"train": [person, ...]}


class Made(NamedTuple):
    """The garment of look `row`, and its mask."""

    row: int
    garment: Image.Image
    mask: Image.Image


def flagged(root: Path, split: str) -> frozenset[str]:
    """The persons of a split whose pairs are synthetic; none where a set says nothing of it. ValueError for no list."""
    if not (root / FLAGS).is_file():
        return frozenset()
    names = json_object(root / FLAGS).get(split, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{root / FLAGS}: {split!r}: expected a list of the names of persons' files")
    return frozenset(names)


def write(out: Path, source: "TryOn", made: Iterable[Made]) -> int:
    """Looks of a set with new garments -> `out`, a set of their own that `TryOn` reads; how many there are.

    Everything but garments and their masks is copied. The list comes last: what was stopped is no set.
    """
    lists = defaultdict[Path, list[str]](list)
    for row, garment, mask in made:
        files = source.files(row)
        for path in (files.person, files.parse, files.keypoints, files.agnostic, files.agnostic_mask, files.pose):
            if path and path.is_file():
                shutil.copyfile(path, _place(out, source.root, path))
        garment.save(_place(out, source.root, files.garment), quality=95, subsampling=0)
        if files.garment_mask:
            mask.save(_place(out, source.root, files.garment_mask))
        lists[source.list_of(row)].append(f"{files.name} {files.garment_name}\n")
    names = [line.split()[0] for lines in lists.values() for line in lines]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FLAGS, {source.split: names})
    for path, lines in lists.items():
        with replacing(_place(out, source.root, path)) as file:
            file.write("".join(lines).encode())
    return len(names)


def _place(out: Path, root: Path, path: Path) -> Path:
    """A file of a set -> the same place in another, whose folders are there then."""
    found = out / path.relative_to(root)
    found.parent.mkdir(parents=True, exist_ok=True)
    return found
