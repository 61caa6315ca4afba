"""Questions, what is said of a model's answers, and what is shown of them."""

import json

import numpy as np
import pytest
from PIL import Image

import ldm.evaluation
from ldm.data.scenes import KINDS, Scene, random_scene, variants
from ldm.evaluation import gallery
from ldm.evaluation.fidelity import EQUAL, fidelity
from ldm.evaluation.prompts import answer, evaluate_prompts, spread, wilson
from ldm.evaluation.questions import CANDIDATES, SPLITS, STATED, UNSTATED, about, kind, question, series, stated

SIDE = 64


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(colour) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


# Questions.


@pytest.mark.parametrize("name", KINDS)
def test_candidates_are_different_and_hold_every_error_that_is_asked_about(name):
    for i in range(12):
        scene = random_scene(rng(i), name)
        asked, pools = about(scene, 0, rng(i)), variants(scene)
        assert len({other.key for other in asked.candidates}) == len(asked.candidates) == CANDIDATES
        assert scene in asked.candidates and asked.alone.keys() == stated(scene) >= {"object"}
        for respect, pool in pools.items():
            there, limit = set(asked.candidates) & set(pool), STATED if respect in stated(scene) else UNSTATED
            assert respect == "object" or len(there) == min(limit, len(pool))
            if respect in asked.alone:
                assert set(asked.alone[respect]) == {scene, *there}
        assert len(set(asked.candidates) & set(pools["object"])) >= 6
    assert kind(scene) == name or (name in ("sized", "tinted", "setting", "background") and not scene.relation)


def test_the_place_of_the_true_scene_says_nothing():
    places = [asked.candidates.index(asked.scene) for asked in series("heldout", 100, 0)]
    assert len(set(places)) > 25 and question("seen", 0, 3) == question("seen", 0, 3) != question("seen", 1, 3)


def test_what_is_stated():
    assert stated(Scene(("bat",))) == stated(Scene(("bat",), size="small")) == {"object"}
    assert stated(Scene(("bat",), count=2, background="red")) == {"object", "count", "colour"}
    two = Scene(("bat", "dog face"), relation="above", setting="snow", tints=(None, "red"))
    assert stated(two) == {"object", "relation", "setting", "tint"}


@pytest.mark.parametrize("split", SPLITS)
def test_splits_keep_to_themselves(split):
    scenes = [asked.scene for asked in series(split, 150, 0)]
    assert {scene.held_out for scene in scenes} == {split == "heldout"}
    kinds = {kind(scene) for scene in scenes}
    assert kinds == {"single"} if split == "single" else {"background", "count", "relation", "row"} <= kinds


# What is said of the answers.


def artist(asked_of: dict, calls: list):
    """A model that draws every prompt truly, with its own jitter."""

    def draw(texts, seeds):
        calls.append((texts, seeds))
        return [asked_of[text].draw(rng(seed, 99), SIDE) for text, seed in zip(texts, seeds, strict=True)]

    return draw


def evaluated(split: str, count: int, seed: int = 0, batch: int = 32, **how):
    calls: list = []
    scenes = {asked.prompt: asked.scene for asked in series(split, count, seed)}
    return evaluate_prompts(artist(scenes, calls), split, count, seed, batch, **how), calls


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


def test_every_respect_stands_alone_with_its_chance():
    asked, (result, _) = series("heldout", 12, 3), evaluated("heldout", 12, seed=3)
    for respect, figures in result["alone"].items():
        sizes = [len(q.alone[respect]) for q in asked if respect in q.alone]
        assert figures["accuracy"] == 1 and figures["count"] == len(sizes)
        assert figures["chance"] == pytest.approx(np.mean([1 / size for size in sizes]))
        assert sum(respect in answer["alone"] for answer in result["pictures"]) == len(sizes)
    assert {"object", "relation", "colour"} <= result["alone"].keys()


def test_a_wrong_tint_is_wrong_and_the_count_right():
    asked = about(Scene(("dog face",), count=3, tints=("purple",)), 0, rng(0))
    other = next(scene for scene in asked.alone["tint"] if scene != asked.scene)
    told = answer(asked, other.draw(rng(1), SIDE))
    assert told["alone"].keys() == {"object", "count", "tint"}
    assert told["alone"]["count"] and not told["alone"]["tint"]
    assert not told["correct"] and told["chosen"] == other.key


