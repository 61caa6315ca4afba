"""The sentence: prompt --text--> cond; noise --sampling, denoising--> z_0 --latents--> images.

Every task is an `Order` with its own beginning. `image_to_image` starts at the picture's latents; `inpaint` holds what
lies outside the mask; models for inpainting and for editing are shown pictures beside z_t; `interpolate` has every row
a little further on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Generator, Tensor

from ldm import checkpoints, inversion, masks
from ldm.bridging import Bridge, process_of, shown
from ldm.denoising import Denoiser
from ldm.drawing import Drawing
from ldm.draws import gaussian
from ldm.engines import ENGINES
from ldm.images import Source, crop, pad, to_pixels
from ldm.interpolating import path
from ldm.latents import LatentSpace
from ldm.order import Order, Settings, ordered, seeds_of
from ldm.samplers import default_sampler
from ldm.sampling import Callback, Start, generators

if TYPE_CHECKING:
    from PIL import Image

CLASSIFIER = "error_classifier"  # the folder of a model's own


class LatentDiffusion(Drawing):
    """A latent space, a denoiser in it, and optionally a text encoder: together they draw.

    Every task returns PIL images whose `info["ldm"]` tells how they were made, or z_0 (B,C,H/f,W/f) with
    output="latent", and raises ValueError that names the argument for anything out of range.

    >>> pipe = LatentDiffusion.from_pretrained("emoji")
    >>> pictures = pipe.text_to_image(["a red apple", "a fox"], height=64, width=64, num_inference_steps=1, seed=[3, 8])
    >>> [(picture.size, picture.info["ldm"]["prompt"], picture.info["ldm"]["seed"]) for picture in pictures]
    [((64, 64), 'a red apple', 3), ((64, 64), 'a fox', 8)]
    """

    errors: Any = None  # an error classifier (`ldm.tryon`), by which `refine` knows what is wrong

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "emoji",
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        memory: Literal["auto", "low", "min"] = "auto",
        prediction_type: str | None = None,
        engine: Literal["torch", "tuned", "openvino", "openvino-int8"] = "torch",
    ) -> LatentDiffusion:
        """An embedded name ("emoji"), a folder in diffusers' layout, a single file, or a hub id.

        `memory` as in `Drawing`; `prediction_type` (epsilon, v_prediction, sample) for a file that says it wrongly.
        `engine` runs the U-Net: "tuned" is `tune`; with "openvino" on the CPU, in float32, or in int8, by a network
        that is prepared once (see `ldm.engines`); ValueError for models that take anything but words.
        Raises FileNotFoundError where there is no such model, CheckpointError where it cannot be used.
        """
        found = checkpoints.load(source, prediction_type)
        denoiser = Denoiser(found.unet, process_of(found.scheduler))
        space = LatentSpace.identity() if found.vae is None else LatentSpace(found.vae, memory=memory)
        pipeline = cls(space, denoiser, found.text, found.scheduler, found.defaults, found.name, found.hash, memory)
        if engine not in ENGINES:
            raise ValueError(f"engine {engine!r}: expected {' or '.join(ENGINES)}")
        if engine.startswith("openvino"):
            from ldm.engines.network import NetworkUNet
            from ldm.engines.preparing import prepared

            def whole() -> LatentDiffusion:  # this one, until its U-Net is a network itself
                return pipeline if isinstance(pipeline.denoiser.unet, torch.nn.Module) else cls.from_pretrained(source)

            eight = engine == "openvino-int8"
            network = prepared(source, whole, eight).unet
            pipeline.denoiser.unet = NetworkUNet(network, found.unet.config, engine if eight else "")
        pipeline.to(device, dtype)
        if engine == "tuned":
            pipeline.tune(dtype)
        if (classifier := checkpoints.locate(source) / CLASSIFIER).is_dir():
            from ldm.tryon.classifier import ErrorClassifier

            pipeline.errors = ErrorClassifier.from_pretrained(classifier).eval().requires_grad_(False)
        return pipeline

    def tune(self, dtype: torch.dtype | None = None) -> None:
        """Has every part run as its device runs it fastest, from now on: see `ldm.engines.tuned`.

        `dtype` None is what a short probe finds, which may be bfloat16 or float16: the picture is then another in
        parts. LoRAs that were loaded before stay; the pipeline can be moved, saved, and given LoRAs no more.
        """
        from ldm.engines.probing import fastest
        from ldm.engines.tuned import TunedUNet

        choice = fastest(self.device.type, dtype)
        self.to(dtype=choice.dtype)
        self.latents.autoencoder.to(memory_format=choice.layout)
        self.denoiser.unet = TunedUNet(self.denoiser.unet, choice)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes diffusers' layout; `dtype` of the weights on disk (None: as they are).

        CheckpointError where it cannot be written, ValueError for a folder that holds something that is no model.
        """
        unet: Any = self.denoiser.unet
        checkpoints.save(folder, self.latents.autoencoder, unet, self.text, self.scheduler, self.defaults, dtype,
                         self.latents.entries())  # fmt: skip
        if self.errors is not None:
            self.errors.save_pretrained(Path(folder) / CLASSIFIER)

    def load_lora(self, path: str | Path, scale: float = 1.0) -> None:
        """Adds a LoRA's file (kohya, diffusers or PEFT naming) to the weights, `scale` times; see `ldm.lora`.

        FileNotFoundError without the file, CheckpointError where a tensor of it has no place in the model.
        """
        self.loras.load(path, scale)

    def unload_lora(self, path: str | Path | None = None) -> None:
        """Takes a LoRA out of the weights again, or all of them: they are as before to the last bit."""
        self.loras.unload(path)

    def load_embedding(self, path: str | Path, token: str | None = None) -> str:
        """Adds a textual inversion's file -> the word that stands for it in prompts; see `ldm.inversion`.

        ValueError for a model without words, and for a word that there is already.
        """
        if self.text is None:
            raise ValueError(f"{path}: this model takes no words")
        word = inversion.load(self.text, path, token)
        self.embeddings[word] = str(path)
        return word

    # ---- from words, or from nothing ----

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
        guidance_rescale: float | None = None,
        clip_skip: int = 0,
        prompt_weights: bool = True,
        output: Literal["pil", "latent"] = "pil",
        callback: Callback | None = None,
    ) -> list[Image.Image] | Tensor:
        """Prompts -> num_images_per_prompt pictures of each, prompt by prompt.

        Picture j of a prompt is drawn from seed + j by its own generator, whatever else is in the batch; `seed` may be
        a list, one for each picture in all, or None for a random one. `noise` (B,C,H/f,W/f) ~ N(0, I) replaces the
        first draw, `prompt_embeds` (prompts,L,D) the text encoder's. None stands for the checkpoint's own height,
        width, steps, guidance, its rescale or sampler. `clip_skip` takes the text encoder's state that many layers
        early; `prompt_weights=False` reads brackets as they stand. `callback(step, total, t, z_0)` may stop the drawing
        (see `ldm.sampling`); `latents.preview(z_0)` sketches the picture for it.
        """
        settings: Settings = {
            "negative_prompt": negative_prompt, "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale, "sampler": sampler, "seed": seed,
            "num_images_per_prompt": num_images_per_prompt, "noise": noise, "prompt_embeds": prompt_embeds,
            "guidance_interval": guidance_interval, "guidance_rescale": guidance_rescale, "clip_skip": clip_skip,
            "prompt_weights": prompt_weights, "output": output, "callback": callback,
        }  # fmt: skip
        self._expect("text_to_image")
        return self.draw(self._ordered(prompt, self.size(height, width), settings))

    def unconditional(self, count: int = 1, **settings: Unpack[Settings]) -> list[Image.Image] | Tensor:
        """`count` pictures of whatever the model was trained on, from seed, seed + 1, ...; nothing guides them."""
        self._expect("unconditional")
        _refuse(settings, "unconditional", "guidance_scale", "num_images_per_prompt", "negative_prompt")
        size = self.size(settings.get("height"), settings.get("width"))
        unguided: Settings = {"guidance_scale": 1.0, "num_images_per_prompt": count}
        return self.draw(self._ordered("", size, {**settings, **unguided}, task="unconditional"))

    def class_to_image(self, label: int | Sequence[int], **settings: Unpack[Settings]) -> list[Image.Image] | Tensor:
        """Class labels -> num_images_per_prompt pictures of each, by a U-Net with a class embedding.

        Guided where the checkpoint names the label that stands for no class (`null_label` in its ldm.json).
        """
        self._expect("class_to_image")
        labels = [int(one) for one in torch.as_tensor(label).reshape(-1)]
        classes = getattr(self.denoiser.unet.config, "num_class_embeds", None)  # type: ignore[attr-defined]
        for given in labels:
            if not classes or not 0 <= given < classes:
                known = f"a class from 0 to {classes - 1}" if classes else "a model of classes, which this is not"
                raise ValueError(f"label {given}: expected {known}")
        size = self.size(settings.get("height"), settings.get("width"))
        guides = "null_label" in self.defaults
        order = self._ordered([""] * len(labels), size, settings, guides, task="class_to_image")
        rows = _each(torch.tensor(labels), order)
        return self.draw(replace(order, labels=rows, notes=[{"label": int(row)} for row in rows]))

    # ---- from a picture ----

    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: Source | Sequence[Source],
        strength: float = 0.6,
        exact_steps: bool = False,
        as_diffusers: bool = False,
        **settings: Unpack[Settings],
    ) -> list[Image.Image] | Tensor:
        """Pictures drawn over, each at its own size (SDEdit, Meng et al. 2022).

        `strength` is the share of noise and of steps: 0 returns the picture as the autoencoder gives it back, 1 begins
        in pure noise. floor(steps * strength) steps are run, at least one above 0; all of them, spaced over the
        shorter walk, with `exact_steps`. One picture serves every prompt, and one prompt every picture; with `height`
        and `width` pictures are stretched to them first. `settings` are those of `text_to_image`.

        The picture is encoded by its posterior mean. `as_diffusers` does as diffusers' pipeline: a posterior sample
        from each picture's generator, before its noise, and the last steps as its schedulers walk them.
        """
        self._expect("image_to_image")
        prompts, x, size = self._given(prompt, image, settings)
        order = self._edit("image_to_image", prompts, x, size, settings).walking(
            strength, self.process.T, exact_steps, as_diffusers
        )
        z_0 = self._encoded(_each(x, order), order.draws if as_diffusers else None)
        start = Start(z_0, order.walked, spread=order.spread, as_diffusers=as_diffusers)
        return self.draw(replace(order, start=start), size)

    def variations(
        self, image: Source, count: int = 4, strength: float = 0.6, prompt: str = "", **settings: Unpack[Settings]
    ) -> list[Image.Image] | Tensor:
        """One picture -> `count` like it, from seed, seed + 1, ...; without a prompt nothing guides them."""
        _refuse(settings, "variations", "num_images_per_prompt")
        chosen: Settings = {**({} if prompt else {"guidance_scale": 1.0}), **settings, "num_images_per_prompt": count}
        return self.image_to_image(prompt, image, strength, **chosen)

    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: Source | Sequence[Source],
        mask: Source | Sequence[Source],
        strength: float = 1.0,
        feather: int | None = None,
        keep: bool = True,
        exact_steps: bool = False,
        as_diffusers: bool = False,
        **settings: Unpack[Settings],
    ) -> list[Image.Image] | Tensor:
        """Pictures drawn anew where the mask is white; elsewhere they keep their pixels to the last bit.

        A model of 9 channels is shown the mask and the picture without what is masked. Any other draws freely in the
        mask, while the picture's own latents are put back outside of it after every step. At the end the picture's own
        pixels are pasted outside the mask, which is softened over `feather` pixels around it (default: f, the side of
        a latent); `keep=False` leaves what the decoder gives. `strength` and the rest as in `image_to_image`;
        `as_diffusers` also takes diffusers' mask of latents, which may cut off the mask's rim.
        """
        shown = self._expect("inpaint", 0, 1 + self.latents.channels)
        prompts, x, size = self._given(prompt, image, settings)
        order = self._edit("inpaint", prompts, x, size, settings).walking(
            strength, self.process.T, exact_steps, as_diffusers
        )
        white, factor = masks.to_mask(mask, size), self.latents.factor
        weights = masks.feathered(white, factor if feather is None else feather)
        x, hole, weights = _each(x, order), _each(pad(white, factor)[0], order), _each(weights, order)
        draws = order.draws if as_diffusers else None
        if not shown or order.walked < order.steps:
            free = None if shown else (masks.nearest if as_diffusers else masks.touched)(hole, factor).to(self.device)
            z_0 = self._encoded(x, draws)
            order = replace(order, start=Start(z_0, order.walked, free, order.spread, as_diffusers))
        if shown or as_diffusers:  # diffusers encodes it for any model, which moves the generators on
            order = replace(order, noise=self.noise(order))
            rest = self._encoded(x * (hole < 0.5), draws)
            beside = torch.cat([masks.nearest(hole, factor).to(rest), rest], dim=1)
            order = replace(order, concat=beside if shown else None)
        return self.draw(order, size, (crop(x, size), weights) if keep else None)

    def instruct(
        self,
        prompt: str | Sequence[str],
        image: Source | Sequence[Source],
        image_guidance_scale: float | None = None,
        **settings: Unpack[Settings],
    ) -> list[Image.Image] | Tensor:
        """Pictures changed as the prompt tells, by a model of 8 channels (InstructPix2Pix, Brooks et al. 2023).

        `image_guidance_scale` is how much of the picture stays (default: the model's, or 1.5), `guidance_scale` how
        much is done of what is told.
        """
        self._expect("instruct", self.latents.channels)
        prompts, x, size = self._given(prompt, image, settings)
        scale = self.defaults.get("image_guidance_scale", 1.5) if image_guidance_scale is None else image_guidance_scale
        order = self._edit("instruct", prompts, x, size, settings, image_guidance_scale=scale)
        beside = self.latents.unscaled(self._encoded(_each(x, order)))  # as these models were trained
        return self.draw(replace(order, concat=beside, image_guidance=scale), size)

    def reconstruct(self, images: Any) -> list[Image.Image]:
        """Pictures -> what the autoencoder makes of them, each at its own size."""
        with self._working(self.latents):
            return self.latents.reconstruct(images)

    def refine(
        self,
        image: Source | Sequence[Source],
        error_map: Source | Sequence[Source] | Tensor | None = None,
        beside: Tensor | None = None,
        keep: int | None = None,
        **settings: Unpack[Settings],
    ) -> list[Image.Image] | Tensor:
        """Pictures of one size, repaired by a model that is a bridge from such pictures to good ones (I2SB, EARSB).

        `num_inference_steps` is how often the network is asked. `error_map` is white, or 1 in a tensor (B,1,H,W), where
        a picture is wrong, and black, or 0, where it is right and no noise is to change it; None: as the model's own
        error classifier sees it, and without one everywhere.
        `beside` (B,C',H/f,W/f) is what else the model was trained to be shown. With `keep` a picture's own pixels are
        pasted back where the map is below a half, softened over so many pixels around. `settings`: seed, callback,
        num_images_per_prompt, output, num_inference_steps. ValueError for a model that is no bridge.
        """
        if not isinstance(self.process, Bridge):
            raise ValueError("refine: this model is no bridge; ldm train bridge makes one")
        x, size = pad(to_pixels(image), self._coarsest)
        told: dict[str, Any] = {"task": "refine", "height": size[0], "width": size[1]}
        chosen: Settings = {**settings, "sampler": "bridge"}
        order = self._ordered([""] * len(x), (x.shape[-2], x.shape[-1]), chosen, **told)
        white = self.error_map(crop(x, size)) if error_map is None else masks.to_map(error_map, size)
        x, white = _each(x, order), _each(white, order)
        lowered = masks.lowered(pad(white, self._coarsest)[0], self.latents.factor)
        z_T = self._encoded(x).to(self.device)
        if beside is not None:
            beside = _each(beside, order)
            if beside.shape[-2:] != z_T.shape[-2:]:
                places = " x ".join(map(str, z_T.shape[-2:]))
                raise ValueError(f"beside of shape {tuple(beside.shape)}: expected {places} places, as the picture has")
        concat = shown(self.defaults.get("beside", ()), z_T, lowered.to(z_T), beside)
        if (0 if concat is None else concat.shape[1]) != self.channels_beside:
            expected = f"{self.channels_beside} channels, {' and '.join(self.defaults.get('beside', ())) or 'nothing'}"
            raise ValueError(f"refine: this model is shown {expected}; what was given has others")
        order = replace(order, far=z_T, error_map=lowered, concat=concat)
        return self.draw(order, size, None if keep is None else (crop(x, size), masks.feathered(white.round(), keep)))

    def error_map(self, x: Tensor) -> Tensor:
        """x (B,3,H,W) in [-1,1] -> where it is wrong, M (B,1,H,W) in [0,1]; 1 without an error classifier."""
        if self.errors is None:
            return torch.ones_like(x[:, :1])
        with torch.no_grad():
            return self.errors.error_map(x).cpu()

    # ---- from one to another ----

    def interpolate(
        self,
        prompt_a: str,
        prompt_b: str,
        frames: int = 8,
        seed_b: int | None = None,
        image_a: Source | None = None,
        image_b: Source | None = None,
        strength: float = 0.6,
        **settings: Unpack[Settings],
    ) -> list[Image.Image] | Tensor:
        """Frames on the way from one picture to another: conditions, noises and latents turned by slerp.

        Both ends are drawn from `seed` (then the noise stands still), or the other end from `seed_b`. Given two
        pictures, of one size, the frames begin at points between their latents, with `strength` as in
        `image_to_image`: 0 is a walk through the latents alone.
        """
        self._expect("interpolate")
        if (image_a is None) != (image_b is None):
            raise ValueError("interpolate takes two pictures or none: expected image_a and image_b")
        _refuse(settings, "interpolate", "num_images_per_prompt", "prompt_embeds")
        if frames < 1:
            raise ValueError(f"frames {frames}: expected 1 or more")
        [seed] = seeds_of(settings.get("seed", 0), 1, 1)
        prompts, chosen = [prompt_a] * frames, Settings(**{**settings, "seed": [seed] * frames})  # type: ignore[misc]
        told: dict[str, Any] = {"prompt_b": prompt_b, **({} if seed_b is None else {"seed_b": seed_b})}
        if image_a is None or image_b is None:
            size = self.size(settings.get("height"), settings.get("width"))
            order = self._ordered(prompts, size, chosen, task="interpolate", **told)
        else:
            _, x, size = self._given([prompt_a] * 2, [image_a, image_b], settings)
            order = self._edit("interpolate", prompts, x, size, chosen, **told).walking(strength, self.process.T)
            ends = self._encoded(x)
            order = replace(order, start=Start(path(ends[:1], ends[1:], frames, axes=3), order.walked))
        return self.draw(self._turned(order, prompt_b, seed_b), size)

    def _turned(self, order: Order, prompt_b: str, seed_b: int | None) -> Order:
        """The order with each row's noise and condition a little further on the way to the other prompt and seed."""
        frames = len(order)
        noise, last = self.noise(order), max(1, frames - 1)
        if seed_b is not None:
            other = gaussian(generators([seed_b]), noise.shape[1:]).to(noise)
            noise = path(noise[:1], other, frames, axes=3)
        ends = replace(order.rows([0, -1]), prompts=[order.prompts[0], prompt_b])
        text = self.conditions(ends)[0].text
        embeds = None if text is None else path(text[:1], text[1:], frames)
        shares = [{"share": round(frame / last, 4)} for frame in range(frames)]
        return replace(order, noise=noise, embeds=embeds, notes=shares)

    @property
    def channels_beside(self) -> int:
        """How many channels the U-Net is shown beside z_t: 0, or those of an inpainting or an editing model."""
        own = self.latents.channels
        return getattr(getattr(self.denoiser.unet, "config", None), "in_channels", own) - own

    # ---- inside ----

    @property
    def _coarsest(self) -> int:
        """Pixels to a place of the U-Net's coarsest level."""
        levels = getattr(getattr(self.denoiser.unet, "config", None), "block_out_channels", [1])
        return self.latents.factor * 2 ** (len(levels) - 1)

    def _expect(self, task: str, *beside: int) -> int:
        """The number of channels that the U-Net is shown beside z_t, which must be one of those the task has."""
        if isinstance(self.process, Bridge):
            raise ValueError(f"{task}: this model is a bridge: that is for refine")
        own, taken = self.latents.channels, self.channels_beside
        if taken not in (beside or (0,)):
            tasks = {0: "text_to_image, image_to_image or inpaint", own: "instruct", own + 1: "inpaint"}
            use = tasks.get(taken, "no task here")
            raise ValueError(f"{task}: this model is shown {taken} channels beside the noised {own}: that is for {use}")
        return taken

    def _ordered(
        self, prompt: str | Sequence[str], size: tuple[int, int], settings: Settings, guides: bool = False, **told: Any
    ) -> Order:
        """Prompts and settings -> Order, by this model's defaults; without words, or a null label, nothing guides."""
        names = ("num_inference_steps", "guidance_scale", "guidance_rescale")
        defaults = {name: self.defaults[name] for name in names if name in self.defaults}
        if settings.get("sampler") is None:
            defaults["sampler"] = default_sampler(self.scheduler)
        if self.text is None and not guides:
            defaults["guidance_scale"] = 1.0
            if settings.get("guidance_scale") not in (None, 1):
                raise ValueError(f"guidance scale {settings['guidance_scale']}: this model has no words to guide by")
        order = ordered(prompt, size, defaults, settings, told)
        words = "".join(order.prompts + order.negatives)
        if self.text is None and words:
            raise ValueError(f"prompt {words[:80]!r}: this model takes no words")
        if order.embeds is not None and (self.text is None or order.embeds.shape[-1] != self.text.features):
            wanted = self.text.features if self.text else "no"
            raise ValueError(f"prompt_embeds of shape {tuple(order.embeds.shape)}: this model takes {wanted} features")
        return order

    def _edit(
        self, task: str, prompts: list[str], x: Tensor, size: tuple[int, int], settings: Settings, **told: Any
    ) -> Order:
        """The order for pixels x (n,3,H',W') of pictures that have `size` = (H, W)."""
        padded = (x.shape[-2], x.shape[-1])
        return self._ordered(prompts, padded, settings, task=task, height=size[0], width=size[1], **told)

    def _given(
        self, prompt: str | Sequence[str], image: Source | Sequence[Source], settings: Settings
    ) -> tuple[list[str], Tensor, tuple[int, int]]:
        """Prompts and pictures -> as many prompts, pixels x (n,3,H',W') with sides that are multiples of f, (H, W)."""
        height, width = settings.get("height"), settings.get("width")
        if (height is None) != (width is None):
            raise ValueError(f"height {height}, width {width}: expected both, or neither for the picture's own size")
        x = to_pixels(image, size=None if height is None or width is None else (height, width))
        prompts = [prompt] * len(x) if isinstance(prompt, str) else list(prompt)
        if len(x) not in (1, len(prompts)):
            raise ValueError(f"{len(x)} pictures for {len(prompts)} prompts: expected one, or one for each")
        padded, size = pad(x, self.latents.factor)
        return prompts, padded, size

    @torch.no_grad()
    def _encoded(self, x: Tensor, draws: list[Generator] | None = None) -> Tensor:
        """x (n,3,H,W) -> z_0 (n,C,H/f,W/f): the posterior's mean, or a sample by a generator for each."""
        with self._working(self.latents):
            return self.latents.from_pixels(x, draws)


def _refuse(settings: Settings, task: str, *names: str) -> None:
    """ValueError that names a setting which this task does not take."""
    if unwanted := [name for name in names if name in settings]:
        raise ValueError(f"{task} takes no {unwanted[0]}")


def _each(values: Tensor, order: Order) -> Tensor:
    """One row, or one for each prompt -> one for each picture of the order."""
    if len(order) % len(values):
        raise ValueError(f"{len(values)} pictures, masks or labels for {len(order)} pictures")
    return values.repeat_interleave(len(order) // len(values), dim=0)
