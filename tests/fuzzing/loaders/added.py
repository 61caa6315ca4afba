"""What is added to a model: LoRAs, words, tokenizers."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import CAPTIONS, SCHEDULER
from safetensors.torch import save_file

from fuzzing.loaders.loader import loader
from fuzzing.loaders.models import pipeline

LENGTH = 16  # tokens


@cache
def networks() -> tuple[Any, Any]:
    from dataclasses import replace

    from ldm.training.diffusion import PRESETS, text_model, unet
    from ldm.training.tokenizer import train_tokenizer

    torch.manual_seed(0)
    size = replace(PRESETS["tiny"], text_layers=2)
    return unet(size, side=8).eval(), text_model(size, train_tokenizer(CAPTIONS, size=600, length=LENGTH)).eval()


def write_loras(folder: Path) -> None:
    import test_lora

    for style in ("kohya", "diffusers", "processors"):
        found = test_lora.tensors(networks(), style, alpha=None if style == "diffusers" else 3.0)
        config = {"unet.lora_alpha": 3, "unet.alpha_pattern": {"attn1": 2}, "text_encoder.lora_alpha": 3}
        told = {"lora_adapter_metadata": json.dumps(config)} if style == "diffusers" else None
        save_file(found, folder / f"{style}.safetensors", told)
    (folder / "peft").mkdir()
    torch.save(test_lora.tensors(networks(), "peft", alpha=None), folder / "peft" / "adapter_model.bin")
    config = {"lora_alpha": 3, "r": 2, "use_rslora": True, "alpha_pattern": {"to_q": 1.5}}
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))


def loras(root: Path, damaged: Path) -> None:
    from ldm.lora import Fused

    fused = Fused(*networks())
    try:
        fused.load(damaged.parent if damaged.parent.name == "peft" else damaged)
    finally:
        fused.unload()


def write_lora_model(folder: Path) -> None:
    import test_lora

    from ldm.checkpoints.adapters import name_base

    pipeline().save_pretrained(folder / "model")
    (folder / "lora").mkdir()
    unet: Any = pipeline().denoiser.unet
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = test_lora.factors(unet.get_submodule(name), 0)
    keys = test_lora.spell("diffusers", "unet", name)
    save_file(dict(zip(keys, (down, up), strict=True)), folder / "lora" / "pytorch_lora_weights.safetensors")
    name_base(folder / "lora", str(folder / "model"), SCHEDULER, {"num_inference_steps": 4})


def models_made_of_a_lora(root: Path, damaged: Path) -> None:
    from ldm.pipeline import LatentDiffusion

    LatentDiffusion.from_pretrained(root / "lora")


def write_embeddings(folder: Path) -> None:
    import test_inversion

    for layout in test_inversion.LAYOUTS:
        place = folder / layout.replace(" ", "-")
        place.mkdir()
        test_inversion.as_written(layout, place)


def embeddings(root: Path, damaged: Path) -> None:
    from copy import deepcopy

    from ldm import inversion
    from ldm.text import TextEncoder, Tokenizer

    text = pipeline().text
    own = text.tokenizer
    tokenizer = Tokenizer(own.vocabulary, own.merges, own.length, own.pad_token)
    inversion.load(TextEncoder(deepcopy(text.model), tokenizer), damaged)


def write_tokenizers(folder: Path) -> None:
    own = pipeline().text.tokenizer
    own.save_pretrained(folder / "two" / "tokenizer")
    (folder / "one" / "tokenizer").mkdir(parents=True)
    model = {"type": "BPE", "vocab": own.vocabulary, "merges": [list(merge) for merge in own.merges]}
    (folder / "one" / "tokenizer" / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))


def tokenizers(root: Path, damaged: Path) -> None:
    from ldm.checkpoints.folders import load_tokenizer

    load_tokenizer(damaged.parent.parent)("a red apple, nothing else")


loader(loras, write_loras, share=2)
loader(models_made_of_a_lora, write_lora_model, stays="^model/")
loader(embeddings, write_embeddings, share=2)
loader(tokenizers, write_tokenizers, share=2)
