"""Training a U-Net to denoise: eps, v or z_0 of latents, or of pixels, told words, a class, a picture, or nothing.

    Batch --posterior, noising, conditions dropped--> z_t, t, cond --U-Net--> output, against the process's target

The loss is that of Ho et al. 2020 (eq. 14) for whatever target the process states, its times weighted as `weighting`
says; conditions are dropped for classifier-free guidance (Ho and Salimans 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm import checkpoints
from ldm.denoising import Denoiser
from ldm.draws import gaussian, uniform
from ldm.noising import Diffusion
from ldm.text import TextEncoder, Tokenizer
from ldm.training import lora
from ldm.training.conditions import BY_WORDS, Batch, Conditions, Doors, collate
from ldm.training.encoding import fingerprint
from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.presets import PRESETS, Size, new_network, text_model, unet, widened
from ldm.training.vocabulary import fitting, relearnt
from ldm.training.weighting import weighting

__all__ = [
    "PRESETS",
    "SCHEDULER",
    "DiffusionObjective",
    "Doors",
    "Recipe",
    "Size",
    "new_model",
    "recommended",
    "scheduler_config",
    "text_model",
    "train_diffusion",
    "trained_model",
    "unet",
]

Preview = Callable[[Any, "TextEncoder | None", int], "Path | None"]  # (U-Net, text encoder, step) -> what it drew

SCHEDULER = {  # Stable Diffusion's noise schedule, with the v target of Salimans and Ho 2022
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def scheduler_config(
    prediction_type: str | None = None, zero_snr: bool = False, base: Mapping[str, Any] = SCHEDULER
) -> dict[str, Any]:
    """`base` for another target, or with zero terminal SNR, where sampling must begin at T (Lin et al. 2023).

    ValueError for an unknown target, and for epsilon with zero terminal SNR.
    """
    config = dict(base) | ({"prediction_type": prediction_type} if prediction_type else {})
    if zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 0}
    Diffusion.from_config(config)
    return config


@dataclass(frozen=True)
class Recipe:
    """How a model learns: what counts how much, what is left out now and then, and which weights change.

    ValueError for a value out of its range, and for what does not go together.
    """

    weighting: str = "uniform"  # or min_snr, cosine
    gamma: float = 5.0  # of min_snr
    offset_noise: float = 0.0  # standard deviation of what is added to all places of a channel alike
    drop: float = 0.1  # share of samples that are told no words and no class
    drop_beside: float = 0.0  # share of samples that are shown no picture beside
    train_text: bool = True
    new_vocabulary: bool = False  # words learnt anew from the captions, for a text encoder that there is
    lora: int = 0  # rank of adapters that learn in place of the weights; 0: the weights themselves
    between: tuple[float, float] = (0.0, 1.0)  # shares of all times, of which alone it learns: an expert

    def __post_init__(self) -> None:
        for name in ("drop", "drop_beside"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if not 0 <= self.offset_noise < float("inf") or self.lora < 0:
            raise ValueError(f"offset_noise {self.offset_noise}, lora {self.lora}: expected 0 or more")
        if self.new_vocabulary and (self.lora or not self.train_text):
            raise ValueError("new_vocabulary: expected a text encoder that learns, without lora")


class DiffusionObjective(nn.Module):
    """Batch, a generator for each sample -> loss, the weighted squared error, and mse, the plain one.

    Every sample draws from its own generator, in this order: posterior, eps, t, whether words are dropped, whether the
    picture beside is, and offset noise where there is any.
    """

    def __init__(self, unet: nn.Module, process: Any, conditions: Conditions, recipe: Recipe = Recipe()):
        super().__init__()
        self.unet, self.process, self.conditions, self.recipe = unet, process, conditions, recipe
        self.weighting = weighting(recipe.weighting, process, recipe.gamma).within(*recipe.between)
        self.averaged = [name for name in ("unet", "conditions") if _learns(getattr(self, name))]

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        z_0, eps = drawn(batch, generators)
        t = self.weighting.times(generators)
        dropped, blank = (uniform(generators) < share for share in (self.recipe.drop, self.recipe.drop_beside))
        if self.recipe.offset_noise:
            eps = eps + self.recipe.offset_noise * offset(generators, eps)
        if batch.error_map is not None:
            eps = batch.error_map * eps
        z_t = self.process.noise(z_0, t, eps, batch.far)
        output = Denoiser(self.unet, self.process).output(z_t, t, self.conditions(batch, dropped, blank))
        error = (output - self.process.target(z_0, z_t, t, batch.far)).square().flatten(1).mean(1)
        return {"loss": (self.weighting.of(t).to(error) * error).mean(), "mse": error.detach().mean()}


def drawn(batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """A batch -> z_0, a sample of the posterior, and eps, each (B,C,h,w) in float32."""
    mean, logvar = batch.mean.float(), batch.logvar.float()
    posterior, eps = (gaussian(generators, mean.shape[1:], mean.device) for _ in range(2))
    return mean + torch.exp(logvar / 2) * posterior, eps


def offset(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """(B,C,1,1) ~ N(0, I): what offset noise adds to every place of a channel (Guttenberg 2023)."""
    return gaussian(generators, (like.shape[1], 1, 1), like.device)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


# ---- what is trained ----


def new_model(size: Size, data: Any, doors: Doors = BY_WORDS) -> tuple[Any, TextEncoder | None]:
    """A U-Net and, where there are words, a text encoder, for the data's latents and captions."""
    text = None
    if doors.text:
        tokenizer = fitting(captions_of(data))
        text = TextEncoder(text_model(size, tokenizer), tokenizer)
    channels, _, side = data[0][0].shape
    return new_network(size, side, channels, doors), text


