"""Pictures and captions to learn from: emoji scenes that are drawn here, digits, and pictures of the user's own.

    source --folders, tables, tars, digits--> records --pictures, buckets--> items (picture, caption)

    items.py     Record, what lies in a source; Item, what a training is given
    pictures.py  records -> items: upright, cropped, resized, mirrored; what cannot be read
    buckets.py   a few sizes, one for each aspect
    folders.py   a folder with captions
    tables.py    Hugging Face datasets on disk
    tars.py      WebDataset's shards
    digits.py    scikit-learn's digits, MNIST's format
    emoji.py     emoji scenes; sprites.py: their sheet

A dataset has a length, `data[i]`, or `data.draw(i, generator)` where it crops or mirrors at random, and `identity()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Union

from ldm.data.items import Item, Record, RecordSource

if TYPE_CHECKING:
    from ldm.data.emoji import EmojiScenes
    from ldm.data.pictures import Pictures

__all__ = ["Item", "Record", "open", "records"]


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
) -> Union["Pictures", "EmojiScenes"]:
    """A source of pictures with captions -> a dataset of items (picture, caption).

    `source` is "emoji", "digits", a folder of pictures with captions or in folders by class, a Hugging Face dataset on
    disk, a folder in MNIST's format, or tar shards (a file, a folder, "train-{000..012}.tar"); see `records`. A file or
    folder of a built-in's name is reached as "./emoji".

    Pictures are cropped ("centre" or "random") to squares of `side`; or, with `buckets`, to sizes of about as many
    pixels whose sides are multiples of `buckets`. `flip` mirrors half of what is drawn. `split` names a part of the
    data, `count` takes the first so many, `skip` is how many unreadable pictures are passed over. `seed` says which
    emoji scenes: these are drawn at `side`, endless, and neither cropped nor mirrored.
    FileNotFoundError for a source that is not there, ValueError for one that cannot be used, and for options that do
    not go with it.
    """
    from ldm.data.buckets import assigned
    from ldm.data.pictures import Pictures

    if str(source) == "emoji":
        if flip or buckets or crop != "centre":
            raise ValueError("emoji scenes are drawn at their size, with left and right in their captions: "
                             "expected no flip, no buckets and no random crop")  # fmt: skip
        return _scenes(side, split, count, seed)
    found = records(source, split)
    sizes = assigned(found, side, buckets) if buckets else None
    return Pictures(found, side, crop, flip, sizes, count, skip)


def records(source: str | Path, split: str | None = None) -> RecordSource:
    """A source other than emoji scenes -> its records, by what lies there."""
    from ldm.data import digits, folders, tables, tars

    path = Path(source)
    if str(source) == "digits":
        return digits.small_digits(split)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        if split is not None:
            raise ValueError(f"split {split!r}: shards have none; name them, such as {path.parent}/{split}-*.tar")
        return tars.Tars(tars.shards_of(str(source)))
    if not path.is_dir():
        raise FileNotFoundError(f"{source}: no such folder; expected emoji, digits, a folder of pictures or tar shards")
    if tables.is_table(path):
        return tables.Table(path, split)
    if digits.is_idx(path):
        return digits.idx_folder(path, split)
    return folders.Folder(path / split if split else path)


def _scenes(side: int, split: str | None, count: int | None, seed: int) -> "EmojiScenes":
    from ldm.data.emoji import EmojiScenes, split_scene

    scenes = EmojiScenes(side, seed, split or "train", 1_000_000 if count is None else count)
    if count is not None and count < 1:
        raise ValueError(f"count {count}: expected at least 1")
    split_scene(scenes.rng(0), scenes.split)  # names an unknown split
    return scenes
