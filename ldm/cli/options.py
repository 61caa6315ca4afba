"""Options that several commands share, each declared once."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ldm.pipeline import LatentDiffusion

DRAWN = 40_000  # pictures that are encoded of what has no end, such as emoji scenes, where nothing says how many
MODEL = typer.Option("--model", "-m", help="Embedded name, folder in diffusers' layout, single file, or hub id.")
Model = Annotated[str, MODEL]
Device = Annotated[str, typer.Option(help="cuda, mps, cpu, or auto: the first of them that is here.")]
DType = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Seed = Annotated[int, typer.Option(help="Picture j of a prompt is drawn from seed + j.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="A picture's file; with several pictures, a folder or a name to number."),
]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, or one number.  [default: the model's]")]
Negative = Annotated[str | None, typer.Option(help="What not to draw.")]
Count = Annotated[int | None, typer.Option("--count", "-n", help="Pictures of each prompt.  [default: 1]")]
Steps = Annotated[int | None, typer.Option(help="Evaluations of the network.  [default: the model's]")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.  [default: the model's]")]
Interval = Annotated[
    str | None,
    typer.Option(metavar="LOW-HIGH", help="Guide in this part of all times alone, as in 0.2-0.8.  [default: 0-1]"),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        help="ddpm, ddim, pndm, euler, euler_a, heun, dpm++2m, dpm++2m_karras, dpm++2m_sde, unipc or lcm. "
        " [default: the model's]"
    ),
]
Lora = Annotated[list[str] | None, typer.Option(metavar="FILE[:SCALE]", help="A LoRA to add; may be repeated.")]
Embedding = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="A textual inversion to add; its name stands for it in prompts."),
]
Memory = Annotated[
    str, typer.Option(help="auto; low: the text encoder leaves the device when it has read; min: every part does.")
]
NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Do not write what made the picture.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file; - for standard output.")]


def panelled(panel: str, words: str, *names: str) -> Any:
    """An option that `--help` shows in a panel."""
    return typer.Option(*names, help=words, rich_help_panel=panel)


def device_of(name: str) -> str:
    """auto -> this process's cuda device, mps or cpu; cuda -> this process's; ValueError for one that is not here."""
    import os

    import torch

    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun and accelerate launch number a machine's processes
    if name == "auto":
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"--device {name!r}: not a device of this machine; try auto, cuda, mps or cpu") from None
    return name


def dtype_of(name: str) -> "torch.dtype":
    """float32, bfloat16 or float16 -> torch's dtype."""
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    one_of("--dtype", name, dtypes)
    return dtypes[name]


def pipeline_of(
    model: str, device: str, dtype: str, memory: str, loras: list[str] | None, embeddings: list[str] | None,
    engine: str = "torch",
) -> "LatentDiffusion":  # fmt: skip
    """A model with what is added to it, on its device."""
    from ldm.engines import ENGINES
    from ldm.pipeline import LatentDiffusion

    one_of("--memory", memory, ("auto", "low", "min"))
    one_of("--engine", engine, ENGINES)
    tuned = engine == "tuned"
    asked: Any = {"memory": memory, "engine": "torch" if tuned else engine}
    kind = dtype_of("float32" if dtype == "auto" else dtype)
    pipeline = LatentDiffusion.from_pretrained(model, device_of(device), kind, **asked)
    for lora in loras or []:
        pipeline.load_lora(*scaled(lora))
    for embedding in embeddings or []:
        pipeline.load_embedding(embedding)
    if tuned:  # with all that is in its weights
        pipeline.tune(None if dtype == "auto" else kind)
        typer.echo(f"ldm: the U-Net runs {pipeline.denoiser.unet.engine}", err=True)  # type: ignore[attr-defined]
    return pipeline


def scaled(text: str) -> tuple[str, float]:
    """ "file.safetensors:0.8" -> file and scale; without a number the scale is 1."""
    path, _, scale = text.rpartition(":")
    try:
        return (path, float(scale)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0


def size_of(text: str | None) -> tuple[int | None, int | None]:
    """ "96x64" -> width 96, height 64; "64" -> both 64; None -> the model's own."""
    if text is None:
        return None, None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.lstrip("-").isdigit() for side in sides):
        raise ValueError(f"--size {text!r}: expected WIDTHxHEIGHT or one number, such as 64x64 or 64")
    return int(sides[0]), int(sides[-1])


def interval_of(text: str | None) -> tuple[float, float]:
    """ "0.2-0.8" -> (0.2, 0.8), shares of all times; None -> all of them."""
    try:
        low, high = (0.0, 1.0) if text is None else map(float, text.split("-"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise ValueError(f"--interval {text}: expected two shares of all times, as in 0.2-0.8")
    return low, high


def settings_of(
    negative: str | None,
    size: str | None,
    steps: int | None,
    guidance: float | None,
    sampler: str | None,
    clip_skip: int | None = None,
) -> dict[str, Any]:
    """What the options set, by the names that a pipeline's tasks have for it; what is None is left to the model."""
    width, height = size_of(size)
    asked = {
        "negative_prompt": negative, "height": height, "width": width, "num_inference_steps": steps,
        "guidance_scale": guidance, "sampler": sampler, "clip_skip": clip_skip,
    }  # fmt: skip
    return {name: value for name, value in asked.items() if value is not None}


def enough(source: str, count: int | None) -> int | None:
    """How many pictures are encoded: as many as asked for, else all, and of what has no end DRAWN."""
    from ldm import data

    endless = any(name in data.DRAWN for name, _ in data.parts_of(source))
    return DRAWN if count is None and endless else count


def json_target(path: Path | None) -> Path | None:
    """The path itself, if it can be written; - and None stand for themselves."""
    return path if path is None or str(path) == "-" else writable(path)


def write_json(path: Path | None, value: object) -> None:
    """Writes a value to a file; to standard output for -; nowhere for None."""
    import sys

    from ldm import files

    if str(path) == "-":
        print(files.json_text(value, sys.stdout.encoding or "utf-8"))
    elif path is not None:
        files.write_json(path, value)


def save_picture(picture: "Image.Image", path: Path) -> None:
    """Writes a picture, and the folder that it lies in, if only that is missing."""
    from ldm import metadata

    path.parent.mkdir(exist_ok=True)
    metadata.save(picture, path)


def at_least_one(**numbers: int | None) -> None:
    """ValueError that names the first option below 1; one that was not given is passed over."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number}: expected 1 or more")


def one_of(option: str, value: str, known: Iterable[str]) -> None:
    """ValueError where an option's value is none of the known ones."""
    if value not in known:
        raise ValueError(f"{option} {value!r}: expected one of {', '.join(known)}")


def writable_picture(path: Path) -> Path:
    """The path itself, if a picture can be written there: a suffix that is known, a folder that takes files."""
    from ldm.metadata import FORMATS

    one_of(f"{path}: suffix", path.suffix.lower(), FORMATS)
    return writable(path)


def writable(path: Path) -> Path:
    """The path itself, if its folder takes files, or could be made; an error before any work is done otherwise."""
    import os

    folder = path.parent if path.parent.exists() else path.parent.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK) or path.is_dir():
        raise ValueError(f"{path}: cannot be written there")
    return path
