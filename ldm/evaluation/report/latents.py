"""The latents of many pictures: their moments, their histograms, and the scale and shift that fit them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from ldm.images import pad, to_pixels
from ldm.latents import EXPECTED_STD, Affine, LatentSpace, Statistics, Tally

BINS = 4096  # of a histogram, far more than are drawn
SHIFTED = 0.25  # a mean of so many standard deviations is worth a shift
CONSTANT = 1e-6  # a deviation that a deterministic encoder's floor of the log-variance, e^-30, gives by itself
UNEQUAL = 2  # channels whose deviations differ by so much want a scale each


class Histogram:
    """Counts of numbers in each of C channels, in BINS bins from -reach to reach.

    When a number lies farther out the bins are merged two by two: nothing is lost but resolution.
    """

    def __init__(self, channels: int):
        self.counts, self.reach = torch.zeros(channels, BINS, dtype=torch.long), 1.0

    def add(self, z: Tensor) -> None:
        """z (B,C,h,w), finite."""
        values = z.movedim(1, 0).flatten(1)
        while float(values.abs().max()) > self.reach:
            merged = self.counts.unflatten(1, (BINS // 2, 2)).sum(-1)
            self.counts, self.reach = F.pad(merged, (BINS // 4, BINS // 4)), 2 * self.reach
        places = ((values / self.reach + 1) * (BINS / 2)).long().clamp(max=BINS - 1)
        self.counts.scatter_add_(1, places, torch.ones_like(places))

    def density(self, limit: float, bars: int = 64) -> tuple[Tensor, Tensor]:
        """About `bars` bars that reach to `limit` or a little farther -> edges (N+1,), densities (C,N), as N(0,1) has.

        What lies beyond has no bar but counts, so that a bar's area is its share of all numbers.
        """
        bin_width = 2 * self.reach / BINS
        merged = 2 ** max(0, round(math.log2(2 * limit / bars / bin_width)))
        half = min(math.ceil(limit / (merged * bin_width)), BINS // (2 * merged))
        counts = self.counts.unflatten(1, (BINS // merged, merged)).sum(-1)
        middle = BINS // (2 * merged)
        shown, width = counts[:, middle - half : middle + half], merged * bin_width
        edges = torch.arange(-half, half + 1) * width
        return edges, shown / self.counts.sum(1, keepdim=True) / width


@dataclass(frozen=True)
class Advice:
    """Scale and shift in use, those that would give the latents mean 0 and deviation 1, and what that means."""

    statistics: Statistics
    scale: str
    shift: str
    fitting_scale: str  # as many numbers as are in use; "none" where the latents are constant
    fitting_shift: str
    fits: bool
    words: str
    configs: dict[str, str]  # one for all channels, one for each -> lines for a config.json in diffusers' layout


class Latents:
    """z_0 of all pictures that are added, drawn from the posterior, as a diffusion model is taught with them."""

    def __init__(self, space: LatentSpace):
        self.space, self.tally, self.histogram = space, Tally(space), Histogram(space.channels)
        self.generator = Generator().manual_seed(0)

    @torch.no_grad()
    def add(self, image: Image.Image) -> None:
        """A picture of any size."""
        mean, logvar = self.space.posterior(pad(to_pixels(image), self.space.factor)[0])
        self.tally.add(mean, logvar)
        noise = torch.randn(mean.shape, generator=self.generator)
        self.histogram.add(mean.cpu() + torch.exp(logvar.cpu() / 2) * noise)

    def advice(self) -> Advice:
        """ValueError where no picture was added."""
        found = self.tally.statistics()
        ways = fitted(self.space, found)
        by_channel = any(isinstance(value, Tensor) for value in (self.space.scale, self.space.shift))
        fitting = ways.get(EACH if by_channel else ALL)
        return Advice(
            statistics=found,
            scale=told(self.space.scale),
            shift=told(self.space.shift),
            fitting_scale=told(fitting.scale) if fitting else "none",
            fitting_shift=told(fitting.shift) if fitting else "none",
            fits=EXPECTED_STD[0] <= found.std <= EXPECTED_STD[1],
            words=" ".join(_words(found)),
            configs={what: json.dumps(way.entries(), indent=2) for what, way in ways.items()},
        )


ALL, EACH = "one for all channels", "one for each channel"


def fitted(space: LatentSpace, found: Statistics) -> dict[str, LatentSpace]:
    """The same autoencoder with the scale and the shift that fit, in both ways, as far as there are any.

    With one shift for all channels it is that in use, unless the latents lie far from 0.
    """
    scale, shift = torch.as_tensor(space.scale), torch.as_tensor(space.shift)
    means, deviations = torch.tensor(found.channel_mean) / scale + shift, torch.tensor(found.channel_std) / scale.abs()
    kept = shift.mean() if abs(found.mean) < SHIFTED * found.std else means.mean()
    ways = {}
    if _varied(found):
        ways[ALL] = LatentSpace(space.autoencoder, found.fitting_scale, float(kept))
    if len(means) > 1 and bool((deviations > CONSTANT).all()):
        ways[EACH] = LatentSpace(space.autoencoder, 1 / deviations, means)
    return ways


def _varied(found: Statistics) -> bool:
    return 1 / found.fitting_scale > CONSTANT


def _words(found: Statistics) -> Iterator[str]:
    if not _varied(found):
        yield "The latents are constant: no scale fits them."
        return
    low, high = EXPECTED_STD
    if low <= found.std <= high:
        yield f"The scale in use fits: the latents have standard deviation {found.std:.3g}, near to the noise's 1."
    else:
        yield (
            f"The scale in use does not fit these pictures: the latents have standard deviation {found.std:.3g}, where "
            f"a diffusion process expects about 1 ({low:g} to {high:g})."
        )
    if abs(found.mean) >= SHIFTED * found.std:
        yield f"Their mean is {found.mean:+.2f}: a shift would centre them."
    least, most = min(found.channel_std), max(found.channel_std)
    if most > UNEQUAL * least:
        yield f"Channels differ, with {least:.2g} to {most:.2g}: a scale for each would fit better than one for all."


def told(value: Affine) -> str:
    """A scale or a shift in words; of several the least and the greatest."""
    if isinstance(value, Tensor):
        return f"{float(value.min()):.4g} to {float(value.max()):.4g}, by channel"
    return f"{value:.5g}"
