"""The base model: a latent diffusion of persons, told who, which garment and which pose by concatenation."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints import save
from ldm.denoising import Denoiser
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.training.conditions import Doors
from ldm.training.diffusion import SCHEDULER, Recipe, train_diffusion
from ldm.training.plan import Plan
from ldm.training.tryon.looks import Looks
from ldm.tryon.given import beside
from ldm.tryon.model import Base, dressed

BATCH = 64
DEFAULTS = {"num_inference_steps": 20, "guidance_scale": 1.0}
FLAGS = 2  # a true pair, a synthetic one


class LatentLooks:
    """Looks in a latent space -> items (mean, logvar, "", {"beside", "label"}); the label is 1 for a synthetic pair."""

    def __init__(self, looks: Looks, space: LatentSpace, worn: Tensor):
        found = []
        for start in range(0, len(looks), BATCH):
            rows = slice(start, start + BATCH)
            with torch.no_grad():
                moments = space.posterior(looks.pixels("person", rows))
                found.append((*(part.cpu() for part in moments), beside(space, looks.given(rows), worn[rows])))
        self.mean, self.logvar, self.beside = (torch.cat(parts) for parts in zip(*found, strict=True))
        self.labels, self._identity = looks.synthetic, looks.identity()

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        extras = {"beside": self.beside[index], "label": int(self.labels[index])}
        return self.mean[index], self.logvar[index], "", extras

    def identity(self) -> Any:
        content = hashlib.sha256(self.mean.numpy().tobytes() + self.beside.numpy().tobytes()).hexdigest()[:16]
        return ["latent looks", content, self._identity]


def train_base(out: Path, looks: Looks, space: LatentSpace, dress: Any, plan: Plan, preset: str) -> Base:
    """Looks, a latent space and a network that dresses -> the base model, in `out`/model; goes on from a stop."""
    items = LatentLooks(looks, space, dressed(dress, looks.given()))
    doors = Doors(False, FLAGS, items.beside.shape[1])
    unet, _ = train_diffusion(out, items, plan, preset, SCHEDULER, recipe=Recipe(drop=0.0), doors=doors)
    save(out / "model", space.autoencoder, unet, None, SCHEDULER, DEFAULTS, vae_entries=space.entries())
    return Base(space, Denoiser(unet.eval(), Diffusion.from_config(SCHEDULER)), SCHEDULER, dress)
