"""Sampling: noise -> z_0, by asking a denoiser along a falling grid of times.

    noise --draw: grid of times, [denoise, step down] again and again--> z_0

`sample` is our own loop: it serves every process, because the process itself says how to step. `draw` is what a
pipeline calls: it knows samplers by name, ours (DDPM, DDIM) and diffusers' schedulers, which all pass one adapter.

Randomness comes in as one CPU generator an image, so an image depends neither on its neighbours nor on the device.

Drawing may also begin at a picture (`Start`): only the last of the steps are then walked, from z_0 noised to where they
begin (SDEdit, Meng et al. 2022), and parts of z_0 may be held while the others change.

A callback is called at every step as `callback(step, total, t, z_0)`, step = 1..total, with the estimate of z_0 at time
t. If it returns False the drawing stops there and that estimate is the result; an exception passes through and leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.denoising import Cond, Denoiser
from ldm.draws import gaussian
from ldm.noising import Diffusion, Process
from ldm.samplers import Sampler, check_followed, checked_sampler, checked_seed, checked_steps, grid_of

Denoise = Callable[[Tensor, int, Cond], Tensor]  # (z_t, t, cond) -> z_0
Callback = Callable[[int, int, float, Tensor], "bool | None"]  # (step, total, t, z_0) -> False to stop
Hold = Callable[[Tensor, int], Tensor]  # (z, s) -> z


# Randomness: one generator an image.


def generators(seeds: Sequence[int]) -> list[Generator]:
    """Seeds in 0..2^63-1 -> CPU generators, one for each image."""
    return [Generator().manual_seed(checked_seed(seed)) for seed in seeds]


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
    hold: Hold | None = None,
    error_map: Tensor | float = 1.0,
) -> Tensor:
    """z (B,C,H,W) at time grid[0] -> z at time grid[-1], by the process's posterior steps; at time 0 that is z_0.

    `hold(z, s)` may put back what is to be kept, after each step to time s. `error_map` (B,1,H,W) multiplies all noise
    (see `ldm.bridging`).
    """
    for step, (t, s) in enumerate(pairwise(grid), start=1):
        z_0 = denoise(z, t, cond)
        if callback and callback(step, len(grid) - 1, t, z_0) is False:
            return z_0
        *_, std = process.posterior(t, s)
        eps = gaussian(generators, z.shape[1:], z.device) if std > 0 else 0.0
        z = process.step(z, z_0, t, s, error_map * eps)
        z = hold(z, s) if hold else z
    return z


def clipped(denoise: Denoise, limit: float) -> Denoise:
    """The same answer, held within -limit..limit: for pixels, which have a range. Latents have none."""
    return lambda z_t, t, cond: denoise(z_t, t, cond).clamp(-limit, limit)


# Beginning at a picture.


@dataclass(frozen=True, eq=False)
class Start:
    """z_0 (B,C,H,W) to begin at: the last `run` steps are walked, from it noised; where that is all, from pure noise.

    `free` (B,1,H,W) in [0,1] says where the picture may change; elsewhere z_0 is put back after every step, noised to
    the time reached, and after the last as it is. `spread` lays the steps from the last time down, whatever spacing the
    checkpoint has: so the walk begins at the share of all times that `run` is of all steps. `as_diffusers` keeps what
    diffusers does: its image to image sees the picture at every strength, and its PNDM loses a step of a shorter walk,
    and ends with that step's noise still in the picture.
    """

    z_0: Tensor
    run: int
    free: Tensor | None = None
    spread: bool = False
    as_diffusers: bool = False

    def whole(self, steps: int) -> bool:
        """Whether all steps are walked, from pure noise."""
        return self.run >= steps and not (self.as_diffusers and self.free is None)

    def held(self, z: Tensor, noised: Tensor) -> Tensor:
        """z where it is free, `noised` elsewhere."""
        return z if self.free is None else self.free * z + (1 - self.free) * noised


# The samplers.


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
    start: Start | None = None,
) -> Tensor:
    """Noise (B,C,H,W) ~ N(0, I), cond -> z_0 (B,C,H,W), by a sampler named in `SAMPLERS`.

    `scheduler_config` is the checkpoint's: it sets the spacing of the steps, where they end, and whatever else
    diffusers would read from it. ValueError for a name, a number of steps or a config that cannot be followed.
    """
    process, chosen = checked_sampler(sampler, denoiser.process)
    steps = checked_steps(steps, process.T)
    config = {**scheduler_config, **chosen.settings, "prediction_type": process.prediction_type}
    if start and start.run == 0:
        return start.z_0
    if start and start.spread:
        config["timestep_spacing"] = "trailing"
    if chosen.eta is None:
        walk = start and start.run < steps
        config |= {"skip_prk_steps": True} if walk and sampler == "pndm" else {}  # they cannot begin half-way
        scheduler = _scheduler(chosen, config, process, steps)
        return _sample_by(scheduler, denoiser, noise, cond, generators, callback, start)
    check_followed(config, chosen.eta)
    denoise = clipped(denoiser, config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else denoiser
    process, grid = process.with_eta(chosen.eta), grid_of(config, process.T, steps)
    if start is None:
        return sample(denoise, process, noise, cond, grid, generators, callback)
    walked = grid[-start.run - 1 :]
    z = noise if start.whole(len(grid) - 1) else process.noise(start.z_0, walked[0], noise)

    def hold(z: Tensor, s: int) -> Tensor:
        return start.held(z, process.noise(start.z_0, 0 if s == grid[-1] else s, noise))

    return sample(denoise, process, z, cond, walked, generators, callback, hold)


def _sample_by(
    scheduler: Any,
    denoiser: Denoiser,
    noise: Tensor,
    cond: Cond,
    generators: Sequence[Generator],
    callback: Callback | None,
    start: Start | None,
) -> Tensor:
    """Noise (B,C,H,W) -> z_0, by a diffusers scheduler: it is handed raw outputs, and its timestep i is time i + 1."""
    process: Any = denoiser.process
    randomness = {"generator": list(generators)} if "generator" in signature(scheduler.step).parameters else {}
    timesteps, z = _begun(scheduler, noise, start)
    for step, timestep in enumerate(timesteps, start=1):
        z_t, t = scheduler.scale_model_input(z, timestep), timestep.item() + 1
        output = denoiser.output(z_t, t, cond)
        if callback:
            # Some visit times between whole numbers; for a look at the picture the nearest will do.
            z_0 = process.recover(z_t, min(max(round(t), 1), process.T), output)
            if callback(step, len(timesteps), t, z_0) is False:
                return z_0
        z = scheduler.step(output, timestep, z, **randomness).prev_sample
        if start is not None and start.free is not None:
            later = timesteps[step : step + 1]
            z = start.held(z, scheduler.add_noise(start.z_0, noise, later) if len(later) else start.z_0)
    return z


def _begun(scheduler: Any, noise: Tensor, start: Start | None) -> tuple[Tensor, Tensor]:
    """A scheduler set to its steps -> the timesteps that are walked, and z at the first of them."""
    if start is None:
        return scheduler.timesteps, noise * scheduler.init_noise_sigma
    skipped = max(0, scheduler.num_inference_steps - start.run)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped * scheduler.order)
    if start.whole(scheduler.num_inference_steps):
        return scheduler.timesteps, noise * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps[skipped * scheduler.order :]
    if skipped and hasattr(scheduler, "plms_timesteps") and not start.as_diffusers:
        # The first step is made twice (a Heun step), which only the whole list says.
        timesteps = scheduler.timesteps.unique_consecutive()[skipped:]
        timesteps = torch.cat([timesteps[:2], timesteps[1:]])
    return timesteps, scheduler.add_noise(start.z_0, noise, timesteps[:1])


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
