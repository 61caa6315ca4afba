"""Emoji scenes and their sprites: keys, captions, the held-out tenth, and a stream that any index can enter."""

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import ImageChops

from ldm.data import emoji, sprites
from ldm.data.emoji import COLOURS, EmojiScenes, Scene, random_scene, split_scene, variants, vocabulary

SCENES = [
    Scene(("red apple",)),
    Scene(("umbrella",), size="small"),
    Scene(("red apple",), background="blue"),
    Scene(("egg",), size="large", background="orange"),
    Scene(("strawberry",), count=3),
    Scene(("cat face", "dog face"), "left of"),
    Scene(("cat face", "dog face"), "above", background="black"),
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wordings(scene: Scene) -> set[str]:
    stream = rng()
    return {scene.caption(stream) for _ in range(60)}


def some_scenes(number: int = 400) -> list[Scene]:
    kinds = itertools.cycle(emoji.KINDS)
    return [random_scene(rng(i), kind) for i, kind in zip(range(number), kinds, strict=False)]


def read(caption: str) -> Scene:
    """The inverse of the grammar, written apart from it: a caption -> its scene."""
    many = {emoji.plural(name): name for name in vocabulary()}
    phrase, _, colour = caption.removesuffix(" background").partition(" on a")
    background = colour.removeprefix("n").strip() or "white"
    for words, relation, turned in (
        ("to the left of", "left of", False), ("to the right of", "left of", True), ("left of", "left of", False),
        ("right of", "left of", True), ("above", "above", False), ("below", "above", True), ("under", "above", True),
    ):  # fmt: skip
        if f" {words} " in phrase:
            pair = tuple(named(part) for part in phrase.split(f" {words} "))
            return Scene(pair[::-1] if turned else pair, relation, background=background)
    for count, word in emoji.NUMBERS.items():
        if phrase.startswith(f"{word} "):
            return Scene((many[phrase.removeprefix(f"{word} ")],), count=count, background=background)
    for size in ("small", "large"):
        if named(phrase).startswith(f"{size} "):
            return Scene((named(phrase).removeprefix(f"{size} "),), size=size, background=background)
    return Scene((named(phrase),), background=background)


def named(phrase: str) -> str:
    return phrase.removeprefix("an ").removeprefix("a ")


def test_keys_are_canonical():
    keys = [scene.key for scene in SCENES]
    assert keys == [
        "object:red apple",
        "object:umbrella; size:small",
        "background:blue; object:red apple",
        "background:orange; object:egg; size:large",
        "count:3; object:strawberry",
        "left:cat face; right:dog face",
        "background:black; bottom:dog face; top:cat face",
    ]
    for key in keys:
        assert key.split("; ") == sorted(key.split("; "))


def test_every_wording_says_the_same_scene_and_so_has_its_key():
    for scene in [*SCENES, *some_scenes()]:
        for caption in wordings(scene):
            assert read(caption).key == scene.key, caption


def test_different_scenes_have_different_keys():
    scenes = set(some_scenes(2000))
    assert len({scene.key for scene in scenes}) == len(scenes)


def test_captions():
    white = {"", " on a white background"}
    assert wordings(SCENES[0]) == {f"a red apple{said}" for said in white}
    assert wordings(SCENES[1]) == {f"a small umbrella{said}" for said in white}
    assert wordings(SCENES[2]) == {"a red apple on a blue background"}
    assert wordings(SCENES[3]) == {"a large egg on an orange background"}
    assert wordings(SCENES[4]) == {f"three strawberries{said}" for said in white}
    assert wordings(SCENES[6]) == {
        f"{words} on a black background"
        for words in ("a cat face above a dog face", "a dog face below a cat face", "a dog face under a cat face")
    }
    assert {caption.removesuffix(" on a white background") for caption in wordings(SCENES[5])} == {
        "a cat face to the left of a dog face",
        "a cat face left of a dog face",
        "a dog face to the right of a cat face",
        "a dog face right of a cat face",
    }


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("airplane", "an airplane", "airplanes"),
        ("unicorn", "a unicorn", "unicorns"),
        ("hourglass done", "an hourglass done", "hourglasses done"),
        ("grapes", "grapes", "grapes"),
        ("wine glass", "a wine glass", "wine glasses"),
        ("cactus", "a cactus", "cactuses"),
        ("strawberry", "a strawberry", "strawberries"),
        ("monkey", "a monkey", "monkeys"),
        ("fox", "a fox", "foxes"),
        ("tomato", "a tomato", "tomatoes"),
        ("burrito", "a burrito", "burritos"),
        ("wolf", "a wolf", "wolves"),
        ("deer", "a deer", "deer"),
        ("game die", "a game die", "game dice"),
        ("ear of corn", "an ear of corn", "ears of corn"),
        ("snowman without snow", "a snowman without snow", "snowmen without snow"),
        ("smiling face with sunglasses", "a smiling face with sunglasses", "smiling faces with sunglasses"),
    ],
)
def test_articles_and_plurals(name, one, many):
    assert emoji.with_article(name) == one
    assert emoji.plural(name) == many


def test_no_two_objects_share_a_plural():
    assert len({emoji.plural(name) for name in vocabulary()}) == len(vocabulary())


