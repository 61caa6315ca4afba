"""Noising: clean latents and noise -> noised latents, and every exact relation between them.

    z_t = a_t z_0 + b_t z_T + c_t eps        time 0..T, 0 = clean; t > s

A `Process` knows this line, what a network is trained to emit about it (`target`), how to read that emission
(`recover`), and how to walk down in time once z_0 is estimated (`step`). The coefficients are plain numbers in float64,
so numpy arrays and torch tensors on any device are served by the same arithmetic, and nothing here imports torch.

Shapes: z (B, ...) of any rank; t, s an int or (B,) whole numbers, in any kind of array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

Array = Any  # a numpy array or a torch tensor; what comes in decides what goes out
MOST = 100_000  # steps of a schedule
Time = Any  # an int, or (B,) whole numbers


class Process(Protocol):
    """How data turn into their far end, and back: all that training and sampling ask."""

    T: int

    @property
    def highest(self) -> int:
        """The last time at which a network can be asked."""

    def noise(self, z_0: Array, t: Time, eps: Array, z_T: Array | None = None) -> Array:
        """z_0, eps -> z_t, a sample of q(z_t | z_0[, z_T])."""

    def target(self, z_0: Array, z_t: Array, t: Time, z_T: Array | None = None) -> Array:
        """z_0, z_t -> output, what the network should emit; t >= 1."""

    def recover(self, z_t: Array, t: Time, output: Array, z_T: Array | None = None) -> Array:
        """z_t, output -> z_0, the inverse of `target`; t >= 1."""

    def posterior(self, t: Time, s: Time) -> tuple[Any, Any, Any]:
        """t > s -> (k0, kt, std) of q(z_s | z_t, z_0) = N(k0 z_0 + kt z_t, std^2)."""

    def step(self, z_t: Array, z_0: Array, t: Time, s: Time, eps: Array | float) -> Array:
        """z_t, z_0, eps -> z_s, a sample of that posterior."""


class LinearGaussian:
    """A process whose marginals are z_t = a_t z_0 + b_t z_T + c_t eps, given as float64 tables of length T + 1.

    A subclass adds `carry(t, s)`, the share kt of z_t that z_s keeps. That one number settles the whole posterior, for
    the marginal at s has to come out right: k0 + kt a_t = a_s and kt^2 c_t^2 + std^2 = c_s^2. Where there is a z_T its
    share has to come out right too, kt b_t = b_s, and leaves the carry no choice.

    It also adds `emitted(t)`, for what a network emits is always linear in what it was shown, what it should have seen,
    and where it all began: output = p z_t + q z_0 + r z_T. `highest` is the last time at which that tells z_0.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, c: np.ndarray):
        self.a, self.b, self.c = (np.asarray(table, dtype=np.float64) for table in (a, b, c))
        self.T = len(self.a) - 1

    def carry(self, t: Any, s: Any) -> Any:
        """Times t > s -> kt."""
        raise NotImplementedError

    def emitted(self, t: Any) -> tuple[Any, Any, Any]:
        """Times 1..highest -> (p, q, r) of output = p z_t + q z_0 + r z_T."""
        raise NotImplementedError

    @property
    def highest(self) -> int:
        """The last time at which a network can be asked."""
        return self.T

    def noise(self, z_0: Array, t: Time, eps: Array, z_T: Array | None = None) -> Array:
        """z_0, eps (B,...) ~ N(0, I), t in 0..T -> z_t (B,...) in z_0's dtype; ValueError for another time."""
        t = _whole(t, 0, self.T)
        z_t = _over(self.a[t], z_0) * z_0 + _over(self.c[t], z_0) * eps
        return z_t if z_T is None else z_t + _over(self.b[t], z_0) * z_T

    def posterior(self, t: Time, s: Time) -> tuple[Any, Any, Any]:
        """Times t > s -> (k0, kt, std), floats or (B,), of q(z_s | z_t, z_0) = N(k0 z_0 + kt z_t, std^2).

        ValueError where s is not below t, and for times outside of 0..T.
        """
        t, s = _whole(t, 1, self.T), _whole(s, 0, self.T)
        if np.any(s >= t):
            raise ValueError(f"a step goes down in time, not from {t} to {s}")
        kt = self.carry(t, s)
        var = self.c[s] ** 2 - (kt * self.c[t]) ** 2
        # What rounding leaves of a difference that should be 0 must be 0: a deterministic sampler draws no noise.
        return self.a[s] - kt * self.a[t], kt, np.sqrt(var * (var > 1e-12 * self.c[s] ** 2))

    def step(self, z_t: Array, z_0: Array, t: Time, s: Time, eps: Array | float) -> Array:
        """z_t, z_0, eps (B,...) -> z_s (B,...), which at s = 0 is z_0. Where std is 0, eps may be 0.0."""
        k0, kt, std = (_over(k, z_t) for k in self.posterior(t, s))
        return k0 * z_0 + kt * z_t + std * eps

    def target(self, z_0: Array, z_t: Array, t: Time, z_T: Array | None = None) -> Array:
        """z_0, z_t (B,...), t in 1..highest -> output (B,...) in float32 (float64 stays).

        ValueError for another time, and where z_T is needed and missing.
        """
        (p, q, rest), z_t = self._parts(t, z_t, z_T), _wide(z_t)
        return p * z_t + q * _wide(z_0) + rest

    def recover(self, z_t: Array, t: Time, output: Array, z_T: Array | None = None) -> Array:
        """z_t, output (B,...), t in 1..highest -> z_0 (B,...) in float32 (float64 stays).

        ValueError for another time, and where z_T is needed and missing.
        """
        (p, q, rest), z_t = self._parts(t, z_t, z_T), _wide(z_t)
        return (_wide(output) - p * z_t - rest) / q

    def _parts(self, t: Time, z_t: Array, z_T: Array | None) -> tuple[Any, Any, Any]:
        """p, q and r z_T at the times t >= 1; at t = 0 nothing is hidden, so there is nothing to emit."""
        z_t = _wide(z_t)
        p, q, r = self.emitted(_whole(t, 1, self.highest))
        if not np.any(r):
            return _over(p, z_t), _over(q, z_t), 0.0
        if z_T is None:
            raise ValueError("what this network emits tells z_0 only beside z_T, which is missing")
        return _over(p, z_t), _over(q, z_t), _over(r, z_t) * _wide(z_T)


