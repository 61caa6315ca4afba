"""Folders for try-on: both layouts, what is made where a set has none, and what is said of what is broken."""

import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from ldm.data.tryon import TryOn, agnostic, boxes, garment, look, outputs, parsing, pose, sheet, synthetic, written
from ldm.data.tryon.synthetic import Made

W, H = 96, 128
SIZE = (64, 48)
NAMES = ["00000_00.jpg", "00001_00.jpg", "00002_00.jpg"]
# Where the parts of the figure are: left, top, right, bottom. The face reaches down to the shoulders' line.
FIGURE = {
    "hair": (40, 6, 56, 12),
    "face": (40, 12, 56, 38),
    "top": (32, 38, 64, 76),
    "arm": (20, 38, 30, 80),
    "other arm": (66, 38, 76, 80),
    "trousers": (32, 76, 64, 110),
    "leg": (34, 110, 44, 120),
    "other leg": (52, 110, 62, 120),
    "shoe": (34, 120, 44, 126),
}
# The 18 key points of the figure, in its pixels.
POINTS = [
    (48, 20), (48, 36), (30, 40), (25, 58), (25, 76), (66, 40), (71, 58), (71, 76), (38, 76), (38, 94), (39, 118),
    (58, 76), (58, 94), (57, 118), (45, 16), (51, 16), (41, 18), (55, 18),
]  # fmt: skip


def labelled(labels=parsing.CIHP, **changes) -> Image.Image:
    """The figure's parse map; `changes` gives other words to its parts."""
    values = np.zeros((H, W), np.uint8)
    for part, (left, top, right, bottom) in FIGURE.items():
        word = changes.get(part.replace(" ", "_"), part.removeprefix("other "))
        values[top:bottom, left:right] = labels.index(word)
    return Image.fromarray(values)


