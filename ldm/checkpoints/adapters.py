"""LoRA files (Hu et al. 2021), and folders of them that name the model they are for.

    file --read_lora--> {module, as the file names it: Delta} --placed--> {module, as it is named here: deltas}

    W = W_0 + sum of scale * alpha / r * B A        A is `down`, B `up`, r their rank

Three ways of naming are read, with the older spellings of each:

    kohya       lora_unet_down_blocks_0_..._to_q.lora_down.weight, .alpha; lora_te_text_model_encoder_layers_0_...
    diffusers   unet.down_blocks.0. ... .to_q.lora_A.weight, .lora.down.weight, .processor.to_q_lora.down.weight
    PEFT        base_model.model.down_blocks.0. ... .to_q.lora_A.weight, .lora_A.default.weight

A folder whose ldm.json has "model" beside a LoRA is a model: that one with the LoRA in its weights, and with the
folder's own defaults and scheduler.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.contents import Contents, Decision
from ldm.checkpoints.faults import CheckpointError, named, read_json, some
from ldm.checkpoints.folders import embedded, load_defaults, load_scheduler
from ldm.checkpoints.modules import finite
from ldm.checkpoints.tensors import read_tensors
from ldm.files import write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEY = re.compile(
    r"(?P<name>.+?)(?:(?:\.lora(?:_linear_layer)?\.|_lora\.|\.lora_)(?P<part>down|up|mid|A|B)(?:\.\w+)?\.weight|\.alpha)"
)
PARTS = {"A": "down", "B": "up", None: "alpha"}
FILES = [f"{stem}.{end}" for stem in ("pytorch_lora_weights", "adapter_model") for end in ("safetensors", "bin")]


@dataclass(frozen=True)
class Delta:
    """A change of one weight: down (r,in,kh,kw), then mid (r,r,kh,kw) if there is one, then up (out,r,1,1)."""

    down: "Tensor"
    mid: "Tensor | None"
    up: "Tensor"
    alpha: float

    @property
    def shape(self) -> tuple[int, ...]:
        """(out,in,kh,kw) of the weight that it fits; 1 x 1 for a linear layer's."""
        return (len(self.up), self.down.shape[1], *(self.down if self.mid is None else self.mid).shape[2:])

    def change(self, device: "torch.device") -> "Tensor":
        """alpha / r * B A, of `shape`, in float32."""
        import torch

        down, up = (part.to(device, torch.float32).flatten(1) for part in (self.down, self.up))
        if self.mid is None:
            change = (up @ down).reshape(self.shape)
        else:
            change = torch.einsum("op,pqhw,qi->oihw", up, self.mid.to(device, torch.float32), down)
        return change * (self.alpha / len(down))


def read_lora(path: str | Path) -> dict[str, Delta]:
    """A LoRA's file, or the folder that diffusers or PEFT saved it in -> its deltas, by the names of the file.

    Alpha is the file's, else that of diffusers' header or PEFT's adapter_config.json beside it, else the rank.
    CheckpointError for any key that is no part of a LoRA, and for parts without their counterpart.
    """
    path = _file(Path(path))
    file = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {}
    foreign = []
    for key, tensor in file.tensors.items():
        match = KEY.fullmatch(key)
        part = PARTS.get(match["part"], match["part"]) if match else ""
        if match is None or part in parts.setdefault(match["name"], {}):
            foreign.append(key)
        else:
            # a copy, off the disk: the file may change while the LoRA is in use
            parts[match["name"]][part] = finite(tensor, key, str(path)).clone()
    if foreign:
        raise CheckpointError(f"{path}: {len(foreign)} of {len(file.tensors)} keys are not a LoRA's: {some(foreign)}")
    with named(path):
        settings = _settings(path, file.metadata)
        return {name: _delta(name, found, settings) for name, found in parts.items()}


def _file(path: Path) -> Path:
    """The file itself; in a folder, the one that diffusers or PEFT writes."""
    for found in [path / name for name in FILES] if path.is_dir() else [path]:
        if found.is_file():
            return found
    expected = f" in {path}: expected one of {', '.join(FILES)}" if path.is_dir() else f" {path}"
    raise FileNotFoundError(f"no LoRA{expected}")


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """LoraConfig: diffusers has it in the header, keys behind "unet." or "text_encoder.", PEFT beside the file."""
    if "lora_adapter_metadata" in metadata:
        return json.loads(metadata["lora_adapter_metadata"])
    beside = path.with_name("adapter_config.json")
    return read_json(beside) if path.stem == "adapter_model" and beside.exists() else {}


