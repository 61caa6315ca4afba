"""Paper dolls: the same ones always, true pairs, labels that agree with the pictures, errors where their boxes say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from ldm.data.dolls import doll, errors, figure, garments, painting, worn, write, writing
from ldm.data.dolls.figure import SIZE, STANCES
from ldm.data.dolls.parsing import LABELS
from ldm.data.tryon import TryOn, boxes

SEED = 11
COUNT = 12
CUT = garments.Garment(
    "crew", 0.3, -0.1, 0.3, garments.Pattern("plain", ((250, 250, 250), (0, 0, 0)), 16, 0), None, (9, 9, 9), None
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def dolls():
    return [doll(SEED, i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dolls") / "set"
    write(path, people=4, test=3, seed=SEED)
    return path


def dressed(who: figure.Figure, what: garments.Garment) -> tuple[np.ndarray, np.ndarray]:
    """Person (H,W,3) and labels (H,W)."""
    person, labels = errors.dress(who, what, garments.cloth(what), painting.undressed(who))
    return np.asarray(person, int), np.asarray(labels)


def wearing(one) -> errors.Wearing:
    bare = painting.undressed(one.figure)
    return errors.Wearing(one.figure, one.clothes, garments.cloth(one.clothes), bare, one.person, one.labels)


def levels(one: Image.Image, other: Image.Image) -> np.ndarray:
    """(H,W) the largest difference of the channels."""
    return np.asarray(ImageChops.difference(one, other)).max(-1)


def inside(found, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in found:
        mask[top:bottom, left:right] = True
    return mask


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- people and garments ----


def test_person_i_depends_on_seed_and_i_alone(dolls):
    for i in (3, 0):
        again = doll(SEED, i)
        for name in ("person", "labels", "garment", "garment_mask", "flawed", "agnostic"):
            assert getattr(again, name).tobytes() == getattr(dolls[i], name).tobytes()
        assert again.boxes == dolls[i].boxes and np.array_equal(again.points, dolls[i].points, equal_nan=True)
    assert len({one.person.tobytes() for one in [*dolls, doll(SEED + 1, 0)]}) == COUNT + 1


@pytest.mark.parametrize("seed", range(5))
def test_a_torso_has_coordinates(seed):
    frame = figure.figure(rng(seed)).frame.eased(0.4)
    points = rng(seed).uniform([-1.2, -0.3], [1.2, 1.1], (50, 2))
    assert np.allclose(frame.find(frame.place(points)), points, atol=1e-9)
    assert np.allclose(frame.place(np.array([(0, 0), (0, 1)])), [frame.hips, frame.neck])


def test_key_points_lie_on_what_they_name(dolls):
    arms, skin = {LABELS["left arm"], LABELS["right arm"]}, {LABELS["torso"]}
    cloth, face = {LABELS["upper clothes"]}, {LABELS["face"], LABELS["hair"]}
    lower = {LABELS[name] for name in ("trousers", "skirt", "left leg", "right leg")}
    expected = {0: face, 1: skin | cloth, 8: lower | cloth, 9: lower, 11: lower | cloth, 12: lower, 14: face, 15: face}
    expected |= dict.fromkeys((2, 3, 4, 5, 6, 7), arms | cloth)
    hands = arms | lower  # an arm may lie before anything below the head
    for one in dolls:
        labels = np.asarray(one.labels)
        for i, wanted in expected.items():
            if np.isfinite(one.points[i]).all():
                x, y = one.points[i].astype(int)
                assert labels[y, x] in wanted | (hands if i in (1, 8, 9, 11, 12) else set()), i
        assert one.points[2, 0] < one.points[5, 0]  # the person's right is the picture's left
        assert np.isnan(one.points[[10, 13]]).all() and np.isfinite(one.points[[0, 1, 2, 5, 8, 11]]).all()


def test_every_cut_and_stance_occurs():
    people = [figure.figure(rng(seed)) for seed in range(300)]
    tops = [garments.garment(rng(seed)) for seed in range(300)]
    assert {one.style for one in people} == set(figure.STYLES) and {one.skin for one in people} == set(figure.SKINS)
    assert {top.neck for top in tops} == set(garments.NECKS)
    assert {top.pattern.kind for top in tops} == set(garments.PATTERNS)
    assert {sum(top.sleeve > low for low in (0, 0.5, 0.9)) for top in tops} == {0, 1, 2, 3}
    assert 0.5 < np.mean([top.print is not None for top in tops]) < 0.7
    assert sum(figure.STANCE_SHARES) == pytest.approx(1) and len(figure.STANCE_SHARES) == len(STANCES)


@pytest.mark.parametrize("seed", range(30))
def test_letters_stand_out_from_their_ground(seed):
    text = garments._print(rng(seed), garments._pattern(rng(seed)))
    pattern = garments._pattern(rng(seed))
    grounds = [text.plate] if text.plate else list(pattern.colours[: 1 if pattern.kind == "plain" else 2])
    far = [min(abs(garments.grey(c) - garments.grey(g)) for g in grounds) for c in garments.COLOURS]
    distance = min(abs(garments.grey(text.ink) - garments.grey(ground)) for ground in grounds)
    assert distance >= min(garments.CONTRAST, max(far))


@pytest.mark.parametrize("kind", garments.PATTERNS)
def test_patterns_show_their_two_colours_and_move_with_their_shift(kind):
    pattern = garments.Pattern(kind, ((250, 0, 0), (0, 0, 250)), 16, 45)
    seen = set(map(tuple, np.asarray(garments.patterned(pattern)).reshape(-1, 3).tolist()))
    assert (250, 0, 0) in seen and (kind == "plain" or (0, 0, 250) in seen)
    moved = garments.patterned(replace(pattern, shift=8))
    assert (levels(moved, garments.patterned(pattern)).max() > 0) == (kind != "plain")


# ---- true pairs ----


@pytest.mark.parametrize("seed", range(8))
def test_the_print_is_on_the_garment_and_moves_with_the_torso(seed):
    """A magenta disc of a print: its centre on the product view, and on the person where the frame says."""
    who = figure.figure(rng(seed))
    ends = zip(who.frame.arms, (10.0, 182.0), strict=True)
    aside = [replace(arm, joints=(arm.joints[0], (x, 90.0), (x, 40.0))) for arm, x in ends]
    who = replace(who, frame=replace(who.frame, arms=tuple(aside)), creases=((5.0, 0.0, 5.0, 0.1),))
    text = garments.Print("O", (0.0, 0.5), 26, (255, 0, 255))
    what = replace(CUT, sleeve=0.0, print=text)
    product, _ = painting.product(what, garments.cloth(what))
    person, _ = dressed(who, what)
    centre = garments.outline(text).mean(0)
    assert centroid(np.asarray(product, int)) == pytest.approx(centre, abs=0.6)
    d, s = garments.HANGER.find(centre[None])[0]
    seen = who.frame.eased(what.ease).place(np.array([(d + who.frame.turn, s)]))[0]
    assert centroid(person) == pytest.approx(seen, abs=1)


def centroid(x: np.ndarray) -> np.ndarray:
    """Where magenta is (x, y), of its strength."""
    strength = np.clip(np.minimum(x[..., 0], x[..., 2]) - x[..., 1] - 60, 0, None)
    rows, columns = np.indices(strength.shape)
    return np.array([(columns * strength).sum(), (rows * strength).sum()]) / strength.sum() + 0.5


def test_letters_are_seen_on_the_person(dolls):
    """Within the print's box the person has letters as far from their ground as half of what the product view has."""
    printed = [one for one in dolls if one.clothes.print]
    assert len(printed) > 3
    for one in printed:
        box = errors._print_box(wearing(one))
        cloth = np.asarray(one.labels.crop(box)) == LABELS["upper clothes"]
        if cloth.mean() > 0.9:  # no arm before it
            there = np.asarray(one.person.crop(box), int)[cloth]
            x, y = garments.outline(one.clothes.print).round().astype(int)[[0, 2]]
            shown = np.asarray(one.garment.crop((*x, *y)), int).reshape(-1, 3)
            spread = [np.ptp(np.percentile(x @ garments.LUMA, (3, 97))) for x in (there, shown)]
            assert spread[0] > 0.5 * spread[1]


