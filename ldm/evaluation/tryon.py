"""Is error-aware refinement worth it? A base model's pictures, and what bridges make of them, against photographs.

For pictures that the base model drew, and, where a set has them, for pictures with known errors:

    base          x_1 itself
    plain         a bridge without map (I2SB)
    random        a bridge that was taught with maps that know nothing, and is given such
    classified    a bridge with the map of the error classifier (EARSB)
    experts       the same, with an expert for either half of all times
    pasted        as classified, and x_1's own pixels pasted back where the map is 0
    true          as classified, with the map of the true boxes

ssim, distance    to the photograph; distance as LPIPS has it, but with the features of a small network that was taught
                  here which garment a person wears (see `ldm.tryon.matching`)
frechet           between all pictures and all photographs, of that network's vectors, times 1000
inside, outside   mean absolute errors in 1/255, of pixels in and around the true boxes
match             share of pictures whose garment is found among all garments of the set
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.data.tryon import TryOn, boxes, outputs
from ldm.evaluation.autoencoders import frechet
from ldm.evaluation.error_maps import evaluate_error_maps
from ldm.images import grid, to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.masks import feathered, pasted
from ldm.roundtrip import ssim
from ldm.training.randomness import keyed
from ldm.training.tryon.looks import Looks
from ldm.training.tryon.refinement import difference_boxes, random_map
from ldm.training.tryon.stages import BRIDGES, FLAWED, FLAWED_BOXES, draw_all
from ldm.training.twins import Twins, worn
from ldm.tryon.given import Given, beside
from ldm.tryon.heat import heated
from ldm.tryon.matching import Matcher
from ldm.tryon.model import Refiner, TryOnModel

Row = dict[str, Any]
EVALUATIONS = (5, 10, 25)
DERIVED = ("pasted", "true")  # of the classified bridge
SOFT = 2  # pixels


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures x_1 (N,3,H,W) of one kind, with the photographs that they should be and where they are wrong."""

    kind: str
    x_1: Tensor
    photographs: Tensor
    truth: Tensor  # (N,1,H,W), 1 in the true boxes
    maps: Tensor  # (N,1,H,W), the classifier's
    told: Given
    given: Tensor  # conditions of the bridges (N,10,H,W)


class Judge:
    """What pictures are measured by, all of one set."""

    def __init__(self, matcher: Matcher, looks: Looks):
        self.matcher, self.looks = matcher, looks
        with torch.no_grad():
            self.garments = matcher.garments(looks.pixels("garment"))
            self.real = matcher.persons(looks.pixels("person")).numpy()

    @torch.no_grad()
    def figures(self, x: Tensor, case: Case) -> dict[str, float]:
        """Pictures x (N,3,H,W), in the order of the looks -> the figures above, means."""
        vectors, wrong = self.matcher.persons(x), (x - case.photographs).abs() * 127.5
        return {
            "ssim": fmean(ssim(a[None], b[None]) for a, b in zip(x, case.photographs, strict=True)),
            "distance": float(self.matcher.distance(x, case.photographs).mean()),
            "frechet": 1000 * frechet(vectors.numpy(), self.real),
            "inside": _mean_where(wrong, case.truth),
            "outside": _mean_where(wrong, 1 - case.truth),
            "match": float(((vectors @ self.garments.T).argmax(1) == torch.arange(len(x))).float().mean()),
        }


def _mean_where(values: Tensor, where: Tensor) -> float:
    return float((values * where).sum() / (values.shape[1] * where.sum()).clamp_min(1e-6))


def evaluate_tryon(folder: Path, run: Path, evaluations: Sequence[int] = EVALUATIONS, seed: int = 0) -> dict[str, Any]:
    """A set and what `train_tryon` made of its training part -> figures on its test part, in JSON.

    "rows", each of a kind, a variant and a number of evaluations; "classifier", its figures on each kind.
    """
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    source = TryOn(folder, "test", size=size_of(run))
    looks = Looks.read(source)
    judge, rows = Judge(Matcher.load(run / "matcher" / "matcher.safetensors"), looks), list[Row]()
    for case in cases(folder, run, model, looks):
        seeds = range(seed, seed + len(case.x_1))
        turns = [(name, steps) for name in [*bridges, *DERIVED] for steps in evaluations]
        rows.append({"kind": case.kind, "variant": "base", "evaluations": 0, **judge.figures(case.x_1, case)})
        for name, steps in tqdm(turns, desc=case.kind, disable=None):
            x = repaired(bridges, name, case, seeds, steps)
            rows.append({"kind": case.kind, "variant": name, "evaluations": steps, **judge.figures(x, case)})
    return {
        "rows": rows,
        "classifier": classified(folder, run, model, source, looks),
        "count": len(looks),
        "seed": seed,
    }


