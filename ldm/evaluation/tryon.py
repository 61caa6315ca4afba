"""Is error-aware refinement worth it? A base model's pictures, and what bridges make of them, against photographs.

For pictures that the base model drew ("drawn"), and, where a set has them, for pictures with known errors ("flawed"):

    base          x_1 itself
    again         of "drawn": the base model's picture from other noise. Boxes lie where the first one was worst, so
                  any other picture errs less in them
    plain         a bridge without map (I2SB)
    random        a bridge that was taught with maps that know nothing, and is given such
    classified    a bridge with the map of the error classifier (EARSB)
    experts       the same, with an expert for either half of all times, which have learnt half as long again
    pasted        as classified, and x_1's own pixels pasted back where the map is below a half
    true          as classified, with the map of the true boxes: of "drawn" those are only known from the photograph

What a person wears is all that is compared: pixels outside of what is drawn anew are the photograph's in every row.

ssim, distance    to the photograph; distance as LPIPS has it, but with the features of a small network that was taught
                  here which garment a person wears (see `ldm.tryon.matching`): LPIPS's own weights are not carried
frechet           between all pictures and all photographs, of that network's vectors, times 1000; not Inception's FID
inside, outside   mean absolute errors in 1/255, of pixels in the true boxes, and of others that are drawn anew
match             share of pictures whose garment is found among all garments of the set
gain, gain_se     mean of ssim less that of plain with as many evaluations, picture by picture; its standard error
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.data.tryon import TryOn, boxes
from ldm.evaluation.autoencoders import frechet
from ldm.evaluation.error_maps import alarms, located
from ldm.images import grid, to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.masks import feathered, pasted
from ldm.roundtrip import ssim
from ldm.training.randomness import keyed, number
from ldm.training.tryon.looks import Looks
from ldm.training.tryon.refinement import random_map
from ldm.training.tryon.stages import BRIDGES, Rough, draw_all
from ldm.tryon.given import Given, beside
from ldm.tryon.heat import heated
from ldm.tryon.matching import Matcher
from ldm.tryon.model import Refiner, TryOnModel, unlike

Row = dict[str, Any]
EVALUATIONS = (5, 10, 25)
DERIVED = ("pasted", "true")  # of the classified bridge
SOFT = 2  # pixels


KINDS = ("drawn", "flawed")


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures x_1 (N,3,H,W) of one kind, with the photographs that they should be and where they are wrong."""

    kind: str
    x_1: Tensor
    photographs: Tensor
    truth: Tensor  # (N,1,H,W), 1 in the true boxes
    layers: Sequence[Tensor]  # of each picture, its boxes one by one (K,H,W)
    maps: Tensor  # (N,1,H,W), the classifier's
    told: Given
    given: Tensor  # conditions of the bridges (N,10,H,W)


class Judge:
    """What pictures are measured by, all of one set."""

    def __init__(self, matcher: Matcher, looks: Looks):
        self.matcher = matcher
        with torch.no_grad():
            self.garments = matcher.garments(looks.pixels("garment"))
            self.real = matcher.persons(looks.pixels("person")).numpy()

    @torch.no_grad()
    def figures(self, x: Tensor, case: Case) -> tuple[dict[str, float], list[float]]:
        """Pictures x (N,3,H,W), in the order of the looks -> the figures above, means; and the ssim of each."""
        vectors, wrong = self.matcher.persons(x), (x - case.photographs).abs() * 127.5
        each = [ssim(a[None], b[None]) for a, b in zip(x, case.photographs, strict=True)]
        return {
            "ssim": fmean(each),
            "distance": float(self.matcher.distance(x, case.photographs).mean()),
            "frechet": 1000 * frechet(vectors.numpy(), self.real),
            "inside": _mean_where(wrong, case.truth * case.told.mask),
            "outside": _mean_where(wrong, (1 - case.truth) * case.told.mask),
            "match": float(((vectors @ self.garments.T).argmax(1) == torch.arange(len(x))).float().mean()),
        }, each


def _mean_where(values: Tensor, where: Tensor) -> float:
    return float((values * where).sum() / (values.shape[1] * where.sum()).clamp_min(1e-6))


def evaluate_tryon(folder: Path, run: Path, evaluations: Sequence[int] = EVALUATIONS, seed: int = 0) -> dict[str, Any]:
    """A set and what `train_tryon` made of its training part -> figures on its test part, in JSON.

    "rows", each of a kind, a variant and a number of evaluations; "classifier", its figures on each kind; "base_error",
    mean absolute errors of what was drawn anew, in 1/255, of persons that were learnt from and of others;
    "frechet_floor", of two halves of the photographs.
    """
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    looks = {split: Looks.read(TryOn(folder, split, size=size_of(run))) for split in ("train", "test")}
    judge, rows = Judge(Matcher.load(run / "matcher" / "matcher.safetensors"), looks["test"]), list[Row]()
    classifier: dict[str, dict[str, float]] = {}
    for case in cases(folder, run, model, looks["test"]):
        classifier[case.kind] = located(list(case.maps), case.layers)
        classifier[case.kind] |= alarms(list(model.error_map(case.photographs, case.told)))
        rows += judged(model, bridges, judge, case, evaluations, seed)
    real = torch.from_numpy(judge.real)
    return {
        "rows": rows,
        "classifier": classifier,
        "base_error": {split: base_error(run / "drawn" / split, own) for split, own in looks.items()},
        "frechet_floor": 1000 * frechet(real[::2].numpy(), real[1::2].numpy()),
        "count": len(looks["test"]),
        "seed": seed,
    }


