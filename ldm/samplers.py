"""Samplers by name, and the times that they visit; nothing here imports torch.

scheduler config --default_sampler--> name;   config, steps --grid_of--> falling times
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ldm.noising import PREDICTIONS, Diffusion, Process


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


# The grid of times.


def times(T: int, steps: int, spacing: str = "leading", offset: int = 0, last: int = 0) -> list[int]:
    """Steps in 1..T -> falling times, from high to `last`, its end included.

    The spacings are diffusers' (Lin et al. 2023, table 2), on a clock that is one ahead: its timestep i is time i + 1.
    `offset` is its steps_offset; `last` = 1 is its set_alpha_to_one = False. A step that would not move is left out.
    ValueError for steps outside of 1..T, and for an unknown spacing.

    >>> times(1000, 4), times(1000, 4, "trailing")
    ([751, 501, 251, 1, 0], [1000, 750, 500, 250, 0])
    """
    steps = checked_steps(steps, T)
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


def grid_of(config: Mapping[str, Any], T: int, steps: int) -> list[int]:
    """The times that diffusers' DDPM and DDIM schedulers of this config would visit, and where they end."""
    last = 0 if config.get("set_alpha_to_one", True) else 1
    return times(T, steps, config.get("timestep_spacing", "leading"), config.get("steps_offset", 0), last)


# A part of the steps.


def steps_run(steps: int, strength: float) -> int:
    """How many of the steps a strength in 0..1 walks: floor(steps * strength), and at least one above 0."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: expected a number from 0 (the picture as it is) to 1 (pure noise)")
    return max(1, math.floor(steps * strength + 1e-6)) if strength else 0


def steps_for(run: int, strength: float) -> int:
    """The number of steps of which a strength in (0, 1] walks `run`: the inverse of `steps_run`."""
    return math.ceil(run / strength - 1e-6) if strength else run


# What a user may get wrong.


def checked_sampler(name: str, process: Process) -> tuple[Diffusion, Sampler]:
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r}: expected one of {', '.join(SAMPLERS)}")
    if not isinstance(process, Diffusion):
        raise ValueError(f"sampler {name!r} needs a Diffusion to walk down, not a {type(process).__name__}")
    sampler = SAMPLERS[name]
    if process.prediction_type not in sampler.predictions:
        known = " or ".join(sampler.predictions)
        raise ValueError(f"sampler {name!r}: expected a network for {known}, not {process.prediction_type}")
    return process, sampler


def check_followed(config: Mapping[str, Any], eta: float) -> None:
    """Refuses a config that asks what our own steps would silently not do. Without noise, its size does not matter."""
    variance = config.get("variance_type") or "fixed_small"
    if variance.startswith("learned") or (eta and not variance.startswith("fixed_small")):
        raise ValueError(f"the scheduler config has variance_type {variance!r}: expected fixed_small, or sampler ddim")
    if config.get("thresholding"):
        raise ValueError("the scheduler config has thresholding: expected none, or clip_sample")


def checked_seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed!r}: expected a whole number from 0 to 2^63 - 1")
    return int(seed)


def checked_steps(steps: int, T: int) -> int:
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or not 1 <= steps <= T:
        raise ValueError(f"steps {steps!r}: expected a whole number from 1 to {T}")
    return int(steps)
