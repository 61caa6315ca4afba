"""Sources of pictures with captions: what is read, how it is cropped, what happens to what cannot be read."""

import csv
import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ldm import data
from ldm.data import Item, buckets, digits, folders, tars
from ldm.data.emoji import EmojiScenes
from ldm.data.pictures import Pictures, View, framed

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(colour="red", size=(24, 16)) -> Image.Image:
    return Image.new("RGB", size, COLOURS.get(colour, colour))


def write(path, colour="red", size=(24, 16), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, size).save(path, **options)
    return path


def encoded(colour="red", size=(24, 16), format="PNG") -> bytes:
    buffer = io.BytesIO()
    picture(colour, size).save(buffer, format)
    return buffer.getvalue()


def noise(size, seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colour_of(item) -> str:
    found = item[0].getpixel((3, 3))
    return next(name for name, rgb in COLOURS.items() if max(abs(a - b) for a, b in zip(found, rgb)) < 5)


# ---- items ----


def test_an_item_unpacks_as_picture_and_caption_and_travels_to_a_worker_with_all_it_has():
    item = Item(picture(), "words", 3, picture("blue"))
    image, caption = item
    again = pickle.loads(pickle.dumps(item))
    assert (image, caption) == (item.picture, item.caption) == (item[0], item[1])
    assert again.label == 3 and again.caption == "words" and again.condition.getpixel((0, 0)) == COLOURS["blue"]
    assert Item(image, caption).label is None


# ---- folders ----


@pytest.fixture
def three(tmp_path):
    """Three pictures, at two depths."""
    for path, colour in (("b.png", "green"), ("a.jpg", "red"), ("deep/c.webp", "blue")):
        write(tmp_path / path, colour, **({"lossless": True} if path.endswith("webp") else {}))
    return tmp_path


def test_pictures_without_captions_are_found_at_any_depth_and_sorted(three):
    write(three / ".hidden" / "x.png")
    (three / "notes.md").write_text("no picture")
    found = data.open(three, side=8)
    assert [record.name for record in found.source] == [str(three / name) for name in ("a.jpg", "b.png", "deep/c.webp")]
    assert [caption for _, caption in found] == ["", "", ""]
    assert {image.size for image, _ in found} == {(8, 8)} and {item.label for item in found} == {None}


def test_captions_from_jsonl(three):
    rows = [
        {"file_name": "deep/c.webp", "text": "a blue\u2028one", "label": "cold"},
        {"file_name": "a.jpg", "caption": "a red one", "label": "warm"},
        {"file_name": "b.png", "text": "", "label": "warm"},
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (three / "metadata.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    found = data.open(three, side=8)
    assert [(caption, item.label) for item in found for _, caption in [item]] == [
        ("a red one", 1),
        ("", 1),
        ("a blue\u2028one", 0),
    ]
    assert found.classes == ["cold", "warm"] and colour_of(found[2]) == "blue"


def test_captions_from_csv_with_numbers_for_labels_and_a_condition(three):
    write(three / "masks" / "a.png", "blue", (48, 32))
    with open(three / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "label", "condition"])
        rows.writerow(["a.jpg", 'one, "two"\nthree', "7", "masks/a.png"])
    item = data.open(three, side=8)[0]
    assert item.caption == 'one, "two"\nthree' and item.label == 7
    assert item.condition.size == (8, 8) and item.condition.getpixel((1, 1)) == COLOURS["blue"]


def test_metadata_of_a_deeper_folder_is_relative_to_it_and_leaves_others_out_aloud(three, caplog):
    (three / "deep" / "metadata.jsonl").write_text('{"file_name": "c.webp", "text": "deep"}')
    found = data.open(three, side=8)
    assert [caption for _, caption in found] == ["deep"]
    assert "2 pictures are in no metadata file" in caplog.text


def test_captions_beside_the_pictures(three, caplog):
    (three / "a.txt").write_text("\ufeff red,\n apple \n", encoding="utf-8")
    (three / "deep" / "c.txt").write_text("blue")
    assert [caption for _, caption in data.open(three, side=8)] == ["red, apple", "", "blue"]
    assert "1 of 3 pictures have no .txt" in caplog.text


def test_the_first_folder_names_the_class(tmp_path):
    for name in ("wild_cat/1.png", "dog/2.png", "dog/puppies/3.png"):
        write(tmp_path / name)
    found = data.open(tmp_path, side=8)
    assert found.classes == ["dog", "wild_cat"]
    assert [(item.caption, item.label) for item in found] == [("dog", 0), ("dog", 0), ("wild cat", 1)]
    assert len(data.open(tmp_path, side=8, split="dog")) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.jsonl", "{}", "metadata.jsonl:1: file_name is None"),
        ("metadata.jsonl", '{"file_name": "a.jpg"}\n{oops', "metadata.jsonl:2: no JSON"),
        ("metadata.jsonl", "[1]", "metadata.jsonl:1: expected a JSON object"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": ["a", "b"]}', "metadata.jsonl:1: text is"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": 1}\n{"file_name": "b.png"}', "label is missing in some"),
        ("metadata.csv", "name,text\na.jpg,red", "metadata.csv:2: file_name is None"),
        ("metadata.csv", "file_name,text\na.jpg,red, and green", "metadata.csv, line 2: expected 2 columns"),
        ("metadata.csv", f"file_name,text\na.jpg,{'red' * 50_000}", "metadata.csv, line 2: no CSV"),
        ("metadata.jsonl", "[" * 100_000, "metadata.jsonl:1: no JSON"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "condition": 5}', "metadata.jsonl:1: the second picture is 5"),
    ],
)
def test_metadata_that_cannot_be_used_is_one_line_with_its_place(three, name, content, said):
    (three / name).write_text(content)
    with pytest.raises(ValueError) as caught:
        data.open(three)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_labels_of_very_many_digits_are_names(three):
    (three / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "label": "9" * 5000}))
    assert data.open(three, side=4).classes == ["9" * 5000]