def test_labels_are_where_the_garment_is():
    """Other colours of the same cut change nothing outside of the label, and all of it inside."""
    for seed in range(6):
        who = figure.figure(rng(seed))
        white, labels = dressed(who, CUT)
        green = replace(CUT, pattern=replace(CUT.pattern, colours=((20, 90, 20), (0, 0, 0))), trim=(200, 200, 9))
        other, again = dressed(who, green)
        cloth = labels == LABELS["upper clothes"]
        assert np.array_equal(labels, again)
        assert np.array_equal((white != other).any(-1), cloth)


def test_the_product_view_is_the_garment_on_white(dolls):
    for one in dolls:
        mask = np.asarray(one.garment_mask) > 0
        assert 0.1 < mask.mean() < 0.6
        assert (np.asarray(one.garment)[~mask] == 255).all()
        rows, columns = np.nonzero(mask)
        assert 0 < rows.min() and rows.max() < SIZE[1] - 1 and 0 < columns.min() and columns.max() < SIZE[0] - 1


def test_another_garment_is_what_the_other_person_wears(dolls):
    assert worn(SEED, 2, 2).tobytes() == dolls[2].person.tobytes()
    swapped = worn(SEED, 2, 5)
    assert levels(swapped, dolls[2].person).max() > 60
    head = np.asarray(dolls[2].labels) == LABELS["face"]
    high = {dolls[i].clothes.neck for i in (2, 5)}
    assert "high" in high or np.array_equal(np.asarray(swapped)[head], np.asarray(dolls[2].person)[head])


