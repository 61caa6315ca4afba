"""The judge of prompts, judged: it knows true pictures, gives nothing to empty ones, and finds every kind of error."""

import json
from collections import defaultdict
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

import ldm.evaluation
from ldm.data.emoji import COLOURS, Scene, random_scene, variants
from ldm.evaluation import prompts
from ldm.evaluation.prompts import CANDIDATES, SPLITS, candidates, evaluate_prompts, judge, question, wilson

EACH = 30  # questions of each split
SEED = 7


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(colour) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(rng(seed).integers(0, 256, (64, 64, 3), np.uint8))


def probes(scene: Scene, true: Image.Image, seed: int) -> dict[str, Image.Image]:
    """Pictures that say nothing, and pictures that are soft or loud but say it."""
    speckled = np.asarray(true) + rng(seed).normal(0, 20, (64, 64, 3))
    return {
        "true": true,
        "white": plain("white"),
        "black": plain("black"),
        "grey": plain((128, 128, 128)),
        "background": plain(COLOURS[scene.background]),
        "noise": noise(seed),
        # A tenth of the side: an object is about three of the blur's widths wide, too few to name it by.
        "blurred": true.filter(ImageFilter.GaussianBlur(6.4)),
        "soft": true.filter(ImageFilter.GaussianBlur(1)),
        "speckled": Image.fromarray(speckled.clip(0, 255).astype(np.uint8)),
        "large": true.resize((192, 192), Image.Resampling.BICUBIC),
        "odd": true.resize((75, 75), Image.Resampling.BICUBIC).convert("RGBA"),
    }


def wrong(asked: prompts.Question) -> dict[str, Scene]:
    """One of the candidates for each kind of error: what a model drew that did not listen."""
    pools = variants(asked.scene).items()
    found = {respect: [scene for scene in asked.candidates if scene in pool] for respect, pool in pools}
    return {f"wrong {respect}": scenes[0] for respect, scenes in found.items() if scenes}


