"""All stages of error-aware try-on, one after the other; each goes on from where it was stopped.

looks --vae--> latents;  --dress, undress--> garments on, and off (H2G)
      --base--> drawn;   --errors--> maps;   --bridges--> repairs
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.bridging import Bridge
from ldm.checkpoints import save
from ldm.data.tryon import TryOn, boxes, outputs
from ldm.data.tryon.viton import SPLITS
from ldm.files import write_json
from ldm.images import to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.training.bridge import train_bridge
from ldm.training.error_classifier import train_error_classifier
from ldm.training.plan import Plan
from ldm.training.tryon.base import FLAGS, train_base
from ldm.training.tryon.extraction import extract, synthetic
from ldm.training.tryon.looks import Looks
from ldm.training.tryon.matching import train_matcher
from ldm.training.tryon.refinement import Maps, Repairs, at_random, difference_boxes, everywhere, known
from ldm.training.tryon.warping import Dressing, Undressing, train_warping
from ldm.training.twins import Twin, Twins, worn
from ldm.training.vae import train_vae
from ldm.tryon.classifier import ErrorClassifier
from ldm.tryon.given import beside
from ldm.tryon.model import Base

FLAWED, FLAWED_BOXES = "flawed", "flawed-boxes.json"  # pictures with known errors, which a set may have
BRIDGES = {  # what each is shown
    "plain": ("z_T", "given"),
    "random": ("z_T", "error_map", "given"),
    "classified": ("z_T", "error_map", "given"),
}
TOP = 0.03  # share of the places whose mean stands for the maximum of a map
EXPERTS = {"near": (0.0, 0.5), "far": (0.5, 1.0)}  # and the shares of all times that each learns


@dataclass(frozen=True)
class Recipe:
    """How long each stage takes, in steps, and what it is made of."""

    effort: float = 1.0  # times these steps
    vae: int = 1200
    dress: int = 1500
    matcher: int = 400
    base: int = 4000
    errors: int = 800
    bridge: int = 1500
    preset: str = "mini"  # of the base model's network; tiny for tests
    pixel_preset: str = "local"  # of those that work on pixels: for warping, and the bridges
    vae_preset: str = "small"
    known: float = 1.0  # the share of the pairs whose garments are known
    h2g: bool = False  # of the others the garments are taken off the photographs
    boxes: float = 0.05  # the share of generated pictures whose boxes the classifier is told
    bridges: tuple[str, ...] = tuple(BRIDGES)
    target: str = "residual"  # what bridges emit: as I2SB has it, or "epsilon"
    experts: bool = False  # of the classified bridge, one for either half of all times
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.known <= 1 and 0 <= self.boxes <= 1 and 0 < self.effort < float("inf")):
            raise ValueError(
                f"known {self.known}, boxes {self.boxes}, effort {self.effort}: expected shares, and above 0"
            )
        if self.h2g and self.known == 1:
            raise ValueError("h2g: expected a share of known garments below 1, so that some are left to be taken off")
        if unknown := set(self.bridges) - set(BRIDGES):
            raise ValueError(f"bridges {', '.join(sorted(unknown))}: expected some of {', '.join(BRIDGES)}")

    def plan(self, stage: str, batch_size: int, rate: float, ema: float = 0.998) -> Plan:
        steps = max(1, round(getattr(self, stage) * self.effort))
        save = max(1, steps // 4)
        return Plan(steps, batch_size, rate, warmup=min(100, steps), ema=ema, seed=self.seed, save_every=save)


def train_tryon(folder: Path, out: Path, recipe: Recipe = Recipe(), size: tuple[int, int] = (64, 48)) -> None:  # noqa: B008
    """A set in VITON-HD's or DressCode's layout -> `out`: all that `TryOnModel` loads and `ldm evaluate tryon` judges.

    `size` (H, W) are multiples of 16. ValueError and FileNotFoundError as the set's readers raise them.
    """
    if size[0] % 16 or size[1] % 16:
        raise ValueError(f"size {size}: expected multiples of 16, height and width")
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock(out / "stages.json")
    sets = {split: TryOn(folder, split, size=size) for split in SPLITS}
    looks = {split: Looks.read(source) for split, source in sets.items()}
    with clock("vae"):
        space = LatentSpace(train_vae(out / "vae", Portraits(looks["train"]), recipe.plan("vae", 32, 2e-3),
                                      recipe.vae_preset, size[0]).eval())  # fmt: skip
    with clock("dress"):
        learnt, dress = dressing(out, looks["train"], recipe)
    with clock("matcher"):
        train_matcher(out / "matcher", looks["train"], recipe.plan("matcher", 64, 1e-3))
    with clock("base"):
        base = train_base(out / "base", learnt, space, dress, recipe.plan("base", 64, 1e-3), recipe.preset)
    with clock("drawn"):
        drawn = {split: draw_all(out / "drawn" / split, base, looks[split]) for split in SPLITS}
    with clock("errors"):
        errors = classifier(out / "errors", folder, sets["train"], looks["train"], drawn["train"], recipe)
    for name in recipe.bridges:
        with clock(f"bridge {name}"):
            bridge(out / f"bridge-{name}", name, folder, looks["train"], learnt, drawn["train"], base, errors, recipe)


class Clock:
    """Seconds that each stage took, in a JSON file; of one that was stopped, those of its last run."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = max(self.seconds.get(stage, 0.0), round(time.perf_counter() - began, 1))
        write_json(self.path, self.seconds)