def person(seed=0, size=(W, H)) -> Image.Image:
    """The figure, on a light ground, its colours drawn from a seed."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (20, 3), dtype=np.uint8)
    palette[0] = 240
    return Image.fromarray(palette[np.asarray(labelled())]).resize(size, Image.Resampling.NEAREST)


def shirt(colour=(200, 30, 30)) -> Image.Image:
    picture = Image.new("RGB", (W, H), "white")
    picture.paste(colour, (24, 30, 72, 100))
    return picture


def openpose(points=POINTS, count=25) -> dict:
    rows = np.zeros((count, 3))
    places = pose.BODY_25 if count == 25 else range(18)
    for place, point in zip(places, points):
        rows[place] = (*point, 0.9) if point else 0
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": rows.flatten().tolist()}]}


def dresscode_points(points=POINTS) -> dict:
    scale = np.divide((384, 512), (W, H))
    rows = [[*np.multiply(p, scale).tolist(), 0.9, i] if p else [-1, -1, 0, -1] for i, p in enumerate(points)]
    return {"keypoints": rows}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, Image.Image):
        value.save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def viton(root, spelled=lambda name: name, names=NAMES):
    """A set as VITON-HD's first release has it: without agnostic pictures and masks, poses and garments' masks."""
    for split in ("train", "test"):
        for seed, name in enumerate(names):
            stem = name.removesuffix(".jpg")
            write(root / split / "image" / name, person(seed))
            write(root / split / "cloth" / name, shirt())
            write(root / split / spelled("image-parse") / f"{stem}.png", labelled())
            write(root / split / spelled("openpose-json") / f"{stem}_keypoints.json", openpose())
        others = names[1:] + names[:1]
        write(root / f"{split}_pairs.txt", "".join(f"{a} {b}\n" for a, b in zip(names, others)))
    return root


def dresscode(root, categories=("upper_body", "lower_body", "dresses"), at_root=False):
    lists = {name: "" for name in ("train_pairs.txt", "test_pairs_paired.txt", "test_pairs_unpaired.txt")}
    for kind, category in enumerate(categories):
        place, numbers = root / category, [f"{10 * kind + i:06d}" for i in range(2)]
        for seed, number in enumerate(numbers):
            write(place / "images" / f"{number}_0.jpg", person(seed))
            write(place / "images" / f"{number}_1.jpg", shirt())
            write(place / "label_maps" / f"{number}_4.png", labelled(parsing.ATR))
            write(place / "keypoints" / f"{number}_2.json", dresscode_points())
        for name in lists:
            others = numbers[::-1] if "unpaired" in name else numbers
            tail = f"\t{kind}" if at_root else ""
            text = "".join(f"{a}_0.jpg\t{b}_1.jpg{tail}\n" for a, b in zip(numbers, others))
            lists[name] += text
            if not at_root:
                write(place / name, text)
    for name, text in lists.items():
        if at_root:
            write(root / name, text)
    return root


@pytest.fixture
def hd(tmp_path):
    return viton(tmp_path / "hd")


def array(picture) -> np.ndarray:
    return np.asarray(picture).astype(int)


def check(found, size=SIZE):
    """What every look keeps to."""
    modes = {part: getattr(found, part).mode for part in ("person", "garment", "agnostic", "pose")}
    assert set(modes.values()) == {"RGB"}
    for part in ("garment_mask", "agnostic_mask", "parse"):
        assert getattr(found, part).mode == "L"
    parts = [value for value in vars(found).values() if isinstance(value, Image.Image)]
    assert len(parts) == 7 and {part.size for part in parts} == {size[::-1]}
    for mask in (found.garment_mask, found.agnostic_mask):
        assert set(np.unique(mask)) == {0, 255}
    assert array(found.pose).any()


# ---- layouts ----


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("spelling", ["-", "_"])
def test_a_folder_as_viton_hd_has_it_is_read_in_both_spellings(tmp_path, split, spelling):
    data = TryOn(viton(tmp_path, lambda name: name.replace("-", spelling)), split)
    looks = list(data)
    assert len(data) == 3 and data.names == NAMES == [found.name for found in looks]
    assert data.layout == "viton-hd" and not data.unreadable.found
    for found in looks:
        check(found)
        assert found.paired and found.garment_name == found.name
    expected = labelled().resize((48, 64), Image.Resampling.NEAREST)
    assert (array(looks[0].parse) == array(expected)).all()


def test_unpaired_each_person_meets_the_garment_of_the_list(hd):
    write(hd / "test" / "cloth" / NAMES[1], shirt((0, 0, 255)))
    found = TryOn(hd, "test", paired=False)[0]
    assert (found.name, found.garment_name, found.paired) == (NAMES[0], NAMES[1], False)
    blue = array(found.garment)[32, 24]
    assert blue[2] > 200 > 60 > blue[0]


@pytest.mark.parametrize("at_root", [False, True])
def test_a_folder_as_dresscode_has_it_is_read_with_lists_of_both_kinds(tmp_path, at_root):
    root = dresscode(tmp_path, at_root=at_root)
    data = TryOn(root, "test")
    assert data.layout == "dresscode" and len(data) == 6
    for found in data:
        check(found)
        assert found.paired
    lower = TryOn(root, "test", paired=False, category="lower_body")
    assert lower.names == ["000010_0.jpg", "000011_0.jpg"]
    assert lower[0].garment_name == "000011_1.jpg" and not lower[0].paired
    assert TryOn(root, "train", category="dresses").names == ["000020_0.jpg", "000021_0.jpg"]


def test_a_list_at_the_root_without_numbers_finds_each_category_by_its_pictures(tmp_path):
    root = dresscode(tmp_path, at_root=True)
    path = root / "train_pairs.txt"
    path.write_text("".join(line.rsplit("\t", 1)[0] + "\n" for line in path.read_text().splitlines()))
    assert TryOn(root, category="lower_body").names == ["000010_0.jpg", "000011_0.jpg"]
    assert len(TryOn(root)) == 6


def test_numbers_and_pictures_of_no_category_are_named(tmp_path, caplog):
    root = dresscode(tmp_path, at_root=True)
    write(root / "train_pairs.txt", "000000_0.jpg 000000_1.jpg 0\n000001_0.jpg 000001_1.jpg 7\n9_0.jpg 9_1.jpg\n")
    assert TryOn(root).names == ["000000_0.jpg"]
    assert "train_pairs.txt: 000001_0.jpg: category '7', expected 0, 1 or 2" in caplog.text
    assert "train_pairs.txt: 9_0.jpg: its picture is in the images of no category" in caplog.text


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "valid"}, "split 'valid'"),
        ({"size": (0, 4)}, "size (0, 4)"),
        ({"size": (64,)}, "size (64,)"),
        ({"category": "dresses"}, "category 'dresses': VITON-HD"),
        ({"layout": "other"}, "layout 'other': expected viton-hd or dresscode"),
        ({"layout": "dresscode"}, "no set in the layout dresscode"),
    ],
)
def test_options_that_do_not_fit_a_set_are_named(hd, options, message):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        TryOn(hd, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_dresscode_has_no_unpaired_training_and_three_categories(tmp_path):
    root = dresscode(tmp_path)
    with pytest.raises(ValueError, match="no unpaired list"):
        TryOn(root, "train", paired=False)
    with pytest.raises(ValueError, match="category 'hats': expected upper_body, lower_body, dresses"):
        TryOn(root, category="hats")
    (root / "dresses" / "train_pairs.txt").unlink()
    with pytest.raises(FileNotFoundError, match="train_pairs.txt: no such list, neither there nor in dresses"):
        TryOn(root, category="dresses")


def test_folders_that_are_no_sets_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        TryOn(tmp_path / "none")
    with pytest.raises(ValueError, match="no set of either layout"):
        TryOn(tmp_path)
    both = dresscode(viton(tmp_path / "both"), at_root=False)
    with pytest.raises(ValueError, match="both layouts"):
        TryOn(both)
    assert TryOn(both, layout="dresscode").layout == "dresscode" and TryOn(both, layout="viton-hd").layout == "viton-hd"


@pytest.mark.parametrize("missing", ["image", "cloth", "image-parse"])
def test_a_needed_folder_that_is_not_there_is_named(hd, missing):
    (hd / "train" / missing).rename(hd / "train" / "elsewhere")
    with pytest.raises(
        ValueError, match=f"train: no folder {'image-parse-v3 or image-parse' if 'parse' in missing else missing}"
    ):
        TryOn(hd)


# ---- lists ----


@pytest.mark.parametrize(
    "line",
    [
        "00000_00.jpg",
        "a b c d",
        "../image/00000_00.jpg 00000_00.jpg",
        "00000_00.jpg ../../../etc/passwd",
        "/etc/passwd 00000_00.jpg",
        "image/00000_00.jpg 00000_00.jpg",
        ".. 00000_00.jpg",
        "..\\x.jpg 00000_00.jpg",
        "C:x.jpg 00000_00.jpg",
        "x\0.jpg 00000_00.jpg",
    ],
)
def test_a_line_that_names_no_two_files_is_left_out_and_named(hd, caplog, line):
    write(hd / "train_pairs.txt", f"{NAMES[0]} {NAMES[0]}\n{line}\n\n{NAMES[1]} {NAMES[1]}\n")
    assert TryOn(hd).names == NAMES[:2]
    (record,) = caplog.records
    assert "train_pairs.txt:2: " in record.getMessage() and "expected" in record.getMessage()
    with pytest.raises(ValueError, match="train_pairs.txt:2"):
        TryOn(hd, skip=0)


def test_pairs_that_stand_in_a_list_twice_count_once(hd, caplog):
    write(hd / "train_pairs.txt", f"{NAMES[0]} {NAMES[1]}\n{NAMES[0]} {NAMES[2]}\n{NAMES[0]} {NAMES[1]}\n")
    assert TryOn(hd, paired=False).names == [NAMES[0]] * 2
    assert TryOn(hd).names == [NAMES[0]]
    assert "1 pairs of train" in caplog.text and "2 pairs of train" in caplog.text


@pytest.mark.parametrize("text", ["", "\n \n", "../a ../b\n"])
def test_a_list_without_pairs_is_an_error(hd, text):
    write(hd / "train_pairs.txt", text)
    with pytest.raises(ValueError, match="no usable pair in its list of train"):
        TryOn(hd)


def test_a_list_that_is_not_there_or_no_text_is_named(hd):
    (hd / "train_pairs.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="train_pairs.txt: not UTF-8 text"):
        TryOn(hd)
    (hd / "train_pairs.txt").unlink()
    with pytest.raises(FileNotFoundError, match="train_pairs.txt: no such file"):
        TryOn(hd)


def test_windows_ends_of_lines_and_a_byte_order_mark_are_no_part_of_a_name(hd):
    (hd / "train_pairs.txt").write_bytes(b"\xef\xbb\xbf" + f"{NAMES[0]} {NAMES[1]}\r\n".encode())
    assert TryOn(hd).names == [NAMES[0]]


# ---- broken entries ----


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def lying(path):
    labelled().transpose(Image.Transpose.ROTATE_90).save(path)


def relabelled(value):
    def change(path):
        values = array(Image.open(path))
        values[0, 0] = value
        Image.fromarray(values.astype(np.uint8)).save(path)

    return change


BREAKS = [
    ("image/{}.jpg", lambda path: path.unlink(), "no such file"),
    ("image/{}.jpg", truncated, "cannot be read"),
    ("image/{}.jpg", lambda path: path.write_bytes(b""), "empty"),
    ("cloth/{}.jpg", lambda path: path.unlink(), "no such file"),
    ("cloth/{}.jpg", lambda path: path.write_text("words"), "not a picture"),
    ("cloth/{}.jpg", lambda path: Image.new("RGB", (W, H), "white").save(path), "white all over"),
    ("image-parse/{}.png", lambda path: path.unlink(), "no such file"),
    ("image-parse/{}.png", relabelled(37), "labels from 0 to 37, expected 0 to 19"),
    ("image-parse/{}.png", lambda path: person().save(path), "a picture in colours"),
    ("image-parse/{}.png", lying, "128x96, the person's picture is 96x128"),
    ("openpose-json/{}_keypoints.json", lambda path: path.unlink(), "no such file"),
    ("openpose-json/{}_keypoints.json", lambda path: path.write_text("{"), "no JSON"),
    ("openpose-json/{}_keypoints.json", lambda path: path.write_text("[" * 100_000), "no JSON"),
    ("openpose-json/{}_keypoints.json", lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, []), "expected a JSON object"),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, {}), 'neither "people" nor "keypoints"'),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, {"people": []}), "nobody in it"),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, {"people": [{}]}), "no numbers"),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, openpose([])), "no key point was seen"),
    ("openpose-json/{}_keypoints.json", lambda path: write(path, openpose([(9 * W, 3)])), "outside of the picture"),
]  # fmt: skip


@pytest.mark.parametrize("place, change, said", BREAKS, ids=[f"{p.split('/')[0]}: {s}" for p, _, s in BREAKS])
def test_a_broken_entry_is_named_by_file_and_the_next_stands_in_its_place(hd, caplog, place, change, said):
    path = hd / "train" / place.format("00001_00")
    change(path)
    data = TryOn(hd)
    assert [found.name for found in data] == [NAMES[0], NAMES[2], NAMES[2]]
    assert data[1].name == NAMES[2]
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(path) in message and said in message and "\n" not in message
    with pytest.raises(ValueError, match="at most 0 may be") as error:
        list(TryOn(hd, skip=0))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_set_of_which_nothing_can_be_read_says_why(hd):
    for name in NAMES:
        (hd / "train" / "image" / name).unlink()
    with pytest.raises(ValueError, match="none of the 3 looks can be read: .*00000_00.jpg: no such file"):
        TryOn(hd)[0]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            TryOn(hd)[index]


# ---- pictures of every kind ----


def test_grey_transparent_and_deep_pictures_are_read_as_everywhere(hd):
    grey = person().convert("L")
    grey.save(hd / "train" / "image" / NAMES[0])
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    deep.save(hd / "train" / "image" / NAMES[1], "PNG")  # a name is no promise of a format
    clear = shirt().convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(array(shirt())[..., 1] < 200, 255, 0).astype(np.uint8)))
    clear.save(hd / "train" / "cloth" / NAMES[2], "PNG")
    looks = list(TryOn(hd))
    assert [found.name for found in looks] == NAMES
    for found in looks:
        check(found)
    first, second = (array(found.person) for found in looks[:2])
    assert abs(first - second).max() <= 8 and (second[..., 0] == second[..., 2]).all()  # JPEG's losses in the first
    assert (array(looks[2].garment)[0, 0] == 255).all()
    assert (array(looks[2].garment_mask) == array(looks[0].garment_mask)).mean() > 0.97


def test_a_person_who_lies_in_the_file_stands_up_by_exif(hd):
    path = hd / "train" / "image" / NAMES[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    straight = array(TryOn(hd)[0].person)
    person().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95, subsampling=0)
    found = TryOn(hd)[0]
    check(found)
    assert found.name == NAMES[0] and abs(array(found.person) - straight).mean() < 2


@pytest.mark.parametrize("kind", ["P", "RGB", "RGBA", "LA", "I;16", "I"])
def test_it_is_the_numbers_of_a_parse_map_that_count(tmp_path, kind):
    parse = labelled()
    if kind == "P":
        coloured = parse.convert("P")
        coloured.putdata(list(parse.tobytes()))
        coloured.putpalette([255 - i // 3 for i in range(768)])
    elif kind.startswith("I"):
        coloured = Image.fromarray(np.asarray(parse).astype(np.uint16 if kind == "I;16" else np.int32))
    else:
        coloured = parse.convert(kind)
    path = tmp_path / ("parse.tif" if kind == "I" else "parse.png")
    coloured.save(path)
    assert (array(parsing.read(path, parsing.CIHP)) == array(parse)).all()


def test_pictures_of_other_sizes_than_the_persons_are_brought_to_one(hd):
    person(1, (2 * W, 2 * H)).save(hd / "train" / "image" / NAMES[1], quality=95)
    doubled = [(2 * x, 2 * y) for x, y in POINTS]
    write(hd / "train" / "openpose-json" / "00001_00_keypoints.json", openpose(doubled))
    shirt().resize((W, W)).save(hd / "train" / "cloth" / NAMES[1])  # a garment may have a shape of its own
    labelled().resize((W - 1, H), Image.Resampling.NEAREST).save(
        hd / "train" / "image-parse" / "00001_00.png"
    )  # as rounding may leave it
    first, second = list(TryOn(hd, size=(96, 72)))[:2]
    check(second, (96, 72))
    assert second.name == NAMES[1]
    assert (array(first.pose) == array(second.pose)).all()


def test_the_numbers_of_the_labels_are_the_sets_own():
    assert [parsing.CIHP.index(w) for w in ("top", "dress", "coat", "trousers", "skin", "skirt")] == [
        5,
        6,
        7,
        9,
        10,
        12,
    ]
    assert (parsing.CIHP.index("face"), parsing.CIHP.index("arm"), len(parsing.CIHP)) == (13, 14, 20)
    assert [parsing.ATR.index(word) for word in ("top", "skirt", "trousers", "dress", "face")] == [4, 5, 6, 7, 11]
    assert (parsing.ATR.index("leg"), parsing.ATR.index("arm"), len(parsing.ATR)) == (12, 14, 18)
    words = set().union(*agnostic.ANEW.values(), *agnostic.KEPT.values())
    assert words <= set(parsing.CIHP) | set(parsing.ATR)


# ---- garments ----


def test_white_on_a_garment_belongs_to_it_and_white_around_it_does_not():
    picture = shirt()
    picture.paste("white", (40, 50, 56, 60))  # a letter
    picture.paste("white", (44, 80, 52, 100))  # between the legs, open below
    expected = np.zeros((H, W), int)
    expected[30:100, 24:72] = 255
    expected[80:100, 44:52] = 0
    assert (array(garment.silhouette(picture)) == expected).all()
    with pytest.raises(ValueError, match="white all over"):
        garment.silhouette(Image.new("RGB", (4, 4), (250, 250, 250)))


def test_a_mask_that_is_there_is_taken_from_the_middle_on(hd):
    mask = np.zeros((H, W), np.uint8)
    mask[:64], mask[64:96] = 128, 127
    write(hd / "train" / "cloth-mask" / "00000_00.png", Image.fromarray(mask))
    found = array(TryOn(hd)[0].garment_mask)
    assert (found[:32] == 255).all() and not found[32:].any()
    write(hd / "train" / "cloth-mask" / "00001_00.png", Image.new("L", (W, H)))
    data = TryOn(hd)
    assert data[1].name == NAMES[2]
    assert "00001_00.png: black all over" in str(data.unreadable.found)


# ---- poses ----


def test_openposes_25_and_18_points_and_dresscodes_are_the_same_points(tmp_path):
    path = tmp_path / "points.json"
    expected = np.divide(POINTS, (W, H))
    for said in (openpose(), openpose(count=18), dresscode_points()):
        assert np.allclose(pose.read(write(path, said), (W, H)), expected)
    again = pose.read(write(path, dresscode_points()), (768, 1024))
    assert np.allclose(again, expected)  # whatever the picture measures


def test_what_was_not_seen_is_nan_and_draws_nothing(tmp_path):
    hidden = [None if place in (4, 7) else point for place, point in enumerate(POINTS)]
    whole = array(pose.skeleton(np.divide(POINTS, (W, H)), (H, W)))
    for said in (openpose(hidden), openpose(hidden, 18), dresscode_points(hidden)):
        points = pose.read(write(tmp_path / "points.json", said), (W, H))
        assert np.isnan(points[[4, 7]]).all() and np.isfinite(np.delete(points, [4, 7], 0)).all()
        drawn = array(pose.skeleton(points, (H, W)))
        assert whole[68, 25].max() > 100 and not drawn[68, 25].any()
        assert (drawn[:50] == whole[:50]).all()


def test_a_skeleton_tells_limbs_by_hue_at_any_size():
    points = np.divide(POINTS, (W, H))
    for scale in (1, 8):
        drawn = array(pose.skeleton(points, (scale * H, scale * W)))
        assert drawn.shape == (scale * H, scale * W, 3) and not drawn[0].any()
        for limb in ((3, 4), (6, 7), (8, 9), (11, 12)):
            x, y = np.mean([POINTS[i] for i in limb], 0)
            colour = pose.COLOURS[pose.LIMBS.index(limb)]
            found = drawn[int(scale * y), int(scale * x)]
            assert np.argmax(found) == np.argmax(colour) and found.max() > 100, limb


@pytest.mark.parametrize(
    "said, message",
    [
        ({"keypoints": [[1, 2, 3]]}, "in groups of 4"),
        ({"keypoints": [[1, 2, 3, 4]]}, "1 key points, expected 18"),
        ({"keypoints": "words"}, "no numbers"),
        ({"keypoints": [[5, 5, 1, None]] * 18}, "not finite"),
        ({"keypoints": [[400, 500, 1, 0], *[[0, 0, 0, 0]] * 17]}, None),
        ({"keypoints": [[700, 900, 1, 0], *[[0, 0, 0, 0]] * 17]}, "outside of the picture"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.5] * 17}]}, "17 key points, expected 25 or 18"),
        ({"people": [{"pose_keypoints_2d": [1, 2, "a"] * 18}]}, "no numbers"),
        ({"people": "nobody"}, "nobody in it"),
        ({"people": [3]}, "nobody in it"),
    ],
)
def test_key_points_that_are_none_are_named(tmp_path, said, message):
    path = write(tmp_path / "points.json", said)
    if message is None:  # a little outside is no other size
        assert np.isfinite(pose.read(path, (W, H))[0]).all()
        return
    with pytest.raises(ValueError) as error:
        pose.read(path, (W, H))
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_nan_in_json_and_a_key_said_twice_are_errors(tmp_path):
    path = write(tmp_path / "points.json", json.dumps({"keypoints": [[float("nan"), 1, 1, 1]] * 18}))
    with pytest.raises(ValueError, match="not finite"):
        pose.read(path, (W, H))
    with pytest.raises(ValueError, match="'a' stands there twice"):
        written.json_object(write(path, '{"a": 1, "a": 2}'))


# ---- agnostic ----


def region(category="upper_body", labels=parsing.CIHP, points=POINTS, **changes) -> np.ndarray:
    places = np.array([point or (np.nan, np.nan) for point in points]) / (W, H)
    return array(agnostic.region(labelled(labels, **changes), places, labels, category)) == 255


def labelled_as(*words, labels=parsing.CIHP) -> np.ndarray:
    return parsing.where(labelled(labels), labels, set(words))


@pytest.mark.parametrize("labels", [parsing.CIHP, parsing.ATR], ids=["CIHP", "ATR"])
@pytest.mark.parametrize(
    "category, anew, kept",
    [
        ("upper_body", {"top", "arm"}, {"hair", "trousers", "leg", "shoe"}),
        ("lower_body", {"trousers", "leg"}, {"hair", "face", "top", "arm", "shoe"}),
        ("dresses", {"top", "arm", "trousers", "leg"}, {"hair", "shoe"}),
    ],
)
def test_a_region_covers_its_garment_and_limbs_and_leaves_the_rest(labels, category, anew, kept):
    found = region(category, labels)
    assert found[labelled_as(*anew, labels=labels)].all()
    assert not found[labelled_as(*kept, labels=labels)].any()
    assert 0.1 < found.mean() < 0.7 and not found[:6].any()


def test_a_region_does_not_tell_what_was_worn():
    """Long sleeves or bare arms, a top or a coat, a dress's upper half: the same region."""
    plain = region()
    assert (region(arm="top", other_arm="top") == plain).all()
    assert (region(top="coat") == plain).all()
    assert (region("dresses", trousers="dress", top="dress") == region("dresses")).all()
    assert (region("lower_body", leg="trousers", other_leg="trousers") == region("lower_body")).all()


