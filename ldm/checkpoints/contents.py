"""What a checkpoint holds, whatever its layout: every reader gives a `Contents`, every writer takes one."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ldm.text import TextEncoder, Tokenizer

PREFIX = "text_model."  # in the names of published text encoders; not in those of transformers' own module


class Decision(NamedTuple):
    """Something that a checkpoint's use depends on, and where it comes from; not `sure` where that is a guess."""

    value: Any
    why: str = ""
    sure: bool = True


@dataclass
class Contents:
    """Tensors in diffusers' and transformers' names, as they are on disk, with the configs that say what they are.

    The parts are vae, unet and text_encoder, whichever are there; `configs` has "scheduler" and "defaults" too.
    `where` is what a message calls each part.
    """

    tensors: "dict[str, dict[str, Tensor]]"
    configs: dict[str, dict[str, Any]]
    tokenizer: "Tokenizer | None" = None
    where: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)

    def cast(self, dtype: "torch.dtype | None") -> "Contents":
        """The same with every tensor in a dtype; None leaves each as it is."""
        if dtype is None:
            return self
        cast = {part: {name: t.to(dtype) for name, t in own.items()} for part, own in self.tensors.items()}
        return replace(self, tensors=cast)

    def with_vae(self, other: "Contents") -> "Contents":
        """The same with the autoencoder of another; ValueError where one of both has none, or its latents differ."""
        sides = [contents.configs.get("vae", {}).get("latent_channels", 0) for contents in (self, other)]
        if not sides[0] or sides[0] != sides[1]:
            raise ValueError(f"latents of {sides[0]} and {sides[1]} channels (0: no autoencoder): expected as many")
        return replace(
            self,
            tensors=self.tensors | {"vae": other.tensors["vae"]},
            configs=self.configs | {"vae": other.configs["vae"]},
            where=self.where | {"vae": other.where.get("vae", "")},
            decisions=self.decisions | {"scale": other.decisions["scale"]},
        )


def contents_of(
    vae: Any,
    unet: "nn.Module",
    text: "TextEncoder | None",
    scheduler: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    vae_entries: dict[str, Any] | None = None,
) -> Contents:
    """Modules -> Contents; `vae_entries` win over the autoencoder's config. One without weights is that of pixels."""
    learnt = {"vae": vae} if hasattr(vae, "state_dict") else {}
    modules: dict[str, Any] = learnt | {"unet": unet} | ({} if text is None else {"text_encoder": text.model})
    configs = {part: module_config(module) for part, module in modules.items()}
    if learnt:
        configs["vae"] |= vae_entries or {}
    configs |= {"scheduler": scheduler} | ({"defaults": defaults} if defaults else {})
    tensors = {part: normal(part, module.state_dict()) for part, module in modules.items()}
    return Contents(tensors, configs, None if text is None else text.tokenizer)


def module_config(module: Any) -> dict[str, Any]:
    """A diffusers or transformers module -> its config as both libraries write it, and as both agree on."""
    transformers = hasattr(module.config, "to_dict")
    config = module.config.to_dict() if transformers else dict(module.config)
    if transformers:  # it would compute in the dtype of the file, diffusers in float32
        identity = {"architectures": [type(module).__name__], "torch_dtype": "float32"}
    else:
        identity = {"_class_name": type(module).__name__}
    drop = ("_name_or_path", "dtype", "torch_dtype", "_use_default_values")
    return {key: value for key, value in config.items() if key not in drop} | identity


_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_UNUSED = ("embeddings.position_ids", "text_projection.weight", "logit_scale")


def normal(part: str, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """A part's tensors in the names of today's libraries: early autoencoders and published text encoders differ."""
    if part == "text_encoder":
        plain = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        return {name: tensor.detach() for name, tensor in plain.items() if name not in _UNUSED}
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_ATTENTION.items() if part == "vae" else ():
            name = name.replace(old, new)
        renamed[name] = tensor.detach()
    return renamed


def file_name(path: str | Path) -> str:
    """How a decision calls a file: its name without the folders."""
    return Path(path).name
