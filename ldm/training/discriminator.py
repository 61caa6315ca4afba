"""A patch discriminator: x (B,3,H,W) in [-1,1] -> how real each patch looks (B,1,h,w), without bounds."""

from itertools import pairwise

import torch
from torch import Tensor, nn

PRESETS = {  # widths of the levels; all but the last halve the sides
    "tiny": (8, 16),  # patches of 16 pixels; for tests
    "small": (32, 64, 128),  # patches of 34 pixels, 0.2 M parameters
    "base": (64, 128, 256, 512),  # patches of 70 pixels, 2.8 M parameters: that of Isola et al. 2017
}


class PatchDiscriminator(nn.Module):
    """Isola et al. 2017, appendix 6.1.2, with group normalisation for batch normalisation.

    So that what it says of a picture depends on no other picture of the batch.
    """

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for level, (before, after) in enumerate(pairwise(widths), start=2):
            stride = 1 if level == len(widths) else 2
            layers += [nn.Conv2d(before, after, 4, stride, 1), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(_begin)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def smallest(preset: str) -> int:
    """The least side of x that leaves two patches along it, over which its features can be normalised."""
    return 4 * 2 ** (len(PRESETS[preset]) - 1)


@torch.no_grad()
def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)  # Isola et al. 2017, appendix 6.2
        if module.bias is not None:
            module.bias.zero_()
