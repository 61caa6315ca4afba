"""A training's state on disk: tensors in one safetensors file, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn
from torch.optim import Optimizer

from ldm.files import replacing


def save(path: Path, step: int, settings: dict[str, Any], parts: dict[str, nn.Module | Optimizer]) -> None:
    """Writes every part's tensors, the step and the settings; a kill at any moment leaves the old file whole."""
    tensors = {f"{name}/{key}": value.contiguous() for name, part in parts.items() for key, value in _tensors(part)}
    with replacing(path) as file:
        file.write(serialised(tensors, metadata={"step": str(step), "settings": json.dumps(settings)}))


def load(path: Path, settings: dict[str, Any], parts: dict[str, nn.Module | Optimizer]) -> int:
    """Reads the state back into `parts`; returns the step. Other settings than the file's are refused, by name."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            if "settings" not in metadata:
                raise SafetensorError("it holds no settings")
    except SafetensorError as error:
        raise ValueError(f"{path} is no training checkpoint: {error}") from None
    _refuse_changes(path, json.loads(metadata["settings"]), json.loads(json.dumps(settings)))
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        _restore(part, own)
    return int(metadata["step"])


def _refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    changed = [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in sorted(old | new) if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(
            f"{path} was made with other settings: {', '.join(changed)}; take another folder to start anew"
        )


def _tensors(part: nn.Module | Optimizer) -> list[tuple[str, Tensor]]:
    if isinstance(part, nn.Module):
        return list(part.state_dict().items())
    state = part.state_dict()["state"]
    return [(f"{i}/{key}", torch.as_tensor(value)) for i, slots in state.items() for key, value in slots.items()]


def _restore(part: nn.Module | Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
        return
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, slot = key.split("/")
        state.setdefault(int(i), {})[slot] = value
    part.load_state_dict({**part.state_dict(), "state": state})
