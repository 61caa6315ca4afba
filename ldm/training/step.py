"""One optimiser step: the global batch's gradient, clipped; the weights; their average.

The gradient is that of the mean over the whole batch, however it is split over processes and parts.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ldm.training import processes
from ldm.training.order import Place
from ldm.training.plan import Plan
from ldm.training.randomness import number, streams
from ldm.training.state import SETTLE_EVERY, State

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Share = tuple[list[Place], Any]  # the places of a part of the batch, and what was collated of them


@dataclass(frozen=True)
class Outcome:
    """What a step gave: means over the global batch, and the gradient's norm before it was clipped."""

    losses: dict[str, float]
    norm: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.losses["loss"]) and math.isfinite(self.norm)


def prepared(state: State, plan: Plan) -> nn.Module:
    """The objective as the plan wants it run: itself or, with several processes, in DDP, which averages gradients."""
    where = processes.here()
    if plan.gradient_checkpointing:
        _checkpoint_gradients(state.objective)
    if plan.compile:
        state.objective.compile()
    if where.num_processes == 1:
        return state.objective
    return DistributedDataParallel(state.objective, [where.device] if where.device.type == "cuda" else None)


def _checkpoint_gradients(objective: Any) -> None:
    able = 0
    for module in objective.modules():
        if getattr(module, "_supports_gradient_checkpointing", False):  # diffusers
            module.enable_gradient_checkpointing()
        elif getattr(module, "supports_gradient_checkpointing", False):  # transformers
            module.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            continue
        able += 1
    if not able:
        raise ValueError("gradient_checkpointing: no network of this training has it")


def advance(state: State, model: nn.Module, shares: Sequence[Share], plan: Plan) -> Outcome:
    """This process's shares of a batch -> the next state, and what the step gave.

    Where the loss or the gradient is not finite, weights, optimiser and average stay as they are.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = plan.learning_rate_at(state.step) * group.get("lr_scale", 1.0)
    losses = _gradients(state, model, shares, plan)
    state.scaler.unscale_(state.optimizer)
    outcome = Outcome(losses, _clipped(state.optimizer, plan.clip))
    if outcome.finite:
        state.scaler.step(state.optimizer)
        state.update_average(plan.ema_at(state.step))
    if state.step % SETTLE_EVERY == 0:
        state.settle()
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step, state.skipped = state.step + 1, 0 if outcome.finite else state.skipped + 1
    return outcome


def _gradients(state: State, model: nn.Module, shares: Sequence[Share], plan: Plan) -> dict[str, float]:
    """Fills the gradients; -> the loss and its parts over the global batch."""
    where = processes.here()
    if hasattr(state.objective, "step"):
        state.objective.step = state.step
    sums: dict[str, Tensor] = {}
    for part, (places, batch) in enumerate(shares, 1):
        # What modules draw by themselves (dropout) comes from torch's own generator.
        _seed(number(plan.seed, "modules", state.step, where.process_index, part), where.device)
        weight = len(places) / plan.batch_size
        with nullcontext() if part == len(shares) else _unsynchronised(model):
            with _autocast(where.device.type, plan.mixed_precision):
                losses = model(send_to_device(batch, where.device), streams(plan.seed, places))
            # DDP takes the mean over the processes; the sum is wanted.
            state.scaler.scale(losses["loss"] * (weight * where.num_processes)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + weight * value.detach()
    total = processes.summed(torch.stack(list(sums.values())))
    return dict(zip(sums, total.tolist(), strict=True))


def _seed(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, for one device: that one notes a traceback for every other kind that is not here."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _unsynchronised(model: nn.Module) -> Any:
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _autocast(device: str, precision: str) -> Any:
    return torch.autocast(device, DTYPES[precision]) if precision in DTYPES else nullcontext()


def _clipped(optimizer: torch.optim.Optimizer, clip: float) -> float:
    """Clips the gradient of each group of parameters; -> the norm of the whole before that."""
    norms = []
    for group in optimizer.param_groups:
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients))
        if math.isfinite(clip):
            nn.utils.clip_grads_with_norm_(group["params"], clip, norms[-1])
    return math.hypot(*(norm.item() for norm in norms))
