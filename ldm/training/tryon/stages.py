"""All stages of error-aware try-on, one after the other; each goes on from where it was stopped.

looks --vae--> latents;  --dress, undress--> garments on, and off (H2G)
      --base--> drawn;   --errors--> maps;   --bridges--> repairs
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import mul
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.bridging import Bridge
from ldm.checkpoints import read_json, save
from ldm.data.tryon import TryOn, boxes, outputs
from ldm.data.tryon.synthetic import Made
from ldm.data.tryon.synthetic import write as write_synthetic
from ldm.data.tryon.viton import SPLITS
from ldm.files import write_json
from ldm.images import to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.training.bridge import train_bridge
from ldm.training.error_classifier import train_error_classifier
from ldm.training.plan import Plan
from ldm.training.randomness import number
from ldm.training.tryon.base import FLAGS, train_base
from ldm.training.tryon.extraction import extract, synthetic
from ldm.training.tryon.looks import Looks, as_bytes
from ldm.training.tryon.matching import train_matcher
from ldm.training.tryon.refinement import Repairs, at_random, difference_boxes, everywhere, known
from ldm.training.tryon.warping import Dressing, Undressing, train_warping
from ldm.training.twins import Twin, Twins
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
    vae_preset: str = "fine"
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

    `size` (H, W) are multiples of 16. Of pairs whose garments are not known no stage sees the garment. Each stage goes
    on from where it was stopped. ValueError and FileNotFoundError as the set's readers raise them. After EARSB (arXiv
    2501.04666), whose stages these are: base model, error classifier, bridge, and H2G for garments that are not known.
    """
    if size[0] % 16 or size[1] % 16:
        raise ValueError(f"size {size}: expected multiples of 16, height and width")
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock(out / "stages.json")
    sources = [TryOn(folder, split, size=size) for split in SPLITS]
    train, test = map(Looks.read, sources)
    paired, others = train.parted(recipe.known, recipe.seed)
    with clock("vae"):
        plan, portraits = recipe.plan("vae", 32, 2e-3), Portraits(paired, others)
        space = LatentSpace(train_vae(out / "vae", portraits, plan, recipe.vae_preset, size[0]).eval())
    with clock("matcher"):
        train_matcher(out / "matcher", paired, recipe.plan("matcher", 64, 1e-3))
    with clock("dress"):
        learnt, dress = dressing(out, sources[0], paired, others, recipe)
    with clock("base"):
        base = train_base(out / "base", learnt, space, dress, recipe.plan("base", 64, 1e-3), recipe.preset)
    with clock("drawn"):
        drawn = draw_all(out / "drawn" / "train", base, learnt, recipe.seed)
        draw_all(out / "drawn" / "test", base, test, recipe.seed)
    rough = Rough.of(folder, learnt, drawn)
    with clock("errors"):
        errors = classifier(out / "errors", rough, recipe)
    told = learnt.given()
    given = beside(LatentSpace.identity(), told, base.worn(told))
    for name in recipe.bridges:
        with clock(f"bridge {name}"):
            bridge(out / f"bridge-{name}", name, repairs(name, rough, given, errors), recipe)


class Clock:
    """Seconds that each stage took, in a JSON file; of one that was stopped, those of its last run."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = read_json(path) if path.is_file() else {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = max(self.seconds.get(stage, 0.0), round(time.perf_counter() - began, 1))
        write_json(self.path, self.seconds)


class Portraits:
    """Looks -> what the autoencoder learns from: persons, every other one of them in another form that it must hold.

    Of `others` the garments are not shown.
    """

    FORMS = ("person", "agnostic", "person", "pose", "person", "garment")

    def __init__(self, looks: Looks, others: Looks):
        self.looks, self.others = looks, others
        shown = ((looks, self.FORMS), (others, self.FORMS[:-1]))
        self.places = [(own.parts[form], row) for own, forms in shown for row in range(len(own)) for form in forms]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        part, row = self.places[index]
        return as_image(part[row]), ""

    def identity(self) -> Any:
        return ["portraits", self.looks.identity(), self.others.identity()]


def dressing(out: Path, source: TryOn, paired: Looks, others: Looks, recipe: Recipe) -> tuple[Looks, Any]:
    """Pairs -> looks to learn from, synthetic ones made of the others among them where wanted; and who dresses.

    The synthetic ones lie in `out`/h2g, as a set of the layout of `source`.
    """
    plan = recipe.plan("dress", 16, 1e-3)
    dress = train_warping(out / "dress", Dressing(paired), plan, recipe.pixel_preset)
    if not recipe.h2g:
        return paired, dress
    undress = train_warping(out / "undress", Undressing(paired), plan, recipe.pixel_preset)
    found = extract(others, undress, dress)
    write_json(out / "h2g.json", found.report())
    made = synthetic(others, found)
    write_synthetic(out / "h2g", source, made_of(source, made))
    return paired.joined(made), dress


def made_of(source: TryOn, looks: Looks) -> Iterator[Made]:
    """The garments of some looks of a set, as pictures."""
    places = {name: index for index, name in enumerate(source.names)}
    for name, garment, mask in zip(looks.names, looks.parts["garment"], looks.parts["garment_mask"], strict=True):
        yield Made(places[name], as_image(garment), Image.fromarray(mask[0].numpy()))


def draw_all(folder: Path, base: Base, looks: Looks, seed: int = 0) -> Tensor:
    """What the base model draws for every look (N,3,H,W), as bytes; kept in a folder as pictures of the same names.

    Picture i of a folder is drawn from noise of its own, which no other folder has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{Path(name).stem}.png" for name in looks.names]
    seeds = [number(seed, folder.name, name) for name in looks.names]
    for start in tqdm(range(0, len(looks), 64), desc=f"drawing {folder.name}", disable=None):
        rows = slice(start, start + 64)
        if not all(path.is_file() for path in paths[rows]):
            for image, path in zip(to_images(base.draw(looks.given(rows), seeds[rows])), paths[rows], strict=True):
                image.save(path)
    return as_bytes(to_pixels([outputs(folder, name) for name in looks.names]))


