"""A case -> what its loader made of it, and what it left behind."""

import logging
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fuzzing.cases import Case
from fuzzing.limits import Hang, limited
from fuzzing.loaders import LOADERS, Loader

READ, REFUSED = "read", "refused"  # what is right
LINE = 2000  # characters of a line that is still one to read


class Outcome(NamedTuple):
    """`read`, `refused`, or what is wrong: traceback, hang, unnamed, lines, left. `said` is why; how long it took."""

    kind: str
    said: str = ""
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        return self.kind in (READ, REFUSED)


def tried(case: Case, whole: Path) -> Outcome:
    """A case, and the folder of its loader's whole files, of which it is given a copy -> its outcome."""
    loader = LOADERS[case.loader]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "files"
        _linked(whole, root)
        damaged = root / case.file
        content = case.content(damaged.read_bytes())
        damaged.unlink()  # a link to the whole one
        damaged.write_bytes(content)
        began = time.perf_counter()
        with _apart(Path(place)):
            before = _listed(place)
            outcome = _made_of(loader, root, damaged)
            new = [path for path in _listed(place) - before if not loader.keeps(path)]
        if new and outcome.right:
            outcome = Outcome("left", ", ".join(sorted(new)))
        return outcome._replace(seconds=round(time.perf_counter() - began, 3))


def _made_of(loader: Loader, root: Path, damaged: Path) -> Outcome:
    try:
        with warnings.catch_warnings(action="ignore"), limited():
            loader.read(root, damaged)
    except (ValueError, FileNotFoundError) as error:
        return _refused(error, root)
    except Hang as error:
        return Outcome("hang", str(error))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome("traceback", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"[:400])
    return Outcome(READ)


def _refused(error: Exception, root: Path) -> Outcome:
    """A refusal is one line that names one of the files, or their folder."""
    said = str(error)
    if len(said.splitlines()) != 1 or len(said) > LINE:
        return Outcome("lines", said[:400])
    named = any(path.name in said for path in [root, *root.rglob("*")])
    return Outcome(REFUSED if named else "unnamed", f"{type(error).__name__}: {said}"[:400])


def _linked(whole: Path, root: Path) -> None:
    for path in [whole, *sorted(whole.rglob("*"))]:
        copy = root / path.relative_to(whole)
        if path.is_dir():
            copy.mkdir()
        else:
            os.link(path, copy)


@contextmanager
def _apart(place: Path) -> Iterator[None]:
    """In a folder of its own, where what is written by mistake is seen; what is logged is not shown."""
    here, temporary, shown = Path.cwd(), tempfile.tempdir, logging.root.manager.disable
    (place / "temporary").mkdir()
    os.chdir(place)
    tempfile.tempdir = str(place / "temporary")
    logging.disable()
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = temporary
        logging.disable(shown)


def _listed(place: str) -> set[str]:
    return {path.relative_to(place).as_posix() for path in Path(place).rglob("*")}
