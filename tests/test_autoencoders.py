"""The autoencoder family: each loss is its formula, each difference is the paper's, and all come back from disk."""

import math

import pytest
import torch
from torch.distributions import Normal as Reference
from torch.distributions import kl_divergence

from ldm.autoencoders import (
    AE,
    VAE,
    VQVAE,
    Batch,
    BetaVAE,
    ConditionalVAE,
    ContractiveAE,
    DenoisingAE,
    Shape,
    SparseAE,
)
from ldm.autoencoders.plain import CORRUPTIONS
from ldm.autoencoders.quantized import Codebook, perplexity
from ldm.autoencoders.variational import Normal
from ldm.latents import LatentSpace
from ldm.training.randomness import keyed

DENSE = Shape((8, 8), 1, 3, "dense", (12,))
CONV = Shape((8, 12), 3, 2, "conv", (6, 8))
VECTOR = Shape((8, 8), 1, 5, "conv", (6, 8), vector=True)
SHAPES = [DENSE, CONV, VECTOR]
KINDS = [AE, DenoisingAE, SparseAE, ContractiveAE, VAE, BetaVAE, ConditionalVAE, VQVAE]


def made(kind, shape=DENSE, seed=0, **told):
    torch.manual_seed(seed)
    return kind(shape, **told)


def pictures(shape=DENSE, count=4, seed=1):
    return torch.rand(count, shape.channels, *shape.size, generator=keyed(seed))


def generators(count=4, seed=2):
    return [keyed(seed, i) for i in range(count)]


# ---- every one of them ----


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.network}{'-vector' * shape.vector}")
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_first_stage_and_comes_back_from_disk(kind, shape, tmp_path):
    model = made(kind, shape).eval()
    model.latents_mean, model.latents_std = [0.5] * shape.code, [2.0] * shape.code
    space = LatentSpace(model)
    x = torch.rand(2, 3, *shape.size, generator=keyed(3)) * 2 - 1
    z = space.from_pixels(x)
    assert z.shape == (2, shape.code, *shape.places) and space.to_pixels(z).shape == x.shape
    assert space.scale.unique().tolist() == [0.5] and space.shift.unique().tolist() == [0.5]
    assert space.factor == shape.factor
    model.save_pretrained(tmp_path / "model")
    again = LatentSpace.from_pretrained(tmp_path / "model")
    assert type(again.autoencoder) is kind and again.autoencoder.config == model.config
    assert torch.equal(again.to_pixels(again.from_pixels(x)), space.to_pixels(z))
    assert isinstance(kind.from_pretrained(tmp_path / "model"), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_losses_are_of_each_picture(kind):
    model, y = made(kind), pictures()
    parts = model.losses(Batch(y, torch.arange(4)), generators())
    assert all(part.shape == (4,) and part.isfinite().all() for part in parts.values())
    model.loss(parts).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not SparseAE])
def test_a_loss_does_not_depend_on_what_else_is_in_the_batch(kind):
    model, y = made(kind).eval(), pictures()
    alone = model.losses(Batch(y[2:3], torch.tensor([5])), [keyed(2, 2)])
    whole = model.losses(Batch(y, torch.tensor([1, 2, 5, 7])), generators())
    for name in alone.keys() - {"perplexity"}:
        torch.testing.assert_close(whole[name][2:3], alone[name])


