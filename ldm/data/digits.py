"""Digits: scikit-learn's 1,797 of 8 x 8 pixels, and files in MNIST's format, IDX."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm.data.items import Record, digest
from ldm.files import text_of

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAINING = 1500  # of scikit-learn's digits; the last 297 are its test
LIMIT = 2**31  # numbers in one file
FILES = {"train": ("train",), "test": ("t10k", "test")}  # how the names of IDX files begin


class Digits:
    """Grey pictures (N,H,W) with labels (N,); the caption of 7 is "a seven", or the name of class 7 if it has one."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, name: str, classes: list[str] | None = None):
        self.pixels, self.labels, self.name = pixels, labels, name
        self.classes = classes or list(NAMES[: 1 + int(labels.max(initial=0))])
        if classes or labels.max(initial=0) < len(NAMES):
            captions = classes or [f"{'an' if name == 'eight' else 'a'} {name}" for name in NAMES]
        else:
            self.classes = [str(label) for label in range(1 + int(labels.max()))]
            captions = [f"class {name}" for name in self.classes]
        self.captions = captions

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Record:
        label = int(self.labels[index])
        picture = Image.fromarray(self.pixels[index])
        return Record(f"{self.name}, picture {index}", picture, self.captions[label], label)

    def identity(self) -> dict[str, Any]:
        content = digest([hashlib.sha256(self.pixels.tobytes()).hexdigest(), self.labels.tolist(), self.captions])
        return {"kind": "digits", "pictures": len(self), "content": content}


def small_digits(split: str | None = None) -> Digits:
    """scikit-learn's digits: all, or the split "train" (the first 1,500) or "test" (the rest)."""
    from sklearn.datasets import load_digits

    if split not in (None, "train", "test"):
        raise ValueError(f"split {split!r}: digits have train and test")
    part = {"train": slice(TRAINING), "test": slice(TRAINING, None)}.get(split or "", slice(None))
    found = load_digits()
    pixels = np.rint(found.images[part] * (255 / 16)).astype(np.uint8)  # from 0..16
    return Digits(pixels, found.target[part], "digits")


def is_idx(folder: Path) -> bool:
    return any(folder.glob("*images*idx3*"))


def idx_folder(folder: Path, split: str | None = None) -> Digits:
    """train-images-idx3-ubyte and its labels, or t10k-... for the split "test", packed by gzip or not.

    classes.txt, one name a line, says what the labels mean where they are not digits.
    """
    if split not in (None, *FILES):
        raise ValueError(f"split {split!r}: files in MNIST's format have train and test")
    starts = FILES[split or "train"]
    pixels, labels = (read_idx(_find(folder, starts, f"{kind}*idx{n}*")) for kind, n in (("images", 3), ("labels", 1)))
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise ValueError(f"{folder}: pictures {pixels.shape} and labels {labels.shape}, expected (N,H,W) and (N,)")
    names = folder / "classes.txt"
    classes = text_of(names).split("\n") if names.exists() else []
    classes = [name.strip() for name in classes if name.strip()]
    if classes and labels.max(initial=0) >= len(classes):
        raise ValueError(f"{names}: {len(classes)} names, but there is a label {labels.max()}")
    return Digits(pixels, labels, str(folder), classes)


def _find(folder: Path, starts: tuple[str, ...], pattern: str) -> Path:
    found = [path for start in starts for path in sorted(folder.glob(f"{start}*{pattern}"))]
    if not found:
        raise FileNotFoundError(f"{folder}: no file {starts[0]}-{pattern}")
    return found[0]


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes, packed by gzip or not -> uint8 array of the shape that its head says.

    The head: two zeros, 8 for unsigned bytes, the number of sides, then each side in four bytes, the highest first.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            return _idx(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip: {error}") from None


def _idx(file: Any, path: Path) -> np.ndarray:
    """Of what is packed, no more is unpacked than the head says."""
    head = file.read(4)
    if head[:3] != b"\x00\x00\x08" or head[3:] not in (b"\1", b"\3"):
        raise ValueError(f"{path}: not an IDX file of bytes, which begins with 00 00 08 and has 1 side or 3")
    sides = [int.from_bytes(file.read(4), "big") for _ in range(head[3])]
    count = math.prod(sides)
    if 0 in sides[1:] or count > LIMIT:
        raise ValueError(f"{path}: sides {sides}, expected pictures, and at most {LIMIT:,} numbers in all")
    body = file.read(count + 1)
    if len(body) != count:
        raise ValueError(
            f"{path}: {'more' if len(body) > count else len(body)} bytes of data, expected {count} for {sides}"
        )
    return np.frombuffer(body, np.uint8).reshape(sides)
