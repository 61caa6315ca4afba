"""Pickled checkpoints (.ckpt, .pt, .bin) -> their tensors, without running what else they ask for.

torch's own reader that allows weights only comes first. It refuses a whole file for one foreign object, and original
Lightning checkpoints carry some (callbacks, options). The second reader here imports nothing on a pickle's behalf: a
name is either one of the few that rebuild a tensor, and then stands for a function of this file, or becomes a
`Foreign`, which swallows whatever is done to it.
"""

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ldm.checkpoints.faults import CheckpointError, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PACKED = 100  # torch packs nothing; who packs tensors gains little
Storage = Callable[[Any], "Tensor"]  # a pickle's persistent id -> the numbers it means, in one row


def read_pickle(path: Path) -> tuple[Any, list[str]]:
    """A pickle -> what it holds, and the names of the foreign objects that were left out of it.

    CheckpointError for a file that neither reader understands.
    """
    import torch

    if _is_bomb(path):
        raise CheckpointError(f"{path} would unpack to more than {PACKED} times its size, which no checkpoint does")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle protocol that it may not know
            # what is not read, such as averaged weights beside the plain ones, stays on disk
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)), []
    except Exception:  # the reason does not matter: the other reader has its own
        pass
    try:
        return _from_zip(path) if zipfile.is_zipfile(path) else _from_legacy(path)
    except Exception as error:  # a damaged pickle raises nearly every kind
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error


def _is_bomb(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist()) > PACKED * path.stat().st_size
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # no archive, or a damaged one: for the readers to tell


class Foreign:
    """Stands for an object that is not to be made; any call, item or state is accepted and forgotten."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Foreign":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Foreign":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """An unpickler whose every name is decided by `_meaning`, and whose storages come from `storage`."""

    def __init__(self, file: Any, storage: Storage, skipped: list[str]):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storage, self.skipped = storage, skipped

    def find_class(self, module: str, name: str) -> Any:
        found = _meaning(module, name)
        if found is Foreign:
            self.skipped.append(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        return self.storage(pid)


def _meaning(module: str, name: str) -> Any:
    """A name in a pickle -> a function of this file, a dtype, or Foreign; nothing is imported for it."""
    rebuild = {"_rebuild_tensor_v2": _tensor, "_rebuild_tensor": _tensor, "_rebuild_parameter": _parameter}
    if module == "torch._utils" and name in rebuild:
        return rebuild[name]
    if (module, name) == ("collections", "OrderedDict"):
        return OrderedDict
    if module == "torch" and name.endswith("Storage"):
        return _dtypes().get(name.removesuffix("Storage"), Foreign)
    return Foreign


def _dtypes() -> "dict[str, torch.dtype]":
    import torch

    return {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Any:
    """A row of numbers seen as a tensor; torch refuses a view that reaches outside of it."""
    return storage.as_strided(size, stride, offset) if hasattr(storage, "as_strided") else Foreign()


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _from_zip(path: Path) -> tuple[Any, list[str]]:
    """torch 1.6 and later: an archive of data.pkl and one file for each storage."""
    import torch

    skipped: list[str] = []
    rows: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        data = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        root = data.removesuffix("data.pkl")

        def storage(pid: Any) -> "Tensor":
            _, dtype, key, _, count = pid[:5]
            if key not in rows:
                # read into memory that may be written to, as every other tensor's may
                content = bytearray(archive.read(f"{root}data/{key}"))
                rows[key] = torch.frombuffer(content, dtype=dtype, count=count) if count else torch.empty(0).to(dtype)
            return rows[key]

        with archive.open(data) as file:
            return _Reader(file, storage, skipped).load(), skipped


def _from_legacy(path: Path) -> tuple[Any, list[str]]:
    """torch before 1.6: a magic number, version, machine, the object and its keys as pickles, then the numbers."""
    import torch

    skipped: list[str] = []
    rows: dict[str, Tensor] = {}

    def storage(pid: Any) -> "Tensor":
        _, dtype, key, _, count = pid[:5]
        return rows.setdefault(key, torch.empty(count, dtype=dtype))

    with open(path, "rb") as file:
        _, _, _, found, keys = (_Reader(file, storage, skipped).load() for _ in range(5))
        for key in keys:
            _fill(rows[key], file)
    return found, skipped


def _fill(row: "Tensor", file: BinaryIO) -> None:
    """Numbers from a file, behind their count, into a row."""
    import torch

    count = int.from_bytes(file.read(8), "little")
    content = bytearray(file.read(count * row.element_size()))
    if count != len(row) or len(content) != count * row.element_size():
        raise ValueError(f"{len(content)} bytes of {len(row)} numbers")
    if count:
        row.copy_(torch.frombuffer(content, dtype=row.dtype))
