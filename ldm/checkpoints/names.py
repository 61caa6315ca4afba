"""diffusers' names of tensors <-> CompVis' names, which single files have; one table serves both directions.

    place(part, name)            the name here -> where a single file keeps it
    take(file, place)            -> the tensor as it is here
    give(file, place, tensor)    writes it there, the inverse of `take`

Two things differ beyond names: open_clip keeps query, key and value in one tensor, and the autoencoder's attention is
written as 1 x 1 convolutions. Both are undone without touching a number.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, NamedTuple

from ldm.checkpoints.faults import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."


class Place(NamedTuple):
    """Where a single file keeps a tensor; `third` of a merged one, `square` with two axes of one more behind."""

    name: str
    third: int | None = None
    square: bool = False


def take(file: "Mapping[str, Tensor]", place: Place) -> "Tensor":
    """The tensor that lies at a place, in the shape that it has here. KeyError where there is none."""
    tensor = file[place.name]
    if place.third is not None:
        tensor = tensor.chunk(3)[place.third]
    return tensor.flatten(1) if place.square else tensor


def give(file: "MutableMapping[str, Tensor]", place: Place, tensor: "Tensor") -> None:
    """Puts a tensor into its place; thirds come in any order."""
    if place.square:
        tensor = tensor[:, :, None, None]
    if place.third is not None:
        whole = file.setdefault(place.name, tensor.new_empty(3 * len(tensor), *tensor.shape[1:]))
        whole[place.third * len(tensor) : (place.third + 1) * len(tensor)] = tensor
    else:
        file[place.name] = tensor


def unet_places(names: Iterable[str], layers: int) -> dict[str, Place]:
    """Names in a UNet2DConditionModel of `layers` a block -> places. CheckpointError for one that CompVis has not."""
    names = list(names)
    attended = {name.split(".")[1] for name in names if re.match(r"up_blocks\.\d+\.attentions", name)}
    return {name: Place(UNET + _unet(name, layers, attended)) for name in names}


def vae_places(names: Iterable[str], levels: int, prefix: str = VAE) -> dict[str, Place]:
    """Names in an AutoencoderKL of so many levels -> places."""
    places = {}
    for name in names:
        found = _vae(name, levels)
        places[name] = Place(prefix + found, square=bool(re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", found)))
    return places


def text_places(names: Iterable[str], open_clip: bool) -> dict[str, Place]:
    """Names in a CLIPTextModel, without text_model., -> places: as OpenAI's CLIP (1.x), or as open_clip (2.x)."""
    return {name: _open_clip(name) if open_clip else Place(CLIP + name) for name in names}


# ---- the tables ----

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _unet(name: str, layers: int, attended: set[str]) -> str:
    """CompVis numbers its blocks through: a level is its layers and then, as a block of its own, the way down."""

    def down(level: str, part: str, index: str, rest: str) -> str:
        block = 1 + int(level) * (layers + 1) + int(index)
        if part == "downsamplers":
            return f"input_blocks.{block + layers}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{block}.{_column(part, rest)}"

    def up(level: str, part: str, index: str, rest: str) -> str:
        block = int(level) * (layers + 1) + int(index)
        if part == "upsamplers":  # behind the last layer, and behind its attention where it has one
            return f"output_blocks.{block + layers}.{2 if level in attended else 1}.{rest}"
        return f"output_blocks.{block}.{_column(part, rest)}"

    def middle(part: str, index: str, rest: str) -> str:
        column = _column(part, rest).split(".", 1)[1]
        return f"middle_block.{1 if part == 'attentions' else 2 * int(index)}.{column}"

    patterns: dict[str, Callable[..., str]] = {
        r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)": down,
        r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.+)": up,
        r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)": middle,
        r"((?:time_embedding|conv).+)": lambda rest: _renamed(rest, _UNET_ENDS),
    }
    return _first(name, patterns)


def _column(part: str, rest: str) -> str:
    """Within a block 0 is the resnet and 1 the attention, whose names are the same in both."""
    if part == "resnets":
        return f"0.{_renamed(rest, _UNET_RESNET)}"
    if not re.match(r"(norm|proj_in|proj_out|transformer_blocks)\.", rest):
        raise CheckpointError(f"attention's {rest} has no name in a single file: only Stable Diffusion's networks have")
    return f"1.{rest}"


def _vae(name: str, levels: int) -> str:
    """CompVis counts the decoder's levels by size, diffusers by order."""

    def level(side: str, way: str, index: str) -> str:
        return f"{side}.{way}.{index if way == 'down' else levels - 1 - int(index)}"

    patterns: dict[str, Callable[..., str]] = {
        r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(.+)": lambda side, way, index, block, rest: (
            f"{level(side, way, index)}.block.{block}.{_renamed(rest, _VAE_RESNET)}"
        ),
        r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.(.+)": lambda side, way, index, rest: (
            f"{level(side, way, index)}.{way}sample.{rest}"
        ),
        r"(encoder|decoder)\.mid_block\.resnets\.(\d+)\.(.+)": lambda side, index, rest: (
            f"{side}.mid.block_{int(index) + 1}.{_renamed(rest, _VAE_RESNET)}"
        ),
        r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)": lambda side, rest: (
            f"{side}.mid.attn_1.{_renamed(rest, _VAE_ATTENTION)}"
        ),
        r"(encoder|decoder)\.conv_norm_out\.(.+)": lambda side, rest: f"{side}.norm_out.{rest}",
        r"((?:encoder|decoder)\.conv_(?:in|out)\..+|(?:post_)?quant_conv\..+)": lambda rest: rest,
    }
    return _first(name, patterns)


def _open_clip(name: str) -> Place:
    if name in _OPEN_CLIP:
        return Place(OPEN_CLIP + _OPEN_CLIP[name])
    index, rest = name.removeprefix("encoder.layers.").split(".", 1)
    layer = f"{OPEN_CLIP}transformer.resblocks.{index}"
    merged = re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest)
    if merged:
        return Place(f"{layer}.attn.in_proj_{merged[2]}", third="qkv".index(merged[1]))
    return Place(f"{layer}.{_renamed(rest, _OPEN_CLIP_LAYER)}")


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """A name whose beginning stands in the table -> the other name; itself otherwise."""
    old = next((old for old in table if name.startswith(f"{old}.")), None)
    return name if old is None else table[old] + name.removeprefix(old)


def _first(name: str, patterns: Mapping[str, Callable[..., str]]) -> str:
    for pattern, rename in patterns.items():
        match = re.fullmatch(pattern, name)
        if match:
            return rename(*match.groups())
    raise CheckpointError(f"{name} has no name in a single file: only Stable Diffusion's networks have")
