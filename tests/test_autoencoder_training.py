"""Training the autoencoder family: what goes in, what is learnt, what comes out, and that it goes on exactly."""

import json

import pytest
import torch
from PIL import Image

from ldm import data as sources
from ldm.autoencoders import (
    AE,
    TDVAE,
    VAE,
    VQVAE,
    Batch,
    ConditionalVAE,
    ContractiveAE,
    DenoisingAE,
    SequentialVAE,
    Shape,
    SparseAE,
)
from ldm.autoencoders.presets import PLANS
from ldm.data.moving import SPEED, MovingDigits
from ldm.data.tensors import Tensors, numbers
from ldm.evaluation.digits import recognised
from ldm.images import to_images
from ldm.latents import LatentSpace
from ldm.training.autoencoder import code_moments, train_autoencoder
from ldm.training.plan import Plan
from ldm.training.randomness import keyed

SHAPE = Shape((8, 8), 1, 4, "dense", (32,))
SHORT = Plan(steps=4, batch_size=8, warmup=1, save_every=2, log_every=1, tensorboard=False)


@pytest.fixture(scope="module")
def digits():
    return Tensors(sources.open("digits", 8, split="train", count=200))


@pytest.fixture(scope="module")
def others():
    return Tensors(sources.open("digits", 8, split="test"))


def made(kind, shape=SHAPE, **told):
    torch.manual_seed(0)
    return kind(shape, **told)


def trained(kind, folder, data, steps=150, shape=SHAPE, **told):
    plan = Plan(steps=steps, batch_size=64, learning_rate=3e-3, warmup=10, ema=0.98, save_every=1000, tensorboard=False)
    return train_autoencoder(made(kind, shape, **told), folder, data, plan)


# ---- data ----


def test_pictures_as_numbers(digits):
    y, labels = digits.batch([3, 0])
    assert y.shape == (2, 1, 8, 8) and y.min() >= 0 and y.max() <= 1 and labels.tolist() == [3, 0]
    assert len(digits) == 200 and digits.identity()["channels"] == 1
    colour = Tensors(sources.open("emoji", 8, count=3), channels=3)
    assert colour.batch([2])[0].shape == (1, 3, 8, 8) and colour.batch([2])[1] is None
    with pytest.raises(ValueError, match="2 sizes"):
        Tensors([(Image.new("RGB", (4, 4)), ""), (Image.new("RGB", (5, 4)), "")])


def test_black_and_white_is_drawn_once_by_brightness(digits):
    y, labels = digits.batch(range(200))
    drawn = digits.binarised(3)
    black_and_white, same_labels = drawn.batch(range(200))
    assert set(black_and_white.unique().tolist()) == {0, 1} and torch.equal(labels, same_labels)
    assert torch.equal(black_and_white[y == 1], y[y == 1]) and torch.equal(black_and_white[y == 0], y[y == 0])
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8)):
        between = (y > low) & (y < high)
        assert black_and_white[between].mean().item() == pytest.approx(y[between].mean().item(), abs=0.05)
    assert torch.equal(digits.binarised(3).pixels, drawn.pixels) and digits.pixels.unique().numel() > 2
    assert not torch.equal(digits.binarised(4).pixels, drawn.pixels)
    assert drawn.identity() != digits.identity() and drawn.classes == digits.classes
    with pytest.raises(ValueError, match="binaris"):
        numbers("moving", "test", 16, binarise=True)


def test_flights_of_the_test_are_not_those_of_the_training():
    ways = []
    for split in ("train", "test"):
        y = MovingDigits(split, count=50).batch(range(50))[0]
        places = [(y.amax(axes) > 0).float().argmax(2) for axes in ((2, 4), (2, 3))]
        ways.append(torch.stack(places).diff(dim=2))
    same = (ways[0] == ways[1]).all(2).all(0)
    assert same.float().mean() < 0.1


def test_the_moments_of_one_code_are_numbers(digits):
    one = Tensors([(Image.new("L", (8, 8), 128), "")])
    mean, deviation = code_moments(made(AE), one)
    assert mean.isfinite().all() and (deviation > 0).all()