def judged(
    model: TryOnModel, bridges: dict[str, Refiner], judge: Judge, case: Case, evaluations: Sequence[int], seed: int
) -> list[Row]:
    """The rows of one kind."""
    seeds = [number(seed, "bridge", case.kind, i) for i in range(len(case.x_1))]
    first: list[tuple[str, int, Tensor]] = [("base", 0, case.x_1)]
    if case.kind == KINDS[0]:
        first.append(("again", 0, model.base.draw(case.told, [unlike(seed) for seed in seeds])))
    turns = [(name, steps) for name in [*bridges, *DERIVED] for steps in evaluations]
    later = ((name, steps, repaired(bridges, name, case, seeds, steps)) for name, steps in turns)
    rows, plain = list[Row](), dict[int, list[float]]()
    for name, steps, x in [*first, *tqdm(later, case.kind, len(turns), disable=None)]:
        figures, each = judge.figures(x, case)
        if name == "plain":
            plain[steps] = each
        gain = [a - b for a, b in zip(each, plain[steps], strict=True)] if steps in plain else []
        spread = {"gain": fmean(gain), "gain_se": stdev(gain) / len(gain) ** 0.5} if len(gain) > 1 else {}
        rows.append({"kind": case.kind, "variant": name, "evaluations": steps, **figures, **spread})
    return rows


def base_error(folder: Path, looks: Looks) -> float:
    """Pictures of looks that the base model drew -> their mean absolute error of what was drawn anew, in 1/255."""
    known = [row for row, name in enumerate(looks.names) if (folder / f"{Path(name).stem}.png").is_file()]
    drawn = to_pixels([folder / f"{Path(looks.names[row]).stem}.png" for row in known])
    return _mean_where((drawn - looks.pixels("person", known)).abs() * 127.5, looks.pixels("agnostic_mask", known))


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
    told = looks.given()
    rough = Rough.of(folder, looks, draw_all(run / "drawn" / "test", model.base, looks), "test")
    given = beside(LatentSpace.identity(), told, model.base.worn(told))
    for i in range(rough.kinds):
        rows = slice(i * len(looks), (i + 1) * len(looks))
        x_1 = told.pasted(rough.x_1[rows] / 127.5 - 1)
        layers = [to_layers(own, looks.size) for own in rough.boxes[rows]]
        truth = torch.stack([(own.sum(0, keepdim=True) > 0).float() for own in layers])
        yield Case(KINDS[i], x_1, looks.pixels("person"), truth, layers, model.error_map(x_1, told), told, given)


def to_layers(marked: Sequence[boxes.Box], size: tuple[int, int]) -> Tensor:
    """K boxes in pixels of a picture of `size` -> (K,H,W), 1 where at least half of a pixel lies in each."""
    if not marked:
        return torch.zeros(0, *size)
    covered = [boxes.covered([box], size[::-1], size).convert("RGB") for box in marked]
    return (to_pixels(covered)[:, 0] >= 0).float()


def repaired(bridges: dict[str, Refiner], name: str, case: Case, seeds: Sequence[int], steps: int) -> Tensor:
    """x_1 through one of the bridges, with the map that goes with it; pasted as `TryOnModel.refine` does."""
    size = (case.x_1.shape[-2], case.x_1.shape[-1])
    maps = {"plain": torch.ones_like(case.maps), "true": case.truth}
    if name == "random":
        maps[name] = torch.stack([random_map(size, keyed(seed, "map")) for seed in seeds])
    bridge = bridges["classified" if name in DERIVED else name]
    x = case.told.pasted(bridge.refine(case.x_1, maps.get(name, case.maps), case.given, seeds, steps))
    return pasted(x, case.x_1, feathered((case.maps >= 0.5).float(), SOFT)) if name == "pasted" else x


def table(rows: Sequence[Row]) -> str:
    """Rows in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value := row.get(name, ""), float) else str(value) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(folder: Path, run: Path, count: int = 8, steps: int = 10, enlarged: int = 2) -> Image.Image:
    """A row for each look and kind: garment, photograph, x_1, its map, what every bridge makes of it."""
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    looks = Looks.read(TryOn(folder, "test", size=size_of(run)))
    looks = looks.some(range(min(count, len(looks))))
    found: list[Image.Image] = []
    for case in cases(folder, run, model, looks):
        seeds = [number(0, "bridge", case.kind, i) for i in range(len(looks))]
        shown = [looks.pixels("garment"), case.photographs, case.x_1]
        shown += [repaired(bridges, name, case, seeds, steps) for name in [*bridges, "true"]]
        columns = [to_images(x) for x in shown]
        columns.insert(3, [heated(image, M) for image, M in zip(columns[2], case.maps, strict=True)])
        found += [picture for row in zip(*columns, strict=True) for picture in row]
    sizes = [(enlarged * picture.width, enlarged * picture.height) for picture in found]
    larger = [picture.resize(size, Image.Resampling.NEAREST) for picture, size in zip(found, sizes, strict=True)]
    return grid(larger, columns=5 + len(bridges))