def test_the_neck_is_drawn_anew_and_the_face_is_not():
    face = labelled_as("face")
    found = region()
    assert found[36, 48] and not found[13:24][face[13:24]].any()
    assert not (region("lower_body") & face).any()


def test_shoulders_that_were_not_seen_leave_the_labels_to_say_where_the_garment_is():
    unseen = [None if place in (1, 2, 5) else point for place, point in enumerate(POINTS)]
    for points in (unseen, [POINTS[0]] + [None] * 17):
        found = region(points=points)
        assert found[labelled_as("top", "arm")].all() and not found[labelled_as("hair", "face", "trousers")].any()


def test_an_agnostic_picture_is_grey_where_its_mask_is_white_and_the_person_elsewhere(hd):
    found = TryOn(hd, size=(128, 96))[0]
    mask = array(found.agnostic_mask) == 255
    assert (array(found.agnostic)[mask] == agnostic.GREY).all()
    assert (array(found.agnostic)[~mask] == array(found.person)[~mask]).all()


def test_agnostic_pictures_masks_and_poses_that_are_there_are_taken_and_need_no_key_points(hd):
    place = hd / "train"
    for name in ("00000_00", "00001_00", "00002_00"):
        mask = Image.new("L", (W, H))
        mask.paste(255, (0, 64, W, H))
        write(place / "agnostic-mask" / f"{name}_mask.png", mask)
        write(place / "openpose_img" / f"{name}_rendered.png", Image.new("RGB", (W, H), "red"))
        (place / "openpose-json" / f"{name}_keypoints.json").unlink()
    write(place / "agnostic-v3.2" / NAMES[0], Image.new("RGB", (W, H), "blue"))
    first, second, _ = data = list(TryOn(hd))
    for found in data:
        assert not array(found.agnostic_mask)[:32].any() and (array(found.agnostic_mask)[32:] == 255).all()
        assert (array(found.pose) == (255, 0, 0)).all()
    assert abs(array(first.agnostic) - (0, 0, 255)).max() < 3
    assert (array(second.agnostic)[32:] == agnostic.GREY).all()  # made from the mask alone


