"""What a loader is, the list of them, and what they share.

Files are as small as they can be and still be of their kind, so that damage hits what is looked at.
"""

import atexit
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Loader:
    """`write` puts whole files into a folder; `read` is given that folder, and which of its files is damaged.

    `share` is how many cases it has beside the others; `stays` are files that are not damaged, `kept` what reading
    may leave in its folder.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path, Path], Any]
    share: int = 1
    stays: str = r"(?!)"
    kept: str = r"(?!)"

    def beside(self, name: str) -> bool:
        return re.search(self.stays, name) is not None

    def keeps(self, name: str) -> bool:
        return re.search(self.kept, name) is not None


LOADERS: dict[str, Loader] = {}


def loader(read: Callable[[Path, Path], Any], write: Callable[[Path], Any], **told: Any) -> None:
    """Adds one, by the name of what reads."""
    name = read.__name__.replace("_", " ")
    LOADERS[name] = Loader(name, write, read, **told)


@cache
def folder_of(name: str) -> Path:
    """The folder of a loader's whole files, made once."""
    folder = home() / name.replace(" ", "-")
    folder.mkdir()
    LOADERS[name].write(folder)
    return folder


@cache
def home() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def command(*words: object) -> None:
    """`ldm ...`, in this process; ValueError with its line where it refuses. Any other end than 0 and 2 is a fault."""
    from ldm.cli import main

    argv, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["ldm", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        if end.code == 2:
            raise ValueError(err.getvalue().removesuffix("\n")) from None
        assert not end.code, f"exit status {end.code}"
    finally:
        sys.argv = argv


def noise(*size: int, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype)


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(20, 24, 3, seed=seed))
