"""How much each time counts in training: t is drawn from a density, and its squared error is multiplied by a weight.

    loss = mean of weight[t] |output - target|^2,  t ~ density

Both are tables over t = 1..T made of the process's own tables, that is of the betas as they are after any rescaling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.draws import uniform
from ldm.noising import Diffusion


@dataclass(frozen=True, eq=False)
class Weighting:
    """Time t is drawn with probability density[t - 1], and its error counts weight[t - 1] times; both (T,), float64."""

    density: np.ndarray
    weight: np.ndarray

    def times(self, generators: Sequence[torch.Generator]) -> Tensor:
        """B generators -> t (B,) in 1..T, each drawn by its own generator, by the inverse of the distribution."""
        reached = np.cumsum(self.density)
        places = np.searchsorted(reached, uniform(generators).double().numpy() * reached[-1], side="right")
        return torch.from_numpy(places + 1)

    def within(self, low: float, high: float) -> "Weighting":
        """The same of the times from `low` to `high` alone, shares of all times: what one of several experts learns.

        ValueError where there is no time between them.
        """
        shares = (np.arange(len(self.density)) + 0.5) / len(self.density)
        density = np.where((low <= shares) & (shares <= high), self.density, 0.0)
        if not density.any():
            raise ValueError(f"times between {low} and {high}: expected two shares of all times, 0 <= low < high <= 1")
        return Weighting(density / density.sum(), self.weight)

    def of(self, t: Tensor) -> Tensor:
        """t (B,) -> weights (B,) in float32."""
        return torch.from_numpy(self.weight)[t - 1].float()


def weighting(name: str, process: Diffusion, gamma: float = 5.0) -> Weighting:
    """uniform, min_snr or cosine -> Weighting for a process; `gamma` is min-SNR's. ValueError for anything else."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting {name!r}: expected one of {', '.join(WEIGHTINGS)}")
    if not gamma > 0:
        raise ValueError(f"gamma {gamma}: expected a number above 0")
    return WEIGHTINGS[name](process, gamma)


def _uniform(process: Diffusion, gamma: float) -> Weighting:
    """The simple loss of Ho et al. 2020 (eq. 14), for whatever the network emits, at all times that it can be asked."""
    return Weighting(np.full(process.highest, 1 / process.highest), np.ones(process.highest))


# min(SNR, gamma) |z_0 - its estimate|^2, as a weight of the error of what is emitted (Hang et al. 2023):
# an error of eps is SNR times that of z_0, an error of v SNR + 1 times.
MIN_SNR: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "epsilon": lambda snr, gamma: np.minimum(snr, gamma) / snr,
    "v_prediction": lambda snr, gamma: np.minimum(snr, gamma) / (snr + 1),
    "sample": lambda snr, gamma: np.minimum(snr, gamma),
}


def _min_snr(process: Diffusion, gamma: float) -> Weighting:
    """Min-SNR-gamma (Hang et al. 2023). At zero terminal SNR the last time counts nothing, as the formula has it."""
    snr = process.snr(np.arange(1, process.T + 1))
    return Weighting(np.full(process.T, 1 / process.T), MIN_SNR[process.prediction_type](snr, gamma))


def _cosine(process: Diffusion, gamma: float) -> Weighting:
    """Times as often as the cosine schedule would show their noise levels, whatever the betas are.

    That schedule (Nichol and Dhariwal 2021) spreads lambda = ln SNR with the density sech(lambda / 2) / (2 pi) (Kingma
    and Gao 2023), of which time t covers lambda_(t-1) - lambda_t. In the angle phi, tan(phi) = c / a = e^(-lambda / 2),
    this is uniform: density[t] is in proportion to phi_t - phi_(t-1), finite at both ends.
    """
    angle = np.arctan2(process.c, process.a)
    return Weighting(np.diff(angle) / (angle[-1] - angle[0]), np.ones(process.T))


WEIGHTINGS: dict[str, Callable[[Diffusion, float], Weighting]] = {
    "uniform": _uniform,
    "min_snr": _min_snr,
    "cosine": _cosine,
}
