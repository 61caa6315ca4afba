"""Emoji scenes as a dataset that any index can enter, and the sprites that they are drawn from."""

import itertools

import pytest

from ldm.data import sprites
from ldm.data.emoji import EmojiScenes
from ldm.data.scenes import split_scene, vocabulary


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
        rng = scenes.rng(i)
        scene = split_scene(rng, "heldout")
        assert scene == scenes.scene(i) and scene.held_out
        assert picture.size == (48, 48) and picture.tobytes() == scene.draw(rng, 48).tobytes()
        assert caption == scene.caption(rng)


def test_its_identity_says_the_grammar_and_every_argument():
    identities = [
        EmojiScenes().identity(),
        EmojiScenes(side=128).identity(),
        EmojiScenes(seed=1).identity(),
        EmojiScenes(split="seen").identity(),
        EmojiScenes(length=5).identity(),
    ]
    assert all(one != other for one, other in itertools.combinations(identities, 2))
    assert {identity["grammar"] for identity in identities} == {3}


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


def test_an_unknown_sprite_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"^[^\n]*purple apple[^\n]*$"):
        sprites.sprite("purple apple")


def test_the_font_s_licence_travels_with_the_sheet():
    licence = (sprites.FOLDER / "OFL.txt").read_text(encoding="utf-8")
    assert licence.startswith("Copyright 2013-2017 Google Inc.")
    for words in (
        "SIL OPEN FONT LICENSE Version 1.1 - 26 February 2007", "PREAMBLE", "PERMISSION & CONDITIONS", "TERMINATION",
        "OTHER DEALINGS IN THE FONT SOFTWARE.",
    ):  # fmt: skip
        assert words in licence
