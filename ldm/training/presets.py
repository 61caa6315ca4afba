"""New models to train, by name: a U-Net for latents of any autoencoder, with the doors that its conditions need."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from ldm.text import Tokenizer
from ldm.training.conditions import BY_WORDS, Doors
from ldm.vectors import VectorDenoiser


@dataclass(frozen=True)
class Size:
    """A new model: widths of the U-Net's levels, attention on all but the first; its text encoder's width and depth.

    A `local` one has no attention: it looks at what is around a place, and knows of the whole by its norms alone.
    """

    widths: tuple[int, ...]
    features: int
    text_layers: int
    layers: int = 1
    heads: int = 4
    local: bool = False


PRESETS = {
    "tiny": Size((8, 16), 16, 1, heads=2),  # for tests
    "mini": Size((32, 64, 96), 96, 2),  # 2.6 M + 0.4 M parameters: for digits, and first tries
    "local": Size((24, 48, 96, 128), 96, 2, local=True),  # 3.2 M: for repairs
    "small": Size((48, 96, 192), 160, 3),  # 9.4 M + 1.2 M parameters: about 95 samples/s at 16 x 16 on two cores
}


FEWEST = 4  # places along a side that a U-Net is made for


def new_network(size: Size, side: int, channels: int = 4, doors: Doors = BY_WORDS) -> Any:
    """A new network on latents (B,channels,side,side): a U-Net, or for fewer places than FEWEST a VectorDenoiser."""
    if side >= FEWEST:
        return unet(size, side, channels, doors)
    return VectorDenoiser(
        channels + doors.beside,
        channels,
        side,
        width=size.widths[-1],
        num_class_embeds=doors.classes + 1 if doors.classes else None,
        cross_attention_dim=size.features if doors.text else None,
    )


def unet(size: Size, side: int, channels: int = 4, doors: Doors = BY_WORDS) -> UNet2DConditionModel | UNet2DModel:
    """A new U-Net on latents (B,channels,side,side); attention on every level but the first.

    With text that is cross-attention too; without, the network is diffusers' UNet2DModel, which takes no text.
    """
    levels = len(size.widths)
    config: dict[str, Any] = {
        "sample_size": side,
        "in_channels": channels + doors.beside,
        "out_channels": channels,
        "block_out_channels": list(size.widths),
        "layers_per_block": size.layers,
        "norm_num_groups": math.gcd(16, *size.widths),
        "num_class_embeds": doors.classes + 1 if doors.classes else None,
    }
    kind = "{}Block2D" if size.local else "CrossAttn{}Block2D" if doors.text else "Attn{}Block2D"
    config["down_block_types"] = ["DownBlock2D"] + [kind.format("Down")] * (levels - 1)
    config["up_block_types"] = [kind.format("Up")] * (levels - 1) + ["UpBlock2D"]
    if doors.text:
        # diffusers calls the number of heads attention_head_dim here, and in the other class means what it says
        return UNet2DConditionModel(cross_attention_dim=size.features, attention_head_dim=size.heads, **config)
    heads = math.gcd(*size.widths[1:]) // size.heads
    return UNet2DModel(attention_head_dim=heads, add_attention=not size.local, **config)


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


@torch.no_grad()
def widened(unet: Any, beside: int) -> Any:
    """A U-Net -> the same one, with `beside` more channels in its first convolution, which begin at zero.

    So it begins as it was, whatever stands in them (Brooks et al. 2023, section 3.2.1).
    """
    old = unet.conv_in
    new = nn.Conv2d(old.in_channels + beside, old.out_channels, old.kernel_size, old.stride, old.padding)
    new.weight.zero_()
    new.weight[:, : old.in_channels] = old.weight
    new.bias = old.bias
    unet.conv_in = new.to(old.weight)
    unet.register_to_config(in_channels=new.in_channels)
    return unet