def captions_of(data: Any) -> list[str]:
    """All captions of a dataset: its own list, where it keeps one."""
    return data.captions if hasattr(data, "captions") else [str(data[i][2]) for i in range(len(data))]


def trained_model(source: str | Path, doors: Doors | None = None) -> tuple[Any, TextEncoder | None]:
    """A model to go on from -> its U-Net and text encoder; a U-Net that was shown no picture is widened for one.

    ValueError where its doors are otherwise not those asked for.
    """
    parts = checkpoints.parts_of(checkpoints.read(source), source)
    network: Any = parts.unet
    own = doors_of(network.config, parts.text is not None)
    if doors and doors.beside and not own.beside:
        widened(network, doors.beside)
        own = replace(own, beside=doors.beside)
    if doors not in (None, own):
        raise ValueError(f"{source} is told {own}; expected a model that is told {doors}")
    if parts.text:
        parts.text.model.train()
    return network.train(), parts.text


def doors_of(config: Mapping[str, Any], text: bool) -> Doors:
    """A U-Net's config, and whether there is a text encoder -> the doors that the model has."""
    classes = config.get("num_class_embeds") or 1
    return Doors(text, classes - 1, config.get("in_channels", 4) - config.get("out_channels", 4))


def recommended(doors: Doors, recipe: Recipe, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """What a trained model's ldm.json says: steps, guidance and the null label, and how its noise was special."""
    guides = (doors.text or doors.classes) and recipe.drop > 0
    defaults: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 5.0 if guides else 1.0}
    if doors.classes:
        defaults["null_label"] = doors.null_label
    if doors.beside:
        defaults["image_guidance_scale"] = 1.5 if recipe.drop_beside and doors.text else 1.0
    if recipe.offset_noise:
        defaults["offset_noise"] = recipe.offset_noise
    if scheduler.get("rescale_betas_zero_snr"):
        defaults["guidance_rescale"] = 0.7  # Lin et al. 2023, section 3.4
    return defaults


# ---- the training ----


