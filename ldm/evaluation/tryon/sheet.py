"""A sheet to look at: what a base model draws, where it is thought wrong, and what every bridge makes of it."""

from pathlib import Path

from PIL import Image

from ldm.data.tryon import TryOn
from ldm.evaluation.tryon.cases import cases, size_of
from ldm.evaluation.tryon.repairs import refiners, repaired, seeds_of
from ldm.images import grid, to_images
from ldm.training.tryon.looks import Looks
from ldm.tryon.heat import heated
from ldm.tryon.model import TryOnModel


def sheet(folder: Path, run: Path, count: int = 8, steps: int = 10, enlarged: int = 2) -> Image.Image:
    """A row for each look and kind: garment, photograph, x_1, its map, what every bridge makes of it."""
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    looks = Looks.read(TryOn(folder, "test", size=size_of(run)))
    looks = looks.some(range(min(count, len(looks))))
    found: list[Image.Image] = []
    for case in cases(folder, run, model, looks):
        shown = [case.told.garment, case.told.person, case.x_1]
        shown += [repaired(bridges, name, case, seeds_of(case), steps) for name in (*bridges, "true")]
        columns = [to_images(x) for x in shown]
        columns.insert(3, [heated(image, M) for image, M in zip(columns[2], case.maps, strict=True)])
        found += [picture for row in zip(*columns, strict=True) for picture in row]
    sizes = [(enlarged * picture.width, enlarged * picture.height) for picture in found]
    larger = [picture.resize(size, Image.Resampling.NEAREST) for picture, size in zip(found, sizes, strict=True)]
    return grid(larger, columns=5 + len(bridges))
