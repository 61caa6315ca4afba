"""Autoencoders whose code is a function of the picture, each a difference from the first.

AE                                                   -log p(y | z),  z = encoder(y)
DenoisingAE    (Vincent et al. 2010)                 z = encoder(y, corrupted)
SparseAE       (Ng 2011)                             + |z|, or KL(rho || mean activation)
ContractiveAE  (Rifai et al. 2011)                   + || dz / dy ||^2
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.func import jacrev, vmap

from ldm.autoencoders.base import Autoencoder, Batch
from ldm.autoencoders.networks import Shape


class AE(Autoencoder):
    """The plain one: a picture through a narrow code and back (Hinton and Salakhutdinov 2006).

    Its loss is the reconstruction's, in nats per picture.
    """

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        z = self.code(self.seen(batch.y, generators))
        return {"reconstruction": self.pixels.nll(self.decoder(z), batch.y), **self.penalties(batch.y, z)}

    def seen(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        """What the encoder is shown in training."""
        return y

    def penalties(self, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        """What is minimised besides, each (B,)."""
        return {}


class DenoisingAE(AE):
    """Learns to undo a corruption of CORRUPTIONS, by so much: `strength` is a deviation, or a share of the pixels.

    With Gaussian noise and squared errors the map that is learnt tends to y + strength^2 grad log p(y), where p is the
    density of the noisy pictures (Tweedie; Alain and Bengio 2014). Vincent et al. 2010. ValueError for an unknown
    corruption, and for a strength below 0, or of a share above 1.
    """

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        corruption: str = "gaussian",
        strength: float = 0.3,
    ):
        super().__init__(shape, likelihood, sigma)
        if corruption not in CORRUPTIONS:
            raise ValueError(f"corruption {corruption!r}: expected one of {', '.join(CORRUPTIONS)}")
        if not 0 <= strength or (corruption != "gaussian" and strength > 1):
            raise ValueError(f"strength {strength}: expected 0 or more, and a share of pixels to be at most 1")
        self.corruption, self.strength = corruption, strength

    def seen(self, y: Tensor, generators: Sequence[Generator]) -> Tensor:
        return torch.stack(
            [CORRUPTIONS[self.corruption](one, self.strength, own) for one, own in zip(y, generators, strict=True)]
        )


def gaussian(y: Tensor, strength: float, generator: Generator) -> Tensor:
    """Noise of that standard deviation is added."""
    return y + strength * torch.randn(y.shape, generator=generator).to(y)


def masking(y: Tensor, strength: float, generator: Generator) -> Tensor:
    """That share of the numbers, exactly, becomes 0."""
    return y.flatten().index_fill(0, _chosen(y, strength, generator), 0.0).view(y.shape)


def salt_and_pepper(y: Tensor, strength: float, generator: Generator) -> Tensor:
    """That share of the numbers, exactly, becomes 0 or 1."""
    chosen = _chosen(y, strength, generator)
    salt = torch.randint(2, chosen.shape, generator=generator).to(y)
    return y.flatten().index_copy(0, chosen, salt).view(y.shape)


def _chosen(y: Tensor, share: float, generator: Generator) -> Tensor:
    return torch.randperm(y.numel(), generator=generator)[: round(share * y.numel())].to(y.device)


CORRUPTIONS: dict[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "gaussian": gaussian,
    "masking": masking,
    "salt_and_pepper": salt_and_pepper,
}


class SparseAE(AE):
    """Few numbers of a code are far from 0: by their absolute values ("l1"), or by the mean of each over the batch.

    That mean is of activations in (0,1), and `rho` is what it should be ("kl"; Ng 2011). `weight` is how much it
    counts. ValueError for an unknown penalty, a rho outside of (0,1), and a weight below 0.
    """

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        penalty: str = "l1",
        weight: float = 1.0,
        rho: float = 0.05,
    ):
        super().__init__(shape, likelihood, sigma)
        if penalty not in ("l1", "kl"):
            raise ValueError(f"penalty {penalty!r}: expected l1 or kl")
        if not 0 < rho < 1 or not weight >= 0:
            raise ValueError(f"rho {rho}, weight {weight}: expected 0 < rho < 1, and a weight of 0 or more")
        self.penalty, self.weight, self.rho = penalty, weight, rho
        self.weights, self.splits = {"sparsity": weight}, penalty == "l1"

    def code(self, y: Tensor) -> Tensor:
        z = super().code(y)
        return torch.sigmoid(z) if self.penalty == "kl" else z

    def penalties(self, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        if self.penalty == "l1":
            return {"sparsity": z.abs().flatten(1).sum(1)}
        found = z.mean(0).flatten().clamp(1e-6, 1 - 1e-6)
        on, off = (self.rho / found).log(), ((1 - self.rho) / (1 - found)).log()
        return {"sparsity": (self.rho * on + (1 - self.rho) * off).sum().expand(len(z))}


class ContractiveAE(AE):
    """Codes change little with the picture: `weight` times the squared Frobenius norm of the encoder's Jacobian.

    Rifai et al. 2011; exact for any encoder, not of one layer alone. ValueError for a weight below 0.
    """

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        weight: float = 0.1,
    ):
        super().__init__(shape, likelihood, sigma)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight {weight}: expected 0 or more")
        self.weight = weight
        self.weights = {"jacobian": weight}

    def penalties(self, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        return {"jacobian": self.jacobian_norm(y)}

    def jacobian_norm(self, y: Tensor) -> Tensor:
        """y (B,channels,H,W) -> the squared Frobenius norm of dz / dy (B,), exact for any encoder."""
        jacobians = vmap(jacrev(lambda one: self.code(one[None]).flatten()))(y)
        return jacobians.square().flatten(1).sum(1)
