"""A training's state on disk: checkpoint-00000400.safetensors, tensors with JSON beside them in one file.

A file appears whole or not at all, and carries a check sum: of the newest few, the newest that loads is gone on from.
"""

import json
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from ldm.files import replacing

log = logging.getLogger("ldm")
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors, `facts` (the step among them), and the settings that it was made with."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    settings: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Writes checkpoint-STEP.safetensors, then removes all but the last `keep`.

    A kill at any moment, or a full disk (ValueError), leaves the older ones whole.
    """
    step = checkpoint.facts["step"]
    with replacing(folder / f"checkpoint-{step:08d}.safetensors") as file:
        _write(file, checkpoint)
    for old in [path for path in paths(folder) if _step(path) <= step][:-keep]:
        old.unlink(missing_ok=True)


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("checkpoint-*.safetensors") if re.fullmatch(r"checkpoint-\d+", path.stem)]
    return sorted(found, key=_step)


def resumable(folder: Path, settings: dict[str, Any]) -> Path | None:
    """The newest checkpoint that loads; None for a new run. Damaged ones are named and passed over.

    Raises ValueError that names every field of `settings` that differs from the checkpoint's, FileNotFoundError where
    there was a run already but none of its checkpoints loads.
    """
    for path in reversed(paths(folder)):
        try:
            found = read(path)
        except ValueError as error:
            log.warning("%s; the one before it is looked for", error)
            continue
        _refuse_changes(path, found.settings, settings)
        return path
    traces = [path.name for path in (folder / "log.jsonl", folder / "settings.json", *paths(folder)) if path.exists()]
    if traces:
        raise FileNotFoundError(
            f"{folder} has {', '.join(traces)} of an earlier run, but no checkpoint that loads: "
            "put one back, or take another folder to start anew"
        )
    return None


def read(path: Path) -> Checkpoint:
    """A file -> what `save` was given; ValueError, in one line, for one that is damaged or no training checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        facts, settings, expected = (json.loads(metadata[key]) for key in ("facts", "settings", "crc32"))
        if not (isinstance(facts, dict) and isinstance(settings, dict) and isinstance(facts.get("step"), int)):
            raise ValueError("its facts and settings are no JSON objects, or name no step")
        found = _crc32(tensors)
    except Exception as error:  # nearly every kind, of whatever stands in the place of JSON
        raise ValueError(f"{path} is damaged or no training checkpoint: {' '.join(str(error).split())}") from None
    if found != expected:
        raise ValueError(f"{path} is damaged: its tensors do not have the check sum that was written with them")
    return Checkpoint(tensors, facts, settings)


def sweep(folder: Path) -> None:
    """Removes what killed writers left half-written."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\.[0-9a-f]{32}", path.stem):
            path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def _refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    was, wanted = dict(_fields(old)), dict(_fields(json.loads(json.dumps(new))))
    changed = [f"{k} {was.get(k)!r} -> {wanted.get(k)!r}" for k in sorted(was | wanted) if was.get(k) != wanted.get(k)]
    if changed:
        raise ValueError(
            f"{path} was made with other settings: {', '.join(changed)}; take another folder to start anew"
        )


def _fields(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _write(file: BinaryIO, checkpoint: Checkpoint) -> None:
    """The safetensors format, tensor by tensor: a large model's state is not copied in memory as a whole."""
    tensors = {name: value.cpu() for name, value in sorted(checkpoint.tensors.items())}
    metadata = {"facts": checkpoint.facts, "settings": checkpoint.settings, "crc32": _crc32(tensors)}
    header: dict[str, Any] = {"__metadata__": {key: json.dumps(value) for key, value in metadata.items()}}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.nbytes
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for value in tensors.values():
        file.write(_bytes(value))


def _bytes(value: Tensor) -> memoryview:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _crc32(tensors: dict[str, Tensor]) -> int:
    total = 0
    for _, value in sorted(tensors.items()):
        total = zlib.crc32(_bytes(value), total)
    return total
