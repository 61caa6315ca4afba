"""Many cases, one after the other, in a process of its own: where one hangs or dies, the next begins anew."""

import multiprocessing
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from fuzzing.cases import Case
from fuzzing.limits import SECONDS, resident_mib
from fuzzing.loaders import folder_of
from fuzzing.trying import Outcome, tried

PATIENCE = 6 * SECONDS  # seconds by the clock, for what waits and for what no signal interrupts


class Result(NamedTuple):
    """A case, its outcome, and the memory of the process after it."""

    case: Case
    outcome: Outcome
    resident_mib: float


def results(cases: Iterable[Case]) -> Iterator[Result]:
    """Cases -> what came of each, in their order."""
    worker, connection = _started()
    for case in cases:
        try:
            connection.send((case, folder_of(case.loader)))
            if not any(connection.poll(1) for _ in range(PATIENCE)):  # one after the other: it may be stopped meanwhile
                raise TimeoutError("no answer")
            yield connection.recv()
        except (EOFError, OSError) as error:
            worker.kill()
            worker.join()
            kind = "hang" if isinstance(error, TimeoutError) else "died"
            yield Result(case, Outcome(kind, f"exit code {worker.exitcode}"), 0.0)
            worker, connection = _started()
    connection.send(None)
    worker.join()


def _started() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(theirs,), daemon=True)
    worker.start()
    theirs.close()
    return worker, ours


def _work(connection: Connection) -> None:
    while (told := connection.recv()) is not None:
        connection.send(Result(told[0], tried(*told), resident_mib()))
