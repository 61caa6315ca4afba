"""Fidelity: a true picture fits itself exactly, a worse one worse, and an empty one is not praised."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ldm.data.scenes import Scene, random_scene
from ldm.evaluation.fidelity import EQUAL, decibels, fidelity, fitted, psnr, simple

SIMPLE = ("single", "sized", "tinted", "background")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene_of(kind: str, i: int) -> Scene:
    return replace(random_scene(rng(i), kind), setting=None)


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("kind", SIMPLE)
def test_a_true_picture_fits_itself_exactly(kind, side):
    for i in range(5):
        scene = scene_of(kind, i)
        assert fidelity(scene.draw(rng(i, 1), side), scene) == EQUAL


@pytest.mark.parametrize("kind", SIMPLE)
def test_no_other_place_and_no_like_size_fits_better_than_the_one_found(kind):
    scene, side, lots = scene_of(kind, 1), 64, rng(2)
    thing = scene.place(rng(1))[0]
    picture = scene.paint((thing,), side).filter(ImageFilter.GaussianBlur(1.5))  # a rendering of no size and place
    found, own = fidelity(picture, scene), round(thing.width * side)
    assert 15 < found < 40
    for width in range(round(own * 0.85), min(side, round(own * 1.15)) + 1):
        for left, top in lots.integers(0, side - width + 1, (20, 2)):
            placed = replace(thing, width=width / side, x=(left + width / 2) / side, y=(top + width / 2) / side)
            assert psnr(picture, scene.paint((placed,), side)) <= found


def test_a_bad_drawing_is_not_held_against_a_tiny_thing():
    heart = Scene(("yellow heart",))
    blob = Scene(("spider",)).draw(rng(0), 128)
    there = (np.asarray(fitted(blob, heart)) != 255).any(-1)
    assert 0.4 < there.any(0).mean() < 0.9 and 0.4 < there.any(1).mean() < 0.9


def test_it_falls_with_what_is_wrong():
    scene = Scene(("dog face",))
    true = scene.draw(rng(0), 128)
    eyeless, other = true.copy(), Scene(("cat face",)).draw(rng(0), 128)
    eyeless.paste(true.getpixel((64, 40)), (40, 45, 88, 70))
    levels = [fidelity(p, scene) for p in (true, true.filter(ImageFilter.GaussianBlur(1)), eyeless, other)]
    assert levels == sorted(levels, reverse=True) and levels[1] - levels[3] > 5


def test_size_and_place_are_free_and_colour_is_not():
    small, large = (
        Scene(("ghost",), size="small", background="blue"),
        Scene(("ghost",), size="large", background="blue"),
    )
    assert fidelity(small.draw(rng(0), 128), large) == EQUAL
    assert fidelity(small.draw(rng(0), 128), replace(small, background="purple")) < 15
    assert fidelity(replace(small, tints=("red",)).draw(rng(0), 128), small) < 35


def test_an_empty_picture_is_held_against_the_scene_as_it_places_itself():
    scene = Scene(("spider",))
    empty = scene.paint((), 128)
    assert fitted(empty, scene) == scene.draw(rng(0), 128)
    assert fidelity(empty, scene) < 15


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_any_mode(mode):
    scene = Scene(("spider",))
    assert fidelity(scene.draw(rng(0), 64).convert(mode), scene) > 20


def test_a_picture_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="^picture of 64x32: expected a square one$"):
        fidelity(Image.new("RGB", (64, 32)), Scene(("spider",)))


def test_simple_scenes_are_those_whose_size_and_place_alone_are_free():
    assert all(simple(scene_of(kind, i)) for kind in SIMPLE for i in range(5))
    assert not any(
        simple(random_scene(rng(i), kind)) for kind in ("count", "relation", "row", "setting") for i in range(5)
    )


def test_decibels():
    assert decibels(1.0) == 0 and decibels(0.01) == pytest.approx(20) and decibels(0.0) == EQUAL
    black, grey = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), (51, 51, 51))
    assert psnr(black, grey) == pytest.approx(20 * np.log10(5), abs=1e-5) and psnr(grey, grey) == EQUAL