def _delta(name: str, parts: "dict[str, Tensor]", settings: dict[str, Any]) -> Delta:
    """A module's tensors -> its delta; ValueError where one is missing, or they do not fit each other."""
    if missing := {"down", "up"} - parts.keys():
        raise ValueError(f"{name} lacks {' and '.join(sorted(missing))}")
    chain = [parts[part] for part in ("down", "mid", "up") if part in parts]
    square = [part[..., None, None] if part.ndim == 2 else part for part in chain]
    outer = [part for part in square if part is not square[-2]]  # only down, or mid if there is one, has a kernel
    joined = all(part.ndim == 4 for part in square) and all(b.shape[1] == len(a) for a, b in pairwise(square))
    if not joined or any(part.shape[2:] != (1, 1) for part in outer):
        shapes = ", ".join(str(tuple(part.shape)) for part in chain)
        raise ValueError(f"{name} is made of shapes that do not fit each other: {shapes}")
    alpha = parts["alpha"].item() if "alpha" in parts else _alpha(name, len(chain[0]), settings)
    return Delta(square[0], square[1] if "mid" in parts else None, square[-1], alpha)


def _alpha(name: str, rank: int, settings: dict[str, Any]) -> float:
    """LoraConfig's alpha of a module; times sqrt(r) for rank-stabilised LoRA, which divides by sqrt(r) alone."""
    part = next((part for part in ("unet.", "text_encoder.") if name.startswith(part)), "")
    patterns = settings.get(f"{part}alpha_pattern") or {}
    own = [alpha for pattern, alpha in patterns.items() if re.search(rf"(?:^|\.){pattern}$", name)]
    alpha = own[0] if own else settings.get(f"{part}lora_alpha", rank)
    return alpha * math.sqrt(rank) if settings.get(f"{part}use_rslora") else alpha


def site(name: str) -> str:
    """A module as a file names it -> its name here, whichever of the spellings it is and with or without its part."""
    flat = name.removeprefix("base_model.model.").replace(".processor.", ".").replace(".", "_")
    flat, text = re.subn(r"^(?:lora_te_|text_encoder_)?(?:text_model_)?(?=encoder_layers_)", "text_encoder_", flat)
    if text:
        return re.sub(r"_to_(q|k|v|out)$", r"_\1_proj", flat)
    return re.sub(r"_to_out$", "_to_out_0", re.sub(r"^(?:lora_unet_|unet_|)", "unet_", flat))


def site_of(part: str, name: str) -> str:
    """A module of a part, by its own name -> the name that `site` gives it."""
    return f"{part}_{name.removeprefix('text_model.').replace('.', '_')}"


def placed(path: str | Path, places: Mapping[str, Sequence[int]]) -> dict[str, list[Delta]]:
    """A LoRA's deltas by `site`, for weights of the shapes `places`.

    CheckpointError as `read_lora` raises it, and where any has no weight here, or not one of its shape.
    """
    lora = read_lora(path)
    lost = [name for name in lora if site(name) not in places]
    if lost:
        count = f"{len(lost)} of its {len(lora)} modules are not" if len(lost) < len(lora) else "no module of it is"
        raise CheckpointError(f"{path}: {count} in this model: {some(lost)}")
    found: dict[str, list[Delta]] = {}
    for name, delta in lora.items():
        expected = (*places[site(name)], 1, 1)[:4]
        if delta.shape != expected:
            raise CheckpointError(f"{path}: {name} is for a weight of shape {delta.shape}, here it is {expected}")
        found.setdefault(site(name), []).append(delta)
    return found


# ---- a LoRA as a model ----


def base_of(path: Path) -> str | None:
    """The model that a folder's LoRA is for, as its ldm.json names it; None for anything else."""
    if not path.is_dir() or not any((path / name).is_file() for name in FILES):
        return None
    base = load_defaults(path).get("model")
    if base is not None and not isinstance(base, str):
        raise CheckpointError(f"{path / 'ldm.json'}: model {str(base)[:60]}, expected the name or the path of one")
    if base is not None and Path(base).resolve() == path.resolve():
        raise CheckpointError(f"{path / 'ldm.json'} names the folder itself as the model that its LoRA is for")
    return base


def adapted(base: Contents, folder: Path) -> Contents:
    """A model with a folder's LoRA in its weights, which are float32 where it touches them."""
    where = {
        site_of(part, name.removesuffix(".weight")): (part, name)
        for part in ("unet", "text_encoder")
        for name in base.tensors.get(part, {})
        if name.endswith(".weight")
    }
    tensors = {part: dict(own) for part, own in base.tensors.items()}
    for at, deltas in placed(folder, {at: tensors[part][name].shape for at, (part, name) in where.items()}).items():
        part, name = where[at]
        weight = tensors[part][name]
        tensors[part][name] = sum((d.change(weight.device).reshape(weight.shape) for d in deltas), weight.float())
    own = {name: value for name, value in load_defaults(folder).items() if name != "model"}
    configs = base.configs | {"defaults": base.configs.get("defaults", {}) | own}
    if (folder / "scheduler").is_dir():
        configs["scheduler"] = load_scheduler(folder)
    return replace(base, tensors=tensors, configs=configs, decisions=base.decisions | {"LoRA": Decision(str(folder))})


def name_base(folder: Path, base: str, scheduler: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Makes a LoRA's folder a model: writes down what it is for, and how it draws; a path stands there as absolute."""
    base = str(Path(base).resolve()) if Path(base).exists() and base not in embedded() else base
    write_json(folder / "ldm.json", {"model": base, **defaults})
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", dict(scheduler))
