"""Teaching a network which garment a person wears: of a batch, each person's own (van den Oord et al. 2018)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.tryon.looks import Looks, Rows
from ldm.tryon.matching import Matcher


class Worn:
    """Looks -> (persons, their garments), pixels in [-1,1]."""

    def __init__(self, looks: Looks):
        self.looks = looks

    def __len__(self) -> int:
        return len(self.looks)

    def batch(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return self.looks.pixels("person", rows), self.looks.pixels("garment", rows)

    def identity(self) -> Any:
        return ["worn", self.looks.identity()]


class MatchObjective(nn.Module):
    """(persons, garments) -> the loss, both ways; `right` is the share of persons whose garment is found."""

    averaged = ("matcher",)

    def __init__(self, matcher: nn.Module):
        super().__init__()
        self.matcher: Any = matcher

    def forward(self, batch: tuple[Tensor, Tensor], generators: Sequence[Generator]) -> dict[str, Tensor]:
        logits = self.matcher(*batch)
        own = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return {"loss": loss, "right": (logits.argmax(1) == own).float().mean()}


def train_matcher(out: Path, looks: Looks, plan: Plan) -> Matcher:
    """Looks -> a matcher, in `out`/matcher.safetensors; the same call goes on from a stop."""
    torch.manual_seed(plan.seed)
    average = fit(MatchObjective(Matcher()), Worn(looks), plan, out, settings={"kind": "matcher"})
    found = average.matcher.cpu().to(memory_format=torch.contiguous_format).eval()
    found.save(out / "matcher.safetensors")
    return found