class Portraits:
    """Looks -> what the autoencoder learns from: persons, every other one of them in another form that it must hold."""

    FORMS = ("person", "agnostic", "person", "pose", "person", "garment")

    def __init__(self, looks: Looks):
        self.looks = looks

    def __len__(self) -> int:
        return len(self.looks) * len(self.FORMS)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        row, form = divmod(index, len(self.FORMS))
        return Image.fromarray(self.looks.parts[self.FORMS[form]][row].movedim(0, -1).numpy()), ""

    def identity(self) -> Any:
        return ["portraits", self.looks.identity()]


def dressing(out: Path, looks: Looks, recipe: Recipe) -> tuple[Looks, Any]:
    """Looks -> those that may be learnt from, synthetic ones among them where they are wanted, and who dresses."""
    paired = some(looks, range(round(recipe.known * len(looks))))
    plan = recipe.plan("dress", 16, 1e-3)
    dress = train_warping(out / "dress", Dressing(paired), plan, recipe.pixel_preset)
    if not recipe.h2g:
        return paired, dress
    undress = train_warping(out / "undress", Undressing(paired), plan, recipe.pixel_preset)
    others = some(looks, range(len(paired), len(looks)))
    found = extract(others, undress, dress)
    kept = synthetic(others, found)
    shares = {name: float(getattr(found, name).median()) for name in ("background", "width", "unlike")}
    write_json(out / "h2g.json", {"photographs": len(others), "kept": len(kept), "medians": shares})
    return paired.joined(kept), dress


def some(looks: Looks, rows: range) -> Looks:
    """Looks of these rows alone."""
    parts = {name: part[rows.start : rows.stop] for name, part in looks.parts.items()}
    names, flags = looks.names[rows.start : rows.stop], looks.synthetic[rows.start : rows.stop]
    return Looks(parts, names, [looks.identity(), rows.start, rows.stop], flags)


def draw_all(folder: Path, base: Base, looks: Looks) -> Tensor:
    """What the base model draws for every look (N,3,H,W), as bytes; kept in a folder as pictures of the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{Path(name).stem}.png" for name in looks.names]
    for start in tqdm(range(0, len(looks), 64), desc=f"drawing {folder.name}", disable=None):
        rows = slice(start, start + 64)
        if not all(path.is_file() for path in paths[rows]):
            x = base.draw(looks.given(rows), range(start, min(start + 64, len(looks))))
            for image, path in zip(to_images(x), paths[rows], strict=True):
                image.save(path)
    return as_bytes(to_pixels([outputs(folder, name) for name in looks.names]))


def as_bytes(x: Tensor) -> Tensor:
    """x in [-1,1] -> bytes."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()


