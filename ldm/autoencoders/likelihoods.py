"""p(y | z) of pictures y (B,C,H,W) in [0,1], given what a decoder puts out: its mean, and nats per picture."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Likelihood(Protocol):
    def mean(self, output: Tensor) -> Tensor:
        """Output (B,C,H,W) -> the expected picture."""
        ...

    def nll(self, output: Tensor, y: Tensor) -> Tensor:
        """Output and picture (B,C,H,W) -> -log p(y | z) (B,), in nats per picture."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """Each pixel is on or off; grey ones stand for their expectation. The output is its log-odds."""

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def nll(self, output: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, y, reduction="none").flatten(1).sum(1)


@dataclass(frozen=True)
class Gaussian:
    """Each pixel is the output plus noise of one standard deviation `sigma`, in units of [0,1]."""

    sigma: float = 1.0

    def mean(self, output: Tensor) -> Tensor:
        return output

    def nll(self, output: Tensor, y: Tensor) -> Tensor:
        squares = ((y - output) / self.sigma).square().flatten(1)
        return 0.5 * squares.sum(1) + squares.shape[1] * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))


KNOWN = ("bernoulli", "gaussian")


def likelihood_of(name: str, sigma: float = 1.0) -> Likelihood:
    """ "bernoulli" or "gaussian"; ValueError for another, and for a sigma that is not above 0."""
    if name not in KNOWN:
        raise ValueError(f"likelihood {name!r}: expected one of {', '.join(KNOWN)}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma {sigma}: expected a number above 0")
    return Bernoulli() if name == "bernoulli" else Gaussian(sigma)
