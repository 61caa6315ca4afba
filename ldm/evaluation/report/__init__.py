"""Round trips of many pictures through one or several autoencoders -> one page that needs nothing but itself.

    checks --Report.add--> rows, latents, an album on disk --Report.write--> page.html filled in, piece by piece

    album.py      pictures as data URIs, on disk until the page is written
    latents.py    latents of all pictures: moments, histograms, the scale that fits
    plots.py      histograms as SVG that takes the page's colours
    summary.py    each autoencoder over all pictures
    page.html     the template: its style and its script are in it

Memory is that of one picture and of a few hundred bytes for every other. Needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import ldm
from ldm.evaluation.report import plots, summary
from ldm.evaluation.report.album import LARGE, SMALL, Album, Shown
from ldm.evaluation.report.latents import Latents
from ldm.files import replacing
from ldm.images import HEAT, error_map
from ldm.latents import LatentSpace
from ldm.roundtrip import RoundTrip

WORST = 10  # pictures of each order that are shown large
MOST = 500  # pictures that are shown at all, which bounds the page to some 20 MB for each of a few autoencoders


class Cell(NamedTuple):
    """One picture through one autoencoder: `RoundTrip` without its pictures, which lie in the album."""

    psnr: float
    ssim: float
    max_error: float
    channel_shift: tuple[float, ...]
    latent_std: float
    diagnosis: str
    image: Shown
    error: Shown

    @property
    def fault(self) -> str:
        """What is wrong, in words; "" where nothing is."""
        return "" if self.diagnosis.startswith("ok") else self.diagnosis

    @property
    def remark(self) -> str:
        """The fault, or what else there is to say; "" for nothing."""
        return self.diagnosis.removeprefix("ok: no known fault").removeprefix(", but ")

    @property
    def keys(self) -> tuple[float, ...]:
        """What the page can be ordered by, as ORDERS names it: the lower, the worse."""
        return self.psnr, self.ssim, -self.max_error


ORDERS = ("PSNR", "SSIM", "largest error")


class Row(NamedTuple):
    """One picture through every autoencoder."""

    name: str
    size: tuple[int, int]
    original: Shown
    cells: tuple[Cell, ...]

    @property
    def keys(self) -> list[float]:
        """What the page can be ordered by: ORDERS of each autoencoder."""
        return [key for cell in self.cells for key in cell.keys]


class Placed(NamedTuple):
    """A row and its place in each order, 0 for the worst. Equal keys have places too: no script need break ties."""

    row: Row
    places: list[int]

    @property
    def soonest(self) -> int:
        return min(self.places)


class Report:
    """Round trips, added picture by picture, of `spaces` by name -> a page of HTML.

    ValueError for no space.
    """

    def __init__(self, spaces: Mapping[str, LatentSpace]):
        if not spaces:
            raise ValueError("no autoencoder given, expected at least one")
        self.latents = {name: Latents(space) for name, space in spaces.items()}
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.album = Album()

    def add(self, name: str, checks: Mapping[str, RoundTrip]) -> None:
        """A picture's round trip through each of the spaces; its latents are taken from its original once more.

        They are drawn from the posterior, of which a round trip sees the mean alone.
        """
        original = next(iter(checks.values())).original
        cells = tuple(self._cell(checks[space]) for space in self.latents)
        for latents in self.latents.values():
            latents.add(original)
        self.rows.append(Row(name, original.size, self.album.keep(original), cells))

    def skip(self, reason: str) -> None:
        """A picture that could not be read, in a line that names it."""
        self.skipped.append(reason)

    def summaries(self) -> list[summary.Summary]:
        """Each autoencoder over all pictures. ValueError where there is none."""
        if not self.rows:
            raise ValueError("no picture could be read, expected at least one")
        columns = [[row.cells[i] for row in self.rows] for i in range(len(self.latents))]
        best = summary.best([[cell.psnr for cell in row.cells] for row in self.rows])
        return [
            summary.summed(name, cells, self.latents[name].advice(), wins)
            for name, cells, wins in zip(self.latents, columns, best, strict=True)
        ]

    def write(self, path: Path) -> None:
        """The page, whole or not at all. ValueError where no picture was added; see `ldm.files.replacing`."""
        parts = self._parts()
        with replacing(path) as file:
            for part in parts:
                file.write(part.encode("utf-8", "replace"))  # names of files may be no UTF-8

    def worst_first(self) -> list[Row]:
        """By the first autoencoder's PSNR, which is that of the page before it is told otherwise."""
        return sorted(self.rows, key=lambda row: (row.cells[0].psnr, row.name))

    def _cell(self, check: RoundTrip) -> Cell:
        error = error_map(check.original, check.image)
        return Cell(check.psnr, check.ssim, check.max_error, check.channel_shift, check.latent_std, check.diagnosis,
                    self.album.keep(check.image), self.album.keep(error))  # fmt: skip

    def _placed(self) -> list[Placed]:
        """Every picture, ordered as `worst_first`."""
        rows = self.worst_first()
        places = np.array([row.keys for row in rows]).argsort(axis=0, kind="stable").argsort(axis=0)
        return [Placed(row, each) for row, each in zip(rows, places.tolist(), strict=True)]

    def _parts(self) -> Iterator[str]:
        placed = self._placed()
        reach = _reach(placed)
        shown = [each for each in placed if each.soonest < reach]
        return _template().generate(
            version=ldm.__version__,
            models=self.summaries(),
            count=len(self.rows),
            folder=_folder([row.name for row in self.rows]),
            lists=[shown[:WORST], shown[WORST:]],
            worst=WORST,
            reach=reach,
            unseen=len(placed) - len(shown),
            skipped=self.skipped,
            uri=self.album.uri,
            orders=ORDERS,
            sides=(LARGE, SMALL),
            distributions=plots.distributions({name: self._column(i) for i, name in enumerate(self.latents)}),
            histograms=[plots.channels(*each, plots.colour(i)) for i, each in enumerate(self.latents.items())],
            colour=plots.colour,
            inf=math.inf,
            heat=", ".join(f"rgb{colour}" for colour in HEAT),
        )

    def _column(self, index: int) -> list[Any]:
        return [row.cells[index] for row in self.rows]


def _reach(placed: Sequence[Placed]) -> int:
    """How many of every order's worst are shown, so that these are MOST pictures or a few less; WORST at least."""
    soonest = sorted(each.soonest for each in placed)
    return max(WORST, soonest[MOST]) if len(placed) > MOST else len(placed)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files are whatever somebody called them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _folder(names: Sequence[str]) -> str:
    """What all names begin with, up to a slash."""
    shared = commonprefix(names)
    return shared[: shared.rfind("/") + 1]
