"""LoRAs in a U-Net and a CLIP text encoder, and these as they were before.

{module: deltas} --Fused--> W = W_0 + sum of scale * alpha / r * B A        over the loaded LoRAs, in float32
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoints.adapters import Delta, placed, site_of


def sites(unet: nn.Module, text: nn.Module | None = None) -> dict[str, Any]:
    """Linear and convolutional modules by the names that `site_of` gives: unet_..., text_encoder_encoder_layers_..."""
    parts = {"unet": unet} | ({} if text is None else {"text_encoder": text})
    return {
        site_of(part, name): module
        for part, model in parts.items()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


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
        self.loaded[str(path)] = placed(path, {at: module.weight.shape for at, module in self.sites.items()}), scale
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
