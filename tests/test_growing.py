"""An autoencoder grown by a level begins as the one that it was."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from ldm.training.growing import grown
from ldm.training.vae import autoencoder


@pytest.fixture
def small():
    torch.manual_seed(0)
    return autoencoder((16, 16, 24)).double().eval()


@torch.no_grad()
def test_doubled_pictures_have_the_latents_that_they_had(small):
    x = torch.rand(2, 3, 16, 24, dtype=torch.float64) * 2 - 1
    old, new = small.encode(x).latent_dist, grown(small).encode(interpolate(x, scale_factor=2)).latent_dist
    assert torch.allclose(new.mean, old.mean) and torch.allclose(new.logvar, old.logvar)


@torch.no_grad()
def test_blocks_of_what_it_decodes_have_the_means_of_what_it_decoded(small):
    z = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    assert torch.allclose(avg_pool2d(grown(small).decode(z).sample, 2), small.decode(z).sample)


def test_it_says_what_it_is_and_every_weight_learns(small):
    new = grown(small).train()
    assert new.config["block_out_channels"] == [16, 16, 16, 24]
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    for _ in range(3):  # the first step moves the zeros, the next ones what lies behind them
        new(x).sample.square().mean().backward()
        with torch.no_grad():
            for parameter in new.parameters():
                parameter -= 1e-2 * parameter.grad
    assert all(parameter.grad.abs().sum() > 0 for parameter in new.parameters())


def test_a_level_too_narrow_for_the_colours_is_refused():
    with pytest.raises(ValueError, match="8 wide; growing needs 12"):
        grown(autoencoder((8, 16)))