def test_captions_beside_pictures_that_are_no_text_are_named(three):
    (three / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="a.txt: not UTF-8 text"):
        data.open(three)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; expected emoji, digits"):
        data.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no pictures, expected some of .png"):
        data.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing.tar: no such file"):
        data.open(tmp_path / "missing.tar")
    with pytest.raises(FileNotFoundError, match="no tar there"):
        data.open(tmp_path / "missing-*.tar")


def test_identity_follows_names_and_captions_and_not_the_place(three, tmp_path_factory):
    before = data.open(three, side=8).identity()
    assert before == json.loads(json.dumps(before))
    moved = tmp_path_factory.mktemp("other") / "moved"
    three.rename(moved)
    assert data.open(moved, side=8).identity() == before
    (moved / "a.txt").write_text("new")
    changed = data.open(moved, side=8).identity()
    assert {key for key in before if before[key] != changed[key]} == {"listing"}
    assert data.open(moved, side=16).identity() != changed


# ---- crops and mirrors ----


def test_a_crop_is_the_largest_of_its_shape_where_the_view_lies():
    wide = noise((24, 16))
    for x, left in ((0.0, 0), (0.5, 4), (1.0, 8)):
        assert framed(wide, (16, 16), View(x=x)).tobytes() == wide.crop((left, 0, left + 16, 16)).tobytes()
    tall = noise((16, 24))
    assert framed(tall, (16, 16), View(y=1.0)).tobytes() == tall.crop((0, 8, 16, 24)).tobytes()
    mirrored = framed(wide, (24, 16), View(flip=True))
    assert mirrored.tobytes() == wide.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert framed(wide, (24, 16)).tobytes() == wide.tobytes()
    halved = framed(wide, (8, 8), View(x=0.0))
    expected = wide.crop((0, 0, 16, 16)).resize((8, 8), Image.Resampling.LANCZOS)
    assert (
        np.abs(np.asarray(halved, int) - np.asarray(expected, int)).mean() < 6
    )  # the filter sees past the crop's edge


