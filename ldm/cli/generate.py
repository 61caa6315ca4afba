"""ldm generate: text to image."""

import logging
import re
from collections.abc import Iterator
from itertools import chain
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import LatentDiffusion

PARAMETERS = ("negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "sampler")
KINDS: dict[str, Any] = {
    "prompt": str, "negative_prompt": str, "prompts": list, "count": int, "seed": int, "height": int, "width": int,
    "num_inference_steps": int, "guidance_scale": (int, float), "sampler": str, "model": str,
}  # fmt: skip
AT_ONCE = 16  # pictures in one batch
log = logging.getLogger("ldm")


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A picture's file; with several pictures, a folder or a name to number."),
    ] = None,
    model: Annotated[str | None, options.MODEL] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="Pictures of each prompt.  [default: 1]")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Picture j of a prompt is drawn from seed + j.  [default: 0]")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, or one number.  [default: the model's]")] = None,
    steps: Annotated[int | None, typer.Option(help="Evaluations of the network.  [default: the model's]")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale.  [default: the model's]")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="ddpm, ddim, pndm, euler, euler_a, heun, dpm++2m, dpm++2m_karras, dpm++2m_sde, unipc or lcm. "
            " [default: the model's]"
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="One contact sheet of all pictures.")] = False,
    from_image: Annotated[
        Path | None, typer.Option(help="Repeat the picture in this file; other options change what they name.")
    ] = None,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Do not write what made the picture.")] = False,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Draws pictures from words.

    **Examples**

    ldm generate "a red apple on a blue background" -o apple.png

    ldm generate "a cat face" "a dog face left of a tulip" -n 4 --grid -o sheet.png

    ldm generate --from-image apple.png --seed 7 -o another.png
    """
    told = _told(from_image)
    prompts = prompts or told.get("prompts") or [told[key] for key in ("prompt",) if key in told]
    if not prompts:
        raise typer.BadParameter('expected a prompt, such as "a red apple", or --from-image')
    count = told.get("count", 1) if count is None else count
    options.at_least_one(count=count)
    width, height = options.size_of(size)
    asked = dict(zip(PARAMETERS, (negative, height, width, steps, guidance, sampler), strict=True))
    settings = {key: told.get(key) if value is None else value for key, value in asked.items()}
    seed = told.get("seed", 0) if seed is None else seed
    grid = grid or "prompts" in told
    paths = _paths(out, prompts, count, seed, grid)

    from ldm.metadata import save
    from ldm.pipeline import LatentDiffusion

    source = model or told.get("model") or "emoji"
    pipeline = LatentDiffusion.from_pretrained(source, options.device_of(device), options.dtype_of(dtype))
    if told.get("model_hash") not in (None, pipeline.hash):
        log.warning("%s was made by other weights, %s; these are %s", from_image, told["model_hash"], pipeline.hash)
    images = _drawn(pipeline, prompts, count, seed, {k: v for k, v in settings.items() if v is not None})
    for image, path in zip([_sheet(list(images), prompts, count)] if grid else images, paths, strict=True):
        path.parent.mkdir(exist_ok=True)
        save(image, path, metadata=not no_metadata)
        print(path)


def _drawn(
    pipeline: "LatentDiffusion", prompts: list[str], count: int, seed: int, settings: dict[str, Any]
) -> Iterator["Image.Image"]:
    """All pictures, AT_ONCE at a time, under one progress bar."""
    from tqdm import tqdm

    asked = [(prompt, seed + j) for prompt in prompts for j in range(count)]
    batches = [asked[start : start + AT_ONCE] for start in range(0, len(asked), AT_ONCE)]
    with tqdm(unit="step", disable=None, delay=2) as bar:

        def shown(step: int, total: int, t: float, z_0: Any) -> None:
            bar.total = total * len(batches)
            bar.update()

        for batch in batches:
            some, seeds = zip(*batch, strict=True)
            yield from pipeline.text_to_image(some, seed=seeds, callback=shown, **settings)  # type: ignore[misc]


def _sheet(images: list["Image.Image"], prompts: list[str], count: int) -> "Image.Image":
    """One contact sheet, which tells its prompts and how its first picture was made."""
    from ldm.images import grid
    from ldm.metadata import attach

    captions = [prompt for prompt in prompts for _ in range(count)] if len(prompts) > 1 else None
    sheet = grid(images, columns=count if count > 1 else None, captions=captions)
    return attach(sheet, {"prompts": prompts, "count": count, **images[0].info["ldm"]})


def _told(path: Path | None) -> dict[str, Any]:
    """What a picture's own metadata say of how it was made, checked: they may come from a stranger."""
    if path is None:
        return {}
    from ldm import checkpoints, metadata

    found = metadata.read(path)
    told = found["ldm"] or (metadata.parse(found["parameters"]) if found["parameters"] else {})
    if not told:
        raise ValueError(f"{path} does not say how it was made")
    for key in told.keys() & KINDS.keys():
        if not isinstance(told[key], KINDS[key]):
            raise ValueError(f"{path} says {key} {told[key]!r}, which cannot be")
    if not found["ldm"]:
        told.pop("model", None)  # another program's name for its own file
    if told.get("model") and told["model"] not in checkpoints.embedded() and not Path(told["model"]).is_dir():
        raise ValueError(f"{path} was made by {told['model']!r}, which is not here; choose one by --model")
    return told


def _paths(out: Path | None, prompts: list[str], count: int, seed: int, grid: bool) -> list[Path]:
    """Where each picture goes, all of them checked before anything is drawn."""
    names = _unlike([_name(prompt) for prompt in prompts])
    out = out or Path()
    into_folder = out.is_dir() or not out.suffix
    if grid and into_folder:
        paths = [out / f"{names[0]}-grid.png"]
    elif into_folder:
        paths = [out / f"{name}-{seed + j}.png" for name in names for j in range(count)]
    elif grid or len(prompts) * count == 1:
        paths = [out]
    else:
        paths = [out.with_stem(f"{out.stem}-{i}") for i in range(len(prompts) * count)]
    return [options.writable_picture(path) for path in paths]


def _name(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"


def _unlike(names: list[str]) -> list[str]:
    """Names made different by a number where they repeat."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}-{i}" for i in count_from(2))
        taken.append(next(n for n in chain([name], numbered) if n not in taken))
    return taken
