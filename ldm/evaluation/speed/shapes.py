"""Models of published shapes with random weights: what they cost is that of the published ones, whatever they draw."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SHAPES = ("sd15",)


@contextmanager
def borrowed(model: str) -> Iterator[str]:
    """A model's name -> the same; one of SHAPES -> a folder of it, in which engines keep what they make, too.

    Both are gone afterwards.
    """
    if model not in SHAPES:
        yield model
        return
    before = os.environ.get("LDM_CACHE")
    with TemporaryDirectory() as folder:
        os.environ["LDM_CACHE"] = f"{folder}/cache"
        try:
            random_model(model, Path(folder) / model)
            yield f"{folder}/{model}"
        finally:
            os.environ.pop("LDM_CACHE")
            os.environ.update({} if before is None else {"LDM_CACHE": before})


def random_model(shape: str, folder: Path) -> None:
    """A shape of SHAPES -> `folder`, in diffusers' layout: Stable Diffusion 1.5's U-Net, autoencoder and text encoder.

    Its words are those of the package's own tokenizer, 77 at a time. ValueError for an unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape {shape!r}: expected {', '.join(SHAPES)}")
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    from ldm import checkpoints
    from ldm.text import TextEncoder

    torch.manual_seed(0)
    tokenizer: Any = checkpoints.load_tokenizer(checkpoints.resolve("emoji"))
    tokenizer.length = 77
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        eos_token_id=tokenizer.end, bos_token_id=tokenizer.start,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    scheduler = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
                 "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
    checkpoints.save(folder, vae, unet, TextEncoder(CLIPTextModel(text), tokenizer), scheduler)