def test_exif_alpha_and_grey_arrive_upright_and_rgb(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    write(tmp_path / "a.jpg", size=(32, 16), exif=turned)
    Image.new("RGBA", (16, 16), (0, 0, 255, 0)).save(tmp_path / "b.png")
    Image.new("L", (16, 16), 9).save(tmp_path / "c.png")
    plain = Pictures(folders.Folder(tmp_path))
    assert plain[0].picture.size == (16, 32)
    assert plain[1].picture.getpixel((3, 3)) == (255, 255, 255) and plain[2].picture.getpixel((3, 3)) == (9, 9, 9)
    assert {item.picture.mode for item in plain} == {"RGB"}


def test_draws_depend_on_the_generator_alone(tmp_path):
    for i in range(3):
        noise((40, 20), i).save(tmp_path / f"{i}.png")
    one, other = (data.open(tmp_path, side=16, crop="random", flip=True) for _ in range(2))
    forward = [one.draw(i, generator(i)).picture.tobytes() for i in range(3)]
    backward = [other.draw(i, generator(i)).picture.tobytes() for i in (2, 1, 0)]
    assert forward == backward[::-1]
    seen = {one.draw(0, generator(seed)).picture.tobytes() for seed in range(8)}
    assert len(seen) == 8
    flips = [one.view(generator(seed)).flip for seed in range(100)]
    assert 30 < sum(flips) < 70


def test_without_options_a_draw_is_the_item_itself_and_a_flip_is_of_the_same_crop(tmp_path):
    noise((40, 20)).save(tmp_path / "0.png")
    plain, flipping = data.open(tmp_path, side=16), data.open(tmp_path, side=16, flip=True)
    itself = plain[0].picture
    assert {plain.draw(0, generator(seed)).picture.tobytes() for seed in range(4)} == {itself.tobytes()}
    mirrored = itself.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = {flipping.draw(0, generator(seed)).picture.tobytes() for seed in range(16)}
    assert seen == {itself.tobytes(), mirrored.tobytes()}


def test_options_that_are_none(three):
    for options, said in (
        ({"crop": "corner"}, "crop 'corner': expected one of centre, random"),
        ({"side": 0}, "side 0"),
        ({"count": 4}, "count 4: expected 1 to 3"),
        ({"side": 64, "buckets": 48}, "side 64: expected a multiple"),
    ):
        with pytest.raises(ValueError, match=said):
            data.open(three, **options)
    assert len(data.open(three, count=2)) == 2


# ---- what cannot be read ----


@pytest.fixture
def damaged(tmp_path):
    """Six pictures, of which 2 and 3 cannot be read: cut short, and empty."""
    for i, colour in enumerate(["red", "green", "red", "red", "blue", "green"]):
        write(tmp_path / f"{i}.png", colour)
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[:50])
    (tmp_path / "3.png").write_bytes(b"")
    return tmp_path


def test_in_place_of_a_bad_picture_stands_the_next_good_one_and_it_is_named_once(damaged, caplog):
    found = data.open(damaged, side=8)
    assert [colour_of(item) for item in found] == ["red", "green", "blue", "blue", "blue", "green"]
    assert [colour_of(data.open(damaged, side=8)[i]) for i in (3, 2)] == ["blue", "blue"]
    assert found[2] and found[3] and len(found) == 6
    once = [record.getMessage() for record in caplog.records]
    assert sum("2.png" in line for line in once[:2]) == 1 and len(found.unreadable.found) == 2


def test_behind_the_last_comes_the_first(damaged):
    (damaged / "5.png").write_bytes(b"no picture")
    assert colour_of(data.open(damaged, side=8)[5]) == "red"


def test_more_bad_pictures_than_may_be_are_an_error_that_lists_them(damaged):
    with pytest.raises(
        ValueError, match=r"2 pictures cannot be read, at most 1 may be: .*2\.png.*; .*3\.png"
    ) as caught:
        data.open(damaged, side=8, skip=1)[2]
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="1 pictures cannot be read, at most 0"):
        data.open(damaged, side=8, skip=0)[3]
    assert data.open(damaged, side=8, skip=0)[0]


def test_a_folder_of_bad_pictures_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"none of the 1 pictures can be read: .*a\.png"):
        data.open(tmp_path)[0]


def test_a_file_that_metadata_names_and_nobody_has_is_bad(three):
    (three / "metadata.jsonl").write_text('{"file_name": "a.jpg"}\n{"file_name": "gone.jpg"}')
    found = data.open(three, side=8)
    assert colour_of(found[1]) == "red" and "gone.jpg" in next(iter(found.unreadable.found))


# ---- Hugging Face datasets ----


@pytest.fixture
def hub():
    return pytest.importorskip("datasets")


def table(hub, **columns):
    features = {"image": hub.Image()} | {
        name: hub.ClassLabel(names=["cat", "wild_dog"]) if name == "label" else hub.Value("string")
        for name in columns
        if name != "image"
    }
    return hub.Dataset.from_dict(columns, features=hub.Features(features))


