"""What a step changes and a checkpoint holds: weights, their average, the optimiser, the scaler, the place."""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ldm.training.plan import Plan

FADED = 1e-32  # of a moment: its square root, too, is far below the 1e-8 that AdamW adds
SETTLE_EVERY = 50  # steps, in which a momentum of that size does not become denormal


class State:
    """An objective on its device with all that training adds to it.

    Parameters that do not learn are neither copied for the average nor saved: whoever builds the objective has them.
    """

    def __init__(self, objective: Any, plan: Plan, device: torch.device):
        self.objective = objective.to(device).to(memory_format=torch.channels_last)
        self.average = averaged(self.objective, copies=plan.ema > 0)
        # fused: one pass over weight, gradient and moments, which must all lie in memory alike (see _moments)
        self.optimizer = torch.optim.AdamW(
            _groups(self.objective), plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.mixed_precision == "fp16")
        self.step = 0
        self.skipped = 0  # steps in a row whose values were not finite
        learnt, slow = _learnt(self.objective), self.average.state_dict(keep_vars=True)
        self._weights = {f"model/{name}": value for name, value in learnt.items()}
        self._weights |= {f"average/{name}": value for name, value in slow.items() if name in learnt}
        self._pairs = [(value, learnt[name]) for name, value in slow.items() if name in learnt]

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * weights, in float32 at least; buffers are copied."""
        for slow, fast in self._pairs if decay else ():  # without memory the average is the weights themselves
            if isinstance(fast, nn.Parameter):
                slow.lerp_(fast.to(slow.dtype), 1 - decay)
            else:
                slow.copy_(fast)

    @torch.no_grad()
    def settle(self) -> None:
        """Momentum that has faded to nothing becomes 0.

        Where a unit no longer fires it halves every seven steps, into the denormal numbers, with which a processor is
        several times slower.
        """
        for slots in self.optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                slots[name].masked_fill_(slots[name].abs() < FADED, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, itself and not a copy."""
        slots = self.optimizer.state_dict()["state"]
        moments = {f"optimizer/{i}/{key}": value for i, own in slots.items() for key, value in own.items()}
        return {name: value.detach() for name, value in (self._weights | moments).items()}

    def facts(self) -> dict[str, Any]:
        """What is no tensor, for JSON."""
        return {"step": self.step, "skipped": self.skipped, "scaler": self.scaler.state_dict()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Takes over what `tensors` and `facts` gave; ValueError where they are another model's."""
        for name, own in self._weights.items():
            if name not in tensors or tensors[name].shape != own.shape:
                raise ValueError(f"it holds no {name} of shape {tuple(own.shape)}")
            own.copy_(tensors[name])
        try:
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": self._moments(tensors)})
            self.scaler.load_state_dict(facts["scaler"])
            self.step, self.skipped = facts["step"], facts["skipped"]
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"its optimiser or scaler: {' '.join(str(error).split())}") from None

    def _moments(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, i, slot = name.split("/")
                like = parameters[int(i)]  # a moment lies in memory as its parameter does, or steps are slow
                value = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
                moments.setdefault(int(i), {})[slot] = value
        return moments


def averaged(objective: nn.Module, copies: bool = True) -> Any:
    """A copy for the average, in float32 at least: of the objective or, if it has the attribute `averaged`, of the
    sub-modules that it names there. Parameters that do not learn are shared; without `copies` every tensor is."""
    names = getattr(objective, "averaged", None)
    source = objective if names is None else nn.ModuleDict({name: getattr(objective, name) for name in names})
    tensors = objective.parameters() if copies else chain(objective.parameters(), objective.buffers())
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors if not (copies and tensor.requires_grad)}
    average = copy.deepcopy(source, shared).eval()
    for parameter in average.parameters() if copies else ():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    return average.requires_grad_(False) if copies else average


def _learnt(objective: nn.Module) -> dict[str, Tensor]:
    """Parameters that learn, and buffers."""
    tensors = objective.state_dict(keep_vars=True).items()
    return {name: value for name, value in tensors if value.requires_grad or not isinstance(value, nn.Parameter)}


def _groups(objective: Any) -> list[dict[str, Any]]:
    groups = objective.groups() if hasattr(objective, "groups") else [{"params": objective.parameters()}]
    return [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
