"""Autoencoders of sequences, and of two levels."""

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence
from torch.distributions import Normal as Reference

from ldm.autoencoders import TDVAE, VQVAE2, Batch, SequentialVAE, Shape
from ldm.autoencoders.temporal import divergence
from ldm.autoencoders.variational import Normal
from ldm.draws import gaussian
from ldm.latents import LatentSpace
from ldm.training.randomness import keyed

FRAME = Shape((6, 6), 1, 10, "dense", (16,))
KINDS = [SequentialVAE, TDVAE]


def made(kind, shape=FRAME, **told):
    torch.manual_seed(0)
    return kind(shape, **told)


def frames(count=4, length=7):
    return torch.rand(count, length, 1, 6, 6, generator=keyed(1))


def generators(count=4):
    return [keyed(2, i) for i in range(count)]


def reference(normal):
    return Reference(normal.mean, torch.exp(normal.logvar / 2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_a_sequence_does_not_see_its_neighbours(kind, tmp_path):
    model, y = made(kind), frames()
    parts = model.losses(Batch(y), generators())
    assert all(part.shape == (4,) and part.isfinite().all() for part in parts.values())
    model.loss(parts).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    alone = model.losses(Batch(y[2:3]), [keyed(2, 2)])
    for name, part in alone.items():
        torch.testing.assert_close(parts[name][2:3], part)
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    torch.testing.assert_close(again.losses(Batch(y), generators()), parts)


def test_a_sequence_of_any_length_has_one_code():
    model = made(SequentialVAE, code=5)
    for length in (1, 3, 9):
        y = frames(2, length)
        assert model.posterior(y).mean.shape == (2, 5) and model.reconstruct(y).shape == y.shape
    assert model.sample(torch.randn(3, 5), 4).shape == (3, 4, 1, 6, 6)


def test_times_are_apart_by_no_more_than_the_longest_jump():
    model = made(TDVAE, jump=3)
    first, second = model.times(6, [keyed(3, i) for i in range(300)])
    assert set((second - first).tolist()) == {1, 2, 3}
    assert first.min() == 0 and second.max() == 5
    first, second = model.times(2, generators())
    assert (first == 0).all() and (second == 1).all()
    with pytest.raises(ValueError, match="sequences of 1 frames"):
        model.times(1, generators())


def test_the_divergence_is_that_of_torch():
    one, other = (Normal(torch.randn(3, 2), torch.randn(3, 2)) for _ in range(2))
    torch.testing.assert_close(divergence(one, other), kl_divergence(reference(one), reference(other)).sum(1))
    assert (divergence(one, one).abs() < 1e-6).all()


def test_the_loss_of_td_vae_is_equation_7():
    model, y, own, rows = made(TDVAE), frames(), generators(), torch.arange(4)
    first, second = model.times(7, own)
    jump = (second - first)[:, None] / model.jump
    b_1, b_2 = model.beliefs(y)[rows, first], model.beliefs(y)[rows, second]
    then, now = reference(model.belief(b_1)), reference(model.belief(b_2))
    z_2 = now.mean + now.stddev * gaussian(own, now.mean.shape[1:])
    smoothed = reference(model.smoothing(b_1, b_2, z_2, jump))
    z_1 = smoothed.mean + smoothed.stddev * gaussian(own, now.mean.shape[1:])
    foreseen = reference(model.transition(z_1, jump))
    seen = Bernoulli(logits=model.output(z_2), validate_args=False).log_prob(y[rows, second]).flatten(1).sum(1)
    expected = kl_divergence(smoothed, then).sum(1) + now.log_prob(z_2).sum(1) - foreseen.log_prob(z_2).sum(1) - seen
    torch.testing.assert_close(model.loss(model.losses(Batch(y), generators())), expected)


def test_a_rollout_jumps_and_is_drawn_or_expected():
    model, y = made(TDVAE), frames()
    expected = model.rollout(y, [1, 2, 4])
    assert expected.shape == (4, 3, 1, 6, 6) and torch.equal(expected, model.rollout(y, [1, 2, 4]))
    drawn = model.rollout(y, [1, 2, 4], generators())
    assert torch.equal(drawn, model.rollout(y, [1, 2, 4], generators())) and not torch.allclose(drawn, expected)
    for jumps in ([], [0], [1, 5]):
        with pytest.raises(ValueError, match="of 1 to 4 frames"):
            model.rollout(y, jumps)
    with pytest.raises(ValueError, match="expected a vector"):
        made(TDVAE, Shape((8, 8), 1, 4, "conv", (6,)))


# ---- two levels ----

TWO = Shape((16, 24), 3, 4, "conv", (6, 8))


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_two_levels_are_a_first_stage(update, tmp_path):
    model = made(VQVAE2, TWO, entries=16, update=update)
    y = torch.rand(3, 3, 16, 24, generator=keyed(4))
    parts = model.losses(Batch(y), generators(3))
    model.loss(parts).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    space = LatentSpace(model.eval())
    x = model.to_x(y)
    z = space.from_pixels(x)
    top, bottom = model.codes(y)
    assert z.shape == (3, 8, 4, 6) and top.shape == (3, 2, 3) and bottom.shape == (3, 4, 6) and space.factor == 4
    torch.testing.assert_close(space.to_pixels(z), model.of_codes((top, bottom)))
    torch.testing.assert_close(model.to_x(model.reconstruct(y)), model.of_codes((top, bottom)))
    model.save_pretrained(tmp_path)
    again = LatentSpace.from_pretrained(tmp_path)
    assert torch.equal(again.from_pixels(x), z) and again.channels == 8


def test_the_bottom_is_told_the_top():
    model = made(VQVAE2, TWO, entries=16).eval()
    features = model.encoder(torch.rand(1, 3, 16, 24))
    one, other = (model.lower_of(features, torch.full((1, 4, 2, 3), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, other)


def test_two_levels_need_a_map_with_even_sides():
    for shape in (FRAME, Shape((8, 8), 3, 4, "conv", (6, 8), vector=True), Shape((12, 8), 3, 4, "conv", (6, 8))):
        with pytest.raises(ValueError, match="even sides"):
            VQVAE2(shape)
