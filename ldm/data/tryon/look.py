"""A look: a person, a garment, and what try-on models are told of them, read from a set's files or made from others.

Files (where they lie) --look_of--> Look (all of one size)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ldm import images
from ldm.data.tryon import parsing, pose
from ldm.data.tryon.agnostic import greyed, region
from ldm.data.tryon.garment import silhouette
from ldm.data.tryon.parsing import Labels

Size = tuple[int, int]  # (H, W)
SHAPE_SLACK = 0.02  # how far the shapes of two pictures of one person may differ, as a share of a side


@dataclass(frozen=True, eq=False)
class Look:
    """One line of a list of pairs; all pictures are of one size."""

    name: str  # of the person's file
    garment_name: str  # of the garment's file
    person: Image.Image  # RGB
    garment: Image.Image  # RGB, as a shop shows it
    garment_mask: Image.Image  # L, 255 the garment, else 0
    agnostic: Image.Image  # RGB, the person, grey where the mask is white
    agnostic_mask: Image.Image  # L, 255 what is to be drawn anew, else 0
    pose: Image.Image  # RGB, the skeleton, on black
    parse: Image.Image  # L, the numbers of labels
    paired: bool  # the person wears this very garment


@dataclass(frozen=True)
class Files:
    """Where the parts of a look lie, and how they are to be understood; what is None is made from the others."""

    name: str
    garment_name: str
    person: Path
    garment: Path
    parse: Path
    keypoints: Path
    garment_mask: Path | None
    agnostic: Path | None
    agnostic_mask: Path | None
    pose: Path | None
    labels: Labels  # what the numbers of `parse` stand for
    category: str  # what is tried on, one of agnostic.CATEGORIES
    paired: bool


def look_of(files: Files, size: Size) -> Look:
    """Files -> look in `size` (H, W), to which every picture is stretched.

    An agnostic picture counts only together with its mask: where there is no mask both are made. Key points are read
    only where something is made of them. FileNotFoundError, or ValueError, of one line that names the file.
    """
    person, garment = images.load(files.person), _stretched(images.load(files.garment), size)
    parse = parsing.read(files.parse, files.labels)
    _check_shape(parse, person, files.parse)
    parse = parse.resize(size[::-1], Image.Resampling.NEAREST)
    agnostic, mask = _agnostic(files, person, parse)
    return Look(
        files.name,
        files.garment_name,
        _stretched(person, size),
        garment,
        _garment_mask(files, garment),
        agnostic,
        mask,
        _pose(files, person, size),
        parse,
        files.paired,
    )


def _garment_mask(files: Files, garment: Image.Image) -> Image.Image:
    if files.garment_mask:
        return _mask(images.load(files.garment_mask, "black"), files.garment_mask, garment.size)
    try:
        return silhouette(garment)
    except ValueError as error:
        raise ValueError(f"{files.garment}: {error}") from None


def _agnostic(files: Files, person: Image.Image, parse: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The agnostic picture and its mask, in the size of `parse`."""
    small = _stretched(person, parse.size[::-1])
    if files.agnostic_mask is None:
        mask = region(parse, pose.read(files.keypoints, person.size), files.labels, files.category)
        if mask.getbbox() is None:
            raise ValueError(f"{files.parse}: no {files.category} in it, neither labelled nor at the key points")
        return greyed(small, mask), mask
    mask = _mask(_beside(files.agnostic_mask, person, "black"), files.agnostic_mask, parse.size)
    if files.agnostic is None:
        return greyed(small, mask), mask
    return _stretched(_beside(files.agnostic, person), parse.size[::-1]), mask


def _pose(files: Files, person: Image.Image, size: Size) -> Image.Image:
    if files.pose is None:
        return pose.skeleton(pose.read(files.keypoints, person.size), size)
    return _stretched(_beside(files.pose, person, "black"), size)


def _beside(path: Path, person: Image.Image, background: str = "white") -> Image.Image:
    """A file -> picture, of the same shape as the person's."""
    picture = images.load(path, background)
    _check_shape(picture, person, path)
    return picture


def _check_shape(picture: Image.Image, person: Image.Image, path: Path) -> None:
    (width, height), (other_width, other_height) = picture.size, person.size
    if abs(width / height * other_height / other_width - 1) > max(SHAPE_SLACK, 1 / min(width, height)):
        raise ValueError(
            f"{path}: {width}x{height}, the person's picture is {other_width}x{other_height}: expected the same shape"
        )


def _stretched(picture: Image.Image, size: Size) -> Image.Image:
    return picture.resize(size[::-1], Image.Resampling.LANCZOS)


def _mask(picture: Image.Image, path: Path, size: tuple[int, int]) -> Image.Image:
    """picture, (W, H) -> mask (L) of that size: 255 where the picture is light, from the middle on, else 0."""
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX))
    if grey.max() < 128:
        raise ValueError(f"{path}: black all over, expected a mask with white in it")
    return Image.fromarray((grey >= 128).astype(np.uint8) * 255)