def test_an_agnostic_picture_without_its_mask_is_made_anew_with_one(hd):
    write(hd / "train" / "agnostic-v3.2" / NAMES[0], Image.new("RGB", (W, H), "blue"))
    found = TryOn(hd)[0]
    assert (array(found.agnostic)[array(found.agnostic_mask) == 255] == agnostic.GREY).all()


def test_a_parse_map_in_which_there_is_nothing_to_try_on_is_named(hd):
    write(hd / "train" / "image-parse" / "00000_00.png", Image.new("L", (W, H)))
    write(hd / "train" / "openpose-json" / "00000_00_keypoints.json", openpose([POINTS[0]]))
    data = TryOn(hd)
    assert data[0].name == NAMES[1] and "no upper_body in it" in str(data.unreadable.found)


# ---- boxes ----


def test_boxes_are_read_and_cover_what_they_say(tmp_path):
    path = write(tmp_path / "boxes.json", {"a.jpg": [[2, 3, 6, 9], [0, 0, 1.5, 1]], "b.jpg": []})
    found = boxes.read(path)
    assert found == {"a.jpg": [(2, 3, 6, 9), (0, 0, 1.5, 1)], "b.jpg": []}
    mask = array(boxes.covered(found["a.jpg"], (12, 16), (16, 12)))
    expected = np.zeros((16, 12), int)
    expected[3:9, 2:6], expected[0, 0], expected[0, 1] = 255, 255, 128
    assert (mask == expected).all()
    assert not array(boxes.covered([], (12, 16), (4, 3))).any()