def test_a_saved_dataset(hub, tmp_path):
    rows = {"image": [picture("red"), picture("blue")], "text": ["one", "two"], "label": [1, 0]}
    table(hub, **rows).save_to_disk(tmp_path)
    found = data.open(tmp_path, side=8)
    assert [(colour_of(item), item.caption, item.label) for item in found] == [("red", "one", 1), ("blue", "two", 0)]
    assert found.classes == ["cat", "wild_dog"] and found.identity()["kind"] == "table"
    with pytest.raises(ValueError, match="split 'train': .* has no splits"):
        data.open(tmp_path, split="train")


def test_splits_classes_as_captions_and_bad_rows(hub, tmp_path):
    parts = {"test": table(hub, image=[picture("blue")], label=[0])}
    rows = [{"bytes": b"broken", "path": None}, {"bytes": encoded("green"), "path": None}]
    parts["train"] = table(hub, image=rows, label=[0, 1])
    hub.DatasetDict(parts).save_to_disk(tmp_path)
    found = data.open(tmp_path, side=8)
    assert colour_of(found[0]) == "green" and found[0].caption == "wild dog"
    assert f"{tmp_path}, row 0" in found.unreadable.found
    assert colour_of(data.open(tmp_path, side=8, split="test")[0]) == "blue"
    with pytest.raises(ValueError, match="split 'dev': .* has test, train"):
        data.open(tmp_path, split="dev")


def test_parquet_files(hub, tmp_path):
    (tmp_path / "data").mkdir()
    table(hub, image=[picture("red")], caption=["one"]).to_parquet(tmp_path / "data" / "train-0.parquet")
    table(hub, image=[picture("blue")], caption=["two"]).to_parquet(tmp_path / "data" / "test-0.parquet")
    assert [item.caption for item in data.open(tmp_path, side=8, split="test")] == ["two"]


def test_a_dataset_without_pictures_lists_its_columns(hub, tmp_path):
    hub.Dataset.from_dict({"words": ["a"]}).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match="no column of pictures among words; expected image"):
        data.open(tmp_path)


# ---- shards ----


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """Two shards: pictures with .txt, .cls, .json or a condition, and a sample without a picture."""
    first = {
        "./b.png": encoded("red"), "./b.txt": b" a red\n one ", "./b.cls": b"3", "lone.txt": b"nothing",
        "./a.jpg": encoded("green", format="JPEG"), "./a.json": b'{"caption": "a green one", "label": 4}',
    }  # fmt: skip
    second = {f"{'long' * 40}/c.PNG": encoded("blue"), f"{'long' * 40}/c.condition.png": encoded("red")}
    shard(tmp_path / "x-000.tar", first)
    shard(tmp_path / "x-001.tar", second)
    return tmp_path


def test_shards_keep_their_order_whatever_is_asked_first(shards):
    found = data.open(shards, side=8)
    assert len(found) == 3 and colour_of(found[2]) == "blue" and found[2].condition.getpixel((1, 1)) == COLOURS["red"]
    assert [(item.caption, item.label) for item in found] == [("a red one", 3), ("a green one", 4), ("", None)]
    assert found.source[0].name == f"{shards}/x-000.tar/./b"


def test_shards_by_file_pattern_and_range(shards):
    for name, count in (("x-000.tar", 2), ("x-*.tar", 3), ("x-{000..001}.tar", 3), ("x-00[1].tar", 1)):
        assert len(data.open(f"{shards}/{name}", side=8)) == count
    with pytest.raises(ValueError, match="split 'train': shards have none"):
        data.open(shards, split="train")


def test_the_index_is_made_once_and_again_when_the_shard_changed(shards, monkeypatch):
    path = shards / "x-000.tar"
    before = data.open(path, side=8)
    assert (shards / "x-000.tar.index.json").exists()
    scans = []
    scanned = tars._scanned
    monkeypatch.setattr(tars, "_scanned", lambda path: scans.append(path) or scanned(path))
    assert data.open(path, side=8).identity() == before.identity() and not scans
    shard(path, {"new.png": encoded("blue", (32, 16))})
    assert [colour_of(item) for item in data.open(path, side=8)] == ["blue"] and scans == [path]
    (shards / "x-000.tar.index.json").write_text("broken")
    assert len(data.open(path, side=8)) == 1


