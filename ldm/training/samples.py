"""What a model draws while it learns: the first few of the data again, by their words, classes or pictures beside."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from PIL import Image

from ldm.denoising import Denoiser, guided
from ldm.draws import gaussian
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.samplers import default_sampler
from ldm.sampling import draw, generators
from ldm.text import TextEncoder
from ldm.training.conditions import Conditions, collate
from ldm.training.diffusion import doors_of


@torch.no_grad()
def samples(
    space: LatentSpace,
    unet: Any,
    text: TextEncoder | None,
    items: Sequence[tuple[Any, ...]],
    scheduler: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> list[Image.Image]:
    """Items as training takes them -> a picture for each, told what it is told, from seed 0, 1, ...

    `scheduler` and `defaults` are what the finished model will have: its own sampler, steps and guidance.
    """
    doors, denoiser = doors_of(unet.config, text is not None), Denoiser(unet, Diffusion.from_config(scheduler))
    conditions = Conditions.of(doors, text).to(denoiser.device)
    batch = send_to_device(collate(doors, text.tokenizer if text else None, items), denoiser.device)
    none = torch.zeros(len(items), dtype=torch.bool)
    draws = generators(range(len(items)))
    cond = conditions(batch, none, none)
    if doors.text or doors.classes:
        denoiser = guided(
            denoiser, conditions.null(), defaults["guidance_scale"], rescale=defaults.get("guidance_rescale", 0.0)
        )
    noise = gaussian(draws, batch.mean.shape[1:], denoiser.device)
    z_0 = draw(denoiser, noise, cond, default_sampler(scheduler), defaults["num_inference_steps"], scheduler, draws)
    return space.decode(z_0.cpu())
