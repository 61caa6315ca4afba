"""A single file's tensors -> the configuration of each part: sizes from the tensors, the rest from `configs/`.

What tensors do not show is carried by family: the number of attention heads, of normalisation groups, the activation,
the noise schedule. The family shows in the names: OpenAI's CLIP (1.x) or open_clip (2.x).
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.faults import CheckpointError, some
from ldm.checkpoints.names import CLIP, OPEN_CLIP, UNET

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

Config = dict[str, Any]
TASKS = {4: "text to image", 8: "InstructPix2Pix", 9: "inpainting"}  # by the U-Net's input channels
CLIP_HEAD = 64  # the width of a head in every published CLIP, and in the U-Nets of Stable Diffusion 2.x
TOWER = 24  # layers of the text tower that 2.x was trained with, of which it uses all but the last
FOREIGN = {  # beginnings of names -> what has such names, and is not read here
    "conditioner.embedders": "a Stable Diffusion XL model",
    "lora_": "LoRA weights, to be added to a model",
    "control_model": "a ControlNet",
    "first_stage_model.quantize": "a model on a quantized autoencoder",
    "quantize": "a quantized autoencoder",
    "model.diffusion_model.joint_blocks": "a Stable Diffusion 3 model",
    "model.diffusion_model.double_blocks": "a FLUX model",
    "double_blocks": "a FLUX model",
}


@cache
def known(name: str) -> Config:
    """The facts carried for "sd1", "sd2" or "scales"."""
    return json.loads((Path(__file__).parent / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def family_of(tensors: "Tensors", path: Path) -> str:
    """A file's tensors -> sd1 or sd2. CheckpointError for what is neither, saying what it looks like."""
    for start, what in FOREIGN.items():
        if any(name.startswith(start) for name in tensors):
            raise CheckpointError(f"{path} is {what}; expected Stable Diffusion 1.x or 2.x, or its autoencoder")
    if any(name.startswith(OPEN_CLIP) for name in tensors):
        return "sd2"
    if any(name.startswith(UNET) for name in tensors):
        return "sd1"
    names = f"{len(tensors)} tensors, {some(tensors)}"
    raise CheckpointError(f"{path} is neither Stable Diffusion 1.x or 2.x nor its autoencoder: {names}")


def described(unet: Config) -> str:
    """A U-Net's config -> which model it is of, in words."""
    if unet.get("_class_name") == "UNet2DModel":
        return "unconditional"
    if unet.get("_class_name") == "VectorDenoiser":
        return "of codes with few places"
    family = known("sd2" if unet.get("use_linear_projection") else "sd1")["name"]
    channels = unet.get("in_channels", 4)
    widths = "-".join(map(str, unet.get("block_out_channels", (320, 640, 1280, 1280))))
    return f"{family}, {TASKS.get(channels, f'{channels} input channels')}, widths {widths}"


def sample_size(unet: Config, prediction_type: str) -> int | None:
    """The latents' side that a published U-Net was trained on: 2.x with v at 768 pixels, all others at 512."""
    sides = known("sd2" if unet.get("use_linear_projection") else "sd1").get("sample_sizes", {})
    return sides.get(prediction_type, unet.get("sample_size")) if unet["in_channels"] == 4 else unet.get("sample_size")


def unet_config(tensors: "Tensors", family: str) -> Config:
    """CompVis' U-Net -> the config of diffusers' UNet2DConditionModel. KeyError names a tensor that is not there."""
    levels: list[list[int]] = [[]]
    attended: list[bool] = [False]
    for i in range(1, _count(tensors, UNET + r"input_blocks\.(\d+)\.")):
        block = f"{UNET}input_blocks.{i}"
        if f"{block}.0.op.weight" in tensors:
            levels, attended = [*levels, []], [*attended, False]
            continue
        levels[-1].append(tensors[f"{block}.0.out_layers.3.weight"].shape[0])
        attended[-1] |= f"{block}.1.proj_in.weight" in tensors
    widths = [own[-1] for own in levels if own]
    first, last = tensors[f"{UNET}input_blocks.0.0.weight"], tensors[f"{UNET}out.2.weight"]
    text = [tensor for name, tensor in tensors.items() if name.startswith(UNET) and "attn2.to_k.weight" in name]
    sizes = {
        "in_channels": first.shape[1],
        "out_channels": last.shape[0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)],
        "cross_attention_dim": text[0].shape[1] if text else None,
    }
    if family == "sd2":
        sizes["attention_head_dim"] = [max(1, width // CLIP_HEAD) for width in widths]
    return {**known(family)["unet"], **sizes}


def vae_config(tensors: "Tensors", prefix: str, diffusers: bool = False) -> Config:
    """The autoencoder's tensors behind a prefix, in CompVis' or diffusers' names -> the config of AutoencoderKL.

    It names the scale of no one: that is for the caller to know. KeyError names a tensor that is not there.
    """
    level, block = ("down_blocks", "resnets") if diffusers else ("down", "block")
    levels = _count(tensors, rf"{re.escape(prefix)}encoder\.{level}\.(\d+)\.")
    layers = _count(tensors, rf"{re.escape(prefix)}encoder\.{level}\.0\.{block}\.(\d+)\.")
    widths = [tensors[f"{prefix}encoder.{level}.{i}.{block}.0.conv1.weight"].shape[0] for i in range(levels)]
    middle = prefix + ("encoder.mid_block.attentions." if diffusers else "encoder.mid.attn_1.")
    return {
        **known("sd1")["vae"],
        "in_channels": tensors[f"{prefix}encoder.conv_in.weight"].shape[1],
        "out_channels": tensors[f"{prefix}decoder.conv_out.weight"].shape[0],
        "latent_channels": tensors[f"{prefix}decoder.conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": any(name.startswith(middle) for name in tensors),
        "use_quant_conv": f"{prefix}quant_conv.weight" in tensors,
        "use_post_quant_conv": f"{prefix}post_quant_conv.weight" in tensors,
        "scaling_factor": None,
    }


def text_config(tensors: "Tensors", family: str) -> Config:
    """The text encoder's tensors -> the config of CLIPTextModel. KeyError names a tensor that is not there."""
    if family == "sd2":
        entries = tensors[f"{OPEN_CLIP}token_embedding.weight"]
        positions = tensors[f"{OPEN_CLIP}positional_embedding"]
        layer = f"{OPEN_CLIP}transformer.resblocks"
        inner = tensors[f"{layer}.0.mlp.c_fc.weight"]
        layers = _count(tensors, rf"{re.escape(layer)}\.(\d+)\.")
        # The condition is the last but one layer's output. A file made from diffusers' layout has no last layer.
        layers -= layers == TOWER or f"{OPEN_CLIP}text_projection" in tensors
    else:
        entries = tensors[f"{CLIP}embeddings.token_embedding.weight"]
        positions = tensors[f"{CLIP}embeddings.position_embedding.weight"]
        inner = tensors[f"{CLIP}encoder.layers.0.mlp.fc1.weight"]
        layers = _count(tensors, rf"{re.escape(CLIP)}encoder\.layers\.(\d+)\.")
    return {
        **known(family)["text_encoder"],
        "vocab_size": entries.shape[0],
        "hidden_size": entries.shape[1],
        "max_position_embeddings": positions.shape[0],
        "intermediate_size": inner.shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, entries.shape[1] // CLIP_HEAD),
    }


def _count(tensors: "Tensors", pattern: str) -> int:
    """One more than the highest number that stands in the pattern's group."""
    numbers = [int(match[1]) for match in (re.match(pattern, name) for name in tensors) if match]
    return 1 + max(numbers, default=-1)