def test_fidelity_and_its_ceiling_stand_beside_accuracy():
    def halved(pictures):
        return [picture.resize((SIDE // 2,) * 2).resize((SIDE,) * 2) for picture in pictures]

    result, _ = evaluated("single", 4, reconstruct=halved)
    assert result["fidelity"]["mean"] == result["fidelity"]["tenth_percentile"] == EQUAL
    assert result["fidelity"]["count"] == 4
    levels = [round(fidelity(halved([q.rendering(SIDE)])[0], q.scene), 2) for q in series("single", 4, 0)]
    assert [answer["ceiling"] for answer in result["pictures"]] == levels
    assert result["fidelity"]["ceiling"]["mean"] == pytest.approx(np.mean(levels))
    assert result["fidelity"]["ceiling"]["tenth_percentile"] == pytest.approx(np.percentile(levels, 10))


def test_scenes_of_several_things_or_settings_have_no_fidelity():
    result, _ = evaluated("heldout", 12)
    simple = {told["kind"] for told in result["pictures"] if "fidelity" in told}
    assert simple and simple <= {"background", "tinted", "sized"}
    assert {told["kind"] for told in result["pictures"]} > simple
    assert result["fidelity"]["ceiling"] is None
    assert spread([told for told in result["pictures"] if "fidelity" not in told]) is None


def test_shuffled_prompts_are_those_of_others_and_say_nothing():
    asked, (result, calls) = series("single", 24, 0), evaluated("single", 24, batch=16, shuffled=True)
    drawn = [text for texts, _ in calls for text in texts]
    assert drawn == [q.prompt for q in asked[1:] + asked[:1]]
    assert [seed for _, seeds in calls for seed in seeds] == [q.seed for q in asked]
    assert [answer["prompt"] for answer in result["pictures"]] == [q.prompt for q in asked]
    assert result["settings"]["shuffled"] and result["fidelity"]["mean"] < 20
    low, high = wilson(round(24 * result["accuracy"]), 24, z=2.6)
    assert low <= 1 / CANDIDATES <= high


def test_evaluation_repeats_itself_and_batches_do_not_matter():
    once = evaluated("seen", 3)[0]
    assert once == evaluated("seen", 3, batch=2)[0]
    assert once["pictures"][:2] == evaluated("seen", 2)[0]["pictures"] != evaluated("seen", 2, seed=1)[0]["pictures"]


def test_a_constant_model_is_not_praised():
    result = evaluate_prompts(lambda texts, seeds: [plain("pink")] * len(texts), "single", 16)
    assert result["accuracy"] <= 0.25 and result["likeness"] < 0.01 and result["fidelity"]["mean"] < 15


@pytest.mark.parametrize(
    ("split", "count", "seed", "named"),
    [("train", 1, 0, "train"), ("all", 1, 0, "all"), ("seen", 0, 0, "count 0"), ("seen", 1, -1, "seed -1")],
)
def test_bad_arguments_are_said_in_one_line_before_anything_is_drawn(split, count, seed, named):
    with pytest.raises(ValueError, match=rf"^[^\n]*{named}[^\n]*expected[^\n]*$"):
        evaluate_prompts(lambda texts, seeds: pytest.fail("drawn"), split, count, seed)


def test_one_prompt_cannot_be_shuffled():
    with pytest.raises(ValueError, match="^count 1: .*expected 2 or more$"):
        evaluate_prompts(lambda texts, seeds: pytest.fail("drawn"), "single", 1, shuffled=True)


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


# What is shown of them.


def test_the_worst_come_first_beside_what_they_should_be():
    asked = series("single", 20, 0)
    pictures = [q.rendering(SIDE) for q in asked]
    pictures[7] = plain("black")
    sheet = np.asarray(gallery.worst(asked, pictures))
    first = sheet[: sheet.shape[0] // 4, : sheet.shape[1] // 4]
    assert (first == 0).all(-1).sum() >= SIDE * SIDE
    assert gallery.WORST == 16 and sheet.shape[1] > 4 * 2 * SIDE
    assert (sheet == 0).all(-1).sum() < 3 * SIDE * SIDE  # black once, and the letters


def test_a_sheet_shows_the_first_in_order():
    asked = series("single", 70, 0)
    pictures = [plain("white")] * 70
    blank = gallery.sheet(asked, pictures)
    assert blank.size == gallery.sheet(asked[:64], pictures[:64]).size
    found = np.asarray(gallery.sheet(asked, [*pictures[:9], plain("red"), *pictures[10:]]))
    rows, columns = np.nonzero((found == (255, 0, 0)).all(-1))
    assert columns.min() // (blank.width // 8) == 1 and rows.min() // (blank.height // 8) == 1


def test_no_simple_scene_is_nothing_to_rank():
    asked = [about(Scene(("bat",), setting="snow"), 0, rng(0))]
    with pytest.raises(ValueError, match="^no scene of one thing.*expected at least one"):
        gallery.worst(asked, [plain("white")])
