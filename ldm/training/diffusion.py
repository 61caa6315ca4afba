"""Training a U-Net, with its text encoder if wanted, to denoise latents: the simple loss of Ho et al. 2020 (eq. 14)
for whatever target the process states, with captions dropped for classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ldm import checkpoints
from ldm.noising import Diffusion, Process
from ldm.text import TextEncoder, Tokenizer
from ldm.training.cache import CachedLatents
from ldm.training.loop import Plan, fit
from ldm.training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Size:
    """A new model: widths of the U-Net's levels, attention on all but the first; its text encoder's width and depth."""

    widths: tuple[int, ...]
    features: int
    text_layers: int
    layers: int = 1
    heads: int = 4


PRESETS = {
    "tiny": Size((8, 16), 16, 1, heads=2),  # for tests
    "small": Size((48, 96, 192), 160, 3),  # 9.4 M + 1.2 M parameters: about 95 samples/s at 16 x 16 on two cores
}


def unet(size: Size, side: int, channels: int = 4) -> UNet2DConditionModel:
    """A new U-Net on latents (B,channels,side,side); cross-attention on every level but the first."""
    levels = len(size.widths)
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (levels - 1),
        up_block_types=["CrossAttnUpBlock2D"] * (levels - 1) + ["UpBlock2D"],
        block_out_channels=list(size.widths),
        layers_per_block=size.layers,
        cross_attention_dim=size.features,
        attention_head_dim=size.heads,
        norm_num_groups=min(16, size.widths[0]),
    )


def text_model(size: Size, tokenizer: Tokenizer) -> CLIPTextModel:
    """A new CLIP text encoder for the tokenizer's vocabulary and length."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer.vocabulary),
        hidden_size=size.features,
        intermediate_size=4 * size.features,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.heads,
        max_position_embeddings=tokenizer.length,
        bos_token_id=tokenizer.start,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
    )
    model: Any = CLIPTextModel(config)
    # Words must speak louder than their places from the start: at CLIP's own 0.02 the names of things, each of them
    # rare, take three times as many samples to rise above the position embeddings.
    nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    return model


class DiffusionObjective(nn.Module):
    """(mean, logvar, ids) -> mean squared error of the output against the process's target, t uniform in 1..T."""

    def __init__(self, unet: nn.Module, process: Process, text: nn.Module, null: Tensor, drop: float = 0.1):
        super().__init__()
        self.unet, self.process, self.text, self.drop = unet, process, text, drop
        self.null: Tensor
        self.register_buffer("null", null)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        mean, logvar, ids = batch[0].float(), batch[1].float(), batch[2]
        posterior, eps = (torch.randn(mean.shape, generator=generator).to(mean) for _ in range(2))
        t = torch.randint(1, self.process.T + 1, (len(mean),), generator=generator)
        dropped = torch.rand(len(mean), 1, generator=generator) < self.drop
        z_0 = mean + torch.exp(logvar / 2) * posterior
        z_t = self.process.noise(z_0, t, eps)
        cond = self.text(torch.where(dropped.to(ids.device), self.null, ids)).last_hidden_state
        output = self.unet(z_t, (t - 1).to(mean.device), encoder_hidden_states=cond).sample.float()
        loss = (output - self.process.target(z_0, z_t, t)).square().mean()
        return {"loss": loss}


def collate(tokenizer: Tokenizer, items: list[tuple[Tensor, Tensor, str]]) -> tuple[Tensor, Tensor, Tensor]:
    means, logvars, captions = zip(*items, strict=True)
    return torch.stack(means), torch.stack(logvars), torch.tensor(tokenizer(captions))


def new_model(size: Size, data: CachedLatents) -> tuple[UNet2DConditionModel, TextEncoder]:
    """A U-Net and a text encoder for the data's latents and captions."""
    tokenizer = train_tokenizer(data.captions, length=24)
    text = text_model(size, tokenizer)
    return unet(size, data.mean.shape[-1], data.mean.shape[1]), TextEncoder(text, tokenizer)


def trained_model(source: str | Path) -> tuple[Any, TextEncoder]:
    """The U-Net and the text encoder of a model; ValueError for one without text."""
    folder = checkpoints.resolve(source)
    network, text = checkpoints.load_unet(folder), checkpoints.load_text(folder)
    if text is None:
        raise ValueError(f"{source} has no text encoder to go on from")
    return network.train(), TextEncoder(text.model.train(), text.tokenizer)


def train_diffusion(
    out: Path,
    data: CachedLatents,
    plan: Plan,
    preset: str = "small",
    scheduler: dict[str, Any] | None = None,
    preview: Callable[[Any, TextEncoder, int], None] | None = None,
    init: str | Path | None = None,
) -> tuple[Any, TextEncoder]:
    """Cached latents with captions -> a U-Net and a text encoder, trained together.

    `scheduler` is the config of the forward process (diffusers' names). `init` is a model to start from, in place of a
    new one of `preset`: its U-Net, text encoder and tokenizer. The same call goes on from `out`'s checkpoint.
    Raises ValueError for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    torch.manual_seed(plan.seed)
    network, text = trained_model(init) if init else new_model(PRESETS[preset], data)
    scheduler = scheduler or SCHEDULER
    null = torch.tensor(text.tokenizer(""))
    objective = DiffusionObjective(network, Diffusion.from_config(scheduler), text.model, null)
    settings: dict[str, Any] = {"kind": "diffusion", "preset": preset, "scheduler": scheduler, "data": data.made_by}
    if init:
        settings |= {"preset": None, "init": checkpoints.fingerprint(checkpoints.resolve(init))}

    def watch(average: Any, step: int) -> None:
        if preview:
            preview(average.unet, TextEncoder(average.text, text.tokenizer), step)

    average: Any = fit(objective, data, plan, out, partial(collate, text.tokenizer), settings, watch)
    trained = average.unet.cpu().to(memory_format=torch.contiguous_format)
    return trained, TextEncoder(average.text.cpu(), text.tokenizer)


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