def size_of(run: Path) -> tuple[int, int]:
    """(H, W) of what a run learnt: its pictures are kept."""
    first = next(iter(sorted((run / "drawn" / "train").glob("*.png"))), None)
    if first is None:
        raise FileNotFoundError(f"{run / 'drawn' / 'train'} holds no pictures: expected a run of ldm train tryon")
    with Image.open(first) as picture:
        return picture.height, picture.width


def refiners(run: Path) -> dict[str, Refiner]:
    """The bridges that a run has trained; "experts" is the classified one with experts, where it has them."""
    found = {name: run / f"bridge-{name}" for name in BRIDGES if (run / f"bridge-{name}" / "model").is_dir()}
    made = {name: Refiner.from_pretrained(path, experts=False) for name, path in found.items()}
    if "classified" in found and (found["classified"] / "far").is_dir():
        made["experts"] = Refiner.from_pretrained(found["classified"])
    return made


def cases(folder: Path, run: Path, model: TryOnModel, looks: Looks) -> Iterator[Case]:
    """What the base model draws, with boxes where it differs most; and the set's flawed pictures, where it has some."""
    told, photographs = looks.given(), looks.pixels("person")
    given = beside(LatentSpace.identity(), told, model.base.worn(told))
    drawn = draw_all(run / "drawn" / "test", model.base, looks) / 127.5 - 1
    shapes = [difference_boxes(x, y) for x, y in zip(photographs, drawn, strict=True)]
    found = [("drawn", drawn, [to_mask(own, looks.size[::-1], looks.size) for own in shapes])]
    if (flawed := folder / "test" / FLAWED).is_dir():
        pictures = {name: outputs(flawed, name) for name in looks.names}
        known = boxes.read(flawed.parent / FLAWED_BOXES)
        truth = [to_mask(known[name], picture.size, looks.size) for name, picture in pictures.items()]
        found.append((FLAWED, to_pixels(list(pictures.values()), size=looks.size), truth))
    for kind, x_1, masks in found:
        yield Case(kind, x_1, photographs, torch.stack(masks), model.error_map(x_1, told), told, given)


def to_mask(marked: Sequence[Any], picture_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes in pixels of a picture of (W, H) -> (1,H,W) of `size`, 1 where at least half of a pixel lies in one."""
    covered = boxes.covered([tuple(box) for box in marked], picture_size, size)
    return (to_pixels(covered.convert("RGB"))[0, :1] >= 0).float()


def repaired(bridges: dict[str, Refiner], name: str, case: Case, seeds: range, steps: int) -> Tensor:
    """x_1 through one of the bridges, with the map that goes with it."""
    size = (case.x_1.shape[-2], case.x_1.shape[-1])
    maps = {"plain": torch.ones_like(case.maps), "true": case.truth}
    if name == "random":
        maps[name] = torch.stack([random_map(size, keyed(seed, "map")) for seed in seeds])
    bridge = bridges["classified" if name in DERIVED else name]
    x = bridge.refine(case.x_1, maps.get(name, case.maps), case.given, seeds, steps)
    return pasted(x, case.x_1, feathered(case.maps, SOFT)) if name == "pasted" else x


def classified(folder: Path, run: Path, model: TryOnModel, source: TryOn, looks: Looks) -> dict[str, dict[str, float]]:
    """How well the classifier's maps say where the true boxes are, for each kind."""
    drawn = run / "drawn" / "test"
    places: dict[str, list[Any]] = {}
    for name, x in zip(looks.names, looks.pixels("person"), strict=True):
        places[name] = difference_boxes(x, to_pixels(outputs(drawn, name))[0])
    found = {"drawn": evaluate_error_maps(model.errors, Twins(worn(source, drawn, places), looks.size))}
    if (flawed := folder / "test" / FLAWED).is_dir():
        twins = worn(source, flawed, boxes.read(flawed.parent / FLAWED_BOXES))
        found[FLAWED] = evaluate_error_maps(model.errors, Twins(twins, looks.size))
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows in Markdown."""
    names = [name for name in rows[0]]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(folder: Path, run: Path, count: int = 8, steps: int = 10, enlarged: int = 2) -> Image.Image:
    """A row for each look and kind: garment, photograph, x_1, its map, what every bridge makes of it."""
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    looks = Looks.read(TryOn(folder, "test", size=size_of(run)))
    found: list[Image.Image] = []
    for case in cases(folder, run, model, looks):
        made = [repaired(bridges, name, case, range(len(case.x_1)), steps)[:count] for name in bridges]
        shown = [looks.pixels("garment")[:count], case.photographs[:count], case.x_1[:count], *made]
        columns = [to_images(x) for x in shown]
        hot = [heated(image, M) for image, M in zip(columns[2], case.maps, strict=False)]
        columns.insert(3, hot)
        found += [picture for row in zip(*columns, strict=True) for picture in row]
    larger = [
        picture.resize((enlarged * picture.width, enlarged * picture.height), Image.Resampling.NEAREST)
        for picture in found
    ]
    return grid(larger, columns=4 + len(bridges))
