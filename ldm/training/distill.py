"""Consistency distillation (Luo et al. 2023, "Latent Consistency Models"): a diffusion model -> one of 4 steps.

    z_t --teacher, guided, one DDIM step--> z_s        t > s, neighbours on the grid
     |                                       |
     +--student--> f(z_t, t)   should be   f(z_s, s) <--target, the student's average

The student learns where the teacher's way from z_t ends, whichever time it is asked at. The guidance is a fixed scale
that becomes part of the student, which has no embedding for it: it is drawn from with guidance 1.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm import checkpoints
from ldm.denoising import Cond, Denoiser, guided
from ldm.draws import integers
from ldm.noising import Diffusion, Time
from ldm.text import TextEncoder
from ldm.training import lora
from ldm.training.conditions import Batch, Conditions, collate
from ldm.training.diffusion import Preview, doors_of, drawn, reading, trained_model
from ldm.training.loop import fit
from ldm.training.plan import Plan

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0  # as diffusers' LCMScheduler, which draws from the student


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher; ValueError for a value out of its range."""

    guidance: float = 5.0  # the teacher's scale, which becomes part of the student
    grid: int = 50  # times that are learnt, T / grid apart: LCMScheduler's original_inference_steps
    decay: float = 0.95  # of the target, in one step
    huber: float = 1e-3  # where the loss turns from squares to absolute values
    lora: int = 0  # rank of adapters that learn in place of the student's weights; 0: the weights themselves

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay {self.decay}: expected a share from 0 to 1")
        if not self.huber > 0:
            raise ValueError(f"huber {self.huber}: expected a number above 0")
        if self.lora < 0:
            raise ValueError(f"lora {self.lora}: expected 0 or more")


class Consistency(Denoiser):
    """f(z_t, t, cond) = c_skip z_t + c_out z_0, which is z_t itself at t = 1 (Luo et al. 2023, section 4.1)."""

    def __call__(self, z_t: Tensor, t: Time, cond: Cond = None) -> Tensor:
        """z_t (B,C,H,W), t (B,) in 1..T, cond -> where the way from z_t ends (B,C,H,W)."""
        skip, out = (k.to(z_t).reshape(-1, *[1] * (z_t.ndim - 1)) for k in scalings(t))
        return skip * z_t + out * super().__call__(z_t, t, cond)


def scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """t (B,) in 1..T -> c_skip and c_out (B,), those of LCMScheduler for its timesteps t - 1."""
    x = (t - 1).double() * TIMESTEP_SCALING
    norm = x.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / norm, x / norm.sqrt()


def neighbours(n: Tensor, T: int, grid: int) -> tuple[Tensor, Tensor]:
    """n (B,) in 0..grid-1 -> times t > s (B,) that are neighbours on LCMScheduler's grid; the last s is 1."""
    k = T // grid
    return (n + 1) * k, (n * k).clamp(min=1)


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """Two (B,...) -> (B,): mean of sqrt((a - b)^2 + c^2) - c (Song and Dhariwal 2023, section 3.3)."""
    return (((a - b).square() + c * c).sqrt() - c).flatten(1).mean(1)


