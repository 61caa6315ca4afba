"""A folder of paper dolls in VITON-HD's layout ("zalando-hd-resized"), with flawed pictures and their boxes beside.

    seed, numbers of people --doll--> {train,test}/image, cloth, ... ; train_pairs.txt, test_pairs.txt, dolls.json

A person's files are written before the boxes that name it, so that what was stopped goes on: who is named is done.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ldm.data.dolls.figure import SIZE
from ldm.data.dolls.parsing import palettised
from ldm.data.dolls.people import VERSION, Doll, doll
from ldm.data.dolls.pose import body_25
from ldm.data.tryon.pose import skeleton
from ldm.files import replacing, write_json

SETTINGS, BOXES = "dolls.json", "flawed-boxes.json"
FIRST_OF_TEST = 90_000  # the number of the first person of the test split: the same whatever the number of the others
NAMES = 100_000  # numbers of five digits
TOGETHER = 100  # people whose boxes are written at once
Save = Callable[[Doll, Path], object]
FILES: dict[str, tuple[str, Save]] = {
    "image": (".jpg", lambda it, path: _jpeg(it.person, path)),
    "cloth": (".jpg", lambda it, path: _jpeg(it.garment, path)),
    "cloth-mask": (".jpg", lambda it, path: _jpeg(it.garment_mask, path)),
    "image-parse-v3": (".png", lambda it, path: palettised(it.labels).save(path)),
    "agnostic-v3.2": (".jpg", lambda it, path: _jpeg(it.agnostic, path)),
    "agnostic-mask": ("_mask.png", lambda it, path: it.agnostic_mask.save(path)),
    "openpose_img": ("_rendered.png", lambda it, path: skeleton(it.points / SIZE, SIZE[::-1]).save(path)),
    "openpose_json": ("_keypoints.json", lambda it, path: path.write_text(json.dumps(body_25(it.points)))),
    "flawed": (".jpg", lambda it, path: _jpeg(it.flawed, path)),
}  # folder: what follows a person's name in it, and what is written there


def write(out: Path, people: int, test: int, seed: int = 0) -> None:
    """`people` dolls to train with and `test` others, into the folder `out`, which need not be there.

    train_pairs.txt names each person with the own garment, test_pairs.txt with that of another person of the split.
    The same call again writes what is missing. ValueError for numbers that are none, for a folder with other settings
    or with anything else in it, and where it cannot be written.
    """
    if not 1 <= people <= FIRST_OF_TEST or not 2 <= test <= NAMES - FIRST_OF_TEST:
        raise ValueError(
            f"{people} people and {test} for the test: expected 1 to {FIRST_OF_TEST} and 2 to {NAMES - FIRST_OF_TEST}"
        )
    if seed < 0:
        raise ValueError(f"seed {seed}: expected 0 or more")
    _claim(out, {"kind": "paper dolls", "version": VERSION, "seed": seed, "people": people, "test": test})
    with tqdm(total=people + test, desc="drawing", unit="person", disable=None) as bar:
        _split(out / "train", range(people), seed, bar)
        _split(out / "test", range(FIRST_OF_TEST, FIRST_OF_TEST + test), seed, bar)
    own = [name_of(i) for i in range(people)]
    _write_pairs(out / "train_pairs.txt", zip(own, own, strict=True))
    _write_pairs(out / "test_pairs.txt", [(name_of(i), name_of(j)) for i, j in unpaired(test, seed)])


def name_of(i: int) -> str:
    """What the pictures of person i are called."""
    return f"{i:05d}_00.jpg"


def unpaired(test: int, seed: int) -> list[tuple[int, int]]:
    """(person, whose garment) for each person of the test split: each garment once, and nobody in the own one."""
    order = np.random.default_rng((seed, test)).permutation(test) + FIRST_OF_TEST
    return sorted(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Makes the folder and writes down what it is of; ValueError if it is of anything else."""
    path = out / SETTINGS
    if path.is_file():
        found = _read(path)
        if found != settings:
            raise ValueError(f"{out} holds {found}, not {settings}: expected the same, or another folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and holds no paper dolls: expected a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _split(folder: Path, numbers: range, seed: int, bar: tqdm) -> None:
    """Draws the people of one split who are not there yet."""
    for name in FILES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    boxes: dict[str, Any] = _read(folder / BOXES) if (folder / BOXES).is_file() else {}
    for start in range(0, len(numbers), TOGETHER):
        part = numbers[start : start + TOGETHER]
        missing = [i for i in part if name_of(i) not in boxes or not _complete(folder, i)]
        bar.update(len(part) - len(missing))
        for i in missing:
            boxes[name_of(i)] = _write_doll(folder, doll(seed, i), i)
            bar.update()
        if missing:
            write_json(folder / BOXES, dict(sorted(boxes.items())))


def _complete(folder: Path, i: int) -> bool:
    return all(path.is_file() for path in paths_of(folder, i))


def paths_of(folder: Path, i: int) -> list[Path]:
    """The files of person i in a split's folder, in the order of FILES."""
    return [folder / part / f"{name_of(i).removesuffix('.jpg')}{ending}" for part, (ending, _) in FILES.items()]


def _write_doll(folder: Path, it: Doll, i: int) -> list[list[int]]:
    """Writes a person's files -> the boxes of its flawed picture. ValueError where one cannot be written."""
    for path, (_, save) in zip(paths_of(folder, i), FILES.values(), strict=True):
        try:
            save(it, path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
    return [list(box) for box in it.boxes]


def _jpeg(picture: Image.Image, path: Path) -> None:
    """Colours are as fine as edges, and errors stay in their boxes."""
    picture.save(path, quality=95, subsampling=0)


def _write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    with replacing(path) as file:
        file.write("".join(f"{person} {garment}\n" for person, garment in pairs).encode())


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from None
