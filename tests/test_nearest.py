"""The nearest training picture: a model that repeats its training is found out, an honest one is not."""

import json

import numpy as np
import pytest

from ldm.data.emoji import EmojiScenes
from ldm.evaluation.fidelity import EQUAL
from ldm.evaluation.gallery import beside_training
from ldm.evaluation.nearest import evaluate_nearest, nearest
from ldm.evaluation.questions import series

AMONG = 40
stream = EmojiScenes(64, 5, "train")


def honest(texts, seeds):
    scenes = {q.prompt: q.scene for q in series("heldout", len(texts), seeds[0])}
    return [scenes[text].draw(np.random.default_rng((seed, 9)), 64) for text, seed in zip(texts, seeds, strict=True)]


def parrot(texts, seeds):
    """Draws what it has seen, whatever the prompt says."""
    return [stream[seed % AMONG][0] for seed in seeds]


def test_the_nearest_is_found_among_the_first_alone():
    pictures = [stream[i][0] for i in (3, 39, 40)]
    found = nearest(pictures, stream, AMONG)
    assert found[:2] == [(3, EQUAL), (39, EQUAL)] and found[2][0] != 40 and found[2][1] < 40
    small = [picture.resize((50, 50)) for picture in pictures[:2]]
    assert [i for i, _ in nearest(small, stream, AMONG)] == [3, 39]


def test_chunks_do_not_matter(monkeypatch):
    pictures = [q.rendering(64) for q in series("heldout", 5, 0)]
    whole = nearest(pictures, stream, AMONG)
    monkeypatch.setattr("ldm.evaluation.nearest.CHUNK", 7)
    for (i, level), (j, same) in zip(nearest(pictures, stream, AMONG), whole, strict=True):
        assert i == j and level == pytest.approx(same)


def test_a_parrot_is_found_out():
    result, rows = evaluate_nearest(parrot, 4, 0, AMONG, training_seed=5)
    assert result["drawn"] == EQUAL and result["closer"] == 1 and result["true"] < 40
    assert [found["drawn"]["index"] for found in result["pictures"]] == [0, 1, 2, 3]
    assert [drawn == copied for drawn, copied, *_ in rows] == [True] * 4
    assert json.loads(json.dumps(result)) == result


def test_an_honest_model_lies_as_far_off_as_true_pictures():
    result, rows = evaluate_nearest(honest, 8, 0, AMONG, training_seed=5)
    assert abs(result["drawn"] - result["true"]) < 2 and 0 < result["closer"] < 1
    for found, (_, own, _, other) in zip(result["pictures"], rows, strict=True):
        assert own == stream[found["drawn"]["index"]][0] and other == stream[found["true"]["index"]][0]
        assert found["drawn"]["key"] == stream.scene(found["drawn"]["index"]).key


def test_it_is_shown_in_rows_of_four():
    result, rows = evaluate_nearest(parrot, 3, 0, AMONG, training_seed=5)
    sheet = beside_training(result, rows)
    assert sheet.width > 2 * 4 * 64 and sheet.height > 2 * 64


@pytest.mark.parametrize(("count", "among", "training_seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_bad_arguments_are_said_before_anything_is_drawn(count, among, training_seed):
    with pytest.raises(ValueError, match="^[^\n]*expected[^\n]*$"):
        evaluate_nearest(lambda texts, seeds: pytest.fail("drawn"), count, 0, among, training_seed)
