"""Autoencoders whose code is a distribution (Kingma and Welling 2014), each a difference from the first.

VAE             -E_q(z|y) log p(y | z) + KL(q(z | y) || N(0, I)),  the negative ELBO, in nats per picture
BetaVAE         beta times the KL            (Higgins et al. 2017)
ConditionalVAE  all of it given a class      (Sohn et al. 2015)
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ldm.autoencoders.base import Autoencoder, Batch
from ldm.autoencoders.networks import Shape, decoder, encoder
from ldm.draws import gaussian, uniform


class Normal(NamedTuple):
    """A diagonal normal distribution of codes: mean and log-variance, each (B,C,h,w)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, features: Tensor, least: float = -30.0, most: float = 20.0) -> "Normal":
        """Features (B,2C,h,w) -> the first half is the mean, the second the log-variance, within limits."""
        whole = torch.promote_types(features.dtype, torch.float32)  # sums of many nats, under autocast too
        mean, logvar = features.to(whole).chunk(2, dim=1)
        return cls(mean, logvar.clamp(least, most))

    def sample(self, generators: Sequence[Generator]) -> Tensor:
        """(B,C,h,w), row j from generator j alone."""
        return self.mean + torch.exp(self.logvar / 2) * gaussian(generators, self.mean.shape[1:]).to(self.mean)

    def log_density(self, z: Tensor) -> Tensor:
        """log of the density at z (B,C,h,w), summed over a code -> (B,)."""
        squares = (z - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (squares + self.logvar + math.log(2 * math.pi)).flatten(1).sum(1)

    def kl(self) -> Tensor:
        """KL from N(0, I) (B,), in nats, in closed form (Kingma and Welling 2014, appendix B).

        >>> Normal(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).kl()
        tensor([0.5000])
        """
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class Encoded(NamedTuple):
    """As diffusers' autoencoders answer."""

    latent_dist: Normal


class VAE(Autoencoder):
    """q(z | y) is normal: the encoder gives its mean and its log-variance. N(0, I) is what codes are drawn from.

    Its losses are the two parts of the negative ELBO, in nats per picture (Kingma and Welling 2014, equation 3).

    >>> model = VAE(Shape((8, 8), code=2, widths=(16,)))
    >>> q = model.posterior(Batch(torch.zeros(3, 1, 8, 8)))
    >>> tuple(q.mean.shape), tuple(q.kl().shape)
    ((3, 2, 1, 1), (3,))
    """

    @property
    def features(self) -> int:
        return 2 * self.shape.code

    def posterior(self, batch: Batch) -> Normal:
        """q(z | y)."""
        return Normal.of(self.encoder(batch.y))

    def output(self, z: Tensor, batch: Batch) -> Tensor:
        """z (B,C,h,w) -> what the likelihood takes (B,channels,H,W)."""
        return self.decoder(z)

    def encode(self, x: Tensor) -> Encoded:
        return Encoded(self.posterior(Batch(self.to_y(x))))

    def code(self, y: Tensor) -> Tensor:
        return self.posterior(Batch(y)).mean

    def reconstruct(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        batch = Batch(y, label)
        return self.pixels.mean(self.output(self.posterior(batch).mean, batch))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        q = self.posterior(batch)
        return {"reconstruction": self.pixels.nll(self.output(q.sample(generators), batch), batch.y), "kl": q.kl()}

    def log_likelihood(self, batch: Batch, generators: Sequence[Generator], samples: int = 100) -> Tensor:
        """A lower bound of log p(y) (B,) in nats that tends to it with `samples`."""
        q = self.posterior(batch)
        return importance_weighted(q, lambda z: self.pixels.nll(self.output(z, batch), batch.y), generators, samples)


def importance_weighted(
    q: Normal, nll: Callable[[Tensor], Tensor], generators: Sequence[Generator], samples: int
) -> Tensor:
    """q(z | y), and z -> -log p(y | z) (B,) -> a lower bound of log p(y) (B,), in nats.

    Burda et al. 2016, equation 8.
    """
    prior, ratios = Normal(torch.zeros_like(q.mean), torch.zeros_like(q.mean)), []
    for _ in range(samples):
        z = q.sample(generators)
        ratios.append(prior.log_density(z) - nll(z) - q.log_density(z))
    return torch.stack(ratios).logsumexp(0) - math.log(samples)


class BetaVAE(VAE):
    """The KL counts `beta` times: above 1, single numbers of a code come to stand for single things.

    Higgins et al. 2017, equation 4. ValueError for a beta below 0.
    """

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        beta: float = 4.0,
    ):
        super().__init__(shape, likelihood, sigma)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta {beta}: expected 0 or more")
        self.beta = beta
        self.weights = {"kl": beta}


class ConditionalVAE(VAE):
    """Encoder and decoder are told one of `classes`, so that a code holds what the class does not say.

    The encoder sees a picture that is learnt for each class beside its own, the decoder the class itself. A share
    `drop` of the classes is withheld in training: so it is an autoencoder without them, too. Sohn et al. 2015.
    ValueError for no classes, a share outside of 0..1, and a label that is not known.
    """

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        classes: int = 10,
        drop: float = 0.1,
    ):
        super().__init__(shape, likelihood, sigma)
        if classes < 1 or not 0 <= drop <= 1:
            raise ValueError(f"classes {classes}, drop {drop}: expected at least one class, and a share from 0 to 1")
        self.classes, self.drop = classes, drop
        self.encoder, self.decoder = encoder(shape, self.features, beside=1), decoder(shape, beside=classes)
        self.shown = nn.Embedding(classes + 1, math.prod(shape.size))  # the last is for none

    def posterior(self, batch: Batch) -> Normal:
        shown = self.shown(self._label(batch)).view(-1, 1, *self.shape.size)
        return Normal.of(self.encoder(torch.cat([batch.y, shown], dim=1)))

    def output(self, z: Tensor, batch: Batch) -> Tensor:
        told = F.one_hot(self._label(batch), self.classes + 1)[:, : self.classes].to(z)
        return self.decoder(torch.cat([z, told[:, :, None, None].expand(-1, -1, *z.shape[2:])], dim=1))

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (B,C,h,w) and classes (B,), or none -> x (B,3,H,W)."""
        return self.to_x(self.pixels.mean(self.output(z, Batch(z, label))))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        if not self.training:
            return super().losses(batch, generators)
        withheld = uniform(generators).to(batch.y.device) < self.drop
        label = self._label(batch).masked_fill(withheld, self.classes)
        return super().losses(Batch(batch.y, label), generators)

    def _label(self, batch: Batch) -> Tensor:
        """The class of each (B,); `classes` stands for none. ValueError for one that is not known."""
        if batch.label is not None:
            if not 0 <= int(batch.label.min()) <= int(batch.label.max()) <= self.classes:
                raise ValueError(f"labels to {int(batch.label.max())}: expected 0 to {self.classes - 1}")
            return batch.label
        return torch.full((len(batch.y),), self.classes, device=batch.y.device)
