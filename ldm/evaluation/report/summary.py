"""Each autoencoder over all pictures: means, medians, the worst, and which faults were found how often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from ldm.evaluation.report.latents import Advice

if TYPE_CHECKING:
    from ldm.evaluation.report import Cell


@dataclass(frozen=True)
class Summary:
    """One autoencoder over all pictures: errors and shifts of 255."""

    name: str
    psnr: float  # mean over the pictures that differ, in dB; inf where none does
    equal: int  # pictures that came back exactly
    ssim: float  # means
    channel_shift: tuple[float, ...]
    psnr_worst: float
    max_error: float  # the median of the pictures' largest
    best: int  # pictures on which this one has a higher PSNR than every other
    faults: dict[str, int]
    advice: Advice

    def __str__(self) -> str:
        scale = f"scale {self.advice.scale} in use, {self.advice.fitting_scale} fits"
        count = self.advice.statistics.count
        equal = f"; {self.equal} equal, which the dB leave out" if self.equal else ""
        figures = f"{self.psnr:.2f} dB, SSIM {self.ssim:.4f}, means of {count}{equal}; worst {self.psnr_worst:.2f} dB"
        return f"{self.name}: {figures if self.equal < count else 'all equal'}; {scale}"


def summed(name: str, cells: Sequence[Cell], advice: Advice, best: int) -> Summary:
    """One autoencoder's cells, at least one -> Summary."""
    levels = [cell.psnr for cell in cells if math.isfinite(cell.psnr)]
    return Summary(
        name=name,
        psnr=fmean(levels) if levels else math.inf,
        equal=len(cells) - len(levels),
        ssim=fmean(cell.ssim for cell in cells),
        channel_shift=tuple(fmean(shifts) for shifts in zip(*(cell.channel_shift for cell in cells), strict=True)),
        psnr_worst=min(levels, default=math.inf),
        max_error=median(cell.max_error for cell in cells),
        best=best,
        faults=Counter(cell.fault.split(":")[0] for cell in cells if cell.fault),
        advice=advice,
    )


def best(rows: Sequence[Sequence[float]]) -> list[int]:
    """Rows of one number for each autoencoder -> how often each one's is higher than every other's."""
    wins = Counter(row.index(max(row)) for row in rows if sorted(row)[-2:].count(max(row)) == 1)
    return [wins[i] for i in range(len(rows[0]))]
