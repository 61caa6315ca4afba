"""LoRA files (Hu et al. 2021) -> weights of a U-Net and a CLIP text encoder, and these as they were before.

    file --read--> {module, as the file names it: Delta} --placed--> {module, as it is named here: deltas} --Fused--> W

    W = W_0 + sum of scale * alpha / r * B A        over the loaded LoRAs, in float32; A is `down`, B `up`, r their rank

Three ways of naming are read, with the older spellings of each:

    kohya       lora_unet_down_blocks_0_..._to_q.lora_down.weight, .alpha; lora_te_text_model_encoder_layers_0_...
    diffusers   unet.down_blocks.0. ... .to_q.lora_A.weight, .lora.down.weight, .processor.to_q_lora.down.weight
    PEFT        base_model.model.down_blocks.0. ... .to_q.lora_A.weight, .lora_A.default.weight
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoints.faults import CheckpointError, named, read_json, some
from ldm.checkpoints.tensors import read_tensors

KEY = re.compile(
    r"(?P<name>.+?)(?:(?:\.lora(?:_linear_layer)?\.|_lora\.|\.lora_)(?P<part>down|up|mid|A|B)(?:\.\w+)?\.weight|\.alpha)"
)
PARTS = {"A": "down", "B": "up", None: "alpha"}
FILES = [f"{stem}.{end}" for stem in ("pytorch_lora_weights", "adapter_model") for end in ("safetensors", "bin")]


@dataclass(frozen=True)
class Delta:
    """A change of one weight: down (r,in,kh,kw), then mid (r,r,kh,kw) if there is one, then up (out,r,1,1)."""

    down: Tensor
    mid: Tensor | None
    up: Tensor
    alpha: float

    @property
    def shape(self) -> tuple[int, ...]:
        """(out,in,kh,kw) of the weight that it fits; 1 x 1 for a linear layer's."""
        return (len(self.up), self.down.shape[1], *(self.down if self.mid is None else self.mid).shape[2:])

    def change(self, device: torch.device) -> Tensor:
        """alpha / r * B A, of `shape`, in float32."""
        down, up = (part.to(device, torch.float32).flatten(1) for part in (self.down, self.up))
        if self.mid is None:
            change = (up @ down).reshape(self.shape)
        else:
            change = torch.einsum("op,pqhw,qi->oihw", up, self.mid.to(device, torch.float32), down)
        return change * (self.alpha / len(down))


def read(path: str | Path) -> dict[str, Delta]:
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
            parts[match["name"]][part] = tensor.clone()  # off the disk: the file may change while the LoRA is in use
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


def _delta(name: str, parts: dict[str, Tensor], settings: dict[str, Any]) -> Delta:
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


def sites(unet: nn.Module, text: nn.Module | None = None) -> dict[str, Any]:
    """Linear and convolutional modules by the names that `site` gives: unet_..., text_encoder_encoder_layers_..."""
    parts = {"unet": unet} | ({} if text is None else {"text_encoder": text})
    return {
        f"{part}_{name.removeprefix('text_model.').replace('.', '_')}": module
        for part, model in parts.items()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def site(name: str) -> str:
    """A module as a file names it -> its name here, whichever of the spellings it is and with or without its part."""
    flat = name.removeprefix("base_model.model.").replace(".processor.", ".").replace(".", "_")
    flat, text = re.subn(r"^(?:lora_te_|text_encoder_)?(?:text_model_)?(?=encoder_layers_)", "text_encoder_", flat)
    if text:
        return re.sub(r"_to_(q|k|v|out)$", r"_\1_proj", flat)
    return re.sub(r"_to_out$", "_to_out_0", re.sub(r"^(?:lora_unet_|unet_|)", "unet_", flat))


def placed(path: str | Path, lora: dict[str, Delta], places: Mapping[str, Any]) -> dict[str, list[Delta]]:
    """Deltas by the names of this file; CheckpointError where any has no module here, or not one of its shape."""
    lost = [name for name in lora if site(name) not in places]
    if lost:
        count = f"{len(lost)} of its {len(lora)} modules are not" if len(lost) < len(lora) else "no module of it is"
        raise CheckpointError(f"{path}: {count} in this model: {some(lost)}")
    found: dict[str, list[Delta]] = {}
    for name, delta in lora.items():
        expected = (*places[site(name)].weight.shape, 1, 1)[:4]
        if delta.shape != expected:
            raise CheckpointError(f"{path}: {name} is for a weight of shape {delta.shape}, here it is {expected}")
        found.setdefault(site(name), []).append(delta)
    return found


class Fused:
    """A U-Net and a text encoder, and the LoRAs in their weights.

    Whenever a LoRA comes or goes, the weights are computed anew from the originals, which wait on the CPU: so one that
    went leaves no trace, in whichever order. The weights must not be trained in between.
    """

    def __init__(self, unet: nn.Module, text: nn.Module | None = None):
        self.sites = sites(unet, text)
        self.loaded: dict[str, tuple[dict[str, list[Delta]], float]] = {}  # file: deltas by site, scale
        self.originals: dict[str, Tensor] = {}

    @property
    def scales(self) -> dict[str, float]:
        """What is loaded, in order: file and scale."""
        return {path: scale for path, (_, scale) in self.loaded.items()}

    def load(self, path: str | Path, scale: float = 1.0) -> None:
        """Adds a LoRA to the weights, `scale` times; one that is there already is read again, with the new scale.

        Raises FileNotFoundError, or CheckpointError if the file is damaged, holds anything but LoRA, or does not fit
        these modules in every part; ValueError for a scale that is not finite. The weights are then as they were.
        """
        if not math.isfinite(scale):
            raise ValueError(f"scale {scale}: expected a finite number")
        self.loaded[str(path)] = placed(path, read(path), self.sites), scale
        self._derive()

    def unload(self, path: str | Path | None = None) -> None:
        """Takes a LoRA out of the weights again, or all of them; ValueError for one that is not loaded."""
        if path is not None and str(path) not in self.loaded:
            raise ValueError(f"LoRA {path} is not loaded; loaded: {', '.join(self.loaded) or 'none'}")
        for name in [str(path)] if path is not None else list(self.loaded):
            del self.loaded[name]
        self._derive()

    @torch.no_grad()
    def _derive(self) -> None:
        """All weights that any LoRA touches or touched, from their originals."""
        changes: dict[str, list[tuple[Delta, float]]] = {name: [] for name in self.originals}
        for deltas, scale in self.loaded.values():
            for name, found in deltas.items():
                changes.setdefault(name, []).extend((delta, scale) for delta in found)
        for name, wanted in changes.items():
            weight = self.sites[name].weight
            if name not in self.originals:
                self.originals[name] = weight.to("cpu", copy=True)
            fused = self.originals[name].to(weight.device, torch.float32)
            for delta, scale in wanted:
                fused = fused + scale * delta.change(weight.device).reshape(weight.shape)
            weight.copy_(fused if wanted else self.originals.pop(name))