class DistillObjective(nn.Module):
    """Batch, a generator for each sample -> how far the student is from its target, one step nearer to the picture.

    `unet` is the student; `teacher` and `conditions` stay as they are. Every sample draws from its own generator, in
    this order: posterior, eps, place on the grid. ValueError for a grid or a guidance that is not possible.
    """

    averaged = ("unet",)

    def __init__(
        self,
        unet: nn.Module,
        teacher: nn.Module,
        process: Diffusion,
        conditions: Conditions,
        distillation: Distillation = Distillation(),
    ):
        super().__init__()
        if not 1 <= distillation.grid <= process.T // 2:
            raise ValueError(f"grid {distillation.grid}: expected 1 to {process.T // 2}, so that a step moves")
        self.unet, self.process, self.distillation = unet, process, distillation
        self.teacher, self.conditions = teacher.eval(), conditions.eval()
        for part in (teacher, conditions):
            part.requires_grad_(False)
        self.target = unlearning(copy.deepcopy(unet)).eval()
        self.step, self.followed = 0, -1

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        self._follow()
        z_0, eps = drawn(batch, generators)
        t, s = neighbours(integers(generators, 0, self.distillation.grid), self.process.T, self.distillation.grid)
        z_t = self.process.noise(z_0, t, eps)
        with torch.no_grad():
            all_told = torch.zeros(len(t), dtype=torch.bool)
            cond = self.conditions(batch, all_told, all_told)
            teach = guided(Denoiser(self.teacher, self.process), self.conditions.null(), self.distillation.guidance)
            z_s = self.process.with_eta(0).step(z_t, teach(z_t, t, cond), t, s, 0.0)
            aim = Consistency(self.target, self.process)(z_s, s, cond)
        answer = Consistency(self.unet, self.process)(z_t, t, cond)
        return {"loss": pseudo_huber(answer, aim, self.distillation.huber).mean()}

    @torch.no_grad()
    def _follow(self) -> None:
        """The target moves 1 - decay of the way to the student, once in each step of the optimiser."""
        if self.step != self.followed:
            self.followed = self.step
            slow = dict(self.target.named_buffers())
            for name, weight in self.unet.named_parameters():
                if weight.requires_grad:
                    slow[name].lerp_(weight, 1 - self.distillation.decay)


def unlearning(module: nn.Module) -> nn.Module:
    """The same module with its parameters as buffers: what changes without learning, and belongs in a checkpoint."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, weight.detach())
    return module


def lcm_config(scheduler: Mapping[str, Any], grid: int) -> dict[str, Any]:
    """The teacher's scheduler config -> the student's, whose own sampler is lcm."""
    lcm = {"_class_name": "LCMScheduler", "original_inference_steps": grid, "timestep_scaling": TIMESTEP_SCALING}
    return {**scheduler, **lcm}


STUDENT = {"num_inference_steps": 4, "guidance_scale": 1.0}  # the defaults of a distilled model


def train_distill(
    out: Path,
    data: Any,
    plan: Plan,
    teacher: str | Path,
    distillation: Distillation = Distillation(),
    preview: Preview | None = None,
) -> tuple[Any, TextEncoder | None]:
    """A model, and latents as `train_diffusion` takes them -> a U-Net that draws in 4 steps; the model's text encoder.

    With `distillation.lora` the adapters are written to `out`/lora, and stand in the weights of what is returned.
    Its scheduler is `lcm_config` of the teacher's, in four steps without guidance. The same call goes on from `out`'s
    checkpoint. ValueError for a guidance other than 1 of a model that has nothing to be guided by. Luo et al. 2023.
    """
    network, text = trained_model(teacher)
    scheduler, doors = checkpoints.read(teacher).configs["scheduler"], doors_of(network.config, text is not None)
    if distillation.guidance != 1 and not (doors.text or doors.classes):
        raise ValueError(f"guidance {distillation.guidance}: expected 1, {teacher} is told neither words nor a class")
    conditions = Conditions.of(doors, text)
    process = Diffusion.from_config(scheduler)
    student = copy.deepcopy(network)
    torch.manual_seed(plan.seed)  # of the adapters
    if distillation.lora:
        lora.adapt(student, "unet", distillation.lora, lora.EVERYWHERE)
    objective = DistillObjective(student, network, process, conditions, distillation)
    settings: dict[str, Any] = {"kind": "distill", "teacher": checkpoints.fingerprint(checkpoints.locate(teacher))}
    settings |= {"distillation": asdict(distillation)}

    def watch(average: Any, step: int) -> Path | None:
        return preview(average.unet, text, step) if preview else None

    packed = partial(collate, doors, reading(data, text, learns=False))
    average: Any = fit(objective, data, plan, out, packed, settings, watch)
    student = average.unet.cpu().to(memory_format=torch.contiguous_format)
    if distillation.lora:
        lora.settle(out, {"unet": student})
    return student, text and text.to("cpu")
