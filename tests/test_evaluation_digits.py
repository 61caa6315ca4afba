"""The judge of digits knows real ones that it has not seen, at any size, and is at chance where nothing is right."""

import numpy as np
import pytest

from ldm import data

pytest.importorskip("sklearn")

from ldm.evaluation.digits import recognised


@pytest.mark.parametrize("side", [8, 32])
def test_real_digits_are_recognised_and_others_labels_are_not(side):
    unseen = data.open("digits", side, split="test")
    pictures, labels = [unseen[i].picture for i in range(len(unseen))], [unseen[i].label for i in range(len(unseen))]
    assert recognised(pictures, labels) > 0.95
    assert recognised(pictures, np.random.default_rng(0).permutation(labels).tolist()) < 0.2


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="0 pictures, 0 labels"):
        recognised([], [])
