"""What pictures are judged with: networks whose weights are looked for and never fetched (weights.md names them)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.evaluation.distances import Features, load_inception
from ldm.evaluation.images.clip import Clip, load_clip
from ldm.images import pad
from ldm.latents import LatentSpace
from ldm.training.perceptual import SMALLEST, load_lpips


class AbsentError(ValueError):
    """What a figure needs is not at hand: its weights, pairs, prompts, or enough pictures."""


@dataclass(frozen=True)
class Networks:
    """Each is loaded when it is first asked for; AbsentError where its weights are missing or damaged.

    `name` says whose features sets are compared by: "inception", "clip", or an autoencoder's name, folder or file.
    `weights` is a folder with the files of Inception and LPIPS, `clip_folder` one with a CLIPModel.
    """

    name: str
    weights: Path | None = None
    clip_folder: Path | None = None
    device: str = "cpu"

    @cached_property
    def features(self) -> Features:
        """x (B,3,H,W) in [-1,1], any size -> (B,D). FileNotFoundError for an autoencoder that is not there."""
        if self.name == "inception":
            return _given(load_inception, self.weights, self.device)
        return self.clip.images if self.name == "clip" else pooled(LatentSpace.from_pretrained(self.name), self.device)

    @cached_property
    def clip(self) -> Clip:
        return _given(load_clip, self.clip_folder, self.device)

    @cached_property
    def lpips(self) -> Callable[[Tensor, Tensor], float]:
        """Two x (1,3,H,W) in [-1,1] -> their distance; AbsentError for pictures that are too small for it."""
        network = _given(load_lpips, self.weights).to(self.device)

        @torch.no_grad()
        def judge(one: Tensor, other: Tensor) -> float:
            if min(one.shape[-2:]) < SMALLEST:
                raise AbsentError(f"a picture of {one.shape[-1]}x{one.shape[-2]}: expected sides of {SMALLEST} or more")
            return float(network(one.to(self.device), other.to(self.device)))

        return judge


def pooled(space: LatentSpace, device: str = "cpu") -> Features:
    """x (B,3,H,W) -> (B,2C): mean and standard deviation of each channel of z_0.

    They know colours and textures and little of what is shown: a stand-in, where no better network is at hand.
    """
    space.to(device)

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        z = space.from_pixels(pad(x, space.factor)[0].to(device)).flatten(2).cpu()
        return torch.cat([z.mean(2), z.std(2, correction=0)], 1)

    return features


def _given(load: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return load(*arguments)
    except (FileNotFoundError, ValueError) as error:
        raise AbsentError(str(error)) from None
