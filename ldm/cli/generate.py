"""ldm generate: text to image."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import engines, options, outputs
from ldm.files import slug

if TYPE_CHECKING:
    from PIL import Image

    from ldm.batch import Job
    from ldm.pipeline import LatentDiffusion

REPEATED = (
    "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "sampler", "clip_skip",
    "guidance_interval", "guidance_rescale", "prompt_weights",
)  # fmt: skip
KINDS: dict[str, Any] = {
    "prompt": str, "negative_prompt": str, "prompts": list, "count": int, "seed": int, "height": int, "width": int,
    "num_inference_steps": int, "guidance_scale": (int, float), "sampler": str, "model": str, "clip_skip": int,
    "guidance_interval": list, "guidance_rescale": (int, float), "prompt_weights": bool, "loras": dict,
    "embeddings": dict,
}  # fmt: skip
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="Many prompts, each with its own settings: .txt, .jsonl or .csv."),
]
Seed = Annotated[int | None, typer.Option(help="Picture j of a prompt is drawn from seed + j.  [default: 0]")]
log = logging.getLogger("ldm")


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.")] = None,
    out: options.Out = None,
    prompts_file: PromptsFile = None,
    model: Annotated[str | None, options.MODEL] = None,
    negative: options.Negative = None,
    count: options.Count = None,
    seed: Seed = None,
    size: options.Size = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    interval: options.Interval = None,
    sampler: options.Sampler = None,
    clip_skip: Annotated[int | None, typer.Option(help="Layers of the text encoder to leave out.")] = None,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Read (brackets:1.3) as they stand.")] = False,
    lora: options.Lora = None,
    embedding: options.Embedding = None,
    grid: Annotated[bool, typer.Option("--grid", help="One contact sheet of all pictures.")] = False,
    from_image: Annotated[
        Path | None, typer.Option(help="Repeat the picture in this file; other options change what they name.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures that are drawn at once.")] = 16,
    memory: options.Memory = "auto",
    no_metadata: options.NoMetadata = False,
    engine: engines.Engine = "auto",
    device: options.Device = "auto",
    dtype: engines.DType = "auto",
) -> None:
    """Draws pictures from words.

    With `--prompts`, pictures that are there already are skipped, manifest.jsonl in the folder gets a line for each,
    and one that fails does not stop the others. Started by `torchrun -m ldm generate ...` or `accelerate launch`,
    each process draws its share.

    **Examples**

    ldm generate "a red apple on a blue background" -o apple.png

    ldm generate "a cat face" "a dog face left of a tulip" -n 4 --grid -o sheet.png

    ldm generate --from-image apple.png --seed 7 -o another.png

    ldm generate --prompts prompts.txt -o pictures/
    """
    told = _told(from_image)
    asked = options.settings_of(negative, size, steps, guidance, sampler, clip_skip)
    asked |= {"prompt_weights": False} if no_weights else {}
    asked |= {"guidance_interval": options.interval_of(interval)} if interval else {}
    settings = {key: told[key] for key in REPEATED if key in told} | asked
    count = told.get("count", 1) if count is None else count
    options.at_least_one(count=count, batch_size=batch_size)
    seed = told.get("seed", 0) if seed is None else seed
    if prompts_file is not None:
        jobs = _listed(prompts_file, out, {**settings, "count": count, "seed": seed}, prompts or from_image or grid)
    else:
        prompts = prompts or told.get("prompts") or [told[key] for key in ("prompt",) if key in told]
        if not prompts:
            raise typer.BadParameter('expected a prompt, such as "a red apple", or --prompts, or --from-image')
        grid = grid or "prompts" in told
        jobs = _asked(prompts, out, count, seed, grid, settings)

    lora = lora or [f"{file}:{scale}" for file, scale in told.get("loras", {}).items()]
    embedding = embedding or list(told.get("embeddings", {}).values())
    name = model or told.get("model") or "emoji"
    pipeline = engines.drawing_of(engine, name, device, dtype, memory, lora, embedding)
    if told.get("model_hash") not in (None, pipeline.hash):
        log.warning("%s was made by other weights, %s; these are %s", from_image, told["model_hash"], pipeline.hash)
    if prompts_file is not None:
        _draw_listed(pipeline, jobs, out or Path(), not no_metadata, batch_size)
        return
    images = _drawn(pipeline, jobs, batch_size)
    drawn = [(_sheet(list(images), prompts or [], count), job) for job in jobs[:1]] if grid else zip(images, jobs)
    for image, job in drawn:
        outputs.save_all([image], [job.path], not no_metadata)


def _asked(
    prompts: list[str], out: Path | None, count: int, seed: int, grid: bool, settings: dict[str, Any]
) -> "list[Job]":
    """The command line's own prompts -> this process's share of them; a grid is drawn by one process."""
    from ldm.batch import Job, process, share

    names = [slug(prompt) for prompt in prompts]
    if grid:
        sheet = (out or Path()) / f"{names[0]}-grid.png" if outputs.is_folder(out or Path()) else out
        paths = [options.writable_picture(sheet or Path())] * len(prompts) * count
    else:
        paths = outputs.paths_of(out, names, count, seed)
    alike = dict(settings)
    negative = alike.pop("negative_prompt", "")
    rows = [(prompt, seed + j) for prompt in prompts for j in range(count)]
    jobs = [Job(path, *row, negative, alike) for path, row in zip(paths, rows, strict=True)]
    if grid:
        return jobs if process()[0] == 0 else []
    return share(jobs)


def _listed(file: Path, out: Path | None, common: dict[str, Any], beside: object) -> "list[Job]":
    """A file's prompts -> this process's share of them, their folder made; nothing else is asked for beside them."""
    from ldm import batch

    if beside:
        raise ValueError("--prompts: expected no other prompts, no --from-image and no --grid beside it")
    out = out or Path()
    if not outputs.is_folder(out):
        raise ValueError(f"{out}: --prompts writes many pictures: expected a folder")
    jobs = batch.read(file, out, common)
    for job in jobs:
        options.writable_picture(job.path)
    out.mkdir(exist_ok=True)
    return batch.share(jobs)


def _drawn(pipeline: "LatentDiffusion", jobs: "list[Job]", size: int) -> "Iterator[Image.Image]":
    """The pictures of all jobs in their order, under one progress bar."""
    from ldm.batch import batches, together

    groups = batches(jobs, size)
    with outputs.stepping(len(groups)) as shown:
        for group in groups:
            yield from together(pipeline, group, shown)


def _draw_listed(pipeline: "LatentDiffusion", jobs: "list[Job]", out: Path, metadata: bool, size: int) -> None:
    """Draws what is not there yet, a line in the manifest for each; ValueError at the end if any failed."""
    from ldm import batch

    missing = [job for job in jobs if not job.done(pipeline)]
    failed = 0
    with outputs.stepping(len(batch.batches(missing, size))) as shown:
        for job, result in batch.drawn(pipeline, missing, shown, size):
            if isinstance(result, Exception):
                failed += 1
                log.warning("%s: %s", job.path, result)
            else:
                outputs.save_all([result], [job.path], metadata)
            batch.note(out / "manifest.jsonl", job, result)
    if len(missing) < len(jobs):
        log.warning("%d of %d pictures were there already", len(jobs) - len(missing), len(jobs))
    if failed:
        raise ValueError(f"{failed} of {len(missing)} pictures failed; {out / 'manifest.jsonl'} says why")


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
    if told.get("task") not in (None, "unconditional"):
        raise ValueError(
            f"{path} was made by {told['task']}, from more than words: it cannot be repeated from this file"
        )
    for key in told.keys() & KINDS.keys():
        if not isinstance(told[key], KINDS[key]):
            raise ValueError(f"{path} says {key} {told[key]!r}, which cannot be")
    if not found["ldm"]:
        told.pop("model", None)  # another program's name for its own file
    if told.get("model") and told["model"] not in checkpoints.embedded() and not Path(told["model"]).exists():
        raise ValueError(f"{path} was made by {told['model']!r}, which is not here; choose one by --model")
    return told
