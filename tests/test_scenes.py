"""Emoji scenes: keys, the held-out tenth, what stands where, how it is painted, and what it could be mistaken for."""

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ldm.data.scenes import (
    COLOURS,
    KINDS,
    TINTS,
    Placed,
    Scene,
    painting,
    random_scene,
    settings,
    split_scene,
    variants,
    vocabulary,
)
from ldm.data.scenes.scene import LAYOUTS
from ldm.data.scenes.vocabulary import tints

KEYS = {
    Scene(("red apple",)): "object:red apple",
    Scene(("umbrella",), size="small"): "object:umbrella; size:small",
    Scene(("red apple",), background="blue"): "background:blue; object:red apple",
    Scene(("egg",), size="large", background="orange"): "background:orange; object:egg; size:large",
    Scene(("strawberry",), count=3): "count:3; object:strawberry",
    Scene(("cat face", "dog face"), "left of"): "left:cat face; right:dog face",
    Scene(("cat face", "dog face"), "above", background="black"): "background:black; bottom:dog face; top:cat face",
    Scene(("cat face",), tints=("purple",)): "object tint:purple; object:cat face",
    Scene(("cat face",), setting="night sky"): "object:cat face; setting:night sky",
    Scene(("dog face", "koala"), "left of", tints=(None, "blue")): "left:dog face; right tint:blue; right:koala",
    Scene(("cat face", "ant", "tulip"), "row"): "left:cat face; middle:ant; right:tulip",
}
HELD_OUT = {
    Scene(("magic wand",), background="black"): True,
    Scene(("teddy bear",), count=4): True,
    Scene(("fox", "lemon"), "above"): True,
    Scene(("hammer", "watch"), "left of", background="purple"): True,
    Scene(("croissant", "lemon"), "above", background="pink"): True,
    Scene(("whale",), size="small", background="brown"): True,
    Scene(("tiger face", "green book"), "left of"): True,
    Scene(("strawberry",)): False,
    Scene(("clown face",), background="yellow"): False,
    Scene(("baseball",), count=4): False,
    Scene(("blueberries", "soccer ball"), "left of"): False,
}  # as the first version of the grammar had it
FIRST_GRAMMAR = "e5a290ffae6e2e2cefc25322b65ff4cf4c03d3531bd5e5a342badc3cdd461d49"
FIELDS = {"colour": "background", "setting": "setting", "count": "count", "tint": "tints"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_scenes(number: int = 400) -> list[Scene]:
    return [random_scene(rng(i), tuple(KINDS)[i % len(KINDS)]) for i in range(number)]


def distance(one: Image.Image, other: Image.Image) -> float:
    """Root of the mean square of the difference, 0..255."""
    return float(np.sqrt(np.square(np.asarray(one, float) - np.asarray(other, float)).mean()))


# ---- structure ----


@pytest.mark.parametrize(("scene", "key"), KEYS.items(), ids=KEYS.values())
def test_keys_are_canonical(scene, key):
    assert scene.key == key
    assert key.split("; ") == sorted(key.split("; "))


def test_different_scenes_have_different_keys():
    scenes = set(some_scenes(4000))
    assert len({scene.key for scene in scenes}) == len(scenes)


def test_no_tints_are_no_tints_however_they_are_said():
    assert Scene(("ant", "fox"), "above") == Scene(("ant", "fox"), "above", tints=(None, None))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"objects": ("ant", "fox")}, "ant.*fox"),
        ({"objects": ("ant",), "relation": "row"}, "ant"),
        ({"objects": ("ant",), "tints": ("red", "blue")}, "red.*blue"),
        ({"objects": ("ant",), "setting": "snow", "background": "red"}, "snow.*red"),
    ],
)
def test_a_scene_that_cannot_be_is_refused_in_one_line(arguments, named):
    with pytest.raises(ValueError, match=rf"^[^\n]*{named}[^\n]*expected[^\n]*$"):
        Scene(**arguments)


# ---- held out ----


@pytest.mark.parametrize(("scene", "held_out"), HELD_OUT.items(), ids=lambda value: getattr(value, "key", str(value)))
def test_what_was_held_out_still_is(scene, held_out):
    assert scene.held_out is held_out


def test_every_scene_of_the_first_grammar_has_its_key_and_its_side_of_the_split():
    """All that it could say of one name, and of each name and the next."""
    names = vocabulary()
    old = [Scene((a,), size=size, background=c) for a in names for c in COLOURS for size in (None, "small", "large")]
    old += [Scene((name,), count=count, background=c) for name in names for c in COLOURS for count in (2, 3, 4)]
    pairs = list(zip(names, names[1:] + names[:1], strict=True))
    old += [Scene(pair, link, background=c) for pair in pairs for c in COLOURS for link in ("left of", "above")]
    lines = "".join(f"{scene.key} {scene.composed} {scene.held_out}\n" for scene in old)
    assert hashlib.sha256(lines.encode()).hexdigest() == FIRST_GRAMMAR


