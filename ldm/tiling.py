"""Large pictures in pieces: overlapping tiles, each run by itself, averaged into one canvas.

    x --Grid--> tiles --encode or decode--> pieces --windows that are 1 in all--> result

Two things in an autoencoder see the whole picture. GroupNorm's moments are shared by all tiles (`ldm.moments`). The
attention of a mid block sees its tile only: what it would have brought from farther away is lost. Windows keep that
free of seams, but it is not mended: on random networks, where attention is a plain mean, 31 to 50 dB become 19 to 28.
The embedded model has none.

`inward` and `outward` are the places to a latent, along a side, of what goes in and comes out: f and 1 to encode, 1 and
f to decode. Nothing here has a gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.moments import Run, Sharing, Windows, norms
from ldm.precision import numbered

Place: TypeAlias = "tuple[int, int]"  # row and column of a tile

PATCH = 8  # latents; of the patches that the small picture is made of: 4 and 16 are worse by 5 dB and more
REACH = 16  # latents; of the overlap
ASIDE = 1 / 4  # of an overlap, at either end: next to its border a tile does not count, as it cannot see beyond
GOLDEN = (math.sqrt(5) - 1) / 2
BAR_AFTER = 2  # seconds
FULL = ("out of memory", "not enough memory", "can't allocate memory")  # how allocators without a type of error say it


# ---- how much at once ----


@dataclass(frozen=True)
class Tiling:
    """How much is run at once, in pixels, whichever side of the autoencoder is meant.

    Pictures go `together` at most, and no more than `area` in all. One that is larger than `area` by itself goes in
    squares of side `tile`, of which neighbours share `overlap` or more. ValueError for what cannot be.
    """

    area: float
    together: float
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if not (self.area >= 1 and self.together >= 1):
            raise ValueError(f"area {self.area}, together {self.together}: expected 1 or more")
        if not 0 <= self.overlap < self.tile:
            raise ValueError(f"overlap {self.overlap} of tiles of {self.tile}: expected 0 or more, below the tile")

    def fits(self, factor: int) -> Tiling:
        """Itself, if tiles are whole latents; else ValueError."""
        for name, side in (("tile", self.tile), ("overlap", self.overlap)):
            if side % factor:
                raise ValueError(
                    f"{name} {side}: expected a multiple of {factor}, such as {-(-side // factor) * factor}"
                )
        return self

    def at_once(self, pixels: int) -> int:
        """How many pictures of so many pixels go together."""
        return int(max(1, min(self.together, self.area // pixels, 2**31)))


# area, together, tile. The published f8 autoencoder decodes in 3.6 GiB a megapixel in float32, on top of its weights
# (measured), so "auto" stays below 9 GiB and "low" below 4; a tile of 512 takes 1 GiB, one of 256 a quarter of that.
MODES: dict[str, tuple[float, float, int]] = {
    "auto": (2_500_000, math.inf, 512),
    "low": (2**20, 1, 512),
    "min": (256**2, 1, 256),
}
LAST = (128**2, 1, 128)  # where even "min" is too much


def ladder(memory: str | Tiling, factor: int) -> list[Tiling]:
    """What was asked for, then what is tried when memory runs out, ever smaller. ValueError for an unknown name."""
    if isinstance(memory, str) and memory not in MODES:
        raise ValueError(f"memory {memory!r}: expected {', '.join(MODES)} or a Tiling")
    first = memory.fits(factor) if isinstance(memory, Tiling) else _tiling(*MODES[memory], factor)
    smaller = (_tiling(*mode, factor) for mode in (*MODES.values(), LAST))
    return [first, *(tiling for tiling in smaller if tiling.area < first.area)]


def _tiling(area: float, together: float, side: int, factor: int) -> Tiling:
    """Tiles of whole latents that overlap by REACH, but at most by a quarter."""
    tile = -(-side // factor)
    return Tiling(area, together, tile * factor, min(REACH, tile // 4) * factor)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


# ---- where tiles lie and what they count ----


@dataclass(frozen=True)
class Cut:
    """One side of a picture in tiles, in latents: as few of `tile` or less as share `overlap` or more."""

    length: int
    tile: int
    overlap: int

    @cached_property
    def count(self) -> int:
        return max(1, math.ceil((self.length - self.overlap) / (self.tile - self.overlap)))

    @cached_property
    def side(self) -> int:
        """Of each tile: no larger than so many need."""
        return math.ceil((self.length + (self.count - 1) * self.overlap) / self.count)

    @cached_property
    def begins(self) -> list[int]:
        steps = max(1, self.count - 1)
        return [round(i * (self.length - self.side) / steps) for i in range(self.count)]

    def spans(self, unit: int) -> list[slice]:
        """Each tile's part of the side, `unit` places to a latent."""
        return [slice(begin * unit, (begin + self.side) * unit) for begin in self.begins]

    def windows(self, unit: int) -> list[Tensor]:
        """What each tile counts at each of its places, by raised cosines over overlaps: at every place, 1 in all."""
        spans, place = self.spans(unit), torch.arange(self.length * unit).double() + 0.5
        found = [torch.ones(span.stop - span.start).double() for span in spans]
        for i, (one, two) in enumerate(itertools.pairwise(spans)):
            if shared := one.stop - two.start:
                found[i] *= _rising((one.stop - place[one]) / shared)
                found[i + 1] *= _rising((place[two] - two.start) / shared)
        total = torch.zeros(len(place)).double()
        for span, window in zip(spans, found):
            total[span] += window
        return [(window / total[span]).float() for span, window in zip(spans, found)]


