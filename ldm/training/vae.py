"""Training an AutoencoderKL: x (B,3,H,W) in [-1,1] -> posterior over z (B,4,H/f,W/f) -> x.

Kingma and Welling 2014, with the small KL weight of Rombach et al. 2022 (section 3.1). The finished autoencoder has
one factor folded into it, so that its latents have unit variance at the scale of the published f8 autoencoders.
"""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from ldm.checkpoints import load_vae
from ldm.images import grid, to_images, to_pixels
from ldm.training.loop import Plan, fit

PRESETS = {  # widths of the levels; the factor is 2 for each level after the first
    "tiny": (16, 16, 16),  # for tests
    "small": (24, 48, 96),  # f4, 1.4 M parameters: about 45 images/s at 64 x 64 in training on two cores
}


def autoencoder(widths: tuple[int, ...], layers: int = 1, channels: int = 4, attention: bool = False) -> AutoencoderKL:
    """A new AutoencoderKL of factor 2^(levels - 1)."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths),
        layers_per_block=layers,
        latent_channels=channels,
        norm_num_groups=math.gcd(8, *widths),
        mid_block_add_attention=attention,
        sample_size=64,
    )


class VAEObjective(nn.Module):
    """L1 + MSE reconstruction and KL to N(0, I), each a mean over elements, so that sizes do not change the balance."""

    def __init__(self, vae: AutoencoderKL, kl_weight: float = 5e-4):
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def forward(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mean, logvar = self.vae.encode(x).latent_dist.parameters.float().chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        reconstruction = self.vae.decode(mean + torch.exp(logvar / 2) * eps).sample.float()
        l1 = (reconstruction - x).abs().mean()
        mse = (reconstruction - x).square().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        psnr = 10 * torch.log10(4 / mse.detach())
        return {"loss": l1 + mse + self.kl_weight * kl, "l1": l1, "mse": mse, "kl": kl, "psnr": psnr}


@torch.no_grad()
def fold(vae: Any, factor: float) -> None:
    """Multiplies the latents by `factor` inside the weights; what decode(encode(x)) gives does not change.

    The mean rows of quant_conv times k, the bias of its log-variance rows plus 2 ln k, post_quant_conv's weight over k.
    """
    channels = vae.config["latent_channels"]
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor


@torch.no_grad()
def latent_deviation(vae: AutoencoderKL, pixels: list[Tensor]) -> float:
    """Standard deviation of unscaled posterior samples over batches of x."""
    generator = torch.Generator().manual_seed(0)
    return float(torch.cat([vae.encode(x).latent_dist.sample(generator).flatten() for x in pixels]).std())


def train_vae(
    out: Path,
    data,
    plan: Plan,
    preset: str = "small",
    side: int = 64,
    kl_weight: float = 5e-4,
    init: str | None = None,
) -> AutoencoderKL:
    """Pictures -> an AutoencoderKL in `out`/vae whose latents have unit variance at its config's scaling_factor.

    `data[i]` is (picture of `side` x `side`, caption). The run's state, log and pictures lie in `out` too; the same
    call goes on from there. `init` is the folder of an autoencoder to start from in place of a new one of `preset`.
    Raises ValueError for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    torch.manual_seed(plan.seed)
    vae: Any = load_vae(init).train() if init else autoencoder(PRESETS[preset])
    vae.register_to_config(sample_size=side)
    shown = pixels_of([data[i] for i in range(len(data) - 16, len(data))])

    def preview(average: Any, step: int) -> None:
        with torch.no_grad():
            there_and_back = average.vae(shown.to(average.vae.device)).sample.cpu()
        grid(to_images(shown) + to_images(there_and_back), columns=16).save(out / "reconstructions.png")

    settings = {"kind": "vae", "preset": preset, "side": side, "kl_weight": kl_weight, "init": init}
    average: Any = fit(VAEObjective(vae, kl_weight), data, plan, out, pixels_of, settings, preview)
    vae = average.vae.cpu().to(memory_format=torch.contiguous_format)
    measured = [pixels_of([data[i] for i in range(start, start + 64)]) for start in range(0, min(len(data), 1024), 64)]
    fold(vae, 1 / (vae.config["scaling_factor"] * latent_deviation(vae, measured)))
    vae.save_pretrained(out / "vae")
    return vae


def pixels_of(items: list[tuple[Image.Image, str]]) -> Tensor:
    """[(picture, caption), ...] -> x (B,3,H,W) in [-1,1]."""
    return to_pixels([picture for picture, _ in items])
