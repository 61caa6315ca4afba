"""ldm generate: text to image."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import LatentDiffusion

PARAMETERS = ("negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "sampler")
AT_ONCE = 16  # pictures in one batch


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A picture's file; with several pictures, a folder or a name to number."),
    ] = None,
    model: Annotated[str | None, options.MODEL] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures of each prompt.")] = 1,
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

    ldm generate "a cat face" "a dog face left of a tree" -n 4 --grid -o sheet.png

    ldm generate --from-image apple.png --seed 7 -o another.png
    """
    told = _told(from_image)
    prompts = prompts or ([told["prompt"]] if "prompt" in told else [])
    if not prompts:
        raise typer.BadParameter('expected a prompt, such as "a red apple", or --from-image')
    if count < 1:
        raise ValueError(f"--count {count}: expected 1 or more")
    width, height = options.size_of(size)
    asked = dict(zip(PARAMETERS, (negative, height, width, steps, guidance, sampler), strict=True))
    settings = {key: told.get(key) if value is None else value for key, value in asked.items()}
    seed = int(told.get("seed", 0)) if seed is None else seed
    paths = _paths(out, prompts, count, seed, grid)

    from ldm.metadata import save
    from ldm.pipeline import LatentDiffusion

    source = model or told.get("model") or "emoji"
    pipeline = LatentDiffusion.from_pretrained(source, options.device_of(device), options.dtype_of(dtype))
    images = _draw(pipeline, prompts, count, seed, {k: v for k, v in settings.items() if v is not None})
    for image, path in zip([_sheet(images, prompts, count)] if grid else images, paths, strict=True):
        save(image, path, metadata=not no_metadata)
        print(path)


def _draw(
    pipeline: "LatentDiffusion", prompts: list[str], count: int, seed: int, settings: dict[str, Any]
) -> list["Image.Image"]:
    """All pictures, a few prompts at a time, under one progress bar."""
    from tqdm import tqdm

    images: list[Any] = []
    together = max(1, AT_ONCE // count)
    batches = range(0, len(prompts), together)
    with tqdm(unit="step", disable=None, delay=2) as bar:

        def shown(step: int, total: int, t: float, z_0: Any) -> None:
            bar.total = total * len(batches)
            bar.update()

        for start in batches:
            some = prompts[start : start + together]
            images += pipeline.text_to_image(some, seed=seed, num_images_per_prompt=count, callback=shown, **settings)
    return images


def _sheet(images: list["Image.Image"], prompts: list[str], count: int) -> "Image.Image":
    """One contact sheet, which tells its prompts and how its first picture was made."""
    from ldm.images import grid
    from ldm.metadata import attach

    captions = [prompt for prompt in prompts for _ in range(count)] if len(prompts) > 1 else None
    sheet = grid(images, columns=count if count > 1 else None, captions=captions)
    return attach(sheet, {"prompts": prompts, "count": count, **images[0].info["ldm"]})


def _told(path: Path | None) -> dict[str, Any]:
    """What a picture's own metadata say of how it was made."""
    if path is None:
        return {}
    from ldm import metadata

    found = metadata.read(path)
    if found["ldm"]:
        return found["ldm"]
    if found["parameters"]:
        return {k: v for k, v in metadata.parse(found["parameters"]).items() if k in (*PARAMETERS, "prompt", "seed")}
    raise ValueError(f"{path} does not say how it was made")


def _paths(out: Path | None, prompts: list[str], count: int, seed: int, grid: bool) -> list[Path]:
    """Where each picture goes, all of them checked before anything is drawn."""
    names = [_name(prompt) for prompt in prompts]
    if grid or (out and out.suffix and len(prompts) * count == 1):
        return [options.writable(out or Path(f"{names[0]}-grid.png"))]
    if out and out.suffix:
        numbers = range(len(prompts) * count)
        return [options.writable(out.with_stem(f"{out.stem}-{i}")) for i in numbers]
    folder = out or Path()
    if out and not out.exists():
        options.writable(out)
        out.mkdir()
    return [options.writable(folder / f"{name}-{seed + j}.png") for name in _unlike(names) for j in range(count)]


def _name(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"


def _unlike(names: list[str]) -> list[str]:
    """Names made different by a number where they repeat."""
    return [f"{name}-{names[:i].count(name) + 1}" if name in names[:i] else name for i, name in enumerate(names)]