def test_the_agnostic_picture_hides_the_garment_and_nothing_else(dolls):
    for one in dolls:
        hidden, labels = np.asarray(one.agnostic_mask) > 0, np.asarray(one.labels)
        shown, person = np.asarray(one.agnostic), np.asarray(one.person)
        assert (shown[hidden] == 128).all() and np.array_equal(shown[~hidden], person[~hidden])
        assert hidden[labels == LABELS["upper clothes"]].all()
        assert not hidden[labels == LABELS["trousers"]].any()
        assert hidden[labels == LABELS["face"]].mean() < 0.05


# ---- errors ----

KINDS = list(dict.fromkeys(kind for group in errors.GROUPS for kind in group))


def test_a_flawed_picture_is_the_true_one_outside_of_its_boxes(dolls):
    for one in dolls:
        differs = levels(one.person, one.flawed) > 0
        assert 1 <= len(one.boxes) <= errors.MOST
        assert not (differs & ~inside(one.boxes, differs.shape)).any()


def test_boxes_are_tight_and_errors_are_seen_at_a_quarter_of_the_size(dolls):
    for one in dolls:
        differs = levels(one.person, one.flawed) > 0
        small = levels(one.person.reduce(4), one.flawed.reduce(4))
        for left, top, right, bottom in one.boxes:
            part = differs[top:bottom, left:right]
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            seen = small[top // 4 : -(-bottom // 4), left // 4 : -(-right // 4)] >= errors.SEEN
            assert seen.sum() >= errors.SEEN_LEAST


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_error_is_drawn_where_a_base_model_draws(kind, dolls):
    """On its own, on some of the dolls: a box, in which the picture differs, within the agnostic mask and its edge."""
    boxed = 0
    for i, one in enumerate(dolls):
        changed = kind(rng(i), wearing(one), one.person)
        kept = changed and errors._kept(one.person, changed, one.agnostic_mask)
        if kept:
            boxed += 1
            differs = levels(kept[0], one.person)
            assert differs[inside([kept[1]], differs.shape)].mean() > 2
            reach = np.asarray(one.agnostic_mask.resize(SIZE)) > 0
            rows, columns = np.nonzero(differs)
            near = [reach[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any() for y, x in zip(rows, columns)]
            assert all(near)
    assert boxed > 0


def test_errors_about_letters_and_patterns_need_them():
    who = figure.figure(rng())
    bare = painting.undressed(who)
    plain = errors.Wearing(who, CUT, garments.cloth(CUT), bare, *errors.dress(who, CUT, garments.cloth(CUT), bare))
    for kind in errors.LETTERS + errors.PATTERN:
        assert kind(rng(), plain, plain.true) is None, kind.__name__
    picture, found = errors.flawed(rng(), plain, plain.cloth_mask)
    assert found and picture.tobytes() != plain.true.tobytes()


@pytest.mark.parametrize(
    ("other", "meet"),
    [((0, 0, 4, 4), True), ((3, 3, 6, 6), True), ((4, 0, 8, 4), False), ((0, 4, 4, 8), False), ((1, 1, 2, 2), True)],
)
def test_boxes_that_touch_do_not_meet(other, meet):
    assert errors._meet((0, 0, 4, 4), other) == meet == errors._meet(other, (0, 0, 4, 4))


# ---- the folder ----


def test_the_layout_is_that_of_viton_hd(folder):
    assert (folder / "train_pairs.txt").read_text().split() == [f"{i:05d}_00.jpg" for i in (0, 0, 1, 1, 2, 2, 3, 3)]
    for split, first, count in (("train", 0, 4), ("test", writing.FIRST_OF_TEST, 3)):
        names = {
            "image": ".jpg", "cloth": ".jpg", "cloth-mask": ".jpg", "agnostic-v3.2": ".jpg", "flawed": ".jpg",
            "image-parse-v3": ".png", "agnostic-mask": "_mask.png", "openpose_img": "_rendered.png",
            "openpose_json": "_keypoints.json",
        }  # fmt: skip
        for part, ending in names.items():
            expected = [f"{i:05d}_00{ending}" for i in range(first, first + count)]
            assert sorted(path.name for path in (folder / split / part).iterdir()) == expected
        for path in (folder / split).rglob("*.[jp][pn]g"):
            assert Image.open(path).size == SIZE
        found = boxes.read(folder / split / "flawed-boxes.json")
        assert sorted(found) == [f"{i:05d}_00.jpg" for i in range(first, first + count)]


def test_what_is_written_is_what_is_drawn(folder):
    one, place = doll(SEED, 1), folder / "train"
    parse = Image.open(place / "image-parse-v3" / "00001_00.png")
    assert parse.mode == "P" and np.array_equal(np.asarray(parse), np.asarray(one.labels))
    assert levels(Image.open(place / "image" / "00001_00.jpg"), one.person).mean() < 2
    said = json.loads((place / "openpose_json" / "00001_00_keypoints.json").read_text())
    points = np.array(said["people"][0]["pose_keypoints_2d"]).reshape(25, 3)
    assert points[2, :2] == pytest.approx(one.points[2], abs=1e-3) and points[2, 2] == 1
    assert points[9, :2] == pytest.approx(one.points[8], abs=1e-3)  # the right hip of BODY_25
    assert points[8, :2] == pytest.approx((points[9, :2] + points[12, :2]) / 2, abs=2e-3)
    assert not points[[11, 14, 19, 24]].any()  # ankles and feet
    assert json.loads((place / "flawed-boxes.json").read_text())["00001_00.jpg"] == [list(box) for box in one.boxes]


def test_flawed_files_differ_only_in_the_blocks_that_their_boxes_touch(folder):
    """JPEG codes blocks of 8 x 8 each by itself, since the colours are not subsampled."""
    for split in ("train", "test"):
        for name, found in boxes.read(folder / split / "flawed-boxes.json").items():
            true, flawed = (Image.open(folder / split / part / name) for part in ("image", "flawed"))
            blocks = [(x // 8 * 8, y // 8 * 8, -(-r // 8) * 8, -(-b // 8) * 8) for x, y, r, b in found]
            differs = levels(true, flawed)
            assert not differs[~inside(blocks, differs.shape)].any()
            for box in found:
                assert differs[inside([box], differs.shape)].mean() > 2


def test_the_folder_is_read_as_looks(folder):
    paired = TryOn(folder, "test", size=(64, 48))
    assert len(paired) == 3 and all(look.paired and look.name == look.garment_name for look in paired)
    crossed = TryOn(folder, "test", paired=False, size=(64, 48))
    assert not any(look.paired or look.name == look.garment_name for look in crossed)
    whole = TryOn(folder, "train", size=SIZE[::-1])[2]
    one = doll(SEED, 2)
    assert np.array_equal(np.asarray(whole.parse), np.asarray(one.labels))
    assert np.array_equal(np.asarray(whole.agnostic_mask), np.asarray(one.agnostic_mask))
    assert np.mean((np.asarray(whole.garment_mask) > 127) != (np.asarray(one.garment_mask) > 0)) < 0.005


@pytest.mark.parametrize("test", [2, 3, 10, 31])
def test_unpaired_everybody_wears_another_garment_and_each_is_worn_once(test):
    people, tops = zip(*writing.unpaired(test, 0), strict=True)
    numbers = list(range(writing.FIRST_OF_TEST, writing.FIRST_OF_TEST + test))
    assert list(people) == numbers and sorted(tops) == numbers
    assert not any(person == top for person, top in zip(people, tops, strict=True))


def test_how_many_there_are_does_not_change_who_they_are(folder, tmp_path):
    write(tmp_path / "set", people=2, test=2, seed=SEED)
    more = contents(folder)
    for name, data in contents(tmp_path / "set").items():
        if "/" in name and not name.endswith("boxes.json"):
            assert more[name] == data


def test_the_same_again_finishes_what_was_stopped(folder, tmp_path, monkeypatch):
    out, drawn = tmp_path / "set", []

    def stopping(seed, i):
        drawn.append(i)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return doll(seed, i)

    monkeypatch.setattr(writing, "doll", stopping)
    with pytest.raises(KeyboardInterrupt):
        write(out, people=4, test=3, seed=SEED)
    assert not (out / "train_pairs.txt").exists()
    (out / "train" / "cloth" / "00002_00.jpg").unlink()
    write(out, people=4, test=3, seed=SEED)
    assert drawn[5:] == [2, writing.FIRST_OF_TEST, writing.FIRST_OF_TEST + 1, writing.FIRST_OF_TEST + 2]
    assert contents(out) == contents(folder)
    write(out, people=4, test=3, seed=SEED)
    assert len(drawn) == 9


# ---- what is refused ----


def test_other_settings_and_other_folders_are_refused(folder, tmp_path):
    before = contents(folder)
    for people, test, seed in ((5, 3, SEED), (4, 2, SEED), (4, 3, 0)):
        with pytest.raises(ValueError, match="expected the same, or another folder"):
            write(folder, people, test, seed)
    assert contents(folder) == before
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        write(tmp_path, 4, 3)
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        write(tmp_path / "letter.txt", 4, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("people", "test", "seed"), [(0, 3, 0), (4, 1, 0), (writing.FIRST_OF_TEST + 1, 3, 0), (4, 20_000, 0), (4, 3, -1)]
)
def test_numbers_that_are_none_are_refused(people, test, seed, tmp_path):
    with pytest.raises(ValueError, match="expected"):
        write(tmp_path / "set", people, test, seed)
    assert not (tmp_path / "set").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path / "set", 1, 2)
    path = tmp_path / "set" / "train" / "image" / "00000_00.jpg"
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="00000_00.jpg: cannot be written"):
        write(tmp_path / "set", 1, 2)


def test_settings_that_are_no_json_are_named(tmp_path):
    (tmp_path / "dolls.json").write_text("{")
    with pytest.raises(ValueError, match="dolls.json: expected JSON"):
        write(tmp_path, 1, 2)


def test_the_command_writes_a_set_and_refuses_in_one_line(ldm, tmp_path):
    out = tmp_path / "set"
    status, said, err = ldm("dolls", out, "--people", 1, "--test", 2, "--seed", 3)
    assert (status, said.strip(), err) == (0, f"{out}: 1 people to train with, 2 to test", "")
    assert (out / "test" / "image" / "90001_00.jpg").is_file()
    status, _, err = ldm("dolls", out, "--people", 2, "--test", 2, "--seed", 3)
    assert status == 2 and err.count("\n") == 1 and "'people': 1" in err
    assert ldm("dolls", tmp_path / "other", "--test", 0)[0] == 2
    status, said, _ = ldm("dolls", "--help")
    assert status == 0 and "Example" in said
