"""Training LoRAs (Hu et al. 2021) with peft: adapters into a model, out into a file, or into the weights.

W = W_0 + B A        rank r, alpha = r, so that no reader of the file can scale it wrongly
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.files import write_tensors

NAME = "pytorch_lora_weights.safetensors"  # what diffusers looks for in a folder
TARGETS = {  # the projections of attention, by the part of a pipeline that they stand in
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"],
}
EVERYWHERE = [  # in a U-Net: what changes how it draws, rather than what (Luo et al. 2023, "LCM-LoRA")
    *TARGETS["unet"], "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
]  # fmt: skip


def adapt(model: nn.Module, part: str, rank: int, targets: list[str] | None = None) -> None:
    """Freezes a model and puts an adapter beside each of its part's TARGETS, or others; it computes what it did, as B
    is 0.

    ValueError for a rank below 1, ModuleNotFoundError without peft.
    """
    if rank < 1:
        raise ValueError(f"LoRA rank {rank}: expected 1 or more")
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets or TARGETS[part])
    inject_adapter_in_model(config, model)


def tensors(model: nn.Module, part: str) -> dict[str, Tensor]:
    """The adapters of a model, float16, in diffusers' names: unet.down_blocks. ... .to_q.lora_A.weight, ..."""
    prefix = "text_encoder.text_model." if part == "text_encoder" else f"{part}."  # as published files have it
    return {
        f"{prefix}{name.removeprefix('text_model.')}.lora_{letter}.weight": weight.detach().half().cpu().contiguous()
        for name, layer in adapters(model)
        for letter, weight in (("A", layer.lora_A["default"].weight), ("B", layer.lora_B["default"].weight))
    }


def save(path: Path, models: Mapping[str, nn.Module]) -> None:
    """{part: adapted model} -> one file that diffusers' `load_lora_weights` and `ldm.lora` read."""
    found = {name: tensor for part, model in models.items() for name, tensor in tensors(model, part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, found)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Adds the adapters to the weights that they stand beside, and takes them away: the model is an ordinary one."""
    for name, layer in list(adapters(model)):
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def settle(out: Path, models: Mapping[str, nn.Module]) -> None:
    """{part: adapted model} -> `out`/lora, and ordinary models whose weights have the adapters in them."""
    save(out / "lora" / NAME, models)
    for model in models.values():
        merge(model)


def adapters(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers of a model, by name; none of one that was not adapted."""
    return ((name, layer) for name, layer in model.named_modules() if hasattr(layer, "lora_A"))
