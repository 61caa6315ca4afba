"""How sure is a figure? 95 % intervals, by drawing again from the pictures that were judged; the reference stays.

    means over pictures     as many as there are, with replacement: percentiles of RESAMPLES means, expanded
    distances between sets  half of them, without replacement: the deviation of HALVES such distances
    shares of pictures      nothing is drawn: of a share of 1 every resample would be 1. Wilson's interval

An interval says where the expected figure lies, the mean over all sets as large as this one by the same model: of 100
such intervals 95 hold it. The figure of one other set scatters about that mean as this one does, so that two figures
differ by 2^(1/2) times as much.

Percentiles know the deviation of the pictures at hand, not that of all, and of three pictures hold the mean 71 times in
100. They are expanded as a normal interval is by Student's (after Hesterberg 2015, who expands their levels instead;
those of few pictures end at the least one): then about 94 times, of two pictures 93, where values are normal, and of
3 to 5 exponential ones, which are far from that, 88.

A distance takes a picture that comes twice for a lack of variety, so those of ordinary resamples are too large. Halves
hold no picture twice. Their distances are too large as well, as those of any smaller set, but only how far they scatter
is used, which for a mean is exactly its standard error (Shao and Wu 1989; Bickel, Goetze and van Zwet 1997): the
interval is the figure and Student's factor times that on either side. It does not say how far few pictures bias all
figures.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

Interval = tuple[float, float]

RESAMPLES, HALVES = 1000, 100
BLOCK = 100  # resamples that are held at once
LOW, HIGH = 0.025, 0.975
SIGMAS = 1.96  # of a normal distribution, LOW to HIGH


def of_mean(
    values: Sequence[float], seed: int = 0, least: float = -math.inf, most: float = math.inf
) -> Interval | None:
    """Values of N pictures -> where the expected mean lies (Efron 1979), `least` to `most`. None for one picture."""
    count = len(values)
    if count < 2:
        return None
    known, rng = np.asarray(values, float), np.random.default_rng(seed)
    blocks = [known[rng.integers(count, size=(BLOCK, count))].mean(1) for _ in range(RESAMPLES // BLOCK)]
    means = np.concatenate(blocks)
    expansion = student(count - 1) / SIGMAS * (count / (count - 1)) ** 0.5
    low, high = known.mean() + expansion * (np.quantile(means, [LOW, HIGH]) - known.mean())
    return max(least, float(low)), min(most, float(high))


def student(freedom: int) -> float:
    """Student's t at HIGH for so many degrees of freedom, within 0.2 %: SIGMAS for many, more for few."""
    if freedom < 3:
        return (12.706, 4.303)[freedom - 1]
    # Abramowitz and Stegun, 26.7.5
    return SIGMAS + 2.372 / freedom + 2.822 / freedom**2 + 2.556 / freedom**3 + 1.587 / freedom**4


def of_share(hits: int, count: int) -> Interval:
    """`hits` of `count` pictures -> where the expected share lies (Wilson 1927)."""
    share, room = hits / count, SIGMAS**2 / count
    centre, width = share + room / 2, (room * (share * (1 - share) + room / 4)) ** 0.5
    return max(0.0, (centre - width) / (1 + room)), min(1.0, (centre + width) / (1 + room))


def halves(count: int, seed: int = 0) -> Tensor:
    """(HALVES, count) of bool: each row takes half of `count` pictures at random, rounded down."""
    order = torch.rand(HALVES, count, generator=Generator().manual_seed(seed)).argsort(1)
    return order.argsort(1) < count // 2


def of_halves(figure: float, distances: Sequence[float], count: int, least: float = -math.inf) -> Interval:
    """A distance of `count` pictures, and those of `halves` of them -> where the expected one lies, from `least` on.

    The variance of a mean of m of n pictures is s^2 (1/m - 1/n), that of all of them s^2 / n.
    """
    taken = count // 2
    error = float(np.std(distances, ddof=1)) * (taken / (count - taken)) ** 0.5
    width = student(count - 1) * error
    return max(least, figure - width), figure + width