def train_diffusion(
    out: Path,
    data: Any,
    plan: Plan,
    preset: str = "small",
    scheduler: dict[str, Any] | None = None,
    preview: Preview | None = None,
    init: str | Path | None = None,
    recipe: Recipe = Recipe(),
    doors: Doors | None = None,
) -> tuple[Any, TextEncoder | None]:
    """Latents with what they are of -> a U-Net and a text encoder, None where there are no words.

    `data[i]` is (mean, logvar, caption or label) or has a fourth, a mapping with "label", "beside" or "states" (see
    `conditions.collate`). `scheduler` is the config of the forward process (diffusers' names). `init` is a model to
    start from, in place of a new one of `preset`: then the scheduler and the doors are its own, if none are given.
    With `recipe.lora` the adapters are written to `out`/lora, and stand in the weights of what is returned. The same
    call goes on from `out`'s checkpoint. ValueError for whatever does not go together. The loss is that of Ho et al.
    2020, equation 14, for whatever target the process has.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    if recipe.lora and not init:
        raise ValueError(f"lora {recipe.lora}: expected init, the model that the adapters are for")
    torch.manual_seed(plan.seed)
    network, text = trained_model(init, doors) if init else new_model(PRESETS[preset], data, doors or BY_WORDS)
    if recipe.new_vocabulary:
        text = _retold(text, init, data)
    doors = doors or doors_of(network.config, text is not None)
    scheduler = scheduler or (checkpoints.read(init).configs["scheduler"] if init else SCHEDULER)
    prepare(network, text, recipe)
    objective = DiffusionObjective(network, Diffusion.from_config(scheduler), Conditions.of(doors, text), recipe)
    settings: dict[str, Any] = {"kind": "diffusion", "scheduler": scheduler}
    settings |= {"init": checkpoints.fingerprint(checkpoints.locate(init))} if init else {"preset": preset}
    settings |= {"recipe": asdict(recipe), "doors": asdict(doors)}

    def watch(average: Any, step: int) -> Path | None:
        return preview(*parted(average, text), step) if preview else None

    packed = partial(collate, doors, reading(data, text, recipe.train_text))
    network, text = parted(fit(objective, data, plan, out, packed, settings, watch), text)
    return finished(out, network.cpu().to(memory_format=torch.contiguous_format), text, recipe)


def _retold(text: TextEncoder | None, init: str | Path | None, data: Any) -> TextEncoder:
    if text is None or init is None:
        raise ValueError("new_vocabulary: expected init, a model that is told words")
    return relearnt(text, captions_of(data))


def prepare(network: nn.Module, text: TextEncoder | None, recipe: Recipe) -> None:
    """Freezes what is not to change, and puts the adapters in."""
    parts: dict[str, nn.Module] = {"unet": network} | ({"text_encoder": text.model} if text else {})
    if text and not recipe.train_text:
        parts.pop("text_encoder").requires_grad_(False).eval()
    for part, model in parts.items():
        if recipe.lora:
            lora.adapt(model, part, recipe.lora)


def parted(average: Any, text: TextEncoder | None) -> tuple[Any, TextEncoder | None]:
    """The averaged objective -> its U-Net and text encoder; one that was frozen is the one that there was."""
    model = getattr(getattr(average, "conditions", None), "text", None)
    return average.unet, text and TextEncoder(model or text.model, text.tokenizer)


def finished(out: Path, network: Any, text: TextEncoder | None, recipe: Recipe) -> tuple[Any, TextEncoder | None]:
    """Trained parts -> the same on the CPU; adapters written, then merged."""
    text = text and text.to("cpu")
    if recipe.lora:
        lora.settle(out, {"unet": network} | ({"text_encoder": text.model} if text and recipe.train_text else {}))
    return network, text


def reading(data: Any, text: TextEncoder | None, learns: bool) -> Tokenizer | None:
    """The tokenizer for captions; None without words, or where the data hold them as this frozen encoder reads them."""
    if text is None:
        return None
    reader = None if learns else getattr(data, "made_by", {}).get("text")
    read = reader is not None and reader == fingerprint(text.model, {"vocabulary": text.tokenizer.vocabulary})
    return None if read else text.tokenizer