# With z_t = a z_0 + c eps and a^2 + c^2 = 1 this is eps, and v = a eps - c z_0 (Salimans and Ho 2022, appendix D).
PREDICTIONS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "epsilon": lambda a, c: (1 / c, -a / c),
    "v_prediction": lambda a, c: (a / c, -1 / c),
    "sample": lambda a, c: (0.0, 1.0),
}


class Diffusion(LinearGaussian):
    """DDPM (Ho et al. 2020): z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, abar_t the product of 1 - beta up to t.

    `betas` (T,), by default Stable Diffusion's; `prediction_type` in diffusers' words: epsilon, v_prediction or sample.
    `eta` chooses among the posteriors that share these marginals (DDIM, Song et al. 2021, eq. 16): 1 is DDPM's, 0 moves
    without noise. ValueError for betas that are not in (0,1], for an unknown type, for epsilon where nothing of z_0 is
    left at T, and for an eta outside of 0..1.

    >>> process, z_0, eps = Diffusion(), np.ones((1, 4, 2, 2)), np.zeros((1, 4, 2, 2))
    >>> z_t = process.noise(z_0, 500, eps)
    >>> bool(np.allclose(process.recover(z_t, 500, process.target(z_0, z_t, 500)), z_0))
    True
    """

    def __init__(self, betas: np.ndarray | None = None, prediction_type: str = "epsilon", eta: float = 1.0):
        self.betas = scaled_linear() if betas is None else np.array(betas, dtype=np.float64)
        self.prediction_type, self.eta = prediction_type, eta
        self._check()
        abar = np.append(1.0, np.cumprod(1 - self.betas))
        super().__init__(a=np.sqrt(abar), b=np.zeros_like(abar), c=np.sqrt(1 - abar))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Diffusion:
        """A diffusers scheduler_config.json, as a dict -> its process. What it leaves out has diffusers' default.

        ValueError names a schedule or a type that is unknown here.
        """
        return cls(betas_from_config(config), config.get("prediction_type", "epsilon"))

    def config(self) -> dict[str, Any]:
        """What a diffusers scheduler_config.json says of this process: the inverse of `from_config`."""
        betas = {"num_train_timesteps": self.T, "trained_betas": self.betas.tolist()}
        return betas | {"prediction_type": self.prediction_type}

    def with_eta(self, eta: float) -> Diffusion:
        """The same process, walking down with `eta` times DDPM's standard deviation; 0 is DDIM."""
        return type(self)(self.betas, self.prediction_type, eta)

    def carry(self, t: Any, s: Any) -> Any:
        """Times t > s -> kt. At eta = 0 it keeps all of z_t's eps, shrunk from c_t to c_s; at eta = 1 it is DDPM's."""
        shrunk = self.c[s] / self.c[t]
        markov = self.a[t] / self.a[s] * shrunk**2
        return np.sqrt((self.eta * markov) ** 2 + (1 - self.eta**2) * shrunk**2)

    def emitted(self, t: Any) -> tuple[Any, Any, Any]:
        """Times t >= 1 -> (p, q, 0): there is no z_T."""
        return *PREDICTIONS[self.prediction_type](self.a[t], self.c[t]), 0.0

    def snr(self, t: Time) -> Any:
        """Times t >= 1 -> a_t^2 / c_t^2, a float or (B,) in float64."""
        t = _whole(t, 1, self.T)
        return (self.a[t] / self.c[t]) ** 2

    def _check(self) -> None:
        betas = self.betas
        if betas.ndim != 1 or not betas.size or not np.all((betas > 0) & (betas <= 1)) or np.any(betas[:-1] == 1):
            raise ValueError("betas must be one row of numbers in (0, 1), of which only the last may be 1")
        if self.prediction_type not in PREDICTIONS:
            raise ValueError(f"prediction_type {self.prediction_type!r}: expected one of {', '.join(PREDICTIONS)}")
        if self.prediction_type == "epsilon" and betas[-1] == 1:
            raise ValueError(
                "prediction_type 'epsilon' does not go with zero terminal SNR: z_T is pure noise, so knowing eps says "
                "nothing of z_0; expected v_prediction or sample"
            )
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta}: expected a number from 0 (no noise) to 1 (DDPM)")