def test_another_class_and_sizes_that_do_not_fit_are_refused(tmp_path):
    made(AE).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a AE; expected a VAE"):
        VAE.from_pretrained(tmp_path)
    for told, words in (
        ({"network": "mlp"}, "network 'mlp'"),
        ({"channels": 2}, "channels 2"),
        ({"code": 0}, "code 0"),
        ({"widths": (4, 0)}, "widths"),
        ({"size": (9, 8), "network": "conv", "widths": (4,)}, "expected multiples of 2"),
    ):
        with pytest.raises(ValueError, match=words):
            Shape(**told)
    for kind, told in (
        (AE, {"likelihood": "poisson"}), (AE, {"sigma": 0}), (DenoisingAE, {"corruption": "rain"}),
        (DenoisingAE, {"strength": 2, "corruption": "masking"}), (SparseAE, {"penalty": "l2"}), (SparseAE, {"rho": 1}),
        (ContractiveAE, {"weight": -1}), (BetaVAE, {"beta": -1}), (ConditionalVAE, {"classes": 0}),
        (VQVAE, {"entries": 1}), (VQVAE, {"update": "sgd"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=str(next(iter(told.values())))):
            kind(DENSE, **told)


# ---- likelihoods ----


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_is_in_nats_per_picture(likelihood):
    model, y = made(AE, likelihood=likelihood, sigma=0.5), pictures().round()
    output = model.decoder(model.code(y))
    found = model.losses(Batch(y), generators())["reconstruction"]
    reference = (
        torch.distributions.Bernoulli(logits=output)
        if likelihood == "bernoulli"
        else Reference(output, torch.tensor(0.5))
    )
    torch.testing.assert_close(found, -reference.log_prob(y).flatten(1).sum(1))


# ---- plain ones ----


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions(name):
    y = torch.rand(1, 40, 50, generator=keyed(4)) * 0.5 + 0.25
    found = CORRUPTIONS[name](y, 0.3, keyed(5))
    changed = found != y
    if name == "gaussian":
        assert (found - y).std() == pytest.approx(0.3, rel=0.05) and abs((found - y).mean()) < 0.03
    else:
        assert changed.sum() == 600
        values = found[changed].unique().tolist()
        assert values == ([0.0] if name == "masking" else [0.0, 1.0])


def test_a_denoising_one_sees_the_corrupted_and_is_asked_for_the_clean():
    model, y = made(DenoisingAE, corruption="masking", strength=1.0), pictures()
    parts = model.losses(Batch(y), generators())
    blank = model.decoder(model.code(torch.zeros_like(y)))
    torch.testing.assert_close(parts["reconstruction"], model.pixels.nll(blank, y))


def test_sparsity_is_its_formula():
    y = pictures()
    model = made(SparseAE)
    torch.testing.assert_close(model.losses(Batch(y), [])["sparsity"], model.code(y).abs().sum((1, 2, 3)))
    model = made(SparseAE, penalty="kl", rho=0.2)
    mean = model.code(y).mean(0).flatten()
    expected = kl_divergence(
        torch.distributions.Bernoulli(torch.tensor(0.2)), torch.distributions.Bernoulli(mean)
    ).sum()
    torch.testing.assert_close(model.losses(Batch(y), [])["sparsity"], expected.expand(4))


def test_the_jacobian_of_one_sigmoid_layer_has_its_closed_form():
    """sum_j (h_j (1 - h_j))^2 sum_i W_ji^2 (Rifai et al. 2011, equation 7)."""
    model, y = made(ContractiveAE, Shape((8, 8), 1, 5, "dense", ())), pictures()
    layer = model.encoder[1]
    model.encoder = torch.nn.Sequential(*model.encoder, torch.nn.Sigmoid())
    h = model.code(y).flatten(1)
    expected = (h * (1 - h)).square() @ layer.weight.square().sum(1)
    torch.testing.assert_close(model.jacobian_norm(y), expected)


# ---- variational ones ----


def test_the_kl_is_that_of_torch():
    q = Normal(torch.randn(3, 2, 1, 1), torch.randn(3, 2, 1, 1))
    reference = kl_divergence(Reference(q.mean, torch.exp(q.logvar / 2)), Reference(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(q.kl(), reference)
    z = torch.randn(3, 2, 1, 1)
    torch.testing.assert_close(q.log_density(z), Reference(q.mean, torch.exp(q.logvar / 2)).log_prob(z).sum((1, 2, 3)))


def test_samples_have_the_deviation_of_the_posterior():
    """exp(logvar / 2), not exp(logvar)."""
    q = Normal(torch.full((1, 5000, 1, 1), 2.0), torch.full((1, 5000, 1, 1), math.log(9.0)))
    z = q.sample([keyed(6)])
    assert z.mean() == pytest.approx(2, abs=0.15) and z.std() == pytest.approx(3, rel=0.05)


def test_beta_multiplies_the_kl():
    y = Batch(pictures())
    plain, beta = made(VAE), made(BetaVAE, beta=3.0)
    parts = plain.losses(y, generators())
    torch.testing.assert_close(beta.losses(y, generators()), parts)
    torch.testing.assert_close(plain.loss(parts), parts["reconstruction"] + parts["kl"])
    torch.testing.assert_close(beta.loss(parts), parts["reconstruction"] + 3 * parts["kl"])


def test_the_log_likelihood_is_exact_where_it_is_known():
    """Linear decoder, Gaussian pixels: p(y) is N(b, W W' + sigma^2), q any bound, and the exact one with one sample."""
    torch.manual_seed(0)
    sigma, model = 0.5, VAE(Shape((2, 2), 1, 2, "dense", ()), "gaussian", 0.5).double()
    out, back = model.decoder[1], model.encoder[1]
    y, eye = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=keyed(7)), torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        out.weight.copy_(torch.linalg.qr(out.weight).Q * torch.tensor([1.0, 0.4]))  # so that the posterior is diagonal
        exact = torch.distributions.MultivariateNormal(out.bias, out.weight @ out.weight.t() + sigma**2 * eye)
        exact = exact.log_prob(y.flatten(1))
        often = Batch(y.repeat(300, 1, 1, 1))
        bounds = [model.log_likelihood(often, generators(900), samples).mean() for samples in (1, 30)]
        assert bounds[0] + 0.1 < bounds[1] < exact.mean() + 0.1
        variance = 1 / (1 + out.weight.square().sum(0) / sigma**2)
        gain = variance[:, None] * out.weight.t() / sigma**2
        back.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        back.bias.copy_(torch.cat([-gain @ out.bias, variance.log()]))
        torch.testing.assert_close(model.log_likelihood(Batch(y), generators(3), samples=1), exact)


def test_a_class_is_heeded_and_withheld():
    model, y = made(ConditionalVAE, classes=4), pictures()
    with torch.no_grad():
        z = torch.randn(1, 3, 1, 1)
        drawn = torch.cat([model.decode(z, torch.tensor([label])) for label in range(4)] + [model.decode(z)])
    assert all(not torch.allclose(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    always, label = made(ConditionalVAE, classes=4, drop=1.0), torch.tensor([0, 1, 2, 3])
    found = always.losses(Batch(y, label), generators())
    none = always.losses(Batch(y), generators())
    torch.testing.assert_close(found, none)
    told, untold = (always.eval().losses(batch, generators()) for batch in (Batch(y, label), Batch(y)))
    assert not torch.allclose(told["reconstruction"], untold["reconstruction"])
    assert not torch.allclose(model.reconstruct(y, label), model.reconstruct(y))
    with pytest.raises(ValueError, match="labels to 5: expected 0 to 3"):
        model.losses(Batch(y, torch.tensor([0, 1, 2, 5])), generators())


# ---- quantised ones ----


def test_nearest_entries_and_the_straight_through_gradient():
    book = made(lambda shape: Codebook(5, 3), None).eval()
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = book(z)
    distances = (z.movedim(1, -1).unsqueeze(-2) - book.vectors).square().sum(-1)
    assert torch.equal(found.codes, distances.argmin(-1))
    torch.testing.assert_close(found.z, book.lookup(found.codes))
    torch.testing.assert_close(found.losses["commitment"], distances.min(-1).values.flatten(1).sum(1))
    (slope,) = torch.autograd.grad((found.z * 2).sum(), z)
    assert torch.equal(slope, torch.full_like(z, 2.0))


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_a_codebook_finds_the_centres(update):
    centres = torch.tensor([[2.0, 2], [-2, 2], [2, -2], [-2, -2]])
    book = made(lambda shape: Codebook(4, 2, update, decay=0.8), None)
    book.vectors.data *= 0.1
    optimizer = torch.optim.Adam([book.vectors], 0.1) if update == "loss" else None
    for i in range(200):
        own = keyed(8, i)
        z = centres[torch.randint(4, (64,), generator=own)] + 0.1 * torch.randn(64, 2, generator=own)
        found = book(z[:, :, None, None], [own])
        if optimizer:
            optimizer.zero_grad()
            found.losses["codebook"].mean().backward()
            optimizer.step()
    nearest = torch.cdist(centres, book.vectors.detach()).min(1).values
    assert nearest.max() < 0.2
    assert perplexity(found.codes, 4) > 3.5


def test_dead_entries_are_revived_and_may_be_left():
    z = torch.randn(16, 2, 2, 2, generator=keyed(9)) + 5
    for revive, used in ((0.01, True), (0.0, False)):
        book = made(lambda shape: Codebook(8, 2, decay=0.5, revive=revive), None)  # noqa: B023
        for i in range(30):
            found = book(z, [keyed(10, i)])
        assert (perplexity(found.codes, 8) > 4) == used
    state = book.eval().state_dict()
    before = {name: value.clone() for name, value in state.items()}
    book(z)
    assert all(torch.equal(before[name], value) for name, value in book.state_dict().items())


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_a_picture_of_nan_leaves_a_codebook_as_it_was(update):
    book = made(lambda shape: Codebook(4, 2, update), None)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])[:, :, None, None], generators(2))
    torch.testing.assert_close(book.state_dict(), before, rtol=0, atol=0)
    book(torch.ones(2, 2, 1, 1), generators(2))
    assert not torch.equal(book.state_dict()["counts"], before["counts"])


@pytest.mark.parametrize("kind", KINDS)
def test_losses_in_bfloat16_are_about_those_in_float32(kind):
    y, label = pictures(), torch.tensor([0, 1, 2, 3])
    exact = made(kind).losses(Batch(y, label), generators())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made(kind).losses(Batch(y, label), generators())
    for name, part in exact.items():
        torch.testing.assert_close(rounded[name].float(), part, rtol=0.1, atol=0.5)


@pytest.mark.parametrize("shape", [DENSE, VECTOR])
def test_a_vector_stands_for_pictures_of_one_size(shape):
    with pytest.raises(ValueError, match="expected \\(8, 8\\)"):
        made(AE, shape).encode(torch.zeros(1, 3, 16, 16))


def test_perplexity():
    assert perplexity(torch.arange(8).repeat(3), 8) == pytest.approx(8)
    assert perplexity(torch.zeros(9, dtype=torch.long), 8) == pytest.approx(1)


def test_what_a_first_stage_gives_is_quantised_when_it_is_decoded():
    model = made(VQVAE, entries=16).eval()
    y = pictures()
    x = model.to_x(y)
    torch.testing.assert_close(model.decode(model.encode(x)), model.of_codes(model.codes(y)))
    torch.testing.assert_close(model.to_x(model.reconstruct(y)), model.of_codes(model.codes(y)))
    near = model.encode(x) + 1e-4
    torch.testing.assert_close(model.decode(near), model.decode(model.encode(x)))
