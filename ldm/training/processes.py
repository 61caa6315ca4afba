"""This process among those that train together (`torchrun --nproc-per-node N -m ldm train ...`), by accelerate."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, distributed

T = TypeVar("T")


def here() -> PartialState:
    """Which process this is, of how many, on which device: .is_main_process, .main_process_first(), .device ...

    Raises ValueError where several processes were started that do not know of each other.
    """
    # Others wait while the main process encodes a dataset or draws samples: hours are no fault.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=12))
    started = int(os.environ.get("WORLD_SIZE", 1))
    if state.num_processes != started:
        raise ValueError(f"{started} processes were started, but {state.num_processes} trains by itself: use torchrun")
    return state


def leave(status: int) -> NoReturn:
    """Ends this process, and at once where it was joined with others.

    Gloo's threads now and then abort a process that takes itself apart in the usual way, with all its work done.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def summed(values: Tensor) -> Tensor:
    """Values of this process -> their sums over all processes."""
    return reduce(values, "sum")  # type: ignore[return-value]


def told_by_main(find: Callable[[], T]) -> T:
    """What `find` gives in the main process, in every process; its ValueError or OSError is raised in each, too."""
    told: list[T | Exception | None] = [None]
    if here().is_main_process:
        try:
            told = [find()]
        except (ValueError, OSError) as error:
            told = [error]
    answer = broadcast_object_list(told)[0]
    if isinstance(answer, Exception):
        raise answer
    return answer
