"""A garment as it is worn, and as a shop shows it: one picture moved to where another has it.

    source (B,3,H,W), guide (B,G,H,W) --U-Net--> flow, share, cover, rendered
    image = share * source moved by flow + (1 - share) * rendered

The same network, taught the other way round, takes the garment off a person (H2G: human to garment).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 2 + 1 + 1 + 3  # flow, share, cover, rendered


class Warped(NamedTuple):
    """What a source looks like elsewhere."""

    image: Tensor  # (B,3,H,W) in [-1,1]
    logits: Tensor  # (B,1,H,W), of being covered by it
    flow: Tensor  # (B,2,H,W), from where, in halves of the picture's sides

    @property
    def cover(self) -> Tensor:
        """(B,1,H,W) in [0,1]."""
        return torch.sigmoid(self.logits)

    def on(self, background: Tensor | float) -> Tensor:
        """The image where it covers, a background elsewhere (B,3,H,W)."""
        return self.cover * self.image + (1 - self.cover) * background


def warp(unet: Any, source: Tensor, guide: Tensor) -> Warped:
    """A U-Net of 3 + G and CHANNELS channels, source (B,3,H,W) in [-1,1], guide (B,G,H,W) -> Warped."""
    told = torch.cat([source, guide], dim=1)
    found = unet(told, torch.zeros(len(told), device=told.device)).sample
    flow, share, logits, rendered = found.split((2, 1, 1, 3), dim=1)
    share = torch.sigmoid(share)
    return Warped(share * moved(source, flow) + (1 - share) * torch.tanh(rendered), logits, flow)


def moved(source: Tensor, flow: Tensor) -> Tensor:
    """source (B,C,H,W), flow (B,2,H,W) in halves of the sides, across and down -> each pixel from where it points."""
    height, width = source.shape[-2:]
    down, across = (torch.linspace(1 / side - 1, 1 - 1 / side, side).to(source) for side in (height, width))
    here = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    return F.grid_sample(source, here + flow.movedim(1, -1), padding_mode="border", align_corners=False)
