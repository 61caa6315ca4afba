"""Random numbers of many samples: right in distribution, and a function of each sample's own key."""

import math

import numpy as np
import pytest
import torch

from ldm.draws import Streams, gaussian, integers, uniform
from ldm.training.randomness import keyed, streams


def many(count=2000, seed=0):
    return streams(seed, [(0, i) for i in range(count)])


def test_the_bits_are_those_of_splitmix64():
    """The first numbers of seed 1234567, as published with the algorithm's reference implementations."""
    found = Streams(np.array([1234567, 0])).bits(5)[0].tolist()
    assert found == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@pytest.mark.parametrize("draw", [lambda s: gaussian(s, (3, 2)), uniform, lambda s: integers(s, 2, 9)])
def test_a_row_depends_on_its_own_source_alone(draw):
    for made in (lambda rows: streams(5, [(1, i) for i in rows]), lambda rows: [keyed(5, i) for i in rows]):
        whole, part = made(range(20)), made([13, 4])
        first, second = draw(whole), draw(whole)
        assert torch.equal(draw(part), first[[13, 4]]) and torch.equal(draw(part), second[[13, 4]])
        assert not torch.equal(first, second)


def test_what_is_normal_is_normal():
    z = gaussian(many(), (25, 3, 1)).double()
    assert z.shape == (2000, 25, 3, 1) and gaussian(many(3), (3,)).shape == (3, 3)
    flat = z.flatten()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (flat**power).mean() == pytest.approx(moment, abs=5 * math.sqrt(100 / len(flat)))
    below = [(flat < edge).double().mean().item() for edge in (-2, -1, 0, 0.5, 1.5)]
    assert below == pytest.approx([0.02275, 0.15866, 0.5, 0.69146, 0.93319], abs=3e-3)
    columns = z.flatten(1)
    assert (torch.corrcoef(columns.t()) - torch.eye(75)).abs().max() < 0.12
    assert (torch.corrcoef(columns[:200]) - torch.eye(200)).abs().max() < 0.65


def test_uniform_and_whole_numbers_fill_their_range():
    u = uniform(many())
    assert 0 <= u.min() < 0.01 and 0.99 < u.max() < 1 and u.mean() == pytest.approx(0.5, abs=0.03)
    n = integers(many(), -3, 4)
    assert sorted(n.unique().tolist()) == [-3, -2, -1, 0, 1, 2, 3]
    assert (torch.bincount(n + 3) / 2000 - 1 / 7).abs().max() < 0.03


def test_epochs_indices_and_seeds_are_apart():
    drawn = [gaussian(streams(*place), (8,)) for place in ((0, [(0, 1)]), (0, [(1, 0)]), (1, [(0, 1)]), (0, [(0, 2)]))]
    assert all(not torch.isclose(a, b).any() for i, a in enumerate(drawn) for b in drawn[:i])


def test_as_a_sequence_they_are_generators_that_go_on():
    found = many(4)
    assert len(found) == 4 and len(list(found)) == 4
    first, second = (torch.rand(3, generator=found[2]) for _ in range(2))
    assert not torch.equal(first, second) and torch.equal(torch.rand(3, generator=many(4)[2]), first)
    assert torch.equal(torch.rand(3, generator=many(4)[1:3][1]), first)
