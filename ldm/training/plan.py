"""The plan of a training: how long, how fast, in what precision; rates and decays as pure functions of the step."""

import math
from dataclasses import asdict, dataclass
from typing import Any

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("cosine", "constant")
FREE = {  # what the weights do not depend on, or by rounding alone: may change when a run goes on
    "accumulation", "gradient_checkpointing", "compile", "patience", "workers", "log_every", "save_every", "keep",
    "tensorboard",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One step is one optimiser step on `batch_size` samples, however processes and `accumulation` split them.

    Raises ValueError for a value out of its range.
    """

    steps: int
    batch_size: int = 64  # over all processes
    learning_rate: float = 1e-3
    warmup: int = 100  # steps of linear rise
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm of each group of parameters; inf is none
    ema: float = 0.999  # decay of the averaged weights, once warmed up
    seed: int = 0
    mixed_precision: str = "no"  # bf16, or fp16 with a loss scaler
    schedule: str = "cosine"  # to 0 after the last step; or constant
    accumulation: int = 1  # parts that a process computes one after the other, for memory
    gradient_checkpointing: bool = False  # activations are computed twice, for memory
    compile: bool = False  # torch.compile
    patience: int = 10  # steps in a row that may be skipped because a value is not finite
    workers: int = 0  # processes that prepare batches
    log_every: int = 50  # steps
    save_every: int = 500  # steps
    keep: int = 3  # checkpoints
    tensorboard: bool | None = None  # None: if it is installed

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "patience", "log_every", "save_every", "keep"):
            _refuse(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("learning_rate", "warmup", "weight_decay", "workers"):
            _refuse(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _refuse("clip", self.clip, self.clip > 0, "more than 0")
        _refuse("ema", self.ema, 0 <= self.ema < 1, "0 <= ema < 1")
        _refuse("mixed_precision", self.mixed_precision, self.mixed_precision in PRECISIONS, ", ".join(PRECISIONS))
        _refuse("schedule", self.schedule, self.schedule in SCHEDULES, " or ".join(SCHEDULES))

    def learning_rate_at(self, step: int) -> float:
        """The rate of optimiser step 0, 1, ...: a linear rise, then a cosine that reaches 0 after the last step.

        >>> plan = Plan(steps=6, warmup=2, learning_rate=1.0)
        >>> [round(plan.learning_rate_at(step), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def ema_at(self, step: int) -> float:
        """The decay after `step`: short memory first, so that the start is forgotten."""
        return min(self.ema, (1 + step) / (10 + step))

    def decisive(self) -> dict[str, Any]:
        """What the weights depend on."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}


def _refuse(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"{name} {value!r}: expected {expected}")
