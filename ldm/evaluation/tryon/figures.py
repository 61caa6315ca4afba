"""What pictures of a try-on are measured by, all of one set."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ldm.evaluation.distances import Features, frechet, kernel, load_inception
from ldm.evaluation.tryon.cases import Case, Truth
from ldm.roundtrip import ssim
from ldm.training.perceptual import load_lpips
from ldm.training.tryon.looks import Looks
from ldm.tryon.matching import Matcher

Figures = dict[str, float]


class Judge:
    """The figures that `ldm.evaluation.tryon` names; those of published weights where these are at hand.

    They are looked for in the folder `weights`, or where torch.hub keeps some; `missing` says what is not there.
    """

    def __init__(self, matcher: Matcher, looks: Looks, weights: Path | None = None):
        self.matcher, self.missing = matcher, list[str]()
        self.lpips = self._if_at_hand(load_lpips, weights)
        inception = self._if_at_hand(load_inception, weights)
        networks: dict[tuple[str, str, float], Features | None] = {
            ("frechet", "kernel", 1000): matcher.persons,
            ("fid", "kid", 1): inception,
        }
        photographs = looks.pixels("person")
        with torch.no_grad():
            self.real = {names: (network, network(photographs)) for names, network in networks.items() if network}

    def _if_at_hand(self, load: Callable[[Path | None], Any], weights: Path | None) -> Any:
        try:
            return load(weights)
        except FileNotFoundError as error:
            self.missing.append(str(error))
            return None

    @torch.no_grad()
    def figures(self, x: Tensor, case: Case) -> tuple[Figures, list[float]]:
        """Pictures x (N,3,H,W), in the order of the case -> figures; and where truth is known the ssim of each."""
        paired, each = self._paired(x, case, case.truth) if case.truth else ({}, [])
        return paired | self._sets(x) | {"match": self._match(x, case.told.garment)}, each

    def _paired(self, x: Tensor, case: Case, truth: Truth) -> tuple[Figures, list[float]]:
        """Picture by picture, against its photograph."""
        wrong = (x - truth.photographs).abs() * 127.5
        each = [ssim(a[None], b[None]) for a, b in zip(x, truth.photographs, strict=True)]
        found = {
            "ssim": fmean(each),
            "distance": float(self.matcher.distance(x, truth.photographs).mean()),
            "inside": mean_where(wrong, truth.where * case.told.mask),
            "outside": mean_where(wrong, (1 - truth.where) * case.told.mask),
        }
        if self.lpips:
            found["lpips"] = float(self.lpips(x, truth.photographs).mean())
        return found, each

    def _sets(self, x: Tensor) -> Figures:
        """All pictures against all photographs of the set."""
        found: Figures = {}
        for (far, apart, times), (network, real) in self.real.items():
            features = network(x)
            found |= {far: times * frechet(features, real), apart: 1000 * kernel(features, real)}
        return found

    def _match(self, x: Tensor, garments: Tensor) -> float:
        """Share of pictures whose garment is found among all garments of the set."""
        likeness = self.matcher.persons(x) @ self.matcher.garments(garments).T
        return float((likeness.argmax(1) == torch.arange(len(x))).float().mean())

    def floor(self) -> Figures:
        """The distances between two halves of the photographs: what is left when nothing is wrong."""
        found: Figures = {}
        for (far, apart, times), (_, real) in self.real.items():
            halves = real[::2], real[1::2]
            found |= {far: times * frechet(*halves), apart: 1000 * kernel(*halves)}
        return found


def mean_where(values: Tensor, where: Tensor) -> float:
    """The mean of values (N,C,H,W) over the pixels of `where` (N,1,H,W)."""
    return float((values * where).sum() / (values.shape[1] * where.sum()).clamp_min(1e-6))
