"""An autoencoder grown by a level: what small pictures taught cheaply, at twice the side (after Karras et al. 2018)."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

TAPS = (0, 1, 1), (0, 0, 2)  # for a tap of a 3-tap kernel at half the size: the half kernel it needs, and its tap
HALVES = torch.tensor([[1, 0, 0], [0, 0.5, 0.5]])  # the pixel before a pair; the mean of the pair
BLOCKS = torch.tensor([[2.0, 0, 0], [-1, 1, -1], [0, 0, 2]])  # kernel -> kernel on doubled features, by block means


@torch.no_grad()
def grown(vae: Any) -> AutoencoderKL:
    """An AutoencoderKL of factor f -> one of factor 2f, by an outermost level of the outermost width.

    It begins as the old one: doubled pictures have the old latents, and the means of 2 x 2 blocks of what it decodes
    are what the old one decodes. ValueError where that width is less than four times the channels of a picture.
    """
    config = vae.config
    widths, channels = config["block_out_channels"], config["in_channels"]
    if widths[0] < 4 * channels:
        raise ValueError(f"the outermost level is {widths[0]} wide; growing needs {4 * channels}")
    levels = {
        "block_out_channels": [widths[0], *widths],
        "down_block_types": [config["down_block_types"][0], *config["down_block_types"]],
        "up_block_types": [*config["up_block_types"], config["up_block_types"][-1]],
        "sample_size": 2 * config["sample_size"],
    }
    new: Any = AutoencoderKL.from_config({**config, **levels}).type(vae.dtype)
    new.load_state_dict({_moved(name): value for name, value in vae.state_dict().items()}, strict=False)
    outer, inner = new.encoder.down_blocks[0], new.decoder.up_blocks[-2]
    for resnet in (*outer.resnets, *new.decoder.up_blocks[-1].resnets):
        resnet.conv2.weight.zero_()
        resnet.conv2.bias.zero_()
    torch.nn.init.dirac_(inner.upsamplers[0].conv.weight)
    inner.upsamplers[0].conv.bias.zero_()
    _halve(vae.encoder.conv_in, new.encoder.conv_in, outer.downsamplers[0].conv)
    new.decoder.conv_out.weight.copy_(_both_axes(vae.decoder.conv_out.weight, BLOCKS))
    return new.train(vae.training)


def _moved(name: str) -> str:
    """Where a tensor lies in the grown autoencoder: the encoder's levels move inwards by one, the decoder's stay."""
    head, found, tail = name.partition("encoder.down_blocks.")
    level, _, rest = tail.partition(".")
    return f"{found}{int(level) + 1}.{rest}" if found and not head else name


def _halve(old: Any, first: Any, second: Any) -> None:
    """Splits a 3 x 3 convolution of halved pictures in two: one of whole pictures, then one of stride 2.

    The first gives, of each colour, HALVES along both axes; the second picks from them, and ignores its other channels.
    """
    channels = old.in_channels
    first.weight[: 4 * channels].zero_()
    first.bias[: 4 * channels].zero_()
    second.weight.zero_()
    second.bias.copy_(old.bias)
    patches = torch.einsum("ay,bx->abyx", HALVES, HALVES).to(old.weight)
    for colour in range(channels):
        first.weight[4 * colour : 4 * colour + 4, colour] = patches.flatten(0, 1)
        for y, (a, row) in enumerate(zip(*TAPS, strict=True)):
            for x, (b, column) in enumerate(zip(*TAPS, strict=True)):
                second.weight[:, 4 * colour + 2 * a + b, row, column] += old.weight[:, colour, y, x]


def _both_axes(kernel: Tensor, change: Tensor) -> Tensor:
    """A kernel (O,I,3,3), `change` (3,3) applied to its rows and to its columns."""
    return torch.einsum("yv,xw,oivw->oiyx", change.to(kernel), change.to(kernel), kernel)
