"""Sampling: noise -> z_0, by asking a denoiser along a falling grid of times.

    noise --draw: grid of times, [denoise, step down] again and again--> z_0

`sample` is our own loop: it serves every process, because the process itself says how to step. `draw` is what a
pipeline calls: it knows samplers by name, ours (DDPM, DDIM) and diffusers' schedulers, which all pass one adapter.

Randomness comes in as one CPU generator an image, so an image depends neither on its neighbours nor on the device.

A callback is called at every step as `callback(step, total, t, z_0)`, step = 1..total, with the estimate of z_0 at time
t. If it returns False the drawing stops there and that estimate is the result; an exception passes through and leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.denoising import Cond, Denoiser
from ldm.noising import PREDICTIONS, Diffusion, Process

Denoise = Callable[[Tensor, int, Cond], Tensor]  # (z_t, t, cond) -> z_0
Callback = Callable[[int, int, float, Tensor], "bool | None"]  # (step, total, t, z_0) -> False to stop


# Randomness: one generator an image.


def generators(seeds: Sequence[int]) -> list[Generator]:
    """Seeds in 0..2^63-1 -> CPU generators, one for each image."""
    return [Generator().manual_seed(_checked_seed(seed)) for seed in seeds]


def gaussian(generators: Sequence[Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """B generators, shape (C,H,W) -> eps (B,C,H,W) ~ N(0, I) in float32, row j from generator j alone."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators]).to(device)


# The grid of times.


