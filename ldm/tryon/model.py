"""EARSB, joined: a garment is moved to its wearer, drawn on, looked over for errors, and these are repaired.

Given --warping--> worn --base model--> x_1 --error classifier--> M --bridge--> x_0
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ldm.bridging import cross, process_of, shown
from ldm.checkpoints import load, load_unet
from ldm.denoising import Condition, Denoiser
from ldm.draws import gaussian
from ldm.latents import LatentSpace
from ldm.samplers import default_sampler
from ldm.sampling import draw, generators
from ldm.tryon.classifier import ErrorClassifier
from ldm.tryon.experts import Experts
from ldm.tryon.given import Given, beside
from ldm.tryon.steering import steered
from ldm.tryon.warping import warp

PARTS = {"dress": "dress", "base": "base/model", "errors": "errors/classifier", "bridge": "bridge-classified/model"}
BATCH = 32


class Base:
    """The base model: Given -> a person in a garment, by latent diffusion with all conditions concatenated.

    `dress` moves the garment to its wearer first. What the mask leaves out keeps its pixels.
    """

    def __init__(self, space: LatentSpace, denoiser: Denoiser, scheduler: dict[str, Any], dress: Any):
        self.space, self.denoiser, self.scheduler, self.dress = space, denoiser, scheduler, dress

    def worn(self, told: Given) -> Tensor:
        """The garment as the person would wear it (B,3,H,W), on grey."""
        return dressed(self.dress, told)

    @torch.no_grad()
    def draw(self, told: Given, seeds: Sequence[int], steps: int = 20) -> Tensor:
        """x (B,3,H,W) in [-1,1], each from its own seed."""
        drawn, worn = [], self.worn(told)
        for start, part in zip(range(0, len(worn), BATCH), _parts(told), strict=True):
            rows = slice(start, start + BATCH)
            concat, draws = beside(self.space, part, worn[rows]), generators(seeds[rows])
            noise = gaussian(draws, (self.space.channels, *concat.shape[-2:]))
            cond = Condition(concat=concat, label=real(self.denoiser.unet, len(noise)))
            z_0 = draw(self.denoiser, noise, cond, default_sampler(self.scheduler), steps, self.scheduler, draws)
            x = self.space.to_pixels(z_0).clamp(-1, 1).cpu()
            drawn.append(part.pasted(x))
        return torch.cat(drawn)


class Refiner:
    """The bridge from what a base model drew to a photograph, told where it is wrong.

    `told` names what the network is shown, as in `bridging.shown`.
    """

    def __init__(self, denoiser: Denoiser, told: Sequence[str] = ("z_T", "error_map", "given")):
        self.denoiser, self.told = denoiser, tuple(told)

    @classmethod
    def from_pretrained(cls, folder: str | Path, experts: bool = True) -> Self:
        """One of the bridges of `ldm train tryon`; with its experts, where there are any and they are wanted."""
        root, network = Path(folder), None
        whole = load(root / "model")
        process = process_of(whole.scheduler)
        if experts and all((root / half).is_dir() for half in ("near", "far")):
            near, far = (load(root / half).unet for half in ("near", "far"))
            network = Experts(near, far, middle=process.T // 2)
        return cls(Denoiser(network or whole.unet, process), whole.defaults["beside"])

    def refine(
        self,
        x_1: Tensor,
        error_map: Tensor,
        given: Tensor,
        seeds: Sequence[int],
        steps: int = 10,
        errors: Any = None,
        strength: float = 0.0,
    ) -> Tensor:
        """x_1 (B,3,H,W), M (B,1,H,W), conditions (B,10,H,W) -> x_0 (B,3,H,W), in `steps` evaluations.

        With a `strength` it is steered by `errors`, (rows, x) -> M.
        """
        found = []
        for start in range(0, len(x_1), BATCH):
            rows = slice(start, start + BATCH)
            cond = Condition(
                concat=shown(self.told, x_1[rows], error_map[rows], given[rows]),
                label=real(self.denoiser.unet, len(x_1[rows])),
            )
            denoiser = self.denoiser
            if strength:
                denoiser = steered(denoiser, partial(errors, rows), strength)
            found.append(cross(denoiser, x_1[rows], cond, steps, generators(seeds[rows]), error_map[rows]).clamp(-1, 1))
        return torch.cat(found)


class TryOnModel:
    """All of it: `try_on` puts garments on persons, `draw`, `error_map` and `refine` are its steps."""

    def __init__(self, base: Base, errors: ErrorClassifier, refiner: Refiner):
        self.base, self.errors, self.refiner = base, errors, refiner

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """What `ldm train tryon` wrote. FileNotFoundError, ValueError: one line, for what is missing or not whole."""
        root = Path(folder)
        for part in PARTS.values():
            if not (root / part).is_dir():
                raise FileNotFoundError(f"{root / part} is missing: expected a folder that ldm train tryon finished")
        base: Any = load(root / PARTS["base"])
        dress = load_unet(root / PARTS["dress"]).eval()
        return cls(
            Base(LatentSpace(base.vae), Denoiser(base.unet, process_of(base.scheduler)), base.scheduler, dress),
            ErrorClassifier.from_pretrained(root / PARTS["errors"]),
            Refiner.from_pretrained((root / PARTS["bridge"]).parent),
        )

    @torch.no_grad()
    def error_map(self, x: Tensor, told: Given) -> Tensor:
        """x (B,3,H,W) and the garments it should show -> M (B,1,H,W) in [0,1], 0 where nothing was drawn anew."""
        return self.errors.error_map(x, told.garment) * told.mask

    def refine(self, x_1: Tensor, told: Given, seeds: Sequence[int], steps: int = 10, strength: float = 0.0) -> Tensor:
        """x_1 (B,3,H,W) -> the same, repaired where the classifier sees errors; steered by it with a `strength`.

        What the mask leaves out keeps its pixels.
        """
        conditions = beside(LatentSpace.identity(), told, self.base.worn(told))

        def wrong(rows: slice, x: Tensor) -> Tensor:
            return self.errors.error_map(x, told.garment[rows]) * told.mask[rows]

        x = self.refiner.refine(x_1, self.error_map(x_1, told), conditions, seeds, steps, wrong, strength)
        return told.pasted(x)

    def try_on(
        self, told: Given, seeds: Sequence[int], steps: int = 20, refinement: int = 10, strength: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Given -> the base model's picture, its error map, and the refined picture."""
        x_1 = self.base.draw(told, seeds, steps)
        others = [unlike(seed) for seed in seeds]
        return x_1, self.error_map(x_1, told), self.refine(x_1, told, others, refinement, strength)


def real(unet: Any, count: int) -> Tensor | None:
    """The flag of a true pair (B,), where a network knows a flag."""
    return torch.zeros(count, dtype=torch.long) if unet.config.get("num_class_embeds") else None


def unlike(seed: int) -> int:
    """A seed -> another one, so that a base model and a bridge do not draw the same noise."""
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**63


@torch.no_grad()
def dressed(dress: Any, told: Given) -> Tensor:
    """A network that dresses, Given -> garments as the persons would wear them (B,3,H,W), on grey."""
    return torch.cat([warp(dress, part.garment, part.guide).on(0.0) for part in _parts(told)])


def _parts(told: Given) -> list[Given]:
    return [told.rows(slice(start, start + BATCH)) for start in range(0, len(told.mask), BATCH)]
