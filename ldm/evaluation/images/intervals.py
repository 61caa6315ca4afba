"""How sure is a figure? 95 % intervals, by drawing again from the pictures that were judged; the reference stays.

    means over pictures     as many as there are, with replacement: percentiles of RESAMPLES means
    distances between sets  half of them, without replacement: the deviation of HALVES such distances
    shares of pictures      nothing is drawn: of a share of 1 every resample would be 1. Wilson's interval

A distance takes a picture that comes twice for a lack of variety, so those of ordinary resamples are too large. Halves
hold no picture twice. Their distances are too large as well, as those of any smaller set, but only how far they scatter
is used, which for a mean is exactly its standard error (Shao and Wu 1989; Bickel, Goetze and van Zwet 1997): the
interval is the figure and 1.96 times that on either side. It says where the figures of other pictures by the same
model would lie. It does not say how far few pictures bias them all.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

Interval = tuple[float, float]

RESAMPLES, HALVES = 1000, 100
LOW, HIGH = 0.025, 0.975
SIGMAS = 1.96  # of a normal distribution, LOW to HIGH


def of_mean(values: Sequence[float], seed: int = 0) -> Interval | None:
    """Values of N pictures -> where their mean lies (Efron 1979); infinite ones allowed. None for one picture."""
    if len(values) < 2:
        return None
    known, rng = np.asarray(values, float), np.random.default_rng(seed)
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [LOW, HIGH], method="nearest")  # one of the means: infinity is not reckoned with
    return float(low), float(high)


def of_share(hits: int, count: int) -> Interval:
    """`hits` of `count` pictures -> where the share of all that could be drawn lies (Wilson 1927)."""
    share, room = hits / count, SIGMAS**2 / count
    centre, width = share + room / 2, (room * (share * (1 - share) + room / 4)) ** 0.5
    return max(0.0, (centre - width) / (1 + room)), min(1.0, (centre + width) / (1 + room))


def halves(count: int, seed: int = 0) -> Tensor:
    """(HALVES, count) of bool: each row takes half of `count` pictures at random, rounded down."""
    order = torch.rand(HALVES, count, generator=Generator().manual_seed(seed)).argsort(1)
    return order.argsort(1) < count // 2


def of_halves(figure: float, distances: Sequence[float], count: int, least: float = -math.inf) -> Interval:
    """A distance of `count` pictures, and those of `halves` of them -> where it lies; never below `least`.

    The variance of a mean of m of n pictures is s^2 (1/m - 1/n), that of all of them s^2 / n.
    """
    taken = count // 2
    error = float(np.std(distances, ddof=1)) * (taken / (count - taken)) ** 0.5
    return max(least, figure - SIGMAS * error), figure + SIGMAS * error