def times(T: int, steps: int, spacing: str = "leading", offset: int = 0, last: int = 0) -> list[int]:
    """Steps in 1..T -> falling times, from high to `last`, its end included.

    The spacings are diffusers' (Lin et al. 2023, table 2), on a clock that is one ahead: its timestep i is time i + 1.
    `offset` is its steps_offset; `last` = 1 is its set_alpha_to_one = False. A step that would not move is left out.
    """
    steps = _checked_steps(steps, T)
    grid: np.ndarray
    match spacing:
        case "leading":
            grid = np.arange(steps) * (T // steps) + 1 + offset
        case "trailing":
            grid = np.round(T - np.arange(steps) * (T / steps))
        case "linspace":
            grid = np.round(np.linspace(0, T - 1, steps)) + 1
        case _:
            raise ValueError(f"timestep spacing {spacing!r}: expected leading, trailing or linspace")
    return np.unique(np.append(grid.clip(max=T), last).astype(int))[::-1].tolist()


# The loop.


@torch.no_grad()
def sample(
    denoise: Denoise,
    process: Process,
    z: Tensor,
    cond: Cond,
    grid: Sequence[int],
    generators: Sequence[Generator],
    callback: Callback | None = None,
) -> Tensor:
    """z (B,C,H,W) at time grid[0] -> z at time grid[-1], by the process's posterior steps; at time 0 that is z_0."""
    for step, (t, s) in enumerate(pairwise(grid), start=1):
        z_0 = denoise(z, t, cond)
        if callback and callback(step, len(grid) - 1, t, z_0) is False:
            return z_0
        *_, std = process.posterior(t, s)
        eps = gaussian(generators, z.shape[1:], z.device) if std > 0 else 0.0
        z = process.step(z, z_0, t, s, eps)
    return z


def clipped(denoise: Denoise, limit: float) -> Denoise:
    """The same answer, held within -limit..limit: for pixels, which have a range. Latents have none."""
    return lambda z_t, t, cond: denoise(z_t, t, cond).clamp(-limit, limit)


# The samplers.


@dataclass(frozen=True)
class Sampler:
    """How a sampler is written in a scheduler_config.json: the class, and what else tells it from others of that class.

    `eta` makes it ours: the process's own steps with that much of DDPM's noise. The others are diffusers' schedulers.
    """

    scheduler: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    eta: float | None = None
    predictions: Collection[str] = tuple(PREDICTIONS)


DPM = "DPMSolverMultistepScheduler"
SAMPLERS = {
    "ddpm": Sampler("DDPMScheduler", {"set_alpha_to_one": True}, eta=1.0),
    "ddim": Sampler("DDIMScheduler", eta=0.0),
    "pndm": Sampler("PNDMScheduler", predictions=("epsilon", "v_prediction")),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", predictions=("epsilon", "v_prediction")),
    "heun": Sampler("HeunDiscreteScheduler"),
    "dpm++2m": Sampler(DPM, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "dpm++2m_karras": Sampler(DPM, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "dpm++2m_sde": Sampler(DPM, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": Sampler("UniPCMultistepScheduler"),
    "lcm": Sampler("LCMScheduler"),
}


def default_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """A diffusers scheduler_config.json, as a dict -> the name of the sampler that it describes."""
    for name, sampler in SAMPLERS.items():
        like = all(scheduler_config.get(key, value) == value for key, value in sampler.settings.items())
        if like and sampler.scheduler == scheduler_config.get("_class_name"):
            return name
    raise ValueError(
        f"the checkpoint's scheduler {scheduler_config.get('_class_name')!r} has no sampler here: choose one of "
        f"{', '.join(SAMPLERS)}"
    )


@torch.no_grad()
def draw(
    denoiser: Denoiser,
    noise: Tensor,
    cond: Cond,
    sampler: str,
    steps: int,
    scheduler_config: Mapping[str, Any],
    generators: Sequence[Generator],
    callback: Callback | None = None,
) -> Tensor:
    """Noise (B,C,H,W) ~ N(0, I), cond -> z_0 (B,C,H,W), by a sampler named in `SAMPLERS`.

    `scheduler_config` is the checkpoint's: it sets the spacing of the steps, where they end, and whatever else
    diffusers would read from it. ValueError for a name, a number of steps or a config that cannot be followed.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    process, chosen = denoiser.process, SAMPLERS[sampler]
    if not isinstance(process, Diffusion):
        raise ValueError(f"sampler {sampler!r} needs a Diffusion to walk down, not a {type(process).__name__}")
    if process.prediction_type not in chosen.predictions:
        known = " or ".join(chosen.predictions)
        raise ValueError(f"sampler {sampler!r}: expected a network for {known}, not {process.prediction_type}")
    steps = _checked_steps(steps, process.T)
    config = {**scheduler_config, **chosen.settings, "prediction_type": process.prediction_type}
    if chosen.eta is None:
        return _sample_by(_scheduler(chosen, config, process, steps), denoiser, noise, cond, generators, callback)
    _check_followed(config, chosen.eta)
    denoise = clipped(denoiser, config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else denoiser
    grid = _grid(config, process.T, steps)
    return sample(denoise, process.with_eta(chosen.eta), noise, cond, grid, generators, callback)


def _grid(config: Mapping[str, Any], T: int, steps: int) -> list[int]:
    """The times that diffusers' DDPM and DDIM schedulers of this config would visit, and where they end."""
    last = 0 if config.get("set_alpha_to_one", True) else 1
    return times(T, steps, config.get("timestep_spacing", "leading"), config.get("steps_offset", 0), last)


def _scheduler(sampler: Sampler, config: Mapping[str, Any], process: Diffusion, steps: int) -> Any:
    """A scheduler of diffusers, fresh because it remembers, set to its steps. Asked by name, it alone is imported."""
    scheduler = getattr(import_module("diffusers.schedulers"), sampler.scheduler).from_config(config)
    abar = process.a[1:] ** 2
    if len(scheduler.alphas_cumprod) != process.T or not np.allclose(scheduler.alphas_cumprod, abar, atol=1e-4):
        raise ValueError(f"{sampler.scheduler} does not follow the noise schedule that the network was trained on")
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise ValueError(f"{sampler.scheduler} cannot take {steps} steps: {error}") from error
    if scheduler.timesteps.max() >= process.T:
        raise ValueError(f"{sampler.scheduler} would begin {steps} steps beyond its last time: expected fewer")
    return scheduler


def _sample_by(
    scheduler: Any,
    denoiser: Denoiser,
    noise: Tensor,
    cond: Cond,
    generators: Sequence[Generator],
    callback: Callback | None,
) -> Tensor:
    """Noise (B,C,H,W) -> z_0, by a diffusers scheduler: it is handed raw outputs, and its timestep i is time i + 1."""
    randomness = {"generator": list(generators)} if "generator" in signature(scheduler.step).parameters else {}
    z = noise * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        z_t, t = scheduler.scale_model_input(z, timestep), timestep.item() + 1
        output = denoiser.output(z_t, t, cond)
        if callback:
            # Some visit times between whole numbers; for a look at the picture the nearest will do.
            z_0 = denoiser.process.recover(z_t, min(max(round(t), 1), denoiser.process.T), output)
            if callback(step, len(scheduler.timesteps), t, z_0) is False:
                return z_0
        z = scheduler.step(output, timestep, z, **randomness).prev_sample
    return z


# What a user may get wrong.


def _check_followed(config: Mapping[str, Any], eta: float) -> None:
    """Refuses a config that asks what our own steps would silently not do. Without noise, its size does not matter."""
    variance = config.get("variance_type") or "fixed_small"
    if variance.startswith("learned") or (eta and not variance.startswith("fixed_small")):
        raise ValueError(f"the scheduler config has variance_type {variance!r}: expected fixed_small, or sampler ddim")
    if config.get("thresholding"):
        raise ValueError("the scheduler config has thresholding: expected none, or clip_sample")


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed!r}: expected a whole number from 0 to 2^63 - 1")
    return int(seed)


def _checked_steps(steps: int, T: int) -> int:
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or not 1 <= steps <= T:
        raise ValueError(f"steps {steps!r}: expected a whole number from 1 to {T}")
    return int(steps)