def test_boxes_on_a_coarser_grid_keep_their_area_and_none_vanishes():
    mask = array(boxes.covered([(13, 21, 38, 50)], (192, 256), (32, 24)))
    assert abs(mask.sum() / 255 - 25 * 29 / 64) < 0.1
    assert (array(boxes.covered([(100, 100, 100.5, 101)], (192, 256), (8, 6))) > 0).sum() == 1
    assert (array(boxes.covered([(0, 0, 192, 256)], (192, 256), (31, 7))) == 255).all()
    assert (array(boxes.covered([(64, 0, 128, 256)], (192, 256), (3, 3))) == [0, 255, 0]).all()


def test_a_box_beyond_its_picture_is_an_error():
    for box in ((0, 0, 13, 4), (0, 0, 4, 17)):
        with pytest.raises(ValueError, match="reaches beyond the picture, which is 12x16"):
            boxes.covered([box], (12, 16), (16, 12))


@pytest.mark.parametrize(
    "boxes_of_one",
    [
        None,
        {},
        "none",
        [1, 2, 3, 4],
        [[1, 2, 3]],
        [[1, 2, 3, "4"]],
        [[1, 2, True, 4]],
        [[3, 2, 3, 4]],
        [[1, 4, 3, 2]],
        [[-1, 2, 3, 4]],
        [[1, 2, float("inf"), 4]],
        [[float("nan"), 2, 3, 4]],
    ],
)
def test_a_wrong_entry_of_boxes_is_named(tmp_path, boxes_of_one):
    path = write(tmp_path / "boxes.json", {"a.jpg": [], "b.jpg": boxes_of_one})
    with pytest.raises(ValueError, match="boxes.json: b.jpg: .*expected") as error:
        boxes.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "", "x/a.jpg"])
