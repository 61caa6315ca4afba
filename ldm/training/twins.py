"""Pictures and what a model made of them, for whoever learns or measures where a model errs.

files --worn, twins--> Twin (real, generated, garment, boxes) --Twins--> Sample --collate--> B of them
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from tqdm import tqdm

from ldm.data.items import SUFFIXES
from ldm.data.pictures import Unreadable
from ldm.data.tryon import TryOn
from ldm.data.tryon.boxes import Box, covered
from ldm.data.tryon.places import picture
from ldm.images import load, to_pixels
from ldm.training.randomness import keyed

log = logging.getLogger("ldm")

UNREADABLE = 16  # pictures of a folder that may be


@dataclass(frozen=True, eq=False)
class Twin:
    """A picture and what a model made of it. No garment: pictures by themselves. No boxes: nobody has looked."""

    name: str  # of the picture's file
    real: Image.Image
    generated: Image.Image
    garment: Image.Image | None = None
    boxes: Sequence[Box] | None = None  # in pixels of the generated picture; [] is without error


def worn(looks: TryOn, generated: str | Path, boxes: Mapping[str, Sequence[Box]]) -> Iterator[Twin]:
    """A paired set -> its persons beside the pictures of the same names in `generated`, and their garments."""
    files = (looks.files(index) for index in range(len(looks)))
    rows = ((own.name, own.person, own.garment) for own in files)
    return _joined(rows, Path(generated), boxes, looks.unreadable)


def twins(real: str | Path, generated: str | Path, boxes: Mapping[str, Sequence[Box]]) -> Iterator[Twin]:
    """A folder -> its pictures beside those of the same names in `generated`, without garments."""
    if not Path(real).is_dir():
        raise FileNotFoundError(f"{real}: no such folder; expected one of real pictures")
    pictures = (path for path in sorted(Path(real).iterdir()) if path.suffix.lower() in SUFFIXES)
    return _joined(((path.name, path, None) for path in pictures), Path(generated), boxes, Unreadable(UNREADABLE))


def _joined(
    rows: Iterable[tuple[str, Path, Path | None]],
    generated: Path,
    boxes: Mapping[str, Sequence[Box]],
    unreadable: Unreadable,
) -> Iterator[Twin]:
    """Names, pictures and garments -> Twins; what was not generated is left out and counted in the log.

    Names are alike whatever their suffixes.
    """
    if not generated.is_dir():
        raise FileNotFoundError(f"{generated}: no such folder; expected one of generated pictures")
    known, lacking = {Path(name).stem: found for name, found in boxes.items()}, 0
    for name, real, garment in rows:
        path = picture(generated, Path(name).stem)
        if path is None:
            lacking += 1
            continue
        try:
            worn_there = None if garment is None else load(garment)
            found = Twin(name, load(real), load(path), worn_there, known.get(Path(name).stem))
        except (ValueError, OSError) as error:
            unreadable.add(name, error)
        else:
            yield found
    if lacking:
        log.warning("%s: %d pictures have no generated one of their name there, and are left out", generated, lacking)


class Marked(NamedTuple):
    """A generated picture whose errors are known, as numbers, or B of them."""

    generated: Tensor  # (3,H,W) in [-1,1]
    garment: Tensor | None  # (3,H,W) in [-1,1]
    covered: Tensor  # (1,H,W), the share of each pixel that lies in a box


class Sample(NamedTuple):
    """A twin as numbers, or B of them; with it, where there are boxes, any one of the pictures that have them."""

    real: Tensor  # (3,H,W) in [-1,1]
    generated: Tensor  # (3,H,W) in [-1,1]
    garment: Tensor | None  # (3,H,W) in [-1,1]
    flawed: Tensor  # (), 1 unless somebody has looked and found no error
    marked: Marked | None = None


class Twins:
    """Twins as samples of `size` (H, W), which they are stretched to; kept in memory as bytes.

    `share` is how many of all pictures' boxes are learnt from, at most, drawn by `seed`: 0.05 is one in twenty. `flip`
    mirrors half of what `draw` gives, garments too. ValueError for no twins, for some with and some without a garment,
    and for boxes that reach beyond their picture.
    """

    def __init__(
        self, found: Iterable[Twin], size: tuple[int, int], share: float = 1.0, seed: int = 0, flip: bool = True
    ):
        if not 0 <= share <= 1 or min(size) < 1:
            raise ValueError(f"share {share}, size {size}: expected a share from 0 to 1, and sides of 1 or more")
        rows = [_row(twin, size) for twin in tqdm(found, desc="reading", disable=None, delay=2)]
        if not rows:
            raise ValueError("no pictures to learn from: expected real and generated ones of the same names")
        if len({row["garment"] is None for row in rows}) != 1:
            raise ValueError("some pictures with a garment and some without: expected one with each, or with none")
        self.size, self.share, self.flip = size, share, flip
        self.names: list[str] = [row["name"] for row in rows]
        self.real, self.generated = (torch.stack([row[name] for row in rows]) for name in ("real", "generated"))
        self.garments = None if rows[0]["garment"] is None else torch.stack([row["garment"] for row in rows])
        labelled = [index for index, row in enumerate(rows) if row["boxes"] is not None]
        chosen = _few(labelled, share, len(rows), seed)
        self.boxes: dict[int, Tensor] = {index: rows[index]["boxes"] for index in chosen}  # (K,H,W), one by one

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, as it is and alone."""
        boxes = self.boxes.get(index)
        flawed = torch.tensor(float(boxes is None or len(boxes) > 0))
        return Sample(_unit(self.real[index]), _unit(self.generated[index]), self._garment(index), flawed)

    def draw(self, index: int, generator: Generator) -> Sample:
        """Sample `index` with one that has boxes, each mirrored where the generator wants it.

        So every batch has as many pictures with boxes as without: few as they are, they are learnt from in every step.
        """
        sides, which = torch.rand(2, generator=generator), torch.rand((), generator=generator)
        sample = self._seen(self[index], float(sides[0]))
        if not self.boxes:
            return sample
        chosen = list(self.boxes)[int(which * len(self.boxes))]
        return sample._replace(marked=self._seen(self.mark(chosen), float(sides[1])))

    def mark(self, index: int) -> Marked:
        """The generated picture `index`, one that has boxes, with what they cover."""
        return Marked(_unit(self.generated[index]), self._garment(index), together(self.boxes[index]))

    def _garment(self, index: int) -> Tensor | None:
        return None if self.garments is None else _unit(self.garments[index])

    def _seen(self, parts: Any, side: float) -> Any:
        """A sample or a marked one, mirrored or not."""
        return type(parts)(*(_mirrored(part) for part in parts)) if self.flip and side < 0.5 else parts

    def identity(self) -> dict[str, Any]:
        """What the samples are, in JSON."""
        content = hashlib.sha256(repr([self.names, list(self.boxes)]).encode())
        for part in (self.real, self.generated, self.garments, *self.boxes.values()):
            content.update(b"" if part is None else part.numpy().tobytes())
        return {"kind": "twins", "count": len(self), "flip": self.flip, "content": content.hexdigest()[:16]}


