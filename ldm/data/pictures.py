"""Pictures: records of any source -> items of one size, and what is done about those that cannot be read.

    record --upright, sRGB, opaque--> picture --crop, flip (View)--> --resize--> Item

Item i is a function of the data, i and the generator alone. In place of a picture that cannot be read stands the next
one that can; each such is named once in the log, and more of them than `skip` are an error.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from PIL import Image

from ldm import images
from ldm.data.items import Item, Record, RecordSource, digest

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ldm")

CROPS = ("centre", "random")
Size = tuple[int, int]  # (W, H), as Pillow has it


@dataclass(frozen=True)
class View:
    """Which part of a picture is seen: where the crop lies, 0 at the left or top and 1 at the other end; mirrored."""

    x: float = 0.5
    y: float = 0.5
    flip: bool = False


class Unreadable:
    """Pictures that cannot be read: each is named once, and one more than `limit` is a ValueError."""

    def __init__(self, limit: int):
        self.limit, self.found = limit, dict[str, str]()

    def add(self, name: str, error: Exception) -> None:
        if name in self.found:
            return
        self.found[name] = str(error) if name in str(error) else f"{name}: {error}"
        if len(self.found) > self.limit:
            first = "; ".join(list(self.found.values())[:3])
            raise ValueError(f"{len(self.found)} pictures cannot be read, at most {self.limit} may be: {first}")
        log.warning("left out: %s", self.found[name])


class Pictures:
    """A source's records as items of `side` x `side`, or of the size that `sizes` (one (W, H) each) says.

    The crop is as large as fits, then resized (Lanczos): "centre", or at a "random" place; `flip` mirrors half of what
    `draw` gives. Items of different `sizes` cannot share a batch. Without `side` and `sizes` pictures stay as they are.
    `count` takes the first so many. `skip` is how many unreadable pictures are passed over.
    ValueError for a crop that is none, and for a side or a count out of range.
    """

    def __init__(
        self,
        source: RecordSource,
        side: int | None = None,
        crop: str = "centre",
        flip: bool = False,
        sizes: Sequence[Size] | None = None,
        count: int | None = None,
        skip: int = 16,
    ):
        if crop not in CROPS:
            raise ValueError(f"crop {crop!r}: expected one of {', '.join(CROPS)}")
        if side is not None and side < 1:
            raise ValueError(f"side {side}: expected at least 1")
        if count is not None and not 1 <= count <= len(source):
            raise ValueError(f"count {count}: expected 1 to {len(source)}, as many as there are")
        self.source, self.side, self.crop, self.flip = source, side, crop, flip
        self.classes = source.classes
        self.count = len(source) if count is None else count
        self.sizes = None if sizes is None else list(sizes[: self.count])
        self.unreadable = Unreadable(skip)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        """Item `index`, cropped at the centre and not mirrored."""
        return self._readable(index, View())

    def draw(self, index: int, generator: "torch.Generator") -> Item:
        """Item `index` as the generator wants it cropped and mirrored."""
        return self._readable(index, self.view(generator))

    def view(self, generator: "torch.Generator") -> View:
        """A view that may be seen; always three numbers of the generator."""
        import torch

        x, y, side = torch.rand(3, generator=generator).tolist()
        x, y = (x, y) if self.crop == "random" else (0.5, 0.5)
        return View(x, y, flip=self.flip and side < 0.5)

    def record(self, index: int) -> Record:
        """Record `index`, its files read; OSError or ValueError where it cannot be."""
        return self.source[index].in_memory()

    def size(self, index: int) -> Size | None:
        """(W, H) of item `index`; None where it is the picture's own."""
        if self.sizes is not None:
            return self.sizes[index]
        return None if self.side is None else (self.side, self.side)

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        sizes = None if self.sizes is None else digest(self.sizes)
        view = {"side": self.side, "crop": self.crop, "flip": self.flip, "sizes": sizes}
        return {**self.source.identity(), "count": self.count, **view}

    def _readable(self, index: int, view: View) -> Item:
        """The item at `index`, or that of the next record that can be read, in the size that `index` has."""
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")  # what ends a loop over the items
        for place in chain(range(index, self.count), range(index)):
            name = f"picture {place}"
            try:
                record = self.source[place]
                name = record.name
                return item_of(record.in_memory(), self.size(index), view)
            except (ValueError, OSError) as error:
                self.unreadable.add(name, error)
        raise ValueError(f"none of the {self.count} pictures can be read: {next(iter(self.unreadable.found.values()))}")


def item_of(record: Record, size: Size | None, view: View) -> Item:
    """A record in memory -> its item; ValueError that names it where a picture cannot be read."""
    picture = images.load(record.picture)
    condition = None if record.condition is None else images.load(record.condition)
    size = size or picture.size
    return Item(
        framed(picture, size, view),
        record.caption,
        record.label,
        None if condition is None else framed(condition, size, view),
    )


def framed(picture: Image.Image, size: Size, view: View = View()) -> Image.Image:  # noqa: B008
    """image -> image of `size` (W, H): its largest part of that shape, where `view` lies, resized by Lanczos."""
    scale = min(picture.width / size[0], picture.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = view.x * (picture.width - width), view.y * (picture.height - height)
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    seen = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else seen
