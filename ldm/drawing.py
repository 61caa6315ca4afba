"""Drawing: order -> z_0 -> images, in batches that fit into memory, on whatever device each part is needed.

order --text--> cond, null --denoising, sampling--> z_0 --latents--> x --metadata--> images
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ldm import __version__, masks, metadata
from ldm.bridging import cross
from ldm.denoising import Condition, Denoiser, guided
from ldm.draws import gaussian
from ldm.images import crop, to_images
from ldm.latents import LatentSpace
from ldm.lora import Fused
from ldm.order import Order
from ldm.sampling import Callback, draw
from ldm.text import TextEncoder
from ldm.tiling import out_of_memory

if TYPE_CHECKING:
    from PIL import Image

STEPS, GUIDANCE = 50, 7.5  # where neither the caller nor the checkpoint says: as Stable Diffusion's own script had it
MEMORY = ("auto", "low", "min")
log = logging.getLogger("ldm")


class Drawing:
    """A latent space, a denoiser in it, and optionally a text encoder: what every task is drawn with.

    `scheduler` is a diffusers scheduler config, which says which sampler is the model's own: DDIM by default.
    `defaults` may name num_inference_steps, guidance_scale, image_guidance_scale and, for a model of classes, the
    null_label that stands for none of them.
    `name` and `hash` are what a picture's metadata call the model.

    `memory` says what stays on the device between calls: with "auto" everything; with "low" the text encoder leaves
    when it has read; with "min" every part leaves, and pictures are drawn one by one. Out of memory, whichever it is,
    a batch is drawn by halves, with a message.
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
        memory: Literal["auto", "low", "min"] = "auto",
    ):
        if memory not in MEMORY:
            raise ValueError(f"memory {memory!r}: expected one of {', '.join(MEMORY)}")
        self.latents, self.denoiser, self.text = latents, denoiser, text
        self.process: Any = denoiser.process
        self.device, self.memory = denoiser.device, memory
        self.scheduler = scheduler or _ddim(self.process)
        self.defaults = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | (defaults or {})
        self.name, self.hash = name, hash
        self.embeddings: dict[str, str] = {}  # word: the textual inversion's file
        self._together = 2**31  # as many pictures as ever fitted into memory at once

    @cached_property
    def loras(self) -> Fused:
        """The LoRAs in the weights; a network that is a plain function has none, and takes none."""
        unet: Any = self.denoiser.unet if isinstance(self.denoiser.unet, torch.nn.Module) else torch.nn.Module()
        return Fused(unet, self.text.model if self.text else None)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Drawing:
        """Moves every part; z_t and the arithmetic of the process stay in float32."""
        self.device = torch.device(device) if device is not None else self.device
        for part in (self.latents, self.denoiser, self.text):
            if part is not None:
                part.to("cpu" if self._leaves(part) else self.device, dtype)
        return self

    def draw(
        self, order: Order, size: tuple[int, int] | None = None, kept: tuple[Tensor, Tensor] | None = None
    ) -> list[Image.Image] | Tensor:
        """order -> z_0, if that is the output asked for, or images of `size` (default: the order's), which tell how.

        `kept` are pixels x (B,3,H,W) and weights (B,1,H,W): where a weight is 0 the picture keeps that pixel.
        """
        self._advise(order)
        watch, drawn, stops = _Watch(order.callback), dict[int, Tensor](), dict[int, dict[str, Any]]()
        order = replace(order, callback=watch if order.callback else None)
        for rows in self._groups(order):
            drawn |= zip(rows, self._fitting(order.rows(rows)), strict=True)
            stops |= dict.fromkeys(rows, watch.told)
        z_0 = torch.stack([drawn[row] for row in range(len(order))])
        lost = [seed for seed, z in zip(order.seeds, z_0, strict=True) if not torch.isfinite(z).all()]
        if lost:
            raise ValueError(f"the network gives NaN or infinite values for seeds {lost}; try float32")
        if order.output == "latent":
            return z_0
        with torch.no_grad(), self._working(self.latents):
            x = crop(self.latents.to_pixels(z_0), size or order.size).cpu()
        images = to_images(masks.pasted(x, *kept) if kept else x)
        return [metadata.attach(image, self._told(order, row) | stops[row]) for row, image in enumerate(images)]

    def conditions(self, order: Order) -> tuple[Condition, Condition | None]:
        """order -> what the pictures are to be, and its empty twin, None where nothing is guided."""
        guides = order.guidance != 1 or order.image_guidance not in (None, 1)
        cond = Condition(order.embeds, order.concat, order.labels)
        null = None if order.labels is None else torch.full_like(order.labels, self.defaults.get("null_label", 0))
        if self.text is None:
            return cond, Condition(label=null) if guides else None
        with self._working(self.text):
            cond = replace(cond, text=self._read(order, order.prompts) if order.embeds is None else order.embeds)
            empty = self._read(order, order.negatives) if guides else None
        if empty is not None and cond.text is not None and cond.text.shape[1:] != empty.shape[1:]:
            found, expected = (" x ".join(map(str, part.shape[1:])) for part in (cond.text, empty))
            raise ValueError(f"prompt_embeds of {found} (tokens x features): expected {expected}")
        return cond, Condition(text=empty, label=null) if guides else None

    def noise(self, order: Order) -> Tensor:
        """The noise (B,C,H/f,W/f) that drawing starts from: the caller's, if its shape fits, or each picture's own."""
        shape = self.latent_shape(order.size)
        noise = gaussian(order.draws, shape) if order.noise is None else order.noise
        if tuple(noise.shape) != (len(order), *shape) or not torch.isfinite(noise).all():
            raise ValueError(f"noise of shape {tuple(noise.shape)}: expected {(len(order), *shape)}, all of it finite")
        return noise.to(self.device)

    def size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The picture's (height, width); ValueError names the nearest legal one."""
        sides = {"height": height, "width": width}
        for name, side in sides.items():
            if side is not None and (side < self.latents.factor or side % self.latents.factor):
                nearest = max(1, round(side / self.latents.factor)) * self.latents.factor
                raise ValueError(f"{name} {side}: expected a multiple of {self.latents.factor}, such as {nearest}")
        if height and width:
            return height, width
        native = self.latents.factor * self.denoiser.sample_size
        return height or native, width or native

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(height, width) in pixels -> (C,H/f,W/f)."""
        return self.latents.channels, size[0] // self.latents.factor, size[1] // self.latents.factor

    # ---- inside ----

    def _advise(self, order: Order) -> None:
        """Says what a setting will not do."""
        if order.guidance == 1 and order.image_guidance is None and any(order.negatives):
            log.warning("a negative prompt has no effect at guidance scale 1")
        if order.sampler == "lcm" and order.guidance > 2:
            log.warning("guidance scale %s is high for lcm, whose models have it built in: try 1 to 2", order.guidance)

    def _groups(self, order: Order) -> list[list[int]]:
        """Rows that are drawn together: with conditions of one length, so that none depends on another's words."""
        kinds: dict[int, list[int]] = {}
        for row, words in enumerate(zip(order.prompts, order.negatives, strict=True)):
            length = 0 if self.text is None or order.embeds is not None else self._chunks(order, words)
            kinds.setdefault(length, []).append(row)
        some = 1 if self.memory == "min" else self._together
        return [rows[i : i + some] for _, rows in sorted(kinds.items()) for i in range(0, len(rows), some)]

    def _chunks(self, order: Order, words: Sequence[str]) -> int:
        """How many chunks of tokens the longest of some prompts takes, or the embeds that were given for them."""
        assert self.text is not None
        given = 0 if order.embeds is None else order.embeds.shape[1] // self.text.tokenizer.length
        return max(given, self.text.chunks(words, order.prompt_weights))

    def _fitting(self, order: Order) -> Tensor:
        """order -> z_0, all at once; by halves, from the same noise, where that does not fit into memory."""
        states = [generator.get_state() for generator in order.draws]
        try:
            return self._drawn(order)
        except RuntimeError as error:
            if not out_of_memory(error) or len(order) == 1:
                raise
        half = (len(order) + 1) // 2
        if half < self._together:
            log.warning("out of memory: from here on no more than %d pictures are drawn at once", half)
            self._together = half
        for generator, state in zip(order.draws, states, strict=True):
            generator.set_state(state)
        return torch.cat([self._fitting(order.rows(rows)) for rows in (range(half), range(half, len(order)))])

    def _drawn(self, order: Order) -> Tensor:
        """order -> z_0 (B,C,H/f,W/f)."""
        cond, null = self.conditions(order)
        guide = 1.0 if order.image_guidance is None else order.image_guidance
        scales = order.guidance, order.guidance_interval, order.guidance_rescale, guide
        with self._working(self.denoiser):
            denoiser = guided(self.denoiser, null, *scales)
            if order.far is not None:
                error_map = 1.0 if order.error_map is None else order.error_map.to(self.device)
                return cross(denoiser, order.far, cond, order.steps, order.draws, error_map, order.callback)
            return draw(denoiser, self.noise(order), cond, order.sampler, order.steps, self.scheduler, order.draws,
                        order.callback, order.start)  # fmt: skip

    def _read(self, order: Order, prompts: Sequence[str]) -> Tensor:
        """B prompts -> text conditions (B,L,D), each different prompt read once."""
        assert self.text is not None
        different = list(dict.fromkeys(prompts))
        words = order.negatives + (order.prompts if order.embeds is None else [])
        cond = self.text(different, order.clip_skip, order.prompt_weights, self._chunks(order, words))
        cond = cond[[different.index(prompt) for prompt in prompts]]
        return cond.to(self.device, torch.promote_types(cond.dtype, torch.float32))  # once, not in every step

    def _told(self, order: Order, row: int) -> dict[str, Any]:
        """What a picture's metadata say."""
        words = {"prompt": order.prompts[row], "negative_prompt": order.negatives[row], "seed": order.seeds[row]}
        notes = order.notes[row] if order.notes else {}
        model: dict[str, Any] = {"scale": torch.as_tensor(self.latents.scale, dtype=torch.float64).tolist()}
        model |= {"model": self.name, "model_hash": self.hash, "version": f"ldm {__version__}"}
        engine = getattr(self.denoiser.unet, "engine", "")
        added = {"loras": self.loras.scales, "embeddings": self.embeddings, "engine": engine}
        return words | order.settings() | notes | model | {name: value for name, value in added.items() if value}

    def _leaves(self, part: Any) -> bool:
        return self.memory == "min" or (self.memory == "low" and part is self.text)

    @contextmanager
    def _working(self, part: Any) -> Iterator[None]:
        """A part on the device while it works; where memory is short it leaves afterwards."""
        if not self._leaves(part):
            yield
            return
        part.to(self.device)
        try:
            yield
        finally:
            part.to("cpu")


def _ddim(process: Any) -> dict[str, Any]:
    """The scheduler config of a process that comes without one."""
    return {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": True, **process.config()}


class _Watch:
    """A callback that remembers where the drawing was stopped: what is left of it then stops at its first step."""

    def __init__(self, callback: Callback | None):
        self.callback, self.told = callback, dict[str, Any]()

    def __call__(self, step: int, total: int, t: float, z_0: Tensor) -> bool | None:
        go_on = self.callback(step, total, t, z_0) if self.callback and not self.told else False
        if go_on is False:
            self.told = {"executed_steps": step, "cancelled": f"at step {step} of {total}"}
        return go_on