def _row(twin: Twin, size: tuple[int, int]) -> dict[str, Any]:
    """A twin, its pictures as bytes (3,H,W) and what each box covers (K,H,W), None where none is known."""
    try:
        boxes = None if twin.boxes is None else _layers(twin.boxes, twin.generated.size, size)
    except ValueError as error:
        raise ValueError(f"{twin.name}: {error}") from None
    pictures = {"real": twin.real, "generated": twin.generated, "garment": twin.garment}
    return {"name": twin.name, "boxes": boxes} | {name: _bytes(found, size) for name, found in pictures.items()}


def _layers(boxes: Sequence[Box], picture_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """K boxes in a picture of (W, H) -> (K,H,W) of `size` (H, W): the share of each pixel that each covers."""
    layers = [np.asarray(covered([box], picture_size, size), np.float32) / 255 for box in boxes]
    return torch.from_numpy(np.stack(layers)) if layers else torch.zeros(0, *size)


def together(layers: Tensor) -> Tensor:
    """Boxes one by one (K,H,W) -> (1,H,W): of each pixel the share in the box that covers most of it, 0 without any."""
    return layers.amax(0, keepdim=True) if len(layers) else layers.new_zeros(1, *layers.shape[1:])


def _bytes(image: Image.Image | None, size: tuple[int, int]) -> Tensor | None:
    return None if image is None else ((to_pixels(image, size)[0] + 1) * 127.5).round().byte()


def _unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def _mirrored(part: Tensor | None) -> Tensor | None:
    return part.flip(-1) if part is not None and part.ndim == 3 else part


def _few(labelled: Sequence[int], share: float, total: int, seed: int) -> list[int]:
    """Which of the pictures with boxes are learnt from: at most `share` of all, drawn by the seed."""
    order = torch.randperm(len(labelled), generator=keyed(seed, "boxes")).tolist()
    return sorted(labelled[i] for i in order[: round(share * total)])


def collate(samples: Sequence[Any]) -> Any:
    """Samples -> one of B rows; so with what they are made of."""
    first = samples[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.stack(list(samples))
    return type(first)(*(collate(parts) for parts in zip(*samples, strict=True)))
