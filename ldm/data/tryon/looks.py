"""The looks of a folder as a dataset, what was drawn for them, and a sheet of them."""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from ldm import images
from ldm.data.items import digest
from ldm.data.pictures import Unreadable
from ldm.data.tryon import dresscode, viton
from ldm.data.tryon.look import Files, Look, Size, look_of
from ldm.data.tryon.places import picture
from ldm.data.tryon.synthetic import flagged
from ldm.data.tryon.written import file_name

log = logging.getLogger("ldm")

LAYOUTS: dict[str, type[viton.VitonHD] | type[dresscode.DressCode]] = {
    "viton-hd": viton.VitonHD,
    "dresscode": dresscode.DressCode,
}


class TryOn:
    """The looks of one split of a folder in VITON-HD's or DressCode's layout, stretched to `size` (H, W).

    `synthetic` are the persons whose garments were made from their photographs, where a set names some.
    Without `paired`, garments are those of the unpaired list. `category` is one of DressCode's, without it all of them.
    `layout` is "viton-hd" or "dresscode", found by what is there if it is not said.
    Lines of a list that say nothing usable are left out, and in place of a look that cannot be read stands the next
    that can; each is named once in the log, and more of both than `skip` are a ValueError.
    FileNotFoundError without the folder or the list, ValueError for options that do not fit it.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        paired: bool = True,
        size: Size = (64, 48),
        category: str | None = None,
        layout: str | None = None,
        skip: int = 16,
    ):
        if split not in viton.SPLITS:
            raise ValueError(f"split {split!r}: expected train or test")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size {size}: expected (H, W), both at least 1")
        self.root, self.size = Path(folder), (size[0], size[1])
        self.split, self.paired, self.category = split, paired, category
        self.layout = _layout(self.root, layout)
        self.unreadable = Unreadable(skip)
        self.source = LAYOUTS[self.layout](self.root, split, paired, category, self.unreadable.add)
        self.pairs = list(dict.fromkeys(self.source.pairs))
        self.synthetic = flagged(self.root, split)
        if not self.pairs:
            raise ValueError(f"{folder}: no usable pair in its list of {split}")
        if again := len(self.source.pairs) - len(self.pairs):
            log.warning("%s: %d pairs of %s stand in its list more than once, each counts once", folder, again, split)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Look:
        """Look `index`, or the next that can be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"look {index} of {len(self)}")  # what ends a loop over the looks
        for place in chain(range(index, len(self)), range(index)):
            try:
                return look_of(self.files(place), self.size)
            except (ValueError, OSError) as error:
                self.unreadable.add(f"{self.pairs[place].person} with {self.pairs[place].garment}", error)
        raise ValueError(f"none of the {len(self)} looks can be read: {next(iter(self.unreadable.found.values()))}")

    def files(self, index: int) -> Files:
        """Where the parts of look `index` lie."""
        return self.source.files(self.pairs[index])

    def list_of(self, index: int) -> Path:
        """The list that look `index` belongs in."""
        return self.source.list_of(self.pairs[index])

    @property
    def names(self) -> list[str]:
        """The person's file of each look."""
        return [pair.person for pair in self.pairs]

    def identity(self) -> dict[str, Any]:
        """What the looks are, in JSON."""
        said = [(pair.category, pair.person, pair.garment) for pair in self.pairs]
        kind = {"kind": "try-on", "layout": self.layout, "split": self.split, "paired": self.paired}
        kind |= {"synthetic": digest(sorted(self.synthetic))} if self.synthetic else {}
        return {**kind, "category": self.category, "size": list(self.size), "looks": len(self), "listing": digest(said)}


def _layout(root: Path, layout: str | None) -> str:
    """The layout that was said, or the one that is there."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout {layout!r}: expected {' or '.join(LAYOUTS)}")
    there = [name for name, module in (("viton-hd", viton), ("dresscode", dresscode)) if module.is_here(root)]
    expected = "expected train/image as VITON-HD has it, or upper_body/images as DressCode"
    if layout not in (None, *there):
        raise ValueError(f"{root}: no set in the layout {layout}; {expected}")
    if not there:
        raise ValueError(f"{root}: no set of either layout; {expected}")
    if layout is None and len(there) > 1:
        raise ValueError(f"{root}: both layouts in it, say which: {' or '.join(there)}")
    return layout or there[0]


def outputs(folder: str | Path, name: str) -> Image.Image:
    """A folder of pictures, the name of a person's file -> the picture (RGB) of that name, or in another format.

    FileNotFoundError where there is none, ValueError where it cannot be read.
    """
    named = Path(folder) / file_name(name)
    return images.load(named if named.is_file() else picture(Path(folder), named.stem) or named)


def sheet(looks: Iterable[Look]) -> Image.Image:
    """looks -> one picture, a look a row: person, garment, its mask, agnostic, its mask, pose, and parse as greys."""
    return images.grid([part for look in looks for part in _parts(look)], columns=7)


def _parts(look: Look) -> Sequence[Image.Image]:
    parse = look.parse.point([min(255, 12 * number) for number in range(256)])
    masks = look.garment_mask, look.agnostic_mask
    return look.person, look.garment, masks[0], look.agnostic, masks[1], look.pose, parse