def test_a_tenth_of_the_composed_scenes_is_held_out_and_no_single_one():
    for name in vocabulary():
        assert not any(Scene((name,), size=size).held_out for size in (None, "small", "large"))
    composed = {scene for scene in some_scenes(4000) if scene.composed}
    assert abs(np.mean([scene.held_out for scene in composed]) - 26 / 256) < 0.02
    for scene in composed:
        byte = int(hashlib.sha256(scene.key.encode()).hexdigest()[:2], 16)
        assert scene.held_out == (byte < 26)


def test_training_never_sees_a_held_out_scene():
    seen = [split_scene(rng(i), "train") for i in range(2000)]
    assert not any(scene.held_out for scene in seen)
    assert min(Counter(scene.count for scene in seen if scene.count > 1).values()) > 30
    assert {scene.relation for scene in seen} == {None, "left of", "above"}
    assert {scene.background for scene in seen} == set(COLOURS)
    assert {scene.size for scene in seen} == {None, "small", "large"}


@pytest.mark.parametrize(("split", "composed", "held_out"), [("single", 0, 0), ("seen", 1, 0), ("heldout", 1, 1)])
def test_splits(split, composed, held_out):
    scenes = [split_scene(rng(i), split) for i in range(200)]
    assert {(scene.composed, scene.held_out) for scene in scenes} == {(composed, held_out)}


def test_unknown_names_are_said_in_one_line():
    for call in (
        lambda: split_scene(rng(), "test"),
        lambda: random_scene(rng(), "portrait"),
        lambda: sprites.sprite("purple apple"),
        lambda: Scene(("purple apple",)).draw(rng()),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]*(test|portrait|purple apple)[^\n]*$"):
            call()


def test_item_i_depends_on_seed_and_i_alone():
    forward, backward = EmojiScenes(seed=5), EmojiScenes(seed=5)
    there = [forward[i] for i in range(8)]
    back = [backward[i] for i in reversed(range(8))][::-1]
    for (one, caption), (other, same) in zip(there, back, strict=True):
        assert caption == same and one.tobytes() == other.tobytes()
    assert [caption for _, caption in itertools.islice(forward, 8)] == [caption for _, caption in there]
    assert [EmojiScenes(seed=6)[i][1] for i in range(8)] != [caption for _, caption in there]


def test_item_i_is_the_picture_and_the_caption_of_scene_i():
    scenes = EmojiScenes(side=48, split="heldout", length=20)
    assert len(scenes) == 20
    for i in range(20):
        picture, caption = scenes[i]
        assert picture.size == (48, 48) and picture.mode == "RGB"
        assert read(caption) == scenes.scene(i)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.key)
def test_pictures_stand_on_their_background_and_jitter(scene):
    one, other = scene.draw(rng(0)), scene.draw(rng(1))
    assert one.getpixel((0, 0)) == other.getpixel((0, 0)) == COLOURS[scene.background]
    assert ImageChops.difference(one, other).getbbox()
    assert one.tobytes() == scene.draw(rng(0)).tobytes()


def test_objects_stand_where_the_relation_puts_them():
    """Red hearts are told from blue ones by their colour: the mean place of either."""

    def centre(picture, channel, other):
        x = np.asarray(picture, float)
        weight = (x[..., channel] - x[..., other]).clip(0)
        return np.array([(weight * axis).sum() for axis in np.mgrid[:64, :64]]) / weight.sum()

    for seed in range(5):
        beside = Scene(("red heart", "blue heart"), "left of").draw(rng(seed))
        above = Scene(("red heart", "blue heart"), "above").draw(rng(seed))
        assert centre(beside, 0, 2)[1] < 32 < centre(beside, 2, 0)[1]
        assert centre(above, 0, 2)[0] < 32 < centre(above, 2, 0)[0]


def test_variants_differ_in_the_one_named_respect():
    for scene in some_scenes(60):
        for respect, others in variants(scene).items():
            assert scene.key not in {other.key for other in others}
            assert len({other.key for other in others}) == len(others)
            for other in others:
                same = {
                    "object": len(set(other.objects) ^ set(scene.objects)) <= 2,
                    "relation": set(other.objects) == set(scene.objects),
                    "colour": other.objects == scene.objects and other.background != scene.background,
                    "count": other.objects == scene.objects and other.count != scene.count,
                }
                assert same[respect]


def test_the_sheet_holds_every_name_once():
    names = sprites.names()
    assert len(names) == len(set(names)) == 1899
    for name in (names[0], names[-1], "red apple"):
        sprite = sprites.sprite(name)
        assert sprite.size == (sprites.SIZE, sprites.SIZE) and sprite.mode == "RGBA"
        assert sprite.getchannel("A").getextrema() == (0, 255)


def test_the_vocabulary_is_drawn_from_the_sheet():
    assert len(vocabulary()) == len(set(vocabulary())) > 100
    assert set(vocabulary()) <= set(sprites.names())


def test_the_font_s_licence_travels_with_the_sheet():
    licence = (sprites.FOLDER / "OFL.txt").read_text(encoding="utf-8")
    assert licence.startswith("Copyright 2013-2017 Google Inc.")
    for words in (
        "SIL OPEN FONT LICENSE Version 1.1 - 26 February 2007", "PREAMBLE", "PERMISSION & CONDITIONS", "TERMINATION",
        "OTHER DEALINGS IN THE FONT SOFTWARE.",
    ):  # fmt: skip
        assert words in licence