def test_a_tenth_of_the_composed_scenes_is_held_out_of_every_kind_and_no_single_one():
    for name in vocabulary():
        assert not any(Scene((name,), size=size).held_out for size in (None, "small", "large"))
    for kind in set(KINDS) - {"single", "sized"}:
        scenes = {random_scene(rng(i), kind) for i in range(1000)}
        assert all(scene.composed for scene in scenes)
        assert abs(np.mean([scene.held_out for scene in scenes]) - 26 / 256) < 0.035  # three deviations


def test_training_never_sees_a_held_out_scene_and_sees_everything_else():
    seen = [split_scene(rng(i), "train") for i in range(4000)]
    assert not any(scene.held_out for scene in seen)
    counts = Counter(scene.count for scene in seen if scene.count > 1)
    assert set(counts) == {2, 3, 4, 5} and min(counts.values()) > 60
    assert {scene.relation for scene in seen} == {None, "left of", "above", "row"}
    assert {scene.background for scene in seen} == set(COLOURS)
    assert {scene.setting for scene in seen} == {None, *settings.SETTINGS}
    assert {scene.size for scene in seen} == {None, "small", "large"}
    assert {tint for scene in seen for tint in scene.tints} == {None, *TINTS}
    singles = np.mean([not scene.composed and scene.size is None for scene in seen])
    assert abs(singles - KINDS["single"] / (1 - 0.62 * 26 / 256)) < 0.03
    assert sum(KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize(("split", "composed", "held_out"), [("single", 0, 0), ("seen", 1, 0), ("heldout", 1, 1)])
def test_splits(split, composed, held_out):
    scenes = [split_scene(rng(i), split) for i in range(300)]
    assert {(scene.composed, scene.held_out) for scene in scenes} == {(composed, held_out)}
    if composed:
        assert {scene.relation for scene in scenes} == {None, "left of", "above", "row"}
        assert all(any(test(scene) for scene in scenes) for test in (lambda s: s.setting, lambda s: any(s.tints)))


def test_unknown_names_are_said_in_one_line():
    for call in (
        lambda: split_scene(rng(), "test"),
        lambda: random_scene(rng(), "portrait"),
        lambda: Scene(("purple apple",)).draw(rng()),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]*(test|portrait|purple apple)[^\n]*$"):
            call()


# ---- place and paint ----


def test_objects_stay_in_the_picture_and_apart():
    for i, scene in enumerate(some_scenes(1600)):
        placed = scene.place(rng(i))
        assert [(thing.name, thing.tint) for thing in placed] == list(
            zip(scene.objects, scene.tints, strict=True)
        ) * scene.count
        for thing in placed:
            low, high = min(thing.x, thing.y) - thing.width / 2, max(thing.x, thing.y) + thing.width / 2
            assert 0 <= low < high <= 1
        for one, other in itertools.combinations(placed, 2):
            assert max(abs(one.x - other.x), abs(one.y - other.y)) >= (one.width + other.width) / 2 - 1e-12


def test_objects_stand_where_the_relation_puts_them():
    for i in range(50):
        left, right = Scene(("ant", "fox"), "left of").place(rng(i))
        top, bottom = Scene(("ant", "fox"), "above").place(rng(i))
        row = Scene(("ant", "fox", "owl"), "row").place(rng(i))
        assert left.x < right.x - abs(left.y - right.y) and top.y < bottom.y - abs(top.x - bottom.x)
        assert [thing.name for thing in sorted(row, key=lambda thing: thing.x)] == ["ant", "fox", "owl"]


def test_sizes_do_not_meet():
    widths = {
        size: [Scene(("ant",), size=size).place(rng(i))[0].width for i in range(99)]
        for size in ("small", None, "large")
    }
    assert max(widths["small"]) < min(widths[None]) < max(widths[None]) < min(widths["large"])
    assert {count for relation, count in LAYOUTS if relation is None} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("scene", KEYS, ids=KEYS.values())
def test_a_picture_is_its_places_painted_and_jitters(scene):
    drawn = scene.draw(rng(3), 48)
    assert drawn.mode == "RGB" and drawn.size == (48, 48)
    assert drawn.tobytes() == scene.paint(scene.place(rng(3)), 48).tobytes()
    assert drawn.tobytes() != scene.draw(rng(4), 48).tobytes()


def test_what_is_placed_elsewhere_is_painted_elsewhere():
    scene = Scene(("fox",), background="blue")
    picture = scene.paint((Placed("fox", None, 0.25, 0.25, 0.75),), 64)
    changed = np.asarray(picture) != np.array(COLOURS["blue"])
    rows, columns = np.nonzero(changed.any(-1))
    assert 40 <= rows.min() and rows.max() < 56 and 8 <= columns.min() and columns.max() < 24


@pytest.mark.parametrize("scene", KEYS, ids=KEYS.values())
def test_side_scales_the_same_picture(scene):
    """Nearer than pictures that are placed apart: whole pixels move a thing by half a one."""
    placed = scene.place(rng(1))
    large = scene.paint(placed, 256).resize((64, 64), Image.Resampling.BOX)
    apart = [distance(scene.draw(rng(i), 64), scene.paint(placed, 64)) for i in range(2, 12)]
    assert distance(large, scene.paint(placed, 64)) < min(apart)


def test_a_ground_is_what_it_is_called_and_stays_clean():
    for colour, value in COLOURS.items():
        assert Scene(("ant",), background=colour).paint((), 8).getcolors() == [(64, value)]
    scene = Scene(("ant",), setting="grass")
    before = scene.paint((), 32).tobytes()
    scene.draw(rng(), 32)
    assert scene.paint((), 32).tobytes() == before


def test_settings_are_one_picture_at_every_side_and_differ():
    for name in settings.SETTINGS:
        small = settings.painted(name, 256).resize((64, 64), Image.Resampling.BOX)
        assert distance(small, settings.painted(name, 64)) < 5  # the stars are of a few pixels; the others below 3
    for one, other in itertools.combinations(settings.SETTINGS, 2):
        assert distance(settings.painted(one, 32), settings.painted(other, 32)) > 25


# ---- tints ----


@pytest.mark.parametrize("tint", TINTS)
def test_a_tinted_sprite_is_of_that_colour_with_its_shape_and_its_eyes(tint):
    for name in ("cat face", "rabbit face", "star", "elephant", "ghost", "umbrella"):
        plain, tinted = painting.coloured(name, None), painting.coloured(name, tint)
        assert tinted.getchannel("A").tobytes() == plain.getchannel("A").tobytes()
        solid = np.asarray(plain.getchannel("A")) > 250
        body = np.median(np.asarray(tinted)[solid][:, :3], 0)
        nearest = min(TINTS, key=lambda other: np.abs(body - COLOURS[other]).sum())
        assert nearest == tint, name
        before, after = (np.asarray(sprite.convert("L"), float)[solid] for sprite in (plain, tinted))
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= -6).all(), name  # rounding of three channels apart
    eyes = np.asarray(painting.coloured("cat face", tint).convert("RGB")).max(-1)
    assert (eyes[np.asarray(painting.coloured("cat face", None).getchannel("A")) > 250] < 90).mean() > 0.01