def test_an_index_that_cannot_stand_beside_is_kept_in_the_cache(shards, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    replacing = tars.replacing

    def guarded(path):
        if path.is_relative_to(shards):
            raise ValueError("read-only")
        return replacing(path)

    monkeypatch.setattr(tars, "replacing", guarded)
    data.open(shards / "x-000.tar", side=8)
    assert not list(shards.glob("*.index.json")) and len(list(cache.rglob("*.json"))) == 1
    monkeypatch.setattr(tars, "_scanned", None)
    assert len(data.open(shards / "x-000.tar", side=8)) == 2


def test_a_packed_or_cut_shard_is_named(shards):
    whole = (shards / "x-000.tar").read_bytes()
    (shards / "packed.tar").write_bytes(gzip.compress(whole))
    (shards / "cut.tar").write_bytes(whole[:700])
    for name in ("packed.tar", "cut.tar"):
        with pytest.raises(ValueError, match=f"{name}: not a whole, unpacked tar"):
            data.open(shards / name)


def test_bad_members_are_bad_pictures(tmp_path):
    members = {"a.png": b"broken", "b.png": encoded("green"), "c.png": encoded("red"), "c.cls": b"many"}
    found = data.open(shard(tmp_path / "x.tar", members), side=8)
    assert [colour_of(item) for item in found] == ["green"] * 3
    assert len(found.unreadable.found) == 2


# ---- digits ----


def test_digits():
    found = data.open("digits", side=16)
    assert len(found) == 1797 and found.classes == list(digits.NAMES)
    assert [(item.caption, item.label) for item in (found[7], found[8])] == [("a seven", 7), ("an eight", 8)]
    assert found[0].picture.size == (16, 16) and found[0].picture.mode == "RGB"
    parts = [data.open("digits", split=split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [1500, 297]
    from sklearn.datasets import load_digits

    known = load_digits()
    raw = Pictures(digits.small_digits("test"))
    assert raw[5].label == known.target[1505]
    assert np.array_equal(np.asarray(raw[5].picture)[..., 0], np.rint(known.images[1505] * 255 / 16))
    with pytest.raises(ValueError, match="split 'dev'"):
        data.open("digits", split="dev")


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "member", [["b.png", {"a": 1}, 5], ["b.png", -1, 5], ["b.png", 0, 10**12], [1, 0, 5], ["b.png", 0], "abc", 5, None]
)
def test_an_index_that_names_no_place_in_its_shard_is_made_again(tmp_path, member):
    path = shard(tmp_path / "a.tar", {"a.png": encoded("red"), "a.txt": b"red"})
    whole = tars.members(path)
    index = path.with_name("a.tar.index.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | {"members": [member]}))
    assert tars.members(path) == whole and json.loads(index.read_text())["members"] != [member]


def test_a_sample_whose_json_is_nested_too_deep_or_labelled_by_a_list_is_named(tmp_path):
    for content in (b"[" * 100_000, b'{"label": [1]}', b'{"label": 1e999}'):
        path = shard(tmp_path / f"{len(content)}.tar", {"a.png": encoded("red"), "a.json": content})
        with pytest.raises(ValueError, match="a: its caption or label cannot be read"):
            tars.Tars([path])[0]


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    for start, count, pack in (("train", 5, bytes), ("t10k", 3, gzip.compress)):
        ending = "" if pack is bytes else ".gz"
        pixels = rng.integers(0, 255, (count, 6, 4))
        (tmp_path / f"{start}-images-idx3-ubyte{ending}").write_bytes(pack(idx(pixels)))
        (tmp_path / f"{start}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(np.arange(count) + 5)))
    return tmp_path


def test_idx_files_packed_or_not(mnist):
    found = data.open(mnist, side=4)
    assert [item.caption for item in found] == ["a five", "a six", "a seven", "an eight", "a nine"]
    assert len(data.open(mnist, side=4, split="test")) == 3
    expected = np.random.default_rng(0).integers(0, 255, (5, 6, 4))[1]
    assert np.array_equal(np.asarray(Pictures(digits.idx_folder(mnist))[1].picture)[..., 2], expected)


def test_idx_files_of_other_things_than_digits(mnist):
    (mnist / "classes.txt").write_text("\n".join(f"thing {i}" for i in range(10)) + "\n")
    assert data.open(mnist, side=4)[2].caption == "thing 7"
    (mnist / "classes.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="2 names, but there is a label 9"):
        data.open(mnist, side=4)
    (mnist / "classes.txt").unlink()
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(5) + 20))
    assert data.open(mnist, side=4)[0].caption == "class 20"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x00\x00\x08\x01\x00\x00\x00\x05ab", "2 bytes of data, expected 5"),
        (b"\x00\x00\x0d\x01", "not an IDX file of bytes"),
        (b"\x1f\x8b\x08 no gzip", "damaged gzip"),
        (b"", "not an IDX file"),
        (idx(np.zeros(4)), r"pictures \(5, 6, 4\) and labels \(4,\)"),
    ],
)
def test_damaged_idx_files_are_named(mnist, content, said):
    (mnist / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        data.open(mnist)


def test_a_packed_idx_file_is_unpacked_as_far_as_its_head_says(mnist):
    packed = gzip.compress(idx(np.arange(5)))
    for content, said in (
        (packed[:10] + b"\xff" * 8 + packed[18:], "damaged gzip"),
        (gzip.compress(idx(np.arange(5)) + bytes(10**7)), "more bytes of data, expected 5"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "at most 2,147,483,648 numbers"),
        (bytes([0, 0, 8, 200]) + bytes(800), "1 side or 3"),
    ):
        (mnist / "train-labels-idx1-ubyte").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            data.open(mnist)
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(5)))
    (mnist / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="classes.txt: not UTF-8 text"):
        data.open(mnist)


