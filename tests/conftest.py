"""Tiny seeded models, built in code: what the published ones are, but small."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing by more, and wait for them beside other work

import pytest
import torch

from ldm.cli import main
from ldm.denoising import Denoiser
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.text import TextEncoder
from ldm.training.diffusion import PRESETS, text_model, unet
from ldm.training.tokenizer import train_tokenizer
from ldm.training.vae import autoencoder

CAPTIONS = ["a red apple on a blue background", "a cat face to the left of a dog face", "three green pears"] * 2
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "skip_prk_steps": True,
}


def tiny_pipeline(prediction_type: str = "epsilon", **changes) -> LatentDiffusion:
    """A whole Stable Diffusion in small, with random weights loud enough that every time step changes the picture.

    `changes` are those to the U-Net's config: 9 in_channels make an inpainting model, 8 an editing one.
    """
    torch.manual_seed(0)
    size = PRESETS["tiny"]
    tokenizer = train_tokenizer(CAPTIONS, size=600, length=16)
    network = unet(size, side=8)
    network = type(network).from_config({**network.config, **changes}).eval()
    text = TextEncoder(text_model(size, tokenizer).eval(), tokenizer)
    with torch.no_grad():
        for module in (network.time_embedding, network.conv_out, *network.down_blocks):
            for parameter in module.parameters():
                parameter *= 2
    scheduler = {**SCHEDULER, "prediction_type": prediction_type}
    space = LatentSpace(autoencoder((16, 16, 16)).eval())
    return LatentDiffusion(space, Denoiser(network, Diffusion.from_config(scheduler)), text, scheduler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What engines keep, they keep here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def pipeline() -> LatentDiffusion:
    return tiny_pipeline()


@pytest.fixture(scope="session")
def folder(pipeline, tmp_path_factory):
    """The tiny pipeline on disk, in diffusers' layout."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(path)
    return path


@pytest.fixture
def ldm(capsys):
    """Runs a command -> its exit status, standard output and standard error."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ldm", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run
