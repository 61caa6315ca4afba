"""Pictures and captions to learn from: what is drawn here, photographs, digits, and pictures of the user's own.

    source --folders, tables, tars, digits--> records --pictures, buckets--> items (picture, caption)
    a number --emoji, procedural, photographs--> items;  several sources --mixture--> items

    items.py        Record, what lies in a source; Item, what a training is given
    pictures.py     records -> items: upright, cropped, resized, mirrored; what cannot be read
    buckets.py      a few sizes, one for each aspect
    folders.py      a folder with captions
    tables.py       Hugging Face datasets on disk
    tars.py         WebDataset's shards
    digits.py       scikit-learn's digits, MNIST's format
    emoji.py        emoji scenes; scenes/: what they may show; sprites.py: their sheet
    procedural.py   pictures without words that are drawn from a number: leaves.py, gradients.py, lettering.py
    palettes.py     colours that go together
    photographs.py  the free photographs that Python packages carry
    mixture.py      several datasets as one
    degrading.py    clean pictures -> what is to be repaired; pairs.py: both, as a dataset
    tryon/          folders in VITON-HD's or DressCode's layout; dolls/: paper dolls, drawn here, as such a folder
    tensors.py      small pictures, all in memory as numbers; moving.py: sequences of digits that fly about

A dataset has a length, `data[i]`, or `data.draw(i, generator)` where it crops or mirrors at random, and `identity()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ldm.data.items import Item, Record, RecordSource
from ldm.data.mixture import Items, Mixture, parts_of

if TYPE_CHECKING:
    from ldm.data.pictures import Pictures

__all__ = ["DRAWN", "UNSEEN", "Item", "Items", "Record", "open", "parts_of", "records"]

DRAWN = ("emoji", "leaves", "gradients", "text", "photographs")  # made here, without end; the others are read
UNSEEN = {"emoji": "heldout", "photographs": "test"}  # the splits that no training sees
ENDLESS = 1_000_000  # items of what has no end


def open(
    source: str | Path,
    side: int = 64,
    crop: str = "centre",
    flip: bool = False,
    buckets: int | None = None,
    split: str | None = None,
    count: int | None = None,
    seed: int = 0,
    skip: int = 16,
) -> Items:
    """A source of pictures with captions -> a dataset of items (picture, caption).

    `source` is "emoji", "leaves", "gradients", "text", "photographs", "digits", a folder of pictures with captions or
    in folders by class, a Hugging Face dataset on disk, a folder in MNIST's format, or tar shards (a file, a folder,
    "train-{000..012}.tar"); see `records`. A file or folder of a built-in's name is reached as "./emoji". Several, with
    weights, are a mixture: "emoji:6+leaves:2+photos/:1".

    Pictures are cropped ("centre" or "random") to squares of `side`; or, with `buckets`, to sizes of about as many
    pixels whose sides are multiples of `buckets`. `flip` mirrors half of what is drawn. `split` names a part of the
    data, `count` takes the first so many, `skip` is how many unreadable pictures are passed over. `seed` says which
    of DRAWN and of a mixture: these are endless, and drawn at `side`, so that only the others are cropped and mirrored.
    FileNotFoundError for a source that is not there, ModuleNotFoundError for one whose package is not, ValueError for
    one that cannot be used, and for options that do not go with it.
    """
    parts = parts_of(source)
    if len(parts) > 1:
        if buckets or split:
            raise ValueError(
                f"{source}: a mixture has pictures of one size and no split: expected none, and no buckets"
            )
        weights = [weight for _, weight in parts]
        found = [_one(name, side, crop, flip, count, seed, skip) for name, _ in parts]
        return Mixture(found, weights, seed, _length(count))
    name, _ = parts[0]
    if name not in DRAWN:
        return _read(name, side, crop, flip, buckets, split, count, skip)
    if flip or buckets or crop != "centre":
        raise ValueError(f"{name}: pictures that are made as they are to be seen, their left and right too: "
                         "expected no flip, no buckets and no random crop")  # fmt: skip
    return _drawn(name, side, split, count, seed)


def _one(name: str, side: int, crop: str, flip: bool, count: int | None, seed: int, skip: int) -> Items:
    """A part of a mixture: drawn at its size, or cropped and mirrored."""
    if name in DRAWN:
        return _drawn(name, side, None, count, seed)
    return _read(name, side, crop, flip, None, None, None, skip)


def _read(
    name: str,
    side: int,
    crop: str,
    flip: bool,
    buckets: int | None,
    split: str | None,
    count: int | None,
    skip: int,
) -> "Pictures":
    from ldm.data.buckets import assigned
    from ldm.data.pictures import Pictures

    found = records(name, split)
    sizes = assigned(found, side, buckets) if buckets else None
    return Pictures(found, side, crop, flip, sizes, count, skip)


def _drawn(name: str, side: int, split: str | None, count: int | None, seed: int) -> Items:
    """One of DRAWN; of photographs the split "test" are those of another package."""
    length = _length(count)
    if name == "emoji":
        from ldm.data.emoji import EmojiScenes
        from ldm.data.scenes import split_scene

        scenes = EmojiScenes(side, seed, split or "train", length)
        split_scene(scenes.rng(0), scenes.split)  # names an unknown split
        return scenes
    known = ("train", "test") if name == "photographs" else ("train",)
    if split not in (None, *known):
        raise ValueError(f"split {split!r}: {name} have {' and '.join(known)}")
    from ldm.data import photographs, procedural

    if split == "test":
        return photographs.UnseenPhotographs(side, count)
    if name == "photographs":
        return photographs.Photographs(side, seed, length)
    return procedural.Procedural(name, procedural.DRAWS[name], side, seed, length)


def _length(count: int | None) -> int:
    if count is not None and count < 1:
        raise ValueError(f"count {count}: expected at least 1")
    return ENDLESS if count is None else count


def records(source: str | Path, split: str | None = None) -> RecordSource:
    """A source that is read, not drawn -> its records, by what lies there.

    "digits", a folder of pictures with captions or in folders by class, a Hugging Face dataset on disk, a folder in
    MNIST's format, or tar shards; `split` names a part of it. FileNotFoundError for a source that is not there,
    ValueError for a split that it does not have.
    """
    from ldm.data import digits, folders, tables, tars

    path = Path(source)
    if str(source) == "digits":
        return digits.small_digits(split)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        if split is not None:
            raise ValueError(f"split {split!r}: shards have none; name them, such as {path.parent}/{split}-*.tar")
        return tars.Tars(tars.shards_of(str(source)))
    if not path.is_dir():
        known = f"digits, {', '.join(DRAWN[1:])}"
        raise FileNotFoundError(
            f"{source}: no such folder; expected emoji, {known}, a folder of pictures or tar shards"
        )
    if tables.is_table(path):
        return tables.Table(path, split)
    if digits.is_idx(path):
        return digits.idx_folder(path, split)
    return folders.Folder(path / split if split else path)
