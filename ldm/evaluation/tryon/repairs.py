"""What each bridge of a run makes of a case's pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldm.evaluation.tryon.cases import Case
from ldm.masks import feathered, pasted
from ldm.training.randomness import keyed, number
from ldm.training.tryon.refinement import random_map
from ldm.training.tryon.stages import BRIDGES
from ldm.tryon.model import Refiner

DERIVED = ("pasted", "true")  # of the classified bridge
SOFT = 2  # pixels


def refiners(run: Path) -> dict[str, Refiner]:
    """The bridges that a run has trained; "experts" is the classified one with experts, where it has them."""
    found = {name: run / f"bridge-{name}" for name in BRIDGES if (run / f"bridge-{name}" / "model").is_dir()}
    made = {name: Refiner.from_pretrained(path, experts=False) for name, path in found.items()}
    if "classified" in found and (found["classified"] / "far").is_dir():
        made["experts"] = Refiner.from_pretrained(found["classified"])
    return made


def variants(bridges: dict[str, Refiner], case: Case) -> list[str]:
    """Which ways of repairing there are: of pictures without known truth, none with its map."""
    return [*bridges, *(name for name in DERIVED if "classified" in bridges and (name != "true" or case.truth))]


def seeds_of(case: Case, seed: int = 0) -> list[int]:
    """A seed for each picture of a case, whichever the bridge."""
    return [number(seed, "bridge", case.kind, i) for i in range(len(case.x_1))]


def repaired(bridges: dict[str, Refiner], name: str, case: Case, seeds: Sequence[int], steps: int) -> Tensor:
    """x_1 through one of the bridges, with the map that goes with it; pasted as `TryOnModel.refine` does."""
    size = (case.x_1.shape[-2], case.x_1.shape[-1])
    maps = {"plain": torch.ones_like(case.maps)}
    if case.truth:
        maps["true"] = case.truth.where
    if name == "random":
        maps[name] = torch.stack([random_map(size, keyed(seed, "map")) for seed in seeds])
    bridge = bridges["classified" if name in DERIVED else name]
    x = case.told.pasted(bridge.refine(case.x_1, maps.get(name, case.maps), case.given, seeds, steps))
    return pasted(x, case.x_1, feathered((case.maps >= 0.5).float(), SOFT)) if name == "pasted" else x
