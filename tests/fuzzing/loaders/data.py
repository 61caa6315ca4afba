"""Pictures and captions to learn from, boxes, files of prompts."""

import csv
import gzip
import io
import json
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fuzzing.loaders.loader import loader, noise, photo


def write_pictures_with_metadata(folder: Path) -> None:
    for kind in ("jsonl", "csv"):
        place = folder / kind
        place.mkdir()
        rows: list[dict[str, Any]] = []
        for i in range(3):
            photo(i).save(place / f"{i}.png")
            photo(i + 3).save(place / f"c{i}.png")
            rows.append({"file_name": f"{i}.png", "text": f"picture {i}", "label": i, "condition": f"c{i}.png"})
        if kind == "jsonl":
            (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
            continue
        with open(place / "metadata.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "texts").mkdir()
    for i in range(3):
        photo(i).save(folder / "texts" / f"{i}.png")
        (folder / "texts" / f"{i}.txt").write_text(f"picture {i}")


def folders_of_pictures(root: Path, damaged: Path) -> None:
    _items(damaged.parent)


def _items(source: Path) -> None:
    from ldm import data

    found: Any = data.open(source, side=8, skip=0)
    json.dumps(found.identity())
    for i in range(len(found)):
        json.dumps([found[i].caption, found[i].label])


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_tars(folder: Path) -> None:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i in range(2):
            said = {"png": encoded(photo(i), "PNG"), "json": json.dumps({"text": f"picture {i}", "label": i}).encode()}
            said = said if i else {"png": said["png"], "txt": b"picture 0", "cls": b"1"}
            for ending, content in said.items():
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def tar_shards(root: Path, damaged: Path) -> None:
    _items(damaged)


def write_tars_with_index(folder: Path) -> None:
    from ldm.data.tars import Tars

    write_tars(folder)
    Tars([folder / "a.tar"])


def indices_of_tar_shards(root: Path, damaged: Path) -> None:
    _items(root / "a.tar")


def write_digits(folder: Path) -> None:
    pixels, labels = noise(4, 8, 8), np.arange(4, dtype=np.uint8)
    (folder / "packed").mkdir()
    (folder / "plain").mkdir()
    for name, values in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
        (folder / "plain" / name).write_bytes(head + values.tobytes())
        (folder / "packed" / f"{name}.gz").write_bytes(gzip.compress(head + values.tobytes()))
    (folder / "plain" / "classes.txt").write_text("a\nb\nc\nd")


def digits(root: Path, damaged: Path) -> None:
    _items(damaged.parent)


def write_sets_for_tryon(folder: Path) -> None:
    import test_tryon_data

    test_tryon_data.viton(folder / "hd", names=test_tryon_data.NAMES[:2])
    test_tryon_data.dresscode(folder / "code", ("upper_body",))
    (folder / "hd" / "synthetic.json").write_text(json.dumps({"train": ["00000_00.jpg"]}))
    shutil.rmtree(folder / "hd" / "test")


def sets_for_tryon(root: Path, damaged: Path) -> None:
    from ldm.data.tryon import TryOn

    place = root / damaged.relative_to(root).parts[0]
    looks = TryOn(place, "train", size=(16, 12), skip=0)
    for i in range(len(looks)):
        looks[i]


def write_boxes(folder: Path) -> None:
    (folder / "boxes.json").write_text(json.dumps({"a.jpg": [[1, 2, 3.5, 4]], "b.jpg": [], "c.jpg": [[0, 0, 9, 9]]}))


def boxes_around_errors(root: Path, damaged: Path) -> None:
    from ldm.data.tryon import boxes

    boxes.read(damaged)


def write_prompts(folder: Path) -> None:
    (folder / "a.txt").write_text("# a note\na red apple --seed 7 --size 96x64\n\nan owl --steps=4 --negative 'a b'\n")
    rows = [{"prompt": "a red apple", "seed": 7, "name": "apple"}, {"prompt": "an owl", "count": 2, "guidance": 3.5}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "a.csv").write_text('prompt,seed,steps\n"a red, apple",7,4\nan owl,,5\n')


def files_of_prompts(root: Path, damaged: Path) -> None:
    from ldm import batch

    jobs = batch.read(damaged, root, {"guidance_scale": 3.0})
    [job.key for job in jobs]


loader(folders_of_pictures, write_pictures_with_metadata, share=2)
loader(tar_shards, write_tars, kept=r"\.tar\.index\.json$")
loader(indices_of_tar_shards, write_tars_with_index, stays=r"\.tar$", kept=r"\.tar\.index\.json$")
loader(digits, write_digits)
loader(sets_for_tryon, write_sets_for_tryon, share=2)
loader(boxes_around_errors, write_boxes)
loader(files_of_prompts, write_prompts, share=2)


def write_tables(folder: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    pictures = [{"bytes": encoded(photo(i), "PNG"), "path": None} for i in range(2)]
    table = datasets.Dataset.from_dict({"image": pictures, "text": ["one", "two"]}, features=features)
    table.save_to_disk(folder / "saved")
    (folder / "rows").mkdir()
    table.to_parquet(folder / "rows" / "train.parquet")


def tables(root: Path, damaged: Path) -> None:
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("datasets.config.HF_DATASETS_CACHE", str(root / "cache"))
        _items(root / damaged.relative_to(root).parts[0])


if find_spec("datasets"):
    loader(tables, write_tables, kept="^files/cache")
