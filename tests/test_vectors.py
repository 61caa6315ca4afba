"""Diffusion on codes of one place: trained, drawn, saved and loaded by the same code as any other."""

import pytest
import torch
from test_autoencoders import CONV, DENSE

from ldm.autoencoders import AE, VAE, VQVAE, ConditionalVAE, Shape
from ldm.denoising import Denoiser
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.training.cache import CachedLatents
from ldm.training.conditions import Doors
from ldm.training.diffusion import PRESETS, SCHEDULER, train_diffusion
from ldm.training.plan import Plan
from ldm.training.presets import new_network
from ldm.training.randomness import keyed
from ldm.vectors import VectorDenoiser

PLAN = Plan(steps=3, batch_size=4, warmup=1, save_every=5, tensorboard=False)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_every_parameter_of_it_learns(side):
    network = new_network(PRESETS["tiny"], side, 3, Doors(classes=4))
    assert isinstance(network, VectorDenoiser)
    z = torch.randn(5, 3, side, side)
    output = network(z, torch.arange(5), torch.randn(5, 7, 16), torch.tensor([0, 1, 2, 3, 4]))
    assert output.shape == z.shape
    output.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", [AE, VAE, VQVAE, ConditionalVAE])
@pytest.mark.parametrize("shape", [DENSE, Shape((8, 8), 1, 2, "conv", (6, 8))], ids=["vector", "map"])
def test_a_first_stage_under_a_diffusion(kind, shape, tmp_path):
    torch.manual_seed(0)
    space = LatentSpace(kind(shape).eval())
    mean = torch.randn(8, shape.code, *shape.places, generator=keyed(1)).half()
    data = CachedLatents(mean, torch.full_like(mean, -8.0), ["a zero"] * 8)
    network, text = train_diffusion(tmp_path / "run", data, PLAN, "tiny")
    pipe = LatentDiffusion(space, Denoiser(network, Diffusion.from_config(SCHEDULER)), text, SCHEDULER)
    told = {"num_inference_steps": 3, "guidance_scale": 2.0, "seed": 5}
    drawn = pipe.text_to_image("a zero", output="latent", **told)
    assert drawn.shape == (1, shape.code, *shape.places)
    assert pipe.text_to_image("a zero", **told)[0].size == shape.size[::-1]
    pipe.save_pretrained(tmp_path / "model")
    again = LatentDiffusion.from_pretrained(tmp_path / "model")
    assert torch.equal(again.text_to_image("a zero", output="latent", **told), drawn)
    assert type(again.latents.autoencoder) is kind


def test_a_denoiser_of_vectors_learns_a_distribution(tmp_path):
    """Codes in two clouds: what is drawn after training lies in them."""
    torch.manual_seed(0)
    centres = torch.tensor([[1.0, 1], [-1, -1]])
    codes = centres[torch.randint(2, (512,))] + 0.1 * torch.randn(512, 2)
    data = CachedLatents(codes[:, :, None, None].half(), torch.full((512, 2, 1, 1), -20.0).half(), [""] * 512)
    plan = Plan(steps=400, batch_size=64, learning_rate=3e-3, warmup=20, ema=0.98, save_every=500, tensorboard=False)
    network, _ = train_diffusion(tmp_path, data, plan, "mini", doors=Doors(text=False))
    space = LatentSpace(VAE(Shape((8, 8), 1, 2, "dense", ())).eval())
    pipe = LatentDiffusion(space, Denoiser(network, Diffusion.from_config(SCHEDULER)), None, SCHEDULER)
    z = pipe.unconditional(200, output="latent", num_inference_steps=25).flatten(1)
    distance = torch.cdist(z, centres).min(1)
    assert distance.values.median() < 0.25 and 0.3 < distance.indices.float().mean() < 0.7


def test_a_map_that_is_large_has_a_u_net():
    assert type(new_network(PRESETS["tiny"], 4, 3)).__name__ == "UNet2DConditionModel"
    assert CONV.places == (2, 3)
