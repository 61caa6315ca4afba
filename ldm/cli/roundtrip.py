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
    several = len(images) > 1
    if out is not None and several and out.suffix:
        raise ValueError(f"{out}: {len(images)} pictures need a folder")
    if out is not None:
        options.writable(out)
    if json is not None and str(json) != "-":
        options.writable(json)

    from ldm.latents import LatentSpace
    from ldm.metadata import save

    space = LatentSpace.from_pretrained(model).to(options.device_of(device), options.dtype_of(dtype))
    checks = {image: space.roundtrip(image) for image in images}
    if str(json) != "-":
        for image, check in checks.items():
            print(f"{image}\n{check}\n")
    if out is not None:
        if several:
            out.mkdir(exist_ok=True)
        for i, (image, check) in enumerate(checks.items()):
            save(check.picture(), out / f"{i}-{Path(image).stem}.png" if several else out)
    options.write_json(json, [{"image": image, **check.to_dict()} for image, check in checks.items()])
