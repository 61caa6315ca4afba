"""Bridging: from a degraded picture z_T to the clean z_0 that it stands for (I2SB, Liu et al. 2023).

    z_t = (1 - f_t) z_0 + f_t z_T + sigma_t sqrt(1 - f_t) eps        f_t = sigma_t^2 / sigma_T^2

sigma_t^2 is the sum of the betas up to t: a Brownian bridge, both of whose ends are pictures. Samplers, losses and
tests are those of any process; only a beginning is needed, z_T, and that is what `cross` has.

The error-aware form (EARSB): where a map M in [0,1] says that a picture is right already, less noise is to change it.
Whoever draws eps multiplies it by M, in training and in `cross`; the process itself knows nothing of M. At each pixel
that is an exact bridge whose variances are M^2 times as large: M = 1 is I2SB, and M = 0 its deterministic limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.denoising import Cond, Denoiser
from ldm.noising import Diffusion, LinearGaussian
from ldm.samplers import times
from ldm.sampling import Callback, sample

CLASS = "Bridge"  # as which a scheduler_config.json names it

# What a network emits, from a, b, c and sigma of its time, as (p, q, r) of output = p z_t + q z_0 + r z_T.
EMITTED: dict[str, Callable[..., tuple[Any, Any, Any]]] = {
    "residual": lambda a, b, c, sigma: (1 / sigma, -1 / sigma, 0.0),
    "epsilon": lambda a, b, c, sigma: (1 / c, -a / c, -b / c),
}


def symmetric(T: int = 1000, beta_max: float = 0.3) -> np.ndarray:
    """Betas (T,) in float64 that rise to the middle and fall again, evenly in their square roots.

    At T = 1000 as in I2SB's own settings: from 1e-4, and half-way to beta_max / 1000. Any T has the same noise in all.
    ValueError for T < 2, and a beta_max that is not above 0.
    """
    if T < 2 or not 0 < beta_max < float("inf"):
        raise ValueError(f"T {T}, beta_max {beta_max}: expected 2 or more times, and a number above 0")
    rise = np.linspace(1e-4**0.5, (beta_max / 1000) ** 0.5, T)[: (T + 1) // 2] ** 2
    return np.concatenate([rise, rise[::-1][T % 2 :]]) * (1000 / T)


class Bridge(LinearGaussian):
    """I2SB's bridge between z_0 and z_T, with the exclusive tail: the far variance is the total less the near one.

    `betas` (T,), by default `symmetric()`. `prediction_type` is what the network emits: "residual", (z_t - z_0) /
    sigma_t (equation 12), which tells z_0 at every time; or "epsilon", the noise itself, which tells z_0 beside z_T,
    at times 1..T-1 alone, and near T only with its errors times 1 / a_t. `ode` is the limit without noise (OT-ODE).
    ValueError for betas that are not positive, for an unknown type, and for epsilon without noise.

    >>> bridge = Bridge()
    >>> bridge.noise(np.zeros(1), bridge.T, eps=np.ones(1), z_T=np.array([7.0]))  # the far end is the other picture
    array([7.])
    """

    def __init__(self, betas: np.ndarray | None = None, prediction_type: str = "residual", ode: bool = False):
        self.betas = symmetric() if betas is None else np.array(betas, dtype=np.float64)
        self.prediction_type, self.ode = prediction_type, ode
        self._check()
        variance = np.append(0.0, np.cumsum(self.betas))
        self.sigma, share = np.sqrt(variance), variance / variance[-1]
        super().__init__(a=1 - share, b=share, c=np.zeros_like(share) if ode else self.sigma * np.sqrt(1 - share))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Bridge:
        """What `config` gave -> its process."""
        return cls(np.array(config["trained_betas"]), config["prediction_type"], config.get("ode", False))

    def config(self) -> dict[str, Any]:
        """What a scheduler_config.json says of this process: the inverse of `from_config`."""
        told = {"_class_name": CLASS, "num_train_timesteps": self.T, "trained_betas": self.betas.tolist()}
        return told | {"prediction_type": self.prediction_type, "ode": self.ode}

    @property
    def highest(self) -> int:
        return self.T - 1 if self.prediction_type == "epsilon" else self.T

    def carry(self, t: Any, s: Any) -> Any:
        """Times t > s -> kt = b_s / b_t: z_s keeps of z_T what its marginal has."""
        return self.b[s] / self.b[t]

    def emitted(self, t: Any) -> tuple[Any, Any, Any]:
        return EMITTED[self.prediction_type](self.a[t], self.b[t], self.c[t], self.sigma[t])

    def _check(self) -> None:
        if self.betas.ndim != 1 or len(self.betas) < 2 or not np.all((self.betas > 0) & np.isfinite(self.betas)):
            raise ValueError("betas must be one row of two or more numbers above 0")
        if self.prediction_type not in EMITTED:
            raise ValueError(f"prediction_type {self.prediction_type!r}: expected one of {', '.join(EMITTED)}")
        if self.prediction_type == "epsilon" and self.ode:
            raise ValueError("prediction_type 'epsilon' does not go with ode, which has no noise: expected residual")


def process_of(config: Mapping[str, Any]) -> Any:
    """A scheduler_config.json, as a dict -> its process: a Bridge where it names one, else a Diffusion.

    ValueError for one that says no process.
    """
    kind = Bridge if config.get("_class_name") == CLASS else Diffusion
    try:
        return kind.from_config(config)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"scheduler_config.json: {str(error) or type(error).__name__}") from None


@torch.no_grad()
def cross(
    denoiser: Denoiser,
    z_T: Tensor,
    cond: Cond,
    steps: int,
    generators: Sequence[Generator],
    error_map: Tensor | float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """z_T (B,C,H,W) -> z_0 (B,C,H,W), in `steps` evaluations of a network whose process is a Bridge.

    `error_map` (B,1,H,W) in [0,1] multiplies all noise; generators and callback as in `ldm.sampling`.
    """
    bridge: Any = denoiser.process

    def denoise(z_t: Tensor, t: int, cond: Cond) -> Tensor:
        return bridge.recover(z_t, t, denoiser.output(z_t, t, cond), z_T)

    grid = times(bridge.highest, steps, "trailing")
    return sample(denoise, bridge, z_T, cond, grid, generators, callback, error_map=error_map)


def shown(names: Sequence[str], z_T: Tensor, error_map: Tensor, given: Tensor | None = None) -> Tensor | None:
    """What stands beside z_t (B,C',H,W), in the order of `names`: "z_T", "error_map", and what was "given"."""
    parts = {"z_T": z_T, "error_map": error_map, "given": given}
    found = [part for name in names if (part := parts[name]) is not None]
    return torch.cat(found, dim=1) if found else None
