"""The sentence: prompt --text--> cond; noise --sampling, denoising--> z_0 --latents--> images."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import torch
from torch import Tensor

from ldm import __version__, checkpoints, metadata
from ldm.denoising import Denoiser, guided
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.sampling import Callback, default_sampler, draw, gaussian, generators
from ldm.text import TextEncoder

if TYPE_CHECKING:
    from PIL import Image

STEPS, GUIDANCE = 50, 7.5  # where neither the caller nor the checkpoint says: as Stable Diffusion's own script had it


class LatentDiffusion:
    """A latent space, a denoiser in it, and optionally a text encoder: together they draw.

    `scheduler` is a diffusers scheduler config: it says which sampler is the model's own. `defaults` may name
    num_inference_steps and guidance_scale. `name` and `hash` are what a picture's metadata call the model.
    """

    def __init__(
        self,
        latents: LatentSpace,
        denoiser: Denoiser,
        text: TextEncoder | None = None,
        scheduler: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
        name: str = "",
        hash: str = "",
    ):
        self.latents, self.denoiser, self.text = latents, denoiser, text
        self.process = denoiser.process
        self.scheduler = scheduler or {"_class_name": "DDIMScheduler"}
        self.defaults = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | (defaults or {})
        self.name, self.hash = name, hash

    @classmethod
    def from_pretrained(
        cls, source: str | Path = "emoji", device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> "LatentDiffusion":
        """An embedded name ("emoji"), a folder in diffusers' layout, or a hub id.

        Raises FileNotFoundError where there is no such model, CheckpointError where it cannot be used.
        """
        folder = checkpoints.resolve(source)
        scheduler = checkpoints.load_scheduler(folder)
        pipeline = cls(
            LatentSpace(checkpoints.load_vae(folder)),
            Denoiser(checkpoints.load_unet(folder), Diffusion.from_config(scheduler)),
            checkpoints.load_text(folder),
            scheduler,
            checkpoints.load_defaults(folder),
            name=str(source),
            hash=checkpoints.fingerprint(folder),
        )
        return pipeline.to(device, dtype)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes diffusers' layout; `dtype` of the weights on disk (None: as they are)."""
        unet: Any = self.denoiser.unet
        checkpoints.save(folder, self.latents.autoencoder, unet, self.text, self.scheduler, self.defaults, dtype,
                         self.latents.entries())  # fmt: skip

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "LatentDiffusion":
        """Moves every part; z_t and the arithmetic of the process stay in float32."""
        for part in (self.latents, self.denoiser, self.text):
            if part is not None:
                part.to(device, dtype)
        return self

    def text_to_image(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = "",
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        seed: int | Sequence[int] | None = 0,
        num_images_per_prompt: int = 1,
        noise: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        output: Literal["pil", "latent"] = "pil",
        callback: Callback | None = None,
    ) -> "list[Image.Image] | Tensor":
        """Prompts -> num_images_per_prompt pictures of each, prompt by prompt.

        Picture j of a prompt is drawn from seed + j by its own generator, whatever else is in the batch; `seed` may be
        a list, one for each picture in all, or None for a random one. `noise` (B,C,H/f,W/f) ~ N(0, I) replaces the
        first draw, `prompt_embeds` (prompts,L,D) the text encoder's. None stands for the checkpoint's own height,
        width, steps, guidance or sampler. `callback(step, total, t, z_0)` may stop the drawing: see `ldm.sampling`.

        Returns PIL images whose `info["ldm"]` tells how they were made, or z_0 (B,C,H/f,W/f) with output="latent".
        Raises ValueError that names the argument for anything out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = _matched(negative_prompt or "", prompts)
        seeds = seeds_of(seed, len(prompts), num_images_per_prompt)
        steps = self.defaults["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        scale = self.defaults["guidance_scale"] if guidance_scale is None else guidance_scale
        sampler = sampler or default_sampler(self.scheduler)
        height, width = self.size(height, width)
        if output not in ("pil", "latent"):
            raise ValueError(f"output {output!r}: expected 'pil' or 'latent'")

        cond = self.condition(prompts, num_images_per_prompt, prompt_embeds)
        null = None if scale == 1 else self.condition(negatives, num_images_per_prompt)
        if null is not None and cond is not None and cond.shape[1] != null.shape[1]:
            raise ValueError(f"prompt_embeds of {cond.shape[1]} tokens beside a negative prompt of {null.shape[1]}")
        draws = generators(seeds)
        noise = self._noise(noise, draws, (height, width))
        denoiser = guided(self.denoiser, null, scale, guidance_interval, guidance_rescale)
        z_0 = draw(
            denoiser if self.text else self.denoiser, noise, cond, sampler, steps, self.scheduler, draws, callback
        )
        if not torch.isfinite(z_0).all():
            lost = [seeds[i] for i in range(len(seeds)) if not torch.isfinite(z_0[i]).all()]
            raise ValueError(f"the network gives NaN or infinite values for seeds {lost}; try float32")
        if output == "latent":
            return z_0
        settings = {"num_inference_steps": steps, "guidance_scale": scale, "sampler": sampler}
        settings |= {"height": height, "width": width, "scale": torch.as_tensor(self.latents.scale).tolist()}
        changed = {"guidance_interval": (guidance_interval, (0.0, 1.0)), "guidance_rescale": (guidance_rescale, 0.0)}
        settings |= {name: value for name, (value, plain) in changed.items() if value != plain}
        return self._pictures(z_0, prompts, negatives, seeds, settings)

    def reconstruct(self, images: Any) -> "list[Image.Image]":
        """Pictures -> what the autoencoder makes of them, each at its own size."""
        return self.latents.reconstruct(images)

    def condition(self, prompts: list[str], repeat: int = 1, embeds: Tensor | None = None) -> Tensor | None:
        """Prompts -> cond (prompts * repeat, L, D), each prompt's pictures in a row; None for a model without text."""
        if self.text is None:
            return None
        cond = self.text(prompts) if embeds is None else embeds
        if cond.ndim != 3 or len(cond) != len(prompts) or cond.shape[-1] != self.text.features:
            expected = f"({len(prompts)}, tokens, {self.text.features})"
            raise ValueError(f"prompt_embeds of shape {tuple(cond.shape)}: expected {expected}")
        return cond.repeat_interleave(repeat, dim=0)

    def size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The picture's (height, width); ValueError names the nearest legal one."""
        sides = {"height": height, "width": width}
        native = self.latents.factor * self.denoiser.sample_size
        for name, side in sides.items():
            if side is not None and (side < self.latents.factor or side % self.latents.factor):
                nearest = max(1, round(side / self.latents.factor)) * self.latents.factor
                raise ValueError(f"{name} {side}: expected a multiple of {self.latents.factor}, such as {nearest}")
        return height or native, width or native

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(height, width) in pixels -> (C,H/f,W/f)."""
        return self.latents.channels, size[0] // self.latents.factor, size[1] // self.latents.factor

    def _noise(self, given: Tensor | None, draws: list[torch.Generator], size: tuple[int, int]) -> Tensor:
        """The noise that drawing starts from: the caller's, if its shape fits, or each picture's own."""
        shape = self.latent_shape(size)
        noise = gaussian(draws, shape) if given is None else given
        if tuple(noise.shape) != (len(draws), *shape) or not torch.isfinite(noise).all():
            raise ValueError(f"noise of shape {tuple(noise.shape)}: expected {(len(draws), *shape)}, all of it finite")
        return noise.to(self.denoiser.device)

    def _pictures(
        self, z_0: Tensor, prompts: list[str], negatives: list[str], seeds: list[int], settings: dict[str, Any]
    ) -> "list[Image.Image]":
        """z_0 -> images that tell how they were made."""
        each = len(seeds) // len(prompts)
        made = {**settings, "model": self.name, "model_hash": self.hash, "version": f"ldm {__version__}"}
        return [
            metadata.attach(image, {"prompt": prompts[i // each], "negative_prompt": negatives[i // each],
                                    "seed": seeds[i], **made})
            for i, image in enumerate(self.latents.decode(z_0))
        ]  # fmt: skip


def seeds_of(seed: int | Sequence[int] | None, prompts: int, each: int) -> list[int]:
    """seed, seed + 1, ... for the `each` pictures of each prompt, or the list itself; a random start for None."""
    if not prompts:
        raise ValueError('no prompt given; the empty prompt is ""')
    if each < 1:
        raise ValueError(f"num_images_per_prompt {each}: expected 1 or more")
    if seed is None:
        seed = secrets.randbelow(2**32)
    if isinstance(seed, SupportsIndex):  # numpy's integers too
        return [int(seed) + j for j in range(each)] * prompts
    if len(seed) != prompts * each:
        raise ValueError(f"{len(seed)} seeds for {prompts * each} pictures")
    return list(seed)


def _matched(negative: str | Sequence[str], prompts: list[str]) -> list[str]:
    """One negative prompt for each prompt."""
    if isinstance(negative, str):
        return [negative] * len(prompts)
    if len(negative) != len(prompts):
        raise ValueError(f"{len(negative)} negative prompts for {len(prompts)} prompts")
    return list(negative)
