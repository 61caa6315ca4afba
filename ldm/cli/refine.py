"""ldm refine: a picture that something drew or damaged -> the same, repaired."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options, outputs


def refine(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or http(s) addresses.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A bridge: a folder that ldm train bridge made, or a hub id.")
    ],
    out: options.Out = None,
    error_map: Annotated[
        str | None,
        typer.Option("--map", help="White where it is wrong.  [default: as the model's error classifier sees it]"),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(help="Keep the pixels where the map is dark, softened over so many.")
    ] = None,
    heat: Annotated[
        Path | None, typer.Option(help="Write the map, as heat over the picture; a folder for several.")
    ] = None,
    steps: options.Steps = None,
    count: options.Count = None,
    seed: options.Seed = 0,
    memory: options.Memory = "auto",
    no_metadata: options.NoMetadata = False,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Repairs pictures by a bridge from such pictures to good ones, more where they are wrong.

    **Examples**

    ldm refine blurred.png --model runs/deblur/model -o sharp.png

    ldm refine drawn.png --model runs/repair/model --steps 5 --heat where.png -o better.png

    ldm refine drawn.png --model runs/repair/model --map mask.png --keep 4 -n 4 -o better/
    """
    count = 1 if count is None else count
    options.at_least_one(count=count, steps=steps)
    names = [f"{Path(image).stem or 'picture'}-refined" for image in images]
    paths = outputs.paths_of(out, names, count, seed)
    heats = outputs.paths_of(heat, names, 1, 0) if heat else []

    from ldm.images import load, to_pixels
    from ldm.masks import to_map
    from ldm.metadata import save
    from ldm.tryon.heat import heated

    pipeline: Any = options.pipeline_of(model, device, dtype, memory, None, None)
    for i, image in enumerate(images):
        x = to_pixels(image)
        M = to_map(error_map, (x.shape[-2], x.shape[-1])) if error_map else pipeline.error_map(x)
        with outputs.stepping() as callback:
            drawn = pipeline.refine(image, M, keep=keep, num_inference_steps=steps, seed=seed,
                                    num_images_per_prompt=count, callback=callback)  # fmt: skip
        outputs.save_all(drawn, paths[i * count : (i + 1) * count], metadata=not no_metadata)
        if heats:
            save(heated(load(image), M[0]), heats[i])
