"""Is error-aware refinement worth it? A base model's pictures, and what bridges make of them, against photographs.

For pictures that the base model drew ("drawn"), for pictures with known errors where a set has them ("flawed"), and for
what the base model drew of persons in garments that they never wore ("unpaired", of which no truth is known):

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
                  here which garment a person wears (see `ldm.tryon.matching`)
inside, outside   mean absolute errors in 1/255, of pixels in the true boxes, and of others that are drawn anew
frechet, kernel   between all pictures and all photographs, times 1000: as FID and KID, but of that network's vectors
lpips, fid, kid   the published ones (kid times 1000), where their weights are at hand: none are carried
match             share of pictures whose garment is found among all garments of the set
gain, gain_se     mean of ssim less that of plain with as many evaluations, picture by picture; its standard error
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import Tensor
from tqdm import tqdm

from ldm.data.tryon import TryOn
from ldm.evaluation.error_maps import alarms, located
from ldm.evaluation.tryon.cases import DRAWN, Case, cases, size_of, unpaired
from ldm.evaluation.tryon.figures import Judge, mean_where
from ldm.evaluation.tryon.repairs import refiners, repaired, seeds_of, variants
from ldm.evaluation.tryon.sheet import sheet
from ldm.images import to_pixels
from ldm.training.tryon.looks import Looks
from ldm.tryon.matching import Matcher
from ldm.tryon.model import Refiner, TryOnModel, unlike

__all__ = ["EVALUATIONS", "base_error", "evaluate_tryon", "judged", "sheet", "size_of", "table"]

Row = dict[str, Any]
EVALUATIONS = (5, 10, 25)


def evaluate_tryon(
    folder: Path, run: Path, evaluations: Sequence[int] = EVALUATIONS, seed: int = 0, weights: Path | None = None
) -> dict[str, Any]:
    """A set and what `train_tryon` made of its training part -> figures on its test part, in JSON.

    "rows", each of a kind, a variant and a number of evaluations; "classifier", its figures on each kind with known
    truth; "base_error", mean absolute errors of what was drawn anew, in 1/255, of persons that were learnt from and of
    others; "floor", the distances of two halves of the photographs; "missing", whose figures are left out, as their
    weights are neither in the folder `weights` nor where torch.hub keeps some.
    """
    size = size_of(run)
    model, bridges = TryOnModel.from_pretrained(run), refiners(run)
    looks = {split: Looks.read(TryOn(folder, split, size=size)) for split in ("train", "test")}
    judge = Judge(Matcher.load(run / "matcher" / "matcher.safetensors"), looks["test"], weights)
    rows, classifier = list[Row](), dict[str, dict[str, float]]()
    for case in cases(folder, run, model, looks["test"]):
        if case.truth:
            classifier[case.kind] = located(list(case.maps), case.truth.layers)
            classifier[case.kind] |= alarms(list(model.error_map(case.truth.photographs, case.told)))
        rows += judged(model, bridges, judge, case, evaluations, seed)
    for case in unpaired(folder, run, model, size):
        rows += judged(model, bridges, judge, case, evaluations, seed)
    return {
        "rows": rows,
        "classifier": classifier,
        "base_error": {split: base_error(run / "drawn" / split, own) for split, own in looks.items()},
        "floor": judge.floor(),
        "missing": judge.missing,
        "count": len(looks["test"]),
        "seed": seed,
    }


def judged(
    model: TryOnModel, bridges: dict[str, Refiner], judge: Judge, case: Case, evaluations: Sequence[int], seed: int
) -> list[Row]:
    """The rows of one kind."""
    seeds = seeds_of(case, seed)
    first: list[tuple[str, int, Tensor]] = [("base", 0, case.x_1)]
    if case.kind == DRAWN:
        first.append(("again", 0, model.base.draw(case.told, [unlike(seed) for seed in seeds])))
    turns = [(name, steps) for name in variants(bridges, case) for steps in evaluations]
    later = ((name, steps, repaired(bridges, name, case, seeds, steps)) for name, steps in turns)
    rows, plain = list[Row](), dict[int, list[float]]()
    for name, steps, x in [*first, *tqdm(later, case.kind, len(turns), disable=None)]:
        figures, each = judge.figures(x, case)
        if name == "plain":
            plain[steps] = each
        gain = [a - b for a, b in zip(each, plain.get(steps, []))]
        spread = {"gain": fmean(gain), "gain_se": stdev(gain) / len(gain) ** 0.5} if len(gain) > 1 else {}
        rows.append({"kind": case.kind, "variant": name, "evaluations": steps, **figures, **spread})
    return rows


def base_error(folder: Path, looks: Looks) -> float:
    """Pictures of looks that the base model drew -> their mean absolute error of what was drawn anew, in 1/255."""
    known = [row for row, name in enumerate(looks.names) if (folder / f"{Path(name).stem}.png").is_file()]
    drawn = to_pixels([folder / f"{Path(looks.names[row]).stem}.png" for row in known])
    return mean_where((drawn - looks.pixels("person", known)).abs() * 127.5, looks.pixels("agnostic_mask", known))


def table(rows: Sequence[Row]) -> str:
    """Rows in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value := row.get(name, ""), float) else str(value) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