def _rising(progress: Tensor) -> Tensor:
    """From 0 to 1 over an overlap, on its way from 0 to 1."""
    return torch.sin(math.pi / 2 * ((progress - ASIDE) / (1 - 2 * ASIDE)).clamp(0, 1)).square()


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture, by row and column."""

    rows: Cut
    columns: Cut

    def places(self) -> list[Place]:
        return list(itertools.product(range(len(self.rows.begins)), range(len(self.columns.begins))))

    def spans(self, unit: int) -> dict[Place, tuple[slice, slice]]:
        """Each tile's rows and columns in a picture of `unit` places to a latent."""
        return dict(zip(self.places(), itertools.product(self.rows.spans(unit), self.columns.spans(unit))))

    def windows(self, unit: int) -> dict[Place, tuple[Tensor, Tensor]]:
        """What each tile counts along its rows and along its columns; their products are 1 in all, everywhere."""
        return dict(zip(self.places(), itertools.product(self.rows.windows(unit), self.columns.windows(unit))))


# ---- pictures in pieces ----


def in_pieces(run: Run, autoencoder: Any, x: Tensor, tiling: Tiling, inward: int, outward: int, name: str) -> Tensor:
    """Pictures or their latents x (B,C,H,W) -> what `run` makes of them (B,...,H',W'): at once, or as `tiling` says.

    `name` is what the progress bar of tiles is called. ValueError for tiles that are not of whole latents.
    """
    pixels = x.shape[-2] * x.shape[-1] * outward**2
    whole, count = pixels <= tiling.area, tiling.at_once(pixels)
    if not len(x) or (whole and len(x) <= count):
        return run(autoencoder, x)
    results = []
    for start in range(0, len(x), count):
        with numbered(range(start, len(x))):
            some = x[start : start + count]
            piece = run(autoencoder, some) if whole else tiled(run, autoencoder, some, tiling, inward, outward, name)
            results.append(piece)
    return torch.cat(results)


@torch.no_grad()
def tiled(run: Run, autoencoder: Any, x: Tensor, tiling: Tiling, inward: int, outward: int, name: str = "") -> Tensor:
    """One picture or its latents x (1,C,H,W) -> what `run` makes of it (1,...,H',W') in float32, tile by tile.

    Every tile is run twice where the autoencoder has GroupNorms, first for the moments of the whole. A picture of no
    more than one tile is run as it is. `name` is what the progress bar is called.
    """
    factor = inward * outward
    tile, overlap = tiling.fits(factor).tile // factor, tiling.overlap // factor
    grid = Grid(*(Cut(side // inward, tile, overlap) for side in x.shape[-2:]))
    if len(grid.places()) == 1:
        return run(autoencoder, x)
    runs = len(grid.places()) * (2 if norms(autoencoder) else 1)
    with tqdm(total=runs, desc=name, unit="tile", delay=BAR_AFTER, leave=False, disable=None) as bar:
        if norms(autoencoder):
            autoencoder = Sharing(autoencoder)
            autoencoder.learn(run, sketched(x, grid, inward), _counted(_tiles(x, grid, inward, 1), bar))
        return _averaged(run, autoencoder, _counted(_tiles(x, grid, inward, outward), bar), grid, outward)


def _tiles(x: Tensor, grid: Grid, inward: int, outward: int) -> Iterator[tuple[Tensor, Windows]]:
    """Each tile of x, and its windows in a picture of `outward` places to a latent."""
    windows = grid.windows(outward)
    return ((x[..., *span], windows[place]) for place, span in grid.spans(inward).items())


def _counted(tiles: Iterable[tuple[Tensor, Windows]], bar: tqdm) -> Iterator[tuple[Tensor, Windows]]:
    """The same, counted when done with."""
    for tile in tiles:
        yield tile
        bar.update()


def _averaged(run: Run, autoencoder: Any, tiles: Iterable[tuple[Tensor, Windows]], grid: Grid, outward: int) -> Tensor:
    """The results of all tiles on one canvas, each weighted by its windows."""
    canvas, size = None, (grid.rows.length * outward, grid.columns.length * outward)
    for (tile, windows), span in zip(tiles, grid.spans(outward).values()):
        piece = run(autoencoder, tile)
        if canvas is None:
            canvas = piece.new_zeros(*piece.shape[:-2], *size, dtype=torch.float32)
        rows, columns = (window.to(canvas) for window in windows)
        canvas[..., *span] += piece * rows[:, None] * columns
    assert canvas is not None
    return canvas


# ---- the sketch ----


def sketched(x: Tensor, grid: Grid, unit: int) -> Tensor:
    """x -> a mosaic of patches from all over it, no larger than about a tile, at full resolution.

    Patches rather than fewer pixels, since to make a picture smaller takes away the finest texture, or makes finer
    still what is left: the moments of either are further off.
    """
    sides = (grid.rows, grid.columns)
    ratio = math.sqrt(math.prod(cut.side / cut.length for cut in sides))
    rows, columns = (_patches(cut, ratio, unit) for cut in sides)
    return x[..., rows, :][..., columns]


def _patches(cut: Cut, ratio: float, unit: int) -> Tensor:
    """Indices of patches that are `ratio` of a side, spread over it, but not at equal steps, as its pattern may be."""
    side = min(PATCH, max(1, cut.side // 4))
    count = max(1, int(cut.length * ratio / side))
    step = cut.length / count
    begins = [int(i * step + i * GOLDEN % 1 * (step - side)) for i in range(count)]
    return torch.cat([torch.arange(begin * unit, (begin + side) * unit) for begin in begins])
