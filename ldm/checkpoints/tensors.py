"""A file of tensors -> names and tensors. Its first bytes say what it is, whatever its ending claims."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.faults import CheckpointError, named
from ldm.checkpoints.pickles import read_pickle

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class File:
    """What a file of tensors holds: the tensors as they are on disk, and what stands beside them."""

    path: Path
    tensors: "dict[str, Tensor]"
    metadata: dict[str, str] = field(default_factory=dict)  # a safetensors file's own
    global_step: int | None = None  # a Lightning checkpoint's
    skipped: tuple[str, ...] = ()  # foreign objects in a pickle, left out unread


def kind(path: Path) -> str | None:
    """safetensors or pickle, by the first bytes; None for anything else."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return "safetensors"
    return "pickle" if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")) else None


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of tensors, or at least claims to be by its ending."""
    return path.is_file() and (path.suffix.lower() in ENDINGS or kind(path) is not None)


def read_tensors(path: Path) -> File:
    """A safetensors file or a pickle -> its tensors. CheckpointError for what is neither, damaged, or holds none."""
    found = kind(path)
    if found is None:
        with open(path, "rb") as file:
            start = file.read(16)
        raise CheckpointError(f"{path} is neither safetensors nor a pickle of tensors: it begins with {start!r}")
    read = _safetensors(path) if found == "safetensors" else _pickled(path)
    if not read.tensors:
        skipped = f", only {', '.join(read.skipped[:3])}" if read.skipped else ""
        raise CheckpointError(f"{path} holds no tensors{skipped[:300]}")
    return read


def _safetensors(path: Path) -> File:
    from safetensors import safe_open

    with named(path), safe_open(path, "pt") as file:  # the tensors are mapped: what is not looked at is not read
        return File(path, {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})


def _pickled(path: Path) -> File:
    """A state dict, bare or under "state_dict" as Lightning has it."""
    from torch import Tensor

    found, skipped = read_pickle(path)
    outer: Mapping[Any, Any] = found if isinstance(found, Mapping) else {}
    inner = outer.get("state_dict", outer)
    inner = inner if isinstance(inner, Mapping) else {}
    tensors = {str(key): value.detach() for key, value in inner.items() if isinstance(value, Tensor)}
    step = outer.get("global_step")
    return File(path, tensors, {}, step if isinstance(step, int) else None, tuple(skipped))
