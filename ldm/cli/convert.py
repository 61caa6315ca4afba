"""ldm convert: a checkpoint into the other layout, bit by bit."""

from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import options


def convert(
    source: Annotated[str, typer.Argument(help="Folder, single file, embedded name or hub id.")],
    out: Annotated[Path, typer.Argument(help="NAME.safetensors for a single file; anything else is a folder.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; left out: as on disk.")] = None,
    prediction_type: Annotated[
        str | None, typer.Option(help="epsilon, v_prediction or sample, where the checkpoint says it wrongly or not.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Whose autoencoder it shall have in place of its own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands at OUT, if it is a checkpoint.")] = False,
) -> None:
    """Writes a checkpoint as a folder in diffusers' layout, or as a single file in CompVis' naming.

    Every tensor that a pipeline uses is kept bit by bit; a .ckpt becomes .safetensors without running what is in it.

    **Examples**

    ldm convert sd15.ckpt sd15.safetensors

    ldm convert sd15.safetensors sd15/ --dtype float16

    ldm convert sd15/ smoother/ --vae vae-ft-mse-840000-ema-pruned.safetensors
    """
    from ldm import checkpoints

    single = out.suffix == ".safetensors"
    if out.suffix.lower() in checkpoints.ENDINGS and not single:
        raise ValueError(f"OUT {out}: expected a name that ends in .safetensors, or a folder")
    if out.exists() and not force:
        raise ValueError(f"OUT {out} exists; --force replaces it")
    kind = options.dtype_of(dtype) if dtype else None
    made = single and not options.writable(out).parent.exists()
    if made:
        out.parent.mkdir()
    try:
        decisions = checkpoints.convert(source, out, kind, prediction_type, vae)
    except BaseException:  # a source that cannot be read, a full disk, an interruption
        if made:
            out.parent.rmdir()
        raise
    for name, decision in decisions.items():
        print(f"{name}: {decision.value}" + (f" ({decision.why})" if decision.why else ""))
    print(out)
