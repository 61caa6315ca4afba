"""The judge, judged: it knows true pictures, gives nothing to empty ones, and finds every kind of error."""

from collections import defaultdict
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ldm.data.scenes import KINDS, Scene, random_scene, variants
from ldm.evaluation import judging
from ldm.evaluation.judging import chosen, likenesses
from ldm.evaluation.prompts import wilson
from ldm.evaluation.questions import CANDIDATES, Question, about, among

EACH = 6  # questions of each kind of scene
SIDE = 128


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(colour) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def judged(picture: Image.Image, scenes: list[Scene], seed: int = 0) -> Scene:
    return chosen(likenesses(picture, scenes, seed), scenes, seed)


def probes(scene: Scene, true: Image.Image, seed: int) -> dict[str, Image.Image]:
    """Pictures that say nothing, and pictures that are soft or loud but say it."""
    speckled = np.asarray(true) + rng(seed).normal(0, 20, (SIDE, SIDE, 3))
    return {
        "true": true,
        "white": plain("white"),
        "grey": plain((128, 128, 128)),
        "noise": Image.fromarray(rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)),
        # A tenth of the side: an object is about three of the blur's widths wide, too few to name it by.
        "blurred": true.filter(ImageFilter.GaussianBlur(SIDE / 10)),
        "soft": true.filter(ImageFilter.GaussianBlur(SIDE / 64)),
        "speckled": Image.fromarray(speckled.clip(0, 255).astype(np.uint8)),
        "odd": true.resize((75, 75), Image.Resampling.BICUBIC).convert("RGBA"),
        **({} if scene.setting else {"ground": scene.paint((), SIDE)}),  # a setting's is a part of the answer
    }


def wrong(asked: Question) -> dict[str, Scene]:
    """One of the candidates for each kind of error: what a model drew that did not listen."""
    pools = variants(asked.scene).items()
    found = {respect: [scene for scene in asked.candidates if scene in pool] for respect, pool in pools}
    return {f"wrong {respect}": scenes[0] for respect, scenes in found.items() if scenes}


@pytest.fixture(scope="module")
def verdicts():
    """probe -> [(question, the scene of the picture, what it was taken for, the same of each respect alone)]."""
    found = defaultdict(list)
    scenes = [(kind, random_scene(rng(j, i), kind)) for i, kind in enumerate(KINDS) for j in range(EACH)]
    series = [about(scene, 0, rng(i)) for i, (_, scene) in enumerate(scenes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "rendered", lru_cache(CANDIDATES)(judging.rendered))  # one question, many pictures
        for i, asked in enumerate(series):
            pictures = {name: (asked.scene, p) for name, p in probes(asked.scene, asked.rendering(SIDE), i).items()}
            pictures |= {name: (scene, scene.draw(rng(i, 2), SIDE)) for name, scene in wrong(asked).items()}
            other = series[(i + EACH) % len(series)]
            pictures["shuffled"] = other.scene, other.rendering(SIDE)
            for name, (drawn, picture) in pictures.items():
                seen = likenesses(picture, asked.candidates, asked.judge_seed)
                alone = {respect: chosen(seen, those, asked.judge_seed) for respect, those in asked.alone.items()}
                found[name].append((asked, drawn, chosen(seen, asked.candidates, asked.judge_seed), alone))
                found[scenes[i][0]] += [found[name][-1]] if name == "true" else []
    return found


def right(verdicts: list) -> list[bool]:
    return [verdict == asked.scene for asked, _, verdict, _ in verdicts]


@pytest.mark.parametrize("kind", KINDS)
def test_knows_true_pictures_of_every_kind(verdicts, kind):
    assert len(verdicts[kind]) == EACH
    assert all(right(verdicts[kind]))


def test_knows_true_pictures_in_every_respect_alone(verdicts):
    of_respects = defaultdict(list)
    for asked, _, _, alone in verdicts["true"]:
        for respect, verdict in alone.items():
            of_respects[respect].append(verdict == asked.scene)
    assert of_respects.keys() == {"object", "relation", "colour", "tint", "count", "setting"}
    assert all(len(found) >= EACH and np.mean(found) >= 0.95 for found in of_respects.values())


@pytest.mark.parametrize("name", ["soft", "speckled", "odd"])
def test_knows_them_slightly_soft_or_noisy_and_in_any_size(verdicts, name):
    assert np.mean(right(verdicts[name])) >= 0.95


@pytest.mark.parametrize("name", ["white", "grey", "ground", "noise", "blurred", "shuffled"])
def test_what_shows_no_object_scores_chance(verdicts, name):
    correct = right(verdicts[name])
    low, high = wilson(sum(correct), len(correct), z=2.6)  # 99 %
    assert low <= 1 / CANDIDATES <= high


@pytest.mark.parametrize("respect", ["object", "relation", "colour", "tint", "count", "setting"])
def test_finds_every_kind_of_error(verdicts, respect):
    found = verdicts[f"wrong {respect}"]
    assert len(found) >= EACH
    assert np.mean(right(found)) <= 0.05
    assert np.mean([verdict == drawn for _, drawn, verdict, _ in found]) >= 0.95


@pytest.mark.parametrize("respect", ["object", "relation", "colour", "tint", "count", "setting"])
def test_a_respect_alone_is_wrong_where_it_is_wrong(verdicts, respect):
    found = [alone[respect] == asked.scene for asked, *_, alone in verdicts[f"wrong {respect}"] if respect in alone]
    assert len(found) >= EACH and np.mean(found) <= 0.05


@pytest.mark.parametrize("respect", ["relation", "count"])
def test_where_things_stand_is_right_in_whatever_tint(verdicts, respect):
    found = [alone[respect] == asked.scene for asked, *_, alone in verdicts["wrong tint"] if respect in alone]
    assert len(found) >= EACH - 2 and np.mean(found) >= 0.9


@pytest.mark.parametrize(("name", "own"), [("spider", "black"), ("star", "yellow"), ("ghost", "white")])
def test_objects_of_the_background_s_own_colour(name, own):
    """On its own colour an object has hardly a contour, and on the others hardly a colour."""
    for i, colour in enumerate(sorted({own, "black", "yellow", "white", "grey"})):
        scene = Scene((name,), background=colour)
        assert judged(scene.draw(rng(i, 1), SIDE), among(scene, rng(i)), i) == scene


def test_the_judge_is_a_function_of_picture_scenes_and_seed():
    asked = about(random_scene(rng(1), "relation"), 0, rng(1))
    picture = asked.scene.draw(rng(1), SIDE)
    first, second, other = (likenesses(picture, asked.candidates, seed) for seed in (3, 3, 4))
    assert first == second != other
    assert all(-1 <= likeness <= 1 for found in first.values() for likeness in found)
    fewer = likenesses(picture, asked.candidates[:3], 3)
    assert fewer == {scene: first[scene] for scene in asked.candidates[:3]}


def test_what_shows_nothing_is_decided_by_lot():
    scenes = [Scene(("ghost",)), Scene(("spider",))]
    assert {judged(plain("white"), scenes, seed) for seed in range(12)} == set(scenes)
