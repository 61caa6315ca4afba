"""Priors: what is drawn is distributed as what was fitted, for every kind, and comes back from disk."""

import pytest
import torch
from safetensors.torch import save_file

from ldm.autoencoders import AE, VAE, VQVAE, VQVAE2, ConditionalVAE, Shape
from ldm.autoencoders.priors import FILE, CodePrior, LabelledPrior, MixturePrior, NormalPrior, fitted, prior_of
from ldm.checkpoints import CheckpointError
from ldm.training.randomness import keyed

SHAPE = Shape((8, 8), 1, 3, "dense", (12,))
MAP = Shape((8, 8), 3, 4, "conv", (6, 8))


class Pictures:
    """Random pictures as numbers."""

    def __init__(self, shape, count=300):
        self.y = torch.rand(count, shape.channels, *shape.size, generator=keyed(1))

    def __len__(self):
        return len(self.y)

    def batch(self, indices):
        return self.y[list(indices)], None


class Coded(torch.nn.Module):
    """An autoencoder whose codes are what the data are."""

    shape, latent_channels = Shape((1, 1), 1, 2, "dense", ()), 2

    def code(self, y):
        return y


class Points:
    """Two clouds in the plane: a quarter of the points at (-3, 0), the others, longer than wide, at (3, 1)."""

    def __init__(self):
        eps = torch.randn(4000, 2, generator=keyed(2))
        self.y = torch.cat(
            [eps[:1000] * 0.5 + torch.tensor([-3.0, 0]), eps[1000:] * torch.tensor([1.0, 0.2]) + torch.tensor([3.0, 1])]
        )[..., None, None]

    def __len__(self):
        return len(self.y)

    def batch(self, indices):
        return self.y[list(indices)], None


def made(kind, shape, **told):
    torch.manual_seed(0)
    return kind(shape, **told).eval()


def test_a_mixture_draws_what_it_was_fitted_to():
    prior = MixturePrior.fit(Coded(), Points(), components=2)
    z = prior.sample(4000, keyed(3))
    assert z.shape == (4000, 2, 1, 1)
    left = z[:, 0].flatten() < 0
    assert left.float().mean() == pytest.approx(0.25, abs=0.03)
    far = z[~left].flatten(1)
    torch.testing.assert_close(far.mean(0), torch.tensor([3.0, 1.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(far.std(0), torch.tensor([1.0, 0.2]), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(AE, SHAPE), (AE, MAP), (VAE, SHAPE), (VQVAE, MAP), (VQVAE2, Shape((16, 16), 3, 4, "conv", (6, 8)))],
)
def test_every_kind_has_a_prior_that_comes_back(kind, shape, tmp_path, monkeypatch):
    told = {"entries": 8} if kind in (VQVAE, VQVAE2) else {}
    model, data = made(kind, shape, **told), Pictures(shape, 40)
    prior = CodePrior.fit(model, data, steps=2, width=32, layers=1) if told else fitted(model, data)
    x = prior.pictures(model, 5, keyed(4))
    assert x.shape == (5, 3, *shape.size) and x.isfinite().all()
    prior.save_pretrained(tmp_path)
    again = prior_of(model, tmp_path)
    assert type(again) is type(prior) and torch.equal(again.pictures(model, 5, keyed(4)), x)
    assert not torch.equal(again.pictures(model, 5, keyed(5)), x)


def test_a_conditional_autoencoder_draws_all_of_its_classes():
    model, told = made(ConditionalVAE, SHAPE, classes=3), []
    model.decode = lambda z, label: told.append(label) or z
    prior = prior_of(model)
    prior.pictures(model, 300, keyed(7))
    assert isinstance(prior, LabelledPrior) and torch.bincount(told[0]).tolist() == pytest.approx([100] * 3, abs=30)


def test_a_prior_of_codes_learns_what_follows_what():
    """Sequences in which each number is the one before it plus one: after some steps nearly all that is drawn is so."""
    torch.manual_seed(0)
    prior = CodePrior([(2, 3)], entries=8, width=32, layers=1)
    first = torch.randint(8, (500, 1), generator=keyed(6))
    levels = [((first + torch.arange(6)) % 8).view(-1, 2, 3)]
    sequences = prior.sequences(levels)
    assert sequences[0].tolist() == [8, *levels[0][0].flatten().tolist()]
    before = prior.loss(sequences).mean()
    prior.learn(sequences, 150, 64, 3e-3, seed=0)
    assert prior.loss(sequences).mean() < 0.5 * before
    [drawn] = prior.sample(200, keyed(7))
    steps = (drawn.flatten(1).diff(dim=1) % 8) == 1
    assert drawn.shape == (200, 2, 3) and steps.float().mean() > 0.9


def test_levels_have_numbers_of_their_own():
    prior = CodePrior([(1, 1), (2, 2)], entries=4, width=32, layers=1)
    sequences = prior.sequences([torch.full((1, 1, 1), 3), torch.arange(4).view(1, 2, 2)])
    assert sequences.tolist() == [[8, 3, 4, 5, 6, 7]]
    top, bottom = prior.sample(20, keyed(8))
    assert top.shape == (20, 1, 1) and bottom.shape == (20, 2, 2)
    assert max(top.max(), bottom.max()) < 4 and min(top.min(), bottom.min()) >= 0


def test_the_numbers_of_a_prior_with_a_memory_are_those_without():
    """Sampling keeps what it computed before; the distribution is that of the whole sequence read at once."""
    torch.manual_seed(0)
    prior = CodePrior([(2, 2)], entries=5, width=32, layers=2)
    prior.network.eval()
    [drawn] = prior.sample(3, keyed(9))
    own, sequences = keyed(9), prior.sequences([drawn])
    with torch.no_grad():
        for place in range(4):
            chances = prior.network(sequences[:, : place + 1]).logits[:, -1, :5].softmax(-1)
            assert torch.equal(torch.multinomial(chances, 1, generator=own).flatten(), drawn.flatten(1)[:, place])


def test_only_variational_ones_need_nothing_fitted(tmp_path):
    assert isinstance(prior_of(made(VAE, SHAPE)), NormalPrior)
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match="no prior"):
            prior_of(made(AE, SHAPE), folder)


@pytest.mark.parametrize("told", ["{", "{}", "[]", '{"kind": "codes", "sizes": 3}', '{"kind": "mixture"}'])
def test_a_prior_that_says_nothing_of_its_sizes_is_named(tmp_path, told):
    save_file({"a": torch.ones(2)}, tmp_path / FILE, {"prior": told})
    with pytest.raises(CheckpointError, match=FILE):
        prior_of(made(AE, SHAPE), tmp_path)