@pytest.fixture(scope="module")
def verdicts():
    """probe -> [(kind of scene, chosen scene, scene of the question, scene of the picture)], over all splits."""
    found = defaultdict(list)
    series = [question(split, SEED, i) for split in SPLITS for i in range(EACH)]
    stranger = series[-1].scene.draw(rng(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "rendered", lru_cache(CANDIDATES)(prompts.rendered))  # one question, many pictures
        for i, asked in enumerate(series):
            true = asked.scene.draw(rng(i, 1))
            pictures = {name: (asked.scene, picture) for name, picture in probes(asked.scene, true, i).items()}
            pictures |= {name: (scene, scene.draw(rng(i, 2))) for name, scene in wrong(asked).items()}
            pictures["shuffled"] = series[i - 1].scene, stranger
            for name, (drawn, picture) in pictures.items():
                chosen = asked.candidates[judge(picture, asked.candidates, asked.judge_seed)[0]]
                found[name].append((prompts.kind(asked.scene), chosen, asked.scene, drawn))
            stranger = true
    return found


def right(verdicts: list) -> list[bool]:
    return [chosen == asked for _, chosen, asked, _ in verdicts]


@pytest.mark.parametrize("kind", ["single", "background", "count", "relation"])
def test_knows_true_pictures_of_every_kind(verdicts, kind):
    of_kind = [verdict for verdict in verdicts["true"] if verdict[0] == kind]
    assert len(of_kind) >= 10
    assert np.mean(right(of_kind)) >= 0.99


@pytest.mark.parametrize("split", SPLITS)
def test_knows_true_pictures_of_every_split(verdicts, split):
    start = SPLITS.index(split) * EACH
    assert np.mean(right(verdicts["true"][start : start + EACH])) >= 0.99


@pytest.mark.parametrize("name", ["soft", "speckled", "large", "odd"])
def test_knows_them_slightly_soft_or_noisy_and_in_any_size(verdicts, name):
    assert np.mean(right(verdicts[name])) >= 0.95


@pytest.mark.parametrize("name", ["white", "black", "grey", "background", "noise", "blurred", "shuffled"])
def test_what_shows_no_object_scores_chance(verdicts, name):
    correct = right(verdicts[name])
    low, high = wilson(sum(correct), len(correct), z=2.6)  # 99 %
    assert low <= 1 / CANDIDATES <= high


@pytest.mark.parametrize("respect", ["object", "relation", "colour", "count"])
def test_finds_every_kind_of_error(verdicts, respect):
    found = verdicts[f"wrong {respect}"]
    assert len(found) >= 15
    assert sum(right(found)) <= 0.01 * len(found)
    assert np.mean([chosen == drawn for _, chosen, _, drawn in found]) >= 0.99


@pytest.mark.parametrize(("name", "own"), [("spider", "black"), ("star", "yellow"), ("ghost", "white")])
def test_objects_of_the_background_s_own_colour(name, own):
    """On its own colour an object has hardly a contour, and on the others hardly a colour."""
    for i, colour in enumerate({own, "black", "yellow", "white", "grey"}):
        scene = Scene((name,), background=colour)
        scenes = candidates(scene, rng(i))
        assert scenes[judge(scene.draw(rng(i, 1)), scenes, seed=i)[0]] == scene


def test_candidates_are_different_and_hold_every_error():
    places = []
    for i in range(60):
        scene = random_scene(rng(i), ("single", "background", "count", "relation")[i % 4])
        scenes, pools = candidates(scene, rng(i)), variants(scene)
        assert len({other.key for other in scenes}) == len(scenes) == CANDIDATES
        assert {*pools["relation"], *pools["count"], *pools["colour"]} <= set(scenes)
        assert len(set(scenes) & set(pools["object"])) == 18
        assert scenes == candidates(scene, rng(i)) != candidates(scene, rng(i + 1))
        places.append(scenes.index(scene))
    assert len(set(places)) > 20


def test_the_judge_is_a_function_of_picture_scenes_and_seed():
    asked = question("seen", SEED, 0)
    picture = asked.scene.draw(rng(1))
    first, second, other = (judge(picture, asked.candidates, seed) for seed in (3, 3, 4))
    assert first == second and first[1] != other[1]
    assert all(-1 <= likeness <= 1 for likeness in first[1])
    lots = {judge(plain("white"), asked.candidates[:2], seed)[0] for seed in range(12)}
    assert lots == {0, 1}


def artist(asked_of: dict, calls: list):
    """A model that draws every prompt truly, with its own jitter."""

    def draw(texts, seeds):
        calls.append((texts, seeds))
        return [asked_of[text].draw(rng(seed, 99)) for text, seed in zip(texts, seeds, strict=True)]

    return draw


def evaluated(split: str, count: int, seed: int = 0, batch: int = 32):
    calls: list = []
    scenes = {q.prompt: q.scene for q in (question(split, seed, i) for i in range(count))}
    return evaluate_prompts(artist(scenes, calls), split, count, seed, batch), calls


def test_evaluation_asks_in_batches_and_tells_all():
    result, calls = evaluated("heldout", 12, seed=3, batch=5)
    assert [len(texts) for texts, _ in calls] == [5, 5, 2]
    assert [seed for _, seeds in calls for seed in seeds] == list(range(3, 15))
    assert result["accuracy"] == 1.0 and result["count"] == 12 and result["chance"] == 1 / 32
    assert result["interval"] == wilson(12, 12) and 0.7 < result["likeness"] < 1
    assert sum(figures["count"] for figures in result["kinds"].values()) == 12
    assert [answer["prompt"] for answer in result["pictures"]] == [text for texts, _ in calls for text in texts]
    assert all(answer["key"] == answer["chosen"] and answer["correct"] for answer in result["pictures"])
    assert result["settings"]["split"] == "heldout" and result["settings"]["seed"] == 3
    assert json.loads(json.dumps(result))["count"] == 12


def test_evaluation_repeats_itself_and_batches_do_not_matter():
    once = evaluated("seen", 3)[0]
    assert once == evaluated("seen", 3, batch=2)[0]
    assert once["pictures"][:2] == evaluated("seen", 2)[0]["pictures"] != evaluated("seen", 2, seed=1)[0]["pictures"]


@pytest.mark.parametrize("split", SPLITS)
def test_splits_keep_to_themselves(split):
    scenes = [question(split, 0, i).scene for i in range(200)]
    assert {scene.held_out for scene in scenes} == {split == "heldout"}
    assert {prompts.kind(scene) for scene in scenes} == (
        {"single"} if split == "single" else {"background", "count", "relation"}
    )


def test_a_constant_model_is_not_praised():
    result = evaluate_prompts(lambda texts, seeds: [plain("pink")] * len(texts), "single", 16)
    assert result["accuracy"] <= 0.25 and result["likeness"] < 0.01


@pytest.mark.parametrize(
    ("split", "count", "seed", "named"),
    [("train", 1, 0, "train"), ("all", 1, 0, "all"), ("seen", 0, 0, "count 0"), ("seen", 1, -1, "seed -1")],
)
def test_bad_arguments_are_said_in_one_line_before_anything_is_drawn(split, count, seed, named):
    with pytest.raises(ValueError, match=rf"^[^\n]*{named}[^\n]*expected[^\n]*$"):
        evaluate_prompts(lambda texts, seeds: pytest.fail("drawn"), split, count, seed)


def test_a_model_that_returns_too_few_pictures_is_an_error():
    with pytest.raises(ValueError):
        evaluate_prompts(lambda texts, seeds: [plain("white")], "single", 2)


def test_the_interval():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == pytest.approx(0) and wilson(10, 10)[1] == pytest.approx(1)


def test_silent_without_a_terminal(capsys):
    evaluated("single", 1)
    assert capsys.readouterr() == ("", "")


def test_the_room_is_lazy():
    assert ldm.evaluation.evaluate_prompts is evaluate_prompts
    with pytest.raises(AttributeError, match="no attribute 'evaluate_poems'"):
        _ = ldm.evaluation.evaluate_poems
