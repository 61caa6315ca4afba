"""ldm encode: pictures -> a latent cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from ldm.latents import LatentSpace
    from ldm.text import TextEncoder


def encode(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="emoji, digits, a folder of pictures, a Hugging Face dataset on disk, a folder in MNIST's format, or "
            "tar shards such as 'shards/train-{000..012}.tar'.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The cache: a folder, there already or not.")],
    vae: Annotated[str, typer.Option(help="The autoencoder: embedded name, folder, single file, or hub id.")] = "emoji",
    text: Annotated[
        str | None, typer.Option(help="A model whose text encoder stays frozen: its hidden states are kept, too.")
    ] = None,
    side: Annotated[
        int | None, typer.Option(help="Height and width of the pictures.  [default: the autoencoder's]")
    ] = None,
    crop: Annotated[str, typer.Option(help="centre or random.")] = "centre",
    crops: Annotated[int, typer.Option(help="Places that are kept of each picture, with --crop random.")] = 1,
    flip: Annotated[bool, typer.Option("--flip", help="Keep the mirror image of each picture, too.")] = False,
    buckets: Annotated[
        int | None,
        typer.Option(metavar="UNIT", help="Do not crop to squares: sides are multiples of UNIT, about SIDE x SIDE."),
    ] = None,
    beside: Annotated[
        str,
        typer.Option(
            help="What is kept beside: picture or mask, of second pictures; quarter or eighth, the picture itself at "
            "low resolution."
        ),
    ] = "picture",
    split: Annotated[str | None, typer.Option(help="Part of the source, such as train.")] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="The first so many.  [default: all; 40000 of what is drawn]")
    ] = None,
    skip: Annotated[int, typer.Option(help="Pictures that may be unreadable; each is named.")] = 16,
    seed: Annotated[int, typer.Option(help="Which emoji scenes.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures that are encoded together.")] = 16,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Encodes pictures once, so that training need not do it in every epoch: posterior moments in safetensors shards.

    Captions come from metadata.jsonl or metadata.csv (file_name, text), from a .txt beside each picture, or from the
    names of the folders. What was stopped goes on: run the same command again. So does what changed: only pictures
    that are new, or have other pixels, another size or another autoencoder, are encoded.

    **Examples**

    ldm encode photos --vae runs/vae/vae --out photos.cache --side 256 --flip

    ldm encode photos --vae stable-diffusion-v1-5 --out photos.cache --side 512 --buckets 64 --dtype bfloat16

    torchrun --nproc-per-node 4 -m ldm encode 'shards/train-{000..099}.tar' --vae sd-vae --out latents
    """
    options.at_least_one(batch_size=batch_size, crops=crops)
    options.one_of("--crop", crop, ("centre", "random"))

    from ldm import batch, data
    from ldm.training import encoding

    options.one_of("--beside", beside, encoding.BESIDE)
    process, processes = batch.process()
    space, reader = _models(vae, text, device, dtype)
    side = side or space.side
    if (buckets or side) % space.factor:
        which, value = ("--buckets", buckets) if buckets else ("--side", side)
        raise ValueError(
            f"{which} {value}: expected a multiple of {space.factor}, the autoencoder's pixels to a latent"
        )
    count = options.enough(source, count)
    found = data.open(source, side, crop, flip, buckets, split, count, seed, skip)
    report = encoding.encode(found, space, out, reader, beside, crops, batch_size, process, processes)
    share = f", share {process + 1} of {processes}" if processes > 1 else ""
    print(f"{out}: {report}{share}")


def _models(vae: str, text: str | None, device: str, dtype: str) -> "tuple[LatentSpace, TextEncoder | None]":
    """The autoencoder and, where one is named, the text encoder, on this process's device."""
    from ldm import checkpoints
    from ldm.latents import LatentSpace

    device, number = options.device_of(device), options.dtype_of(dtype)
    reader = checkpoints.load_text(checkpoints.resolve(text)) if text else None
    if text and reader is None:
        raise ValueError(f"--text {text}: it has no text encoder")
    return LatentSpace.from_pretrained(vae).to(device, number), reader and reader.to(device, number)
