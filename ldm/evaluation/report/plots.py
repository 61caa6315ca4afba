"""Histograms as SVG to stand in a page: letters and axes take the page's own colour, by day and by night."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
import torch
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ldm.evaluation.report.latents import Latents

if TYPE_CHECKING:
    from ldm.evaluation.report import Cell

COLOURS = ("#3b82f6", "#f08a24", "#16a37f", "#d9468f", "#8b5cf6", "#0e9bb5")  # of autoencoders, on white and on black
INK = "#010203"  # what the page's colour of letters takes the place of
DASHED = (0, (3, 2))
BARS = 24
MOST_CHANNELS = 32  # histograms of them
STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters, in the page's own typeface
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
}


CLUTTER = re.compile(r'<metadata>.*?</metadata>|<style.*?</style>|(?<=<g) id="[^"]*"| font-family:[^;]*;', re.S)
UNSAID = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Plot(NamedTuple):
    """An SVG and what stands below it."""

    svg: Markup
    caption: str


# what is distributed, its unit, and the numbers of it in a cell
FIGURES: dict[str, tuple[str, str, Callable[[Any], float]]] = {
    "PSNR": ("dB", "Higher is better; 6 dB more is half the error.", lambda cell: cell.psnr),
    "SSIM": ("", "Structural similarity: 1 is equal, structure lost lowers it.", lambda cell: cell.ssim),
    "Largest error": ("of 255", "Of any pixel in any channel; at edges mostly.", lambda cell: cell.max_error),
    "Deviation of latents": ("", "Of each picture's own; 1 is the noise's.", lambda cell: cell.latent_std),
}


def colour(index: int) -> str:
    """That of an autoencoder, by its place."""
    return COLOURS[index % len(COLOURS)]


def distributions(cells: Mapping[str, Sequence[Cell]]) -> list[Plot]:
    """Cells of each autoencoder -> a histogram of each figure over the pictures, the autoencoders' over one another."""
    return [
        distribution(what, unit, words, [[number(cell) for cell in column] for column in cells.values()])
        for what, (unit, words, number) in FIGURES.items()
    ]


def distribution(what: str, unit: str, words: str, columns: Sequence[Sequence[float]]) -> Plot:
    """Numbers of each autoencoder -> their histograms and medians; infinite ones are told in the caption."""
    finite = [[number for number in column if math.isfinite(number)] for column in columns]
    figure, axes = _axes(3.6, 2.1)
    edges = np.histogram_bin_edges(sum(finite, []), bins=min(BARS, 4 + max(map(len, finite)) // 2))
    for i, column in enumerate(finite):
        counts = np.histogram(column, edges)[0]
        axes.stairs(counts, edges, fill=True, color=colour(i), alpha=0.3)
        axes.stairs(counts, edges, color=colour(i), linewidth=1.2)
        if column:
            axes.axvline(median(column), color=colour(i), linewidth=1.2, linestyle=DASHED)
    axes.set(xlabel=f"{what}, {unit}".rstrip(", "), ylabel="pictures")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    lost = sum(map(len, columns)) - sum(map(len, finite))
    exact = f" {lost} came back exactly, which no bar shows." if lost else ""
    ranges = "; ".join(f"{min(c):.4g} to {max(c):.4g}, median {median(c):.4g}" for c in finite if c)
    return Plot(_svg(figure, f"Histogram of {what}: {ranges or 'no finite number'}"), words + exact)


def channels(name: str, latents: Latents, colour: str) -> list[Plot]:
    """Histograms of all latents of an autoencoder and of each channel, MOST_CHANNELS at most, beside that of N(0,1)."""
    found = latents.tally.statistics()
    reaches = (abs(mean) + 3 * std for mean, std in zip(found.channel_mean, found.channel_std, strict=True))
    edges, densities = latents.histogram.density(max(4.0, *reaches))
    plots = [_channel(name, "all channels", edges, densities.mean(0), found.mean, found.std, colour)]
    moments = zip(densities[:MOST_CHANNELS], found.channel_mean, found.channel_std)
    plots += [_channel(name, f"channel {i}", edges, *each, colour) for i, each in enumerate(moments)]
    return plots if len(densities) > 1 else plots[:1]


def _channel(name: str, channel: str, edges: Tensor, density: Tensor, mean: float, std: float, colour: str) -> Plot:
    figure, axes = _axes(2.3, 1.3)
    axes.stairs(density, edges, fill=True, color=colour, alpha=0.55)
    place = torch.linspace(-4, 4, 81)
    axes.plot(place, torch.exp(-place.square() / 2) / math.sqrt(2 * math.pi), color=INK, linewidth=1, linestyle=DASHED)
    axes.set(xlim=(float(edges[0]), float(edges[-1])), ylim=(0, max(0.45, 1.05 * float(density.max()))), yticks=[])
    axes.spines["left"].set_visible(False)
    moments = f"mean {mean:+.2f}, std {std:.2f}"
    words = f"Histogram of the latents of {name} beside that of N(0,1), {channel}: {moments}"
    return Plot(_svg(figure, words), f"{channel}\n{moments}")


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        return figure, figure.add_subplot()


def _svg(figure: Figure, words: str) -> Markup:
    """A figure -> SVG as wide as its place, with `words` for who cannot see it; two of them share no id."""
    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": words}):
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    _, box, body = re.split(r'<svg[^>]* viewBox="([^"]*)"[^>]*>', CLUTTER.sub("", file.getvalue()), maxsplit=1)
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(words)}">{body.replace(INK, "currentColor")}')