def test_boxes_are_of_files_without_folders(tmp_path, name):
    with pytest.raises(ValueError, match="expected a file's name"):
        boxes.read(write(tmp_path / "boxes.json", {name: []}))


def test_boxes_that_are_not_there_no_json_or_said_twice_are_named(tmp_path):
    path = tmp_path / "boxes.json"
    with pytest.raises(FileNotFoundError, match="boxes.json: no such file"):
        boxes.read(path)
    for text, message in (("[]", "expected a JSON object"), ("{", "no JSON"), ('{"a": [], "a": []}', "twice")):
        with pytest.raises(ValueError, match=message):
            boxes.read(write(path, text))


# ---- the dataset ----


def test_what_was_drawn_for_a_person_is_found_by_name_in_any_format(tmp_path):
    write(tmp_path / "00000_00.png", Image.new("RGBA", (4, 4), (255, 0, 0, 255)))
    found = outputs(tmp_path, NAMES[0])
    assert found.mode == "RGB" and found.getpixel((0, 0)) == (255, 0, 0)
    write(tmp_path / NAMES[0], Image.new("RGB", (8, 8)))
    assert outputs(tmp_path, NAMES[0]).size == (8, 8)
    with pytest.raises(FileNotFoundError, match="00001_00.jpg: no such file"):
        outputs(tmp_path, NAMES[1])
    with pytest.raises(ValueError, match="without folders"):
        outputs(tmp_path, "../a.jpg")


