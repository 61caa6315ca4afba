"""Tensors by key in safetensors files of one folder, each file written whole or not at all.

    add(key, {"mean": ..., "logvar": ...}) --enough--> KIND-<hash of the keys>.safetensors --[key]--> the tensors

A file is named after its keys, so that processes that write different keys never write the same file.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ldm.checkpoints import named
from ldm.files import write_tensors

ENTRIES = 512  # of one file
SECONDS = 120  # after which a file is written with what there is


class Shards:
    """key -> named tensors. Files are mapped into memory, and read where a key is asked for.

    CheckpointError that names a damaged file.
    """

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        self.places: dict[str, Path] = {}
        self.waiting: dict[str, dict[str, Tensor]] = {}
        self._began = time.monotonic()
        self._open: dict[Path, Any] = {}
        self._names: dict[str, list[str]] = defaultdict(list)
        for path in sorted(folder.glob(f"{kind}-*.safetensors")):
            for key, _, name in (entry.partition("/") for entry in self._file(path).keys()):
                if self.places.setdefault(key, path) == path:
                    self._names[key].append(name)

    def __contains__(self, key: str) -> bool:
        return key in self.places or key in self.waiting

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        path = self.places[key]
        with named(path):
            return {name: self._file(path).get_tensor(f"{key}/{name}") for name in self._names[key]}

    def add(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keeps tensors, and writes a file where enough of them wait, or have waited for long."""
        self.waiting[key] = tensors
        if len(self.waiting) >= ENTRIES or time.monotonic() - self._began > SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what waits."""
        if self.waiting:
            keys = sorted(self.waiting)
            path = self.folder / f"{self.kind}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}.safetensors"
            entries = {f"{key}/{name}": value for key in keys for name, value in self.waiting[key].items()}
            write_tensors(path, entries)
            self.places |= dict.fromkeys(keys, path)
            self._names |= {key: list(self.waiting[key]) for key in keys}
            self.waiting = {}
        self._began = time.monotonic()

    def sweep(self, wanted: Collection[str]) -> None:
        """Removes the files that hold nothing of what is wanted, and what a kill left half written."""
        used = {self.places[key] for key in wanted}
        left = {*self.folder.glob(f"{self.kind}-*.safetensors"), *self.folder.glob(".*.tmp")}
        for path in left - used:
            self._open.pop(path, None)
            path.unlink(missing_ok=True)
        self.places = {key: path for key, path in self.places.items() if path in used}

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            with named(path):
                self._open[path] = safe_open(path, "pt")
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a worker maps the files itself