# Noise schedules: T -> betas (T,) in float64.


def linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    """T -> betas (T,), evenly spaced (Ho et al. 2020, section 4)."""
    return np.linspace(beta_start, beta_end, T)


def scaled_linear(T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> np.ndarray:
    """T -> betas (T,) whose square roots are evenly spaced: latent diffusion's (Rombach et al. 2022)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, T) ** 2


def cosine(T: int = 1000) -> np.ndarray:
    """T -> betas (T,), at most 0.999, of which abar is a squared cosine; diffusers' squaredcos_cap_v2.

    Nichol and Dhariwal 2021, equation 17.
    """
    abar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], 0.999)


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas (T,) -> betas (T,) with a_T = 0 and a_1 as before: a is shifted, then stretched.

    Lin et al. 2023, algorithm 1.

    >>> float(Diffusion(zero_terminal_snr(scaled_linear()), "v_prediction").snr(1000))
    0.0
    """
    a = np.sqrt(np.cumprod(1 - betas))
    abar = ((a - a[-1]) * a[0] / (a[0] - a[-1])) ** 2
    return 1 - abar / np.append(1.0, abar[:-1])


def betas_from_config(config: Mapping[str, Any]) -> np.ndarray:
    """A diffusers scheduler_config.json, as a dict -> betas (T,). ValueError names a schedule that is unknown here."""
    T, name = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    ends = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    if not isinstance(T, int) or not 1 <= T <= MOST:
        raise ValueError(f"num_train_timesteps {str(T)[:20]}: expected 1 to {MOST:,}")
    schedules = {
        "linear": lambda: linear(T, *ends),
        "scaled_linear": lambda: scaled_linear(T, *ends),
        "squaredcos_cap_v2": lambda: cosine(T),
    }
    if config.get("trained_betas") is not None:
        betas = np.array(config["trained_betas"], dtype=np.float64)
    elif isinstance(name, str) and name in schedules:
        betas = schedules[name]()
    else:
        raise ValueError(f"beta_schedule {name!r}: expected one of {', '.join(schedules)}")
    return zero_terminal_snr(betas) if config.get("rescale_betas_zero_snr") else betas


# Numbers into arrays of any kind.


def _whole(t: Time, low: int, high: int) -> Any:
    """Times in any kind of array, on any device -> an int or (B,) numpy integers, within low..high."""
    t = np.asarray(t.cpu() if hasattr(t, "cpu") else t)
    if t.dtype.kind not in "iu" or np.any((t < low) | (t > high)):
        raise ValueError(f"time {t}: expected whole numbers from {low} to {high}")
    return int(t) if t.ndim == 0 else t


def _over(k: Any, z: Array) -> Any:
    """One number -> float; (B,) numbers -> (B,1,..,1) of z's kind, dtype and device. Here float64 is rounded, last."""
    if np.ndim(k) == 0:
        return float(k)
    k = np.reshape(k, (-1, *[1] * (z.ndim - 1)))
    return k.astype(z.dtype) if isinstance(z, np.ndarray) else z.new_tensor(k)


def _wide(z: Array) -> Array:
    """Half precision -> float32; float32 and float64 as they are."""
    if z.dtype.itemsize >= 4:
        return z
    return z.astype(np.float32) if isinstance(z, np.ndarray) else z.float()
