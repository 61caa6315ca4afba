"""What a run reports: a row of log.jsonl every few steps, the same to TensorBoard, pictures beside them."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ldm.files import replacing
from ldm.training.plan import Plan
from ldm.training.step import Outcome

log = logging.getLogger("ldm")


class Log:
    """log.jsonl: means over the steps since the row before, learning rate, gradient norm, images per second, memory.

    The last step always has a row, however few the steps were, and a skipped one a row of its own. What a killed run
    wrote after its last checkpoint, at step `start`, is removed.
    """

    def __init__(self, folder: Path, plan: Plan, start: int, processes: int):
        self.path, self.plan, self.processes = folder / "log.jsonl", plan, processes
        _cut(self.path, start)
        self.board = _tensorboard(folder / "tensorboard", plan.tensorboard, start)
        self._begin(start)

    def _begin(self, step: int) -> None:
        self.since, self.then, self.outcomes = step, time.perf_counter(), list[Outcome]()

    def add(self, step: int, outcome: Outcome, samples: list[int]) -> None:
        """Takes note of step number `step`, counted from 1, and of the samples of one that was skipped."""
        if outcome.finite:
            self.outcomes.append(outcome)
        else:
            values = {"gradient_norm": str(outcome.norm)} | {name: str(value) for name, value in outcome.losses.items()}
            self._write({"step": step, "skipped": values, "samples": samples})
        if step % self.plan.log_every == 0 or step == self.plan.steps:
            self._write(self._row(step))
            self._begin(step)

    def picture(self, step: int, path: Path) -> None:
        """Takes note of the samples that were drawn into a picture."""
        self._write({"step": step, "picture": path.name})
        if self.board:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self.board.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Ends TensorBoard's files."""
        if self.board:
            self.board.close()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """What is done meanwhile does not count as time of training."""
        began = time.perf_counter()
        yield
        self.then += time.perf_counter() - began

    def _row(self, step: int) -> dict[str, Any]:
        row: dict[str, Any] = {"step": step}
        for name in dict.fromkeys(name for outcome in self.outcomes for name in outcome.losses):
            row[name] = _mean([outcome.losses[name] for outcome in self.outcomes if name in outcome.losses])
        row["learning_rate"] = self.plan.learning_rate_at(step - 1)
        if self.outcomes:
            row["gradient_norm"] = _mean([outcome.norm for outcome in self.outcomes])
        images = (step - self.since) * self.plan.batch_size
        row["images_per_second"] = round(images / (time.perf_counter() - self.then), 2)
        return row | {"peak_memory_mib": peak_memory_mib(), "processes": self.processes}

    def _write(self, row: dict[str, Any]) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be written: {error.strerror}") from error
        if self.board:
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "step":
                    self.board.add_scalar(name, value, row["step"])


def rows(path: Path) -> list[dict[str, Any]]:
    """log.jsonl -> its rows, each with a step; one that a kill or a power cut damaged is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [row for row in map(_parsed, lines) if isinstance(row, dict) and isinstance(row.get("step"), int)]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def peak_memory_mib() -> int:
    """The most memory that this process has held, on its GPU or, without one, at all; 0 where nothing tells."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    if find_spec("resource") is None:  # Windows
        return 0
    import resource
    import sys

    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept >> (20 if sys.platform == "darwin" else 10)  # bytes there, KiB elsewhere


def _mean(values: list[float]) -> float:
    return float(f"{sum(values) / len(values):.10g}")


def _cut(path: Path, start: int) -> None:
    kept = [row for row in rows(path) if row["step"] <= start]
    with replacing(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in kept).encode())


def _tensorboard(folder: Path, wanted: bool | None, start: int) -> Any:
    if wanted is False or (wanted is None and find_spec("tensorboard") is None):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("TensorBoard is asked for but not installed: pip install tensorboard; log.jsonl has the same rows")
        return None
    return SummaryWriter(folder, purge_step=start + 1)
