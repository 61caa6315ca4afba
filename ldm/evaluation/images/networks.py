"""What pictures are judged with: networks whose weights are looked for and never fetched (weights.md names them)."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.evaluation.distances import Features, find_inception, load_inception
from ldm.evaluation.images.clip import PUBLISHED, Clip, find_clip, load_clip, weights_in
from ldm.images import pad
from ldm.latents import LatentSpace
from ldm.training.encoding import fingerprint
from ldm.training.perceptual import SMALLEST, find_lpips, load_lpips


class AbsentError(ValueError):
    """What a figure needs is not at hand: its weights, pairs, prompts, or enough pictures."""


@dataclass(frozen=True)
class Networks:
    """Each is loaded when it is first asked for; AbsentError where its weights are missing or damaged.

    `name` says whose features sets are compared by: "inception", "clip", or an autoencoder's name, folder or file.
    `weights` is a folder with the files of Inception and LPIPS, `clip_folder` one with a CLIPModel. `used` says, by
    its role, which network has judged: a folder or a name as it was given, and its weights' files by their SHA-256.
    """

    name: str
    weights: Path | None = None
    clip_folder: Path | None = None
    device: str = "cpu"
    used: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def features(self) -> Features:
        """x (B,3,H,W) in [-1,1], any size -> (B,D). FileNotFoundError for an autoencoder that is not there."""
        if self.name == "inception":
            network = _given(load_inception, self.weights, self.device)
            found = find_inception(self.weights)
            self.used["inception"] = _files(self.weights, [found] if found else [])
            return network
        if self.name == "clip":
            return self.clip.images
        space = LatentSpace.from_pretrained(self.name)
        self.used["autoencoder"] = {"name": self.name, "encoder": fingerprint(space.autoencoder)}
        return pooled(space, self.device)

    @cached_property
    def clip(self) -> Clip:
        network = _given(load_clip, self.clip_folder, self.device)
        folder = find_clip(self.clip_folder)
        self.used["clip"] = _files(self.clip_folder or PUBLISHED, weights_in(folder) if folder else [])
        return network

    @cached_property
    def lpips(self) -> Callable[[Tensor, Tensor], float]:
        """Two x (1,3,H,W) in [-1,1] -> their distance; AbsentError for pictures that are too small for it."""
        network = _given(load_lpips, self.weights).to(self.device)
        self.used["lpips"] = _files(self.weights, find_lpips(self.weights))

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


def _files(folder: Path | str | None, files: Iterable[Path]) -> dict[str, Any]:
    """What a network was read from: a folder, None for this machine's own, and the first 16 digits of each SHA-256."""
    found = {}
    for path in files:
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {"folder": None if folder is None else str(folder), "files": found}


def _given(load: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return load(*arguments)
    except (FileNotFoundError, ValueError) as error:
        raise AbsentError(str(error)) from None