@dataclass(frozen=True, eq=False)
class Rough:
    """Looks, and one or two pictures of each that are to be repaired, kind by kind: N k rows, as bytes.

    What the base model drew; and, where a set has them, pictures with known errors.
    """

    looks: Looks
    x_1: Tensor  # (N k,3,H,W)
    boxes: Sequence[Sequence[boxes.Box]]  # of each, in pixels of x_1

    @classmethod
    def of(cls, folder: Path, looks: Looks, drawn: Tensor, split: str = "train") -> "Rough":
        """What the base model drew, its boxes where it differs most; and the set's own pictures, with theirs."""
        found, pictures = differing(looks, drawn), [drawn]
        if (flawed := folder / split / FLAWED).is_dir():
            height, width = looks.size
            known = boxes.read(flawed.parent / FLAWED_BOXES)
            own = [outputs(flawed, name) for name in looks.names]
            for name, picture in zip(looks.names, own, strict=True):
                scale = (width / picture.width, height / picture.height) * 2
                found.append([tuple(map(mul, box, scale)) for box in known[name]])  # type: ignore[misc]
            pictures.append(as_bytes(to_pixels(own, size=looks.size)))
        return cls(looks, torch.cat(pictures), found)

    @property
    def kinds(self) -> int:
        """k."""
        return len(self.x_1) // len(self.looks)

    def repeated(self, part: Tensor) -> Tensor:
        """One row for each look -> one for each picture."""
        return part.repeat(self.kinds, *[1] * (part.ndim - 1))

    def twins(self) -> Iterator[Twin]:
        """Photographs and garments beside them, for the error classifier."""
        for row, (picture, own) in enumerate(zip(self.x_1, self.boxes, strict=True)):
            look = row % len(self.looks)
            person, garment = (as_image(self.looks.parts[name][look]) for name in ("person", "garment"))
            yield Twin(str(row), person, as_image(picture), garment, own)


def as_image(picture: Tensor) -> Image.Image:
    """Bytes (3,H,W) -> image."""
    return Image.fromarray(picture.movedim(0, -1).numpy())


def differing(looks: Looks, drawn: Tensor) -> list[Sequence[boxes.Box]]:
    """Boxes where what was drawn differs most from each photograph: what a person would have marked."""
    pairs = zip(looks.pixels("person"), drawn / 127.5 - 1, strict=True)
    return [difference_boxes(x, y) for x, y in pairs]


def classifier(out: Path, rough: Rough, recipe: Recipe) -> ErrorClassifier:
    """Photographs and what stands in their place -> the error classifier, told boxes of a share of the looks."""
    data = Twins(rough.twins(), rough.looks.size, recipe.boxes / rough.kinds, recipe.seed)
    return train_error_classifier(out, data, recipe.plan("errors", 16, 5e-4), top=TOP).eval().requires_grad_(False)


def repairs(name: str, rough: Rough, given: Tensor, errors: ErrorClassifier) -> Repairs:
    """What one of BRIDGES learns from; `given` are the conditions of each look (N,C',H,W)."""
    size = rough.looks.size
    maps = (
        {"plain": everywhere, "random": at_random}[name](size) if name != "classified" else known(judged(rough, errors))
    )
    photographs, labels = rough.repeated(rough.looks.parts["person"]), rough.repeated(rough.looks.synthetic)
    identity = [name, rough.looks.identity()]
    return Repairs(photographs, rough.x_1, rough.repeated(given), maps, BRIDGES[name], labels, identity)


@torch.no_grad()
def judged(rough: Rough, errors: ErrorClassifier) -> Tensor:
    """M (N k,1,H,W) of every picture, 0 where nothing was drawn anew."""
    garments, masks = (rough.repeated(rough.looks.pixels(name)) for name in ("garment", "agnostic_mask"))
    rows = [slice(start, start + 64) for start in range(0, len(rough.x_1), 64)]
    return torch.cat([errors.error_map(rough.x_1[own] / 127.5 - 1, garments[own]) * masks[own] for own in rows])


def bridge(out: Path, name: str, items: Repairs, recipe: Recipe) -> None:
    """One of BRIDGES, in `out`/model; its experts, where they are wanted, in `out`/near and `out`/far.

    Experts learn half as many steps again, from the common network on.
    """
    process = Bridge(prediction_type=recipe.target)
    plan = recipe.plan("bridge", 16, 1e-3)
    unet = train_bridge(out, items, plan, process, recipe.pixel_preset, classes=FLAGS)
    save_bridge(out / "model", unet, process, BRIDGES[name])
    for half, between in EXPERTS.items() if recipe.experts and name == "classified" else ():
        shorter = replace(plan, steps=max(1, plan.steps // 2), learning_rate=plan.learning_rate / 4)
        expert = train_bridge(out / f"{half}-run", items, shorter, process, init=unet, classes=FLAGS, between=between)
        save_bridge(out / half, expert, process, BRIDGES[name])


def save_bridge(folder: Path, unet: Any, process: Bridge, told: Sequence[str]) -> None:
    """A bridge between pixels, as `Refiner` loads it."""
    defaults = {"num_inference_steps": 10, "guidance_scale": 1.0, "beside": list(told)}
    save(folder, LatentSpace.identity().autoencoder, unet, None, process.config(), defaults)