# ---- emoji ----


def test_emoji_scenes_are_those_of_their_own_class():
    found, own = data.open("emoji", side=32, seed=4, count=5), EmojiScenes(32, 4, length=5)
    assert len(found) == 5 and found.identity() == own.identity()
    assert [(image.tobytes(), caption) for image, caption in found] == [(i.tobytes(), c) for i, c in own]
    for options in ({"flip": True}, {"crop": "random"}, {"buckets": 8}):
        with pytest.raises(ValueError, match="expected no flip"):
            data.open("emoji", **options)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        data.open("emoji", split="dev")
    with pytest.raises(ValueError, match="count 0"):
        data.open("emoji", count=0)


# ---- buckets ----


@pytest.mark.parametrize(("side", "unit"), [(512, 64), (1024, 64), (64, 8), (256, 32)])
def test_buckets_have_about_one_area_and_whole_units(side, unit):
    sizes = buckets.bucket_sizes(side, unit)
    assert (side, side) in sizes and len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % unit == height % unit == 0 and (height, width) in sizes
        assert 0.8 * side * side < width * height <= side * side
        assert max(width, height) <= 2 * min(width, height)


def test_every_picture_goes_to_the_nearest_aspect_as_it_stands_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    write(tmp_path / "a.png", size=(100, 100))
    write(tmp_path / "b.png", size=(300, 100))
    write(tmp_path / "c.jpg", size=(160, 100), exif=turned)
    (tmp_path / "d.png").write_bytes(b"broken")
    found = data.open(tmp_path, side=64, buckets=16)
    assert found.sizes == [(64, 64), (80, 48), (48, 80), (64, 64)]
    assert [item.picture.size for item in found] == found.sizes
    assert found[3].picture.size == (64, 64)  # what stands for a bad picture has the size that was promised
    assert data.open(tmp_path, side=64).sizes is None


def test_batches_are_of_one_shape_and_every_picture_comes_once_an_epoch(tmp_path):
    from ldm.training.order import batches, shares

    for i in range(23):
        write(tmp_path / f"{i:02}.png", size=[(40, 40), (60, 40), (40, 60)][i % 3])
    found = data.open(tmp_path, side=32, buckets=8)
    stream = batches(len(found), 4, seed=3, sizes=found.sizes)
    drawn = [next(stream) for _ in range(40)]
    for batch in drawn:
        assert len({found.sizes[index] for _, index in batch}) == 1
    places = [place for batch in drawn for place in batch]
    assert len(set(places)) == len(places)
    assert {index for epoch, index in places if epoch == 0} == set(range(23))
    for processes in (1, 2, 4):
        for batch in drawn[:5]:
            parts = [shares(batch, process, processes, 1)[0] for process in range(processes)]
            assert sorted(place for part in parts for place in part) == sorted(batch)
