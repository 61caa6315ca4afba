"""The loop: an objective is a module whose forward is its loss.

    parts = objective(batch, generator)      {"loss": (), ...}, every random number from `generator`

Batches and random numbers are pure functions of (seed, step), so that a run that was killed goes on exactly where its
last checkpoint stands: run the same command again.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from ldm.training import checkpoint


@dataclass(frozen=True)
class Plan:
    """How long and how fast. One step is one optimiser step on `batch_size` samples."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100  # steps of linear rise; a cosine to 0 follows
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the averaged weights, once warmed up
    seed: int = 0
    mixed_precision: str = "no"  # or bf16
    workers: int = 0  # processes that prepare batches
    log_every: int = 50  # steps
    save_every: int = 500  # steps

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine that reaches 0 after the last step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def decisive(self) -> dict[str, Any]:
        """What the weights depend on; the rest may change when a run goes on."""
        return {k: v for k, v in asdict(self).items() if k not in ("workers", "log_every", "save_every")}

    def ema_at(self, step: int) -> float:
        """Decay after `step`: short memory first, so that the start is forgotten."""
        return min(self.ema, (1 + step) / (10 + step))


class Order(Sampler[list[int]]):
    """Batches of sample indices from step `start` to the end; epoch e is a permutation that (seed, e) decides."""

    def __init__(self, samples: int, plan: Plan, start: int):
        self.samples, self.plan, self.start = samples, plan, start

    def __len__(self) -> int:
        return self.plan.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.plan.steps):
            places = range(step * self.plan.batch_size, (step + 1) * self.plan.batch_size)
            batch = []
            for place in places:
                if place // self.samples != epoch:
                    epoch = place // self.samples
                    order = torch.randperm(self.samples, generator=keyed_generator(self.plan.seed, epoch))
                batch.append(int(order[place % self.samples]))
            yield batch


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU generator whose state depends on the integers of `key` alone."""
    mixed = 0
    for part in key:
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, in float32; buffers are copied."""
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast.to(slow.dtype), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


def fit(
    objective: nn.Module,
    data: Any,
    plan: Plan,
    folder: Path,
    collate: Callable[[list[Any]], Any] | None = None,
    settings: dict[str, Any] | None = None,
    preview: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Trains `objective` on `data`; returns its averaged copy (EMA). Goes on from a checkpoint in `folder`, if any.

    `settings` are what the run was asked for: a checkpoint of other settings is refused. `preview(average, step)` is
    called with every checkpoint, to draw samples. Raises FloatingPointError where the loss is not finite.
    """
    if plan.mixed_precision not in ("no", "bf16"):
        raise ValueError(f"mixed_precision {plan.mixed_precision!r}: expected no or bf16")
    folder.mkdir(parents=True, exist_ok=True)
    AcceleratorState._reset_state()  # it outlives a run, and would hold the next one to this one's precision
    accelerator = Accelerator(mixed_precision=plan.mixed_precision, cpu=not torch.cuda.is_available())
    objective = objective.to(accelerator.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(objective).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in objective.parameters() if p.requires_grad], plan.learning_rate, weight_decay=plan.weight_decay
    )
    parts: dict[str, Any] = {"model": objective, "average": average, "optimizer": optimizer}
    path, asked = folder / "checkpoint.safetensors", {**plan.decisive(), **(settings or {})}
    start = checkpoint.load(path, asked, parts) if path.exists() else 0
    loader = DataLoader(
        data,
        batch_sampler=Order(len(data), plan, start),
        collate_fn=collate,
        num_workers=plan.workers,
    )
    log = Log(folder / "log.jsonl", start)
    model = accelerator.prepare(objective)
    for step, batch in enumerate(tqdm(loader, initial=start, total=plan.steps, disable=None, unit="step"), start):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(step)
        losses, norm = _update(accelerator, model, optimizer, batch, keyed_generator(plan.seed, -1, step), plan.clip)
        update_ema(average, objective, plan.ema_at(step))
        if (step + 1) % plan.log_every == 0:
            log.write(step + 1, plan, losses, norm)
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            checkpoint.save(path, step + 1, asked, parts)
            if preview:
                preview(average, step + 1)
    return average


def _update(accelerator, model, optimizer, batch, generator, clip: float) -> tuple[dict[str, Tensor], Tensor]:
    with accelerator.autocast():
        losses = model(send_to_device(batch, accelerator.device), generator)
    if not torch.isfinite(losses["loss"]):
        raise FloatingPointError(f"the loss is {losses['loss'].item()}; lower the learning rate or the precision's")
    accelerator.backward(losses["loss"])
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in losses.items()}, norm


class Log:
    """One JSON line every `log_every` steps: loss parts, learning rate, gradient norm, images per second."""

    def __init__(self, path: Path, start: int):
        self.path, self.then, self.step = path, time.perf_counter(), start
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [row for row in rows if row.endswith("}\n") and json.loads(row)["step"] <= start]
        path.write_text("".join(kept), encoding="utf-8")  # what a killed run wrote after its last checkpoint goes

    def write(self, step: int, plan: Plan, losses: dict[str, Tensor], norm: Tensor) -> None:
        now = time.perf_counter()
        row = {"step": step, **{name: round(float(value), 6) for name, value in losses.items()}}
        row |= {"learning_rate": plan.learning_rate_at(step - 1), "gradient_norm": round(float(norm), 4)}
        row |= {"images_per_second": round((step - self.step) * plan.batch_size / (now - self.then), 2)}
        self.then, self.step = now, step
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
