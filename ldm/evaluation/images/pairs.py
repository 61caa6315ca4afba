"""Drawn and true pictures that belong together, and what is judged of each pair."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from ldm.data.folders import Folder
from ldm.data.items import Record
from ldm.evaluation.images.networks import AbsentError
from ldm.images import to_pixels

Pair = tuple[str, Record, Record]  # the drawn picture's name, that picture and the true one


@dataclass
class Judged:
    """Values of pairs by the drawn pictures' names, and why others have none."""

    values: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def paired(drawn: Folder, true: Folder) -> list[Pair]:
    """Pictures of one path within their folders, whatever their suffixes. AbsentError for none, and for a path twice.

    So a/cat.png pairs with a/cat.jpg, and not with b/cat.png.
    """
    known = []
    for source in (drawn, true):
        named = {os.path.splitext(name_of(record, source))[0]: record for record in source.records}
        if len(named) < len(source):
            raise AbsentError(
                f"{source.path} has {len(source)} pictures with {len(named)} names; expected no name twice"
            )
        known.append(named)
    pairs = [(name_of(record, drawn), record, known[1][name]) for name, record in known[0].items() if name in known[1]]
    if not pairs:
        raise AbsentError("no drawn picture has the name of a true one")
    return pairs


def judged(pairs: Iterable[Pair], judge: Callable[[Tensor, Tensor], float]) -> Judged:
    """A judge of two x (1,3,H,W) on pairs; those of two sizes, or too small, are left out. AbsentError if all."""
    found = Judged()
    for name, one, other in pairs:
        try:
            found.values[name] = judge(*_pixels(one, other))
        except AbsentError as error:
            found.left_out[name] = str(error)
    if not found.values:
        raise AbsentError(next(iter(found.left_out.values())))
    return found


def name_of(record: Record, source: Folder) -> str:
    """A picture's path within its folder."""
    return os.path.relpath(record.name, source.path)


def _pixels(drawn: Record, true: Record) -> tuple[Tensor, Tensor]:
    """A pair -> two x (1,3,H,W)."""
    one, other = to_pixels(drawn.picture), to_pixels(true.picture)
    if one.shape != other.shape:
        sizes = [f"{x.shape[-1]}x{x.shape[-2]}" for x in (one, other)]
        raise AbsentError(f"{drawn.name} is {sizes[0]}, {true.name} {sizes[1]}; expected pairs of one size")
    return one, other
