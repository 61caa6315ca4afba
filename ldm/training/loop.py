"""The loop: an objective is a module whose forward is its loss.

    parts = objective(batch, generators)      {"loss": (), ...}, means over the batch; a generator for each sample

Every parameter that learns has its place in every step's loss, if only times 0: processes wait for each other's.

Every random number is keyed by (seed, epoch, index of the sample), every batch by the step: neither the processes, nor
`accumulation`, nor a restart matter. A run that was killed goes on exactly where its last checkpoint stands: to resume,
run the same command again.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from ldm.training import checkpoint, processes
from ldm.training.order import Place, batches, shares
from ldm.training.plan import Plan
from ldm.training.randomness import keyed
from ldm.training.records import Preview, Records
from ldm.training.state import State
from ldm.training.step import Share, advance, prepared


def fit(
    objective: nn.Module,
    data: Any,
    plan: Plan,
    folder: Path,
    collate: Callable[[list[Any]], Any] | None = None,
    settings: dict[str, Any] | None = None,
    preview: Preview | None = None,
) -> Any:
    """Trains `objective` on `data`; -> its average (EMA), in every process. Goes on from a checkpoint in `folder`.

    `objective` may have `averaged` (names of the sub-modules whose average is kept and returned), `groups()` (of
    parameters, each with an `lr_scale`) and `step` (which is set). `data[i]` is an item, or `data.draw(i, generator)`
    where items are augmented, or `data.batch(indices)` is a batch; `data.identity()` says what they are; items of
    different `data.sizes` share no batch.
    `settings` are what the run was asked for: a checkpoint of other settings is refused. `preview(average, step)` is
    called with every checkpoint, in the main process; it may return the path of a picture that it drew.

    Raises FloatingPointError after `plan.patience` steps in a row whose loss or gradient is not finite, ValueError for
    settings that changed and for a disk that is full, FileNotFoundError for a run without a checkpoint that loads.
    """
    where = processes.here()
    asked = plan.decisive() | ({"data": data.identity()} if hasattr(data, "identity") else {}) | (settings or {})
    state = State(objective, plan, where.device)
    _resume(state, folder, asked)
    model = prepared(state, plan)
    records = Records(folder, plan, state, asked, preview) if where.is_main_process else None
    for parts in _loaded(data, plan, state.step, collate or default_collate):
        outcome = advance(state, model, parts, plan)
        samples = [] if outcome.finite else sorted(index for _, index in next(_order(data, plan, state.step - 1)))
        if records:
            records.note(outcome, samples)
        if state.skipped >= min(plan.patience, plan.steps):
            raise FloatingPointError(
                f"step {state.step}: the loss or its gradient was not finite {state.skipped} times in a row, last for "
                f"the samples {samples}; look at them, lower the learning rate, or raise the precision"
            )
    if records:
        records.close()
    return state.average.requires_grad_(False)


def _resume(state: State, folder: Path, asked: dict[str, Any]) -> None:
    """Takes over the newest checkpoint, if there is one; every process that which the main process found."""
    path = processes.told_by_main(lambda: checkpoint.resumable(folder, asked))
    if path is None:
        return
    found = checkpoint.read(path)
    try:
        state.restore(found.tensors, found.facts)
    except ValueError as error:
        raise ValueError(f"{path} is of another model: {error}") from None


class _Samples(Dataset):
    """Places -> what they are and the items there, each augmented by its own generator."""

    def __init__(self, data: Any, seed: int):
        self.data, self.seed = data, seed

    def __getitem__(self, place: Place) -> tuple[Place, Any]:
        epoch, index = place
        if hasattr(self.data, "draw"):
            return place, self.data.draw(index, keyed(self.seed, epoch, index, "data"))
        return place, self.data[index]

    def __getitems__(self, places: list[Place]) -> "list[tuple[Place, Any]] | Share":
        if hasattr(self.data, "batch"):
            return places, self.data.batch([index for _, index in places])
        return [self[place] for place in places]


def _order(data: Any, plan: Plan, start: int) -> Iterator[list[Place]]:
    """The batches of every step from `start` on."""
    return batches(len(data), plan.batch_size, plan.seed, start, getattr(data, "sizes", None))


def _loaded(data: Any, plan: Plan, start: int, collate: Callable[[list[Any]], Any]) -> Iterator[tuple[Share, ...]]:
    """For each step from `start` to the last, the parts of its batch that this process computes."""
    where = processes.here()
    steps = islice(_order(data, plan, start), plan.steps - start)
    loader = DataLoader(
        _Samples(data, plan.seed),
        batch_sampler=(
            part
            for batch in steps
            for part in shares(batch, where.process_index, where.num_processes, plan.accumulation)
        ),
        collate_fn=partial(_collated, collate),
        num_workers=plan.workers,
        pin_memory=where.device.type == "cuda",
        generator=torch.Generator(),
    )
    return zip(*[iter(loader)] * plan.accumulation, strict=True)  # one iterator, taken from by turns


def _collated(collate: Callable[[list[Any]], Any], pairs: "list[tuple[Place, Any]] | Share") -> Share:
    if isinstance(pairs, tuple):
        return pairs
    places, items = zip(*pairs, strict=True)
    return list(places), collate(list(items))
