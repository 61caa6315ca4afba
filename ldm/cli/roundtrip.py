"""ldm roundtrip: encode, decode, compare, diagnose."""

from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import options


def roundtrip(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or http(s) addresses.")],
    model: options.Model = "emoji",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Side by side: original, reconstruction, error; a folder for several."),
    ] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Sends pictures through the autoencoder and back, and says what was lost and why.

    **Examples**

    ldm roundtrip photo.jpg

    ldm roundtrip photo.jpg -o compared.png --json figures.json

    ldm roundtrip *.png --model path/to/vae -o compared/
    """
    paths = _paths(out, images)
    options.json_target(json)

    from tqdm import tqdm

    from ldm.latents import LatentSpace
    from ldm.metadata import save

    space = LatentSpace.from_pretrained(model).to(options.device_of(device), options.dtype_of(dtype))
    checks = [space.roundtrip(image) for image in tqdm(images, unit="picture", disable=None, delay=2)]
    if str(json) != "-":
        for image, check in zip(images, checks, strict=True):
            print(f"{image}\n{check}\n")
    for check, path in zip(checks, paths, strict=False):
        path.parent.mkdir(exist_ok=True)
        save(check.picture(), path)
    options.write_json(json, [{"image": image, **check.to_dict()} for image, check in zip(images, checks, strict=True)])


def _paths(out: Path | None, images: list[str]) -> list[Path]:
    """Where each comparison goes; nowhere without --out."""
    if out is None:
        return []
    if len(images) == 1 and not out.is_dir():
        return [options.writable_picture(out)]
    if out.suffix and not out.is_dir():
        raise ValueError(f"{out}: {len(images)} pictures need a folder")
    return [options.writable_picture(out / f"{i}-{Path(image).stem}.png") for i, image in enumerate(images)]