def classifier(out: Path, folder: Path, source: TryOn, looks: Looks, drawn: Tensor, recipe: Recipe) -> ErrorClassifier:
    """Photographs and what was drawn in their place -> the error classifier, told a few boxes."""
    found: dict[str, Any] = {
        name: difference_boxes(x, y / 127.5 - 1)
        for name, x, y in zip(looks.names, looks.pixels("person"), drawn, strict=True)
    }
    twins: list[Iterator[Twin]] = [worn(source, out.parent / "drawn" / source.split, found)]
    if (flawed := folder / source.split / FLAWED).is_dir():
        twins.append(worn(source, flawed, boxes.read(flawed.parent / FLAWED_BOXES)))
    data = Twins(chain(*twins), looks.size, recipe.boxes, recipe.seed)
    return train_error_classifier(out, data, recipe.plan("errors", 16, 5e-4), top=TOP).eval().requires_grad_(False)


def bridge(
    out: Path,
    name: str,
    folder: Path,
    everyone: Looks,
    learnt: Looks,
    drawn: Tensor,
    base: Base,
    errors: ErrorClassifier,
    recipe: Recipe,
) -> None:
    """One of BRIDGES, in `out`/model: from what was drawn, and from pictures with known errors, to the photographs."""
    place = {name: row for row, name in enumerate(everyone.names)}
    sources = [drawn[[place[name] for name in learnt.names]]]
    if (flawed := folder / "train" / FLAWED).is_dir():
        pictures = to_pixels([outputs(flawed, name) for name in learnt.names], size=learnt.size)
        sources.append(as_bytes(pictures))
    told, times = learnt.given(), len(sources)
    given = beside(LatentSpace.identity(), told, base.worn(told))
    x_1 = torch.cat(sources)
    maps = maps_of(name, x_1, told.garment.repeat(times, 1, 1, 1), told.mask.repeat(times, 1, 1, 1), errors)
    photographs = learnt.parts["person"].repeat(times, 1, 1, 1)
    items = Repairs(photographs, x_1, given.repeat(times, 1, 1, 1), maps, BRIDGES[name],
                    learnt.synthetic.repeat(times), [name, learnt.identity()])  # fmt: skip
    process = Bridge(prediction_type=recipe.target)
    plan = recipe.plan("bridge", 16, 1e-3)
    unet = train_bridge(out, items, plan, process, recipe.pixel_preset, classes=FLAGS)
    save_bridge(out / "model", unet, process, BRIDGES[name])
    for half, between in EXPERTS.items() if recipe.experts and name == "classified" else ():
        shorter = replace(plan, steps=max(1, plan.steps // 2), learning_rate=plan.learning_rate / 4)
        expert = train_bridge(out / f"{half}-run", items, shorter, process, init=unet, classes=FLAGS, between=between)
        save_bridge(out / half, expert, process, BRIDGES[name])


def save_bridge(folder: Path, unet: Any, process: Bridge, told: Sequence[str]) -> None:
    """A bridge between pixels, as ldm refine and `TryOnModel` load it."""
    defaults = {"num_inference_steps": 10, "guidance_scale": 1.0, "beside": list(told)}
    save(folder, LatentSpace.identity().autoencoder, unet, None, process.config(), defaults)


def maps_of(name: str, x_1: Tensor, garment: Tensor, mask: Tensor, errors: ErrorClassifier) -> Maps:
    """The maps that one of BRIDGES learns with."""
    size = (x_1.shape[-2], x_1.shape[-1])
    if name != "classified":
        return {"plain": everywhere, "random": at_random}[name](size)
    return known(judged(x_1, garment, mask, errors))


@torch.no_grad()
def judged(x_1: Tensor, garment: Tensor, mask: Tensor, errors: ErrorClassifier) -> Tensor:
    """Pictures as bytes (N,3,H,W), their garments and what was drawn anew -> M (N,1,H,W)."""
    rows: Sequence[slice] = [slice(start, start + 64) for start in range(0, len(x_1), 64)]
    look: Callable[[slice], Tensor] = lambda own: errors.error_map(x_1[own] / 127.5 - 1, garment[own]) * mask[own]  # noqa: E731
    return torch.cat([look(own) for own in rows])
