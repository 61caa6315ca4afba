"""Teaching a network to move a garment to its wearer, or off again.

source, guide --warp--> image, cover    against the target where its mask is

loss = |image - target| in the mask + cross-entropy of the cover + `SMOOTH` |differences of the flow|
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ldm.training.conditions import Doors
from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.presets import PRESETS, unet
from ldm.training.tryon.looks import Looks, Rows
from ldm.tryon.warping import CHANNELS, warp

SMOOTH = 1.0


class Move(NamedTuple):
    """B pictures to be moved: from where, guided by what, and what should come out, where."""

    source: Tensor  # (B,3,H,W)
    guide: Tensor  # (B,G,H,W)
    target: Tensor  # (B,3,H,W)
    mask: Tensor  # (B,1,H,W)


class Dressing:
    """Looks -> garments to be moved to their wearers."""

    def __init__(self, looks: Looks):
        self.looks = looks

    def __len__(self) -> int:
        return len(self.looks)

    def batch(self, rows: Rows) -> Move:
        told = self.looks.given(rows)
        return Move(told.garment, told.guide, self.looks.pixels("person", rows), self.looks.pixels("worn", rows))

    def identity(self) -> Any:
        return [type(self).__name__, self.looks.identity()]


class Undressing(Dressing):
    """Looks -> garments to be taken off their wearers, as a shop shows them (H2G)."""

    def batch(self, rows: Rows) -> Move:
        worn, pose = self.looks.pixels("worn", rows), self.looks.pixels("pose", rows)
        cut = worn * self.looks.pixels("person", rows) + (1 - worn)  # on white
        mask = self.looks.pixels("garment_mask", rows)
        return Move(cut, torch.cat([worn, pose], 1), self.looks.pixels("garment", rows), mask)


class WarpObjective(nn.Module):
    """Move -> the loss and its parts, each a mean over the batch."""

    averaged = ("unet",)

    def __init__(self, network: nn.Module):
        super().__init__()
        self.unet: Any = network

    def forward(self, batch: Move, generators: Sequence[Generator]) -> dict[str, Tensor]:
        found = warp(self.unet, batch.source, batch.guide)
        wrong = (batch.mask * (found.image - batch.target).abs()).flatten(1).sum(1)
        parts = {
            "picture": (wrong / (3 * batch.mask.flatten(1).sum(1) + 1)).mean(),
            "cover": F.binary_cross_entropy_with_logits(found.logits, batch.mask),
            "smooth": SMOOTH * (found.flow.diff(dim=2).abs().mean() + found.flow.diff(dim=3).abs().mean()),
        }
        return {
            "loss": torch.stack(list(parts.values())).sum(),
            **{name: part.detach() for name, part in parts.items()},
        }


def train_warping(out: Path, moves: Dressing, plan: Plan, preset: str = "mini") -> Any:
    """Moves -> a U-Net, written to `out`; the same call goes on from a stop."""
    torch.manual_seed(plan.seed)
    move = moves.batch([0])
    network = unet(
        PRESETS[preset], move.source.shape[-1], CHANNELS, Doors(False, 0, 3 + move.guide.shape[1] - CHANNELS)
    )
    settings = {"kind": "warping", "preset": preset}
    average = fit(WarpObjective(network), moves, plan, out.with_name(f"{out.name}-run"), settings=settings)
    trained = average.unet.cpu().to(memory_format=torch.contiguous_format).eval()
    trained.save_pretrained(out / "unet")
    return trained