def test_identity_says_what_the_looks_are_and_not_where_they_lie(tmp_path):
    first, second = TryOn(viton(tmp_path / "a")), TryOn(viton(tmp_path / "b"))
    assert first.identity() == second.identity() == json.loads(json.dumps(first.identity()))
    others = [{"split": "test"}, {"paired": False}, {"size": (32, 24)}]
    identities = [str(TryOn(tmp_path / "a", **options).identity()) for options in others]
    write(tmp_path / "b" / "train_pairs.txt", f"{NAMES[0]} {NAMES[0]}\n")
    identities.append(str(TryOn(tmp_path / "b").identity()))
    assert len({str(first.identity()), *identities}) == 5


@pytest.mark.parametrize("kind", ["viton", "dresscode"])
def test_synthetic_pairs_are_a_set_of_the_same_layout(tmp_path, kind):
    root = {"viton": viton, "dresscode": dresscode}[kind](tmp_path / "set")
    source = TryOn(root)
    mark = Image.new("RGB", (24, 32), (30, 60, 200))
    made = [Made(i, mark, Image.new("L", (24, 32), 255)) for i in range(0, len(source), 2)]
    assert synthetic.write(tmp_path / "made", source, made) == len(made)
    found = TryOn(tmp_path / "made")
    assert found.layout == source.layout and found.synthetic == set(found.names) == {
        source.names[it.row] for it in made
    }
    assert found.identity() != source.identity() and not source.synthetic
    for place, it in enumerate(made):
        old, new = source[it.row], found[found.names.index(source.names[it.row])]
        assert new.person == old.person and new.parse == old.parse and new.paired, place
        assert np.abs(array(new.garment).astype(int).mean((0, 1)) - (30, 60, 200)).max() < 3


def test_flags_that_name_no_list_are_an_error(hd):
    (hd / "synthetic.json").write_text('{"train": "all"}')
    with pytest.raises(ValueError, match="synthetic.json.*expected a list"):
        TryOn(hd)


def test_a_dataset_travels_to_a_worker(hd):
    data = pickle.loads(pickle.dumps(TryOn(hd)))
    assert data[0].name == NAMES[0]


def test_a_sheet_shows_seven_pictures_a_look(hd, caplog):
    with caplog.at_level(logging.WARNING):
        looks = [look.look_of(TryOn(hd).files(i), SIZE) for i in range(2)]
    shown = sheet(looks)
    assert shown.width > 7 * 48 and shown.height > 2 * 64 and shown.width < 8 * 52 + 4
    assert not caplog.records
