"""A model of pixels: no autoencoder, and the same layout on disk."""

import pytest
import torch

from ldm import checkpoints
from ldm.denoising import Denoiser
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.training.conditions import Doors
from ldm.training.diffusion import PRESETS, SCHEDULER, unet


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = unet(PRESETS["tiny"], 8, 3, Doors(text=False)).eval()
    LatentDiffusion(
        LatentSpace.identity(), Denoiser(network, Diffusion.from_config(SCHEDULER)), None, SCHEDULER
    ).save_pretrained(tmp_path / "model")
    return tmp_path / "model", network


def test_it_is_read_again_and_draws(model):
    folder, network = model
    assert not (folder / "vae").exists()
    loaded = LatentDiffusion.from_pretrained(folder)
    assert loaded.latents.factor == 1 and loaded.latents.channels == 3
    assert LatentSpace.from_pretrained(folder).factor == 1
    pictures = loaded.unconditional(2, num_inference_steps=2)
    assert [picture.size for picture in pictures] == [(8, 8)] * 2


def test_diffusers_reads_it(model):
    from diffusers import DDIMPipeline

    theirs = DDIMPipeline.from_pretrained(model[0])
    weights = theirs.unet.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model[1].state_dict().items())


def test_a_model_that_lost_its_autoencoder_is_not_taken_for_one(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "vae")
    with pytest.raises(FileNotFoundError, match="vae"):
        checkpoints.load(tmp_path / "broken")