def test_every_tint_of_every_name_looks_another():
    for name in vocabulary()[::7]:
        plain = Scene((name,)).paint((Placed(name, None, 1, 0.5, 0.5),), 32)
        for tint in tints(name):
            assert distance(plain, Scene((name,)).paint((Placed(name, tint, 1, 0.5, 0.5),), 32)) > 12, (name, tint)


# ---- variants ----


def things(scene: Scene) -> list[tuple[str, str | None]]:
    return sorted(zip(scene.objects, map(str, scene.tints), strict=True))


def rest(scene: Scene, *but: str) -> dict:
    return {name: value for name, value in vars(scene).items() if name not in but}


def test_variants_differ_in_the_one_named_respect():
    for scene in some_scenes(160):
        for respect, others in variants(scene).items():
            assert len({other.key for other in others} - {scene.key}) == len(others), respect
            for other in others:
                if respect == "object":
                    assert rest(other, "objects") == rest(scene, "objects")
                    assert sum(a != b for a, b in zip(other.objects, scene.objects, strict=True)) == 1
                elif respect == "relation":
                    changed = ("relation", "objects", "tints")
                    assert rest(other, *changed) == rest(scene, *changed) and things(other) == things(scene)
                else:
                    assert rest(other, FIELDS[respect]) == rest(scene, FIELDS[respect])
                paints = zip(other.objects, other.tints, strict=True)
                assert all(tint is None or tint in tints(name) for name, tint in paints)


def test_variants_hold_every_way_to_be_wrong():
    names = len(vocabulary())
    sizes = {
        Scene(("fox",)): {"object": names - 1, "colour": 10, "tint": 6, "count": 4, "setting": 8},
        Scene(("fox",), background="red"): {"object": names - 1, "colour": 10, "tint": 6, "count": 4},
        Scene(("fox",), setting="snow"): {"object": names - 1, "tint": 6, "count": 4, "setting": 8},
        Scene(("fox",), size="small"): {"object": names - 1, "colour": 10, "tint": 6, "setting": 8},
        Scene(("fox", "rainbow"), "above"): {
            "object": 2 * (names - 2), "relation": 3, "colour": 10, "tint": 6, "setting": 8,
        },
        Scene(("fox", "rainbow", "ant"), "row"): {
            "object": 3 * (names - 3), "relation": 5, "colour": 10, "tint": 13, "setting": 8,
        },
    }  # fmt: skip
    for scene, sized in sizes.items():
        found = {respect: len(others) for respect, others in variants(scene).items() if others}
        assert found == sized, scene.key


def test_exchanged_tints_are_a_variant():
    scene = Scene(("cat face", "elephant"), "left of", tints=("purple", "green"))
    assert Scene(("cat face", "elephant"), "left of", tints=("green", "purple")) in variants(scene)["tint"]