def test_digits_move_and_bounce():
    data = MovingDigits(length=30, count=20, seed=1)
    y, labels = data.batch(range(20))
    assert y.shape == (20, 30, 1, 16, 16) and labels.unique().numel() > 3
    assert torch.allclose(y.sum((2, 3, 4)), y.sum((2, 3, 4))[:, :1].expand(-1, 30))  # never cut by a wall
    rows = (y.amax((2, 4)) > 0).float().argmax(2)
    steps = rows.diff(dim=1).abs()
    assert steps.max() <= SPEED and (steps.float().mean(1) > 0.5).all()
    assert torch.equal(MovingDigits(length=30, count=20, seed=1).batch([7])[0][0], y[7])
    assert not torch.equal(MovingDigits(length=30, count=20, seed=2).batch([7])[0][0], y[7])
    still, _ = MovingDigits(side=8, length=3, count=1).batch([0])
    assert torch.equal(still[0, 0], still[0, 2])
    with pytest.raises(ValueError, match="side 7"):
        MovingDigits(side=7)


# ---- the loop ----


@pytest.mark.parametrize("kind", [AE, VQVAE, SequentialVAE, TDVAE])
def test_a_killed_training_goes_on_bit_by_bit(kind, digits, tmp_path):
    sequences = kind in (SequentialVAE, TDVAE)
    data = MovingDigits(side=8, length=4, count=20) if sequences else digits

    def kill(average, step):
        raise InterruptedError

    whole = train_autoencoder(made(kind), tmp_path / "whole", data, SHORT)
    with pytest.raises(InterruptedError):
        train_autoencoder(made(kind), tmp_path / "parts", data, SHORT, kill)
    parts = train_autoencoder(made(kind), tmp_path / "parts", data, SHORT)
    one, other = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    loaded = kind.from_pretrained(tmp_path / "whole" / "autoencoder")
    assert all(torch.equal(value, one[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(ValueError, match="model"):
        train_autoencoder(made(kind, likelihood="gaussian", sigma=0.3), tmp_path / "whole", data, SHORT)


@pytest.mark.parametrize("kind", [AE, VAE, VQVAE])
def test_codes_are_of_mean_0_and_variance_1_in_the_latent_space(kind, digits, tmp_path):
    model = trained(kind, tmp_path, digits, 20)
    space = LatentSpace.from_pretrained(tmp_path / "autoencoder")
    with torch.no_grad():
        mean, logvar = space.posterior(model.to_x(digits.batch(range(200))[0]))
    torch.testing.assert_close(mean.mean(0).flatten(), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        (mean.var(0, correction=0) + logvar.exp().mean(0)).flatten(), torch.ones(4), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(("kind", "told"), [(VQVAE, {}), (SparseAE, {"penalty": "kl"})])
def test_what_learns_from_whole_batches_refuses_parts(kind, told, digits, tmp_path):
    with pytest.raises(ValueError, match="no accumulation"):
        train_autoencoder(made(kind, **told), tmp_path, digits, Plan(steps=1, batch_size=4, accumulation=2))


# ---- what each difference does, on digits ----


def test_the_sparse_penalty_makes_codes_sparse(digits, others, tmp_path):
    def size(model):
        return model.code(others.batch(range(100))[0]).detach().abs().mean()

    def tails(model):
        """Fourth moments over squared second ones: more where few numbers are far from 0, whatever their scale."""
        z = model.code(others.batch(range(100))[0]).detach()
        return z.pow(4).mean() / z.square().mean() ** 2

    plain = trained(AE, tmp_path / "plain", digits)
    sparse = trained(SparseAE, tmp_path / "sparse", digits, weight=3.0)
    assert size(sparse) < 0.5 * size(plain) and tails(sparse) > 1.5 * tails(plain)
    rare = trained(SparseAE, tmp_path / "rare", digits, penalty="kl", weight=10.0, rho=0.1)
    often = trained(SparseAE, tmp_path / "often", digits, penalty="kl", weight=0.0)
    assert abs(size(rare) - 0.1) < 0.5 * abs(size(often) - 0.1)


def test_the_contractive_penalty_shrinks_the_jacobian(digits, others, tmp_path):
    plain = trained(ContractiveAE, tmp_path / "plain", digits, weight=0.0)
    contractive = trained(ContractiveAE, tmp_path / "contractive", digits, weight=1.0)
    y = others.batch(range(50))[0]
    assert contractive.jacobian_norm(y).mean() < 0.5 * plain.jacobian_norm(y).mean()
    slopes = [(m.jacobian_norm(y).mean() / m.code(y).var(0).sum()).item() for m in (contractive, plain)]
    assert slopes[0] < 0.8 * slopes[1]  # whatever the scale of the codes


def test_denoising_beats_the_plain_one_on_corrupted_pictures(others, tmp_path):
    """With a code that is no bottleneck: the plain one passes the noise on."""
    wide, many = Shape((8, 8), 1, 64, "dense", (128,)), Tensors(sources.open("digits", 8, split="train"))
    plain = trained(AE, tmp_path / "plain", many, 400, wide, likelihood="gaussian")
    denoising = trained(DenoisingAE, tmp_path / "denoising", many, 400, wide, likelihood="gaussian", strength=0.4)
    y = others.batch(range(200))[0]
    noisy = y + 0.4 * torch.randn(y.shape, generator=keyed(5))
    errors = [(model.reconstruct(noisy) - y).square().mean() for model in (plain, denoising)]
    assert errors[1] < 0.7 * errors[0]


class Mixture:
    """Points of two clouds in the plane, as pictures of 1 x 2; the noised density's score is known."""

    centres, deviation = torch.tensor([[0.2, 0.3], [0.8, 0.6]]), 0.05

    def __len__(self):
        return 4096

    def batch(self, indices):
        eps = torch.randn(4096, 2, generator=keyed(11))
        which = torch.randint(2, (4096,), generator=keyed(12))
        return (self.centres[which] + self.deviation * eps)[list(indices)].view(-1, 1, 1, 2), None

    def tweedie(self, y, sigma):
        """y + sigma^2 grad log p_sigma(y), p_sigma the mixture with sigma^2 more variance."""
        variance = self.deviation**2 + sigma**2
        apart = self.centres - y[:, None]
        weights = (-apart.square().sum(-1) / (2 * variance)).softmax(1)
        return y + sigma**2 / variance * (weights[..., None] * apart).sum(1)


def test_denoising_learns_the_score_of_the_noised_density(tmp_path):
    """sigma^2 grad log p, and not sigma grad log p, as some have it."""
    sigma, data = 0.2, Mixture()
    shape = Shape((1, 2), 1, 64, "dense", (64,))
    plan = Plan(steps=700, batch_size=128, learning_rate=5e-3, warmup=20, ema=0.99, save_every=1000, tensorboard=False)
    model = train_autoencoder(made(DenoisingAE, shape, likelihood="gaussian", strength=sigma), tmp_path, data, plan)
    noisy = data.batch(range(1000))[0] + sigma * torch.randn(1000, 1, 1, 2, generator=keyed(13))
    with torch.no_grad():
        learnt = model.reconstruct(noisy).flatten(1)
    exact, wrong = data.tweedie(noisy.flatten(1), sigma), noisy.flatten(1)
    wrong = wrong + (exact - wrong) / sigma
    error = (learnt - exact).square().mean().sqrt()
    assert error < 0.15 * (noisy.flatten(1) - exact).square().mean().sqrt()
    assert error < 0.1 * (learnt - wrong).square().mean().sqrt()


def test_a_conditional_one_obeys_its_label(digits, tmp_path):
    """A judge that learnt the digits names what is drawn of each class."""
    model = trained(ConditionalVAE, tmp_path, digits, 400, Shape((8, 8), 1, 4, "dense", (64,)))
    labels = torch.arange(10).repeat(5)
    with torch.no_grad():
        x = model.decode(torch.randn(50, 4, 1, 1, generator=keyed(14)), labels)
    assert recognised(to_images(x), labels.tolist()) > 0.8


def test_foresight_beats_the_last_frame_that_was_seen(tmp_path):
    frame = Shape((10, 10), 1, 32, "dense", (128,))
    data = MovingDigits(side=10, length=8, count=400)
    model = trained(TDVAE, tmp_path, data, 500, frame)
    y, _ = MovingDigits("test", side=10, length=8, count=100, seed=5).batch(range(100))
    foreseen = model.rollout(y[:, :5], [1, 1, 1])
    still = y[:, 4:5].expand(-1, 3, -1, -1, -1)
    errors = [(frames - y[:, 5:]).square().mean() for frames in (foreseen, still)]
    assert errors[0] < 0.8 * errors[1]


def test_losses_are_reported_by_name(digits, tmp_path):
    trained(VAE, tmp_path, digits, 4)
    rows = (tmp_path / "log.jsonl").read_text()
    assert '"reconstruction"' in rows and '"kl"' in rows
    assert Batch(torch.zeros(1)).label is None


def test_a_preset_says_how_long_where_the_command_does_not(ldm, tmp_path):
    told = ["--preset", "binary-mnist", "--steps", 2, "--no-tensorboard", "--out", tmp_path / "run"]
    status, _, err = ldm("train", "autoencoder", "vae", *told)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert status == 0, err
    assert (settings["steps"], settings["batch_size"]) == (2, 100)
    assert PLANS["binary-mnist"]["steps"] == 300_000
