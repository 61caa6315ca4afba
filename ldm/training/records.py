"""What the main process writes while a run goes on: progress, log.jsonl, checkpoints, samples, curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ldm.files import write_json
from ldm.training import checkpoint, curves, processes
from ldm.training.checkpoint import Checkpoint
from ldm.training.log import Log
from ldm.training.plan import Plan
from ldm.training.state import State
from ldm.training.step import Outcome

Preview = Callable[[Any, int], "Path | None"]  # (average, step) -> the picture that it drew, if any


class Records:
    """The books of a run in its folder. A new one has a checkpoint before anything else: where there is a log, there
    is something to go on from, and a disk that is too small is met at once."""

    def __init__(self, folder: Path, plan: Plan, state: State, asked: dict[str, Any], preview: Preview | None):
        self.folder, self.plan, self.state, self.asked, self.preview = folder, plan, state, asked, preview
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.sweep(folder)
        if not checkpoint.paths(folder):
            self._checkpoint()
        write_json(folder / "settings.json", asked)
        self.log = Log(folder, plan, state.step, processes.here().num_processes)
        self.bar = tqdm(initial=state.step, total=plan.steps, disable=None, unit="step")

    def note(self, outcome: Outcome, samples: list[int]) -> None:
        """Takes note of the step that has just been done, and saves where it is due."""
        step = self.state.step
        self.log.add(step, outcome, samples)
        self.bar.set_postfix(loss=f"{outcome.losses['loss']:.4g}", refresh=False)
        self.bar.update()
        if step % self.plan.save_every == 0 or step == self.plan.steps:
            with self.log.resting():
                self._save(step)

    def close(self) -> None:
        self.bar.close()
        self.log.close()

    def _save(self, step: int) -> None:
        self._checkpoint()
        drawn = self.preview(self.state.average, step) if self.preview else None
        if drawn:
            self.log.picture(step, drawn)
        curves.draw(self.folder)

    def _checkpoint(self) -> None:
        state = self.state
        checkpoint.save(self.folder, Checkpoint(state.tensors(), state.facts(), self.asked), self.plan.keep)
