"""ldm train error-classifier: where is a generated picture wrong?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldm.cli import options
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

if TYPE_CHECKING:
    from ldm.training.twins import Twin

DATA, LEARNT = "Pictures", "What is learnt"

_option = options.panelled
Generated = Annotated[Path, typer.Option("--generated", help="What a model made of them: pictures of the same names.")]
Data = Annotated[Path | None, _option(DATA, "A folder laid out as VITON-HD or DressCode, persons with their garments.")]
Real = Annotated[Path | None, _option(DATA, "In its place a plain folder of real pictures, without garments.")]
Split = Annotated[str, _option(DATA, "Of --data: train or test.")]
Category = Annotated[str | None, _option(DATA, "Of DressCode: upper_body, lower_body or dresses.")]
Size = Annotated[str, _option(DATA, "WIDTHxHEIGHT, or one number, that all pictures are brought to.")]
BOXES = 'JSON: {"file name": [[left, top, right, bottom], ...]} in pixels of the generated file; [] is without error.'
Boxes = Annotated[Path | None, _option(DATA, BOXES)]
Share = Annotated[float, _option(DATA, "Share of the pictures whose boxes are learnt from, at most.")]
Flip = Annotated[bool, _option(DATA, "Mirror half of the pictures.", "--flip/--no-flip")]
SIZES = "small (f4; a place sees 12 x 12 pixels), base (f8; 24 x 24) for larger pictures, or tiny (for tests)."
Preset = Annotated[str, _option(LEARNT, SIZES)]
RealWeight = Annotated[float, _option(LEARNT, "Weight of the loss on real pictures, that of generated ones being 1.")]
BoxWeight = Annotated[float, _option(LEARNT, "Weight of the loss in and around boxes.")]
TOP = "Share of a generated picture's places that are to be high, 0 for the highest alone."
Top = Annotated[float, _option(LEARNT, TOP)]


@planned(steps=1500, batch_size=16, learning_rate=1e-3, warmup=50, ema=0.99, save_every=500)
def error_classifier(
    out: Out,
    plan: Plan,
    generated: Generated,
    data: Data = None,
    real: Real = None,
    split: Split = "train",
    category: Category = None,
    size: Size = "48x64",
    boxes: Boxes = None,
    share: Share = 0.05,
    flip: Flip = True,
    preset: Preset = "small",
    real_weight: RealWeight = 1.0,
    box_weight: BoxWeight = 1.0,
    top: Top = 0.0,
) -> None:
    """Trains a network that says where generated pictures are wrong; OUT/classifier holds it.

    All that it is told is which pictures are generated and which are real and, of a few, boxes about the errors. Beside
    it lie the log and OUT/maps.png: generated pictures over their error maps.

    **Examples**

    ldm train error-classifier --data dolls --generated dolls/train/flawed --boxes dolls/train/flawed-boxes.json
    --out runs/errors

    ldm train error-classifier --data VITON-HD --size 96x128 --generated base-outputs --boxes boxes.json --share 1
    --out runs/errors

    ldm train error-classifier --real photos --generated round-trips --size 128x128 --out runs/round-trip-errors
    """
    if (data is None) == (real is None):
        raise ValueError("expected --data, a try-on set, or --real, a plain folder, and not both")
    if data is None and (split, category) != ("train", None):
        raise ValueError("--split and --category: expected with --data, a try-on set, alone")

    from ldm.training import processes
    from ldm.training.error_classifier import train_error_classifier
    from ldm.training.twins import Twins
    from ldm.tryon.classifier import PRESETS

    options.one_of("--preset", preset, PRESETS)
    found = _found(data, real, generated, split, category, boxes)
    learnt = Twins(found, _shape(size), share, plan.seed, flip)
    train_error_classifier(out, learnt, plan, PRESETS[preset], real_weight, box_weight, top)
    if processes.here().is_main_process:
        print(out / "classifier")


def _shape(size: str) -> tuple[int, int]:
    """--size -> (H, W)."""
    width, height = options.size_of(size)
    options.at_least_one(size=width)
    options.at_least_one(size=height)
    assert width is not None and height is not None
    return height, width


def _found(
    data: Path | None, real: Path | None, generated: Path, split: str, category: str | None, boxes: Path | None
) -> "Iterator[Twin]":
    """Pictures, what was generated of them, and the boxes of the few that have any."""
    from ldm.data.tryon import TryOn
    from ldm.data.tryon.boxes import read
    from ldm.training.twins import twins, worn

    known = read(boxes) if boxes else {}
    if real is not None:
        return twins(real, generated, known)
    return worn(TryOn(str(data), split, category=category), generated, known)
