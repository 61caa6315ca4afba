"""ldm edit: from a picture to a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options, outputs
from ldm.files import slug


def edit(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A file or an http(s) address.")],
    prompt: Annotated[str, typer.Argument(help="What to draw; for an editing model, what to do.")] = "",
    out: options.Out = None,
    mask: Annotated[
        str | None, typer.Option(help="White where to draw; all other pixels are kept. A file or an address.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Share of noise and steps: 0 keeps the picture, 1 forgets it.  [default: 0.6; with --mask 1]"
        ),
    ] = None,
    exact_steps: Annotated[bool, typer.Option("--exact-steps", help="Run all steps, on the shorter way.")] = False,
    feather: Annotated[
        int | None, typer.Option(help="Pixels over which the mask fades.  [default: a latent's]")
    ] = None,
    image_guidance: Annotated[
        float | None, typer.Option(help="How much of the picture an editing model keeps.  [default: 1.5]")
    ] = None,
    model: options.Model = "emoji",
    negative: options.Negative = None,
    count: options.Count = None,
    seed: options.Seed = 0,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT to stretch to first.  [default: the picture's]")
    ] = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    lora: options.Lora = None,
    embedding: options.Embedding = None,
    memory: options.Memory = "auto",
    no_metadata: options.NoMetadata = False,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Draws over a picture, or into the white of a mask; the result has the picture's own size.

    A model that was made for editing or for inpainting is used as such.

    **Examples**

    ldm edit photo.jpg "a red apple" --strength 0.7 -o apple.png

    ldm edit photo.jpg "a cat face" --mask mask.png -n 4 -o cats/

    ldm edit photo.jpg --strength 0.4 -n 8 -o variations/

    ldm edit photo.jpg "make it snow" --model path/to/instruct-pix2pix
    """
    count = 1 if count is None else count
    options.at_least_one(count=count)
    guidance = 1.0 if guidance is None and not prompt else guidance
    chosen = options.settings_of(negative, size, steps, guidance, sampler)
    name = f"{Path(image).stem or 'picture'}-{slug(prompt) if prompt else 'variation'}"
    paths = outputs.paths_of(out, [name], count, seed)

    pipeline = options.pipeline_of(model, device, dtype, memory, lora, embedding)
    told = {"mask": mask, "strength": strength, "exact_steps": exact_steps or None, "feather": feather,
            "image_guidance_scale": image_guidance}  # fmt: skip
    task, more = _task(pipeline, {key: value for key, value in told.items() if value is not None})
    with outputs.stepping() as shown:
        images = task(prompt, image, seed=seed, num_images_per_prompt=count, callback=shown, **more, **chosen)
    outputs.save_all(images, paths, metadata=not no_metadata)


def _task(pipeline: Any, told: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What this model does with what was given; ValueError for an option that this task has no use for."""
    if pipeline.channels_beside == pipeline.latents.channels:
        task, takes = pipeline.instruct, {"image_guidance_scale"}
    elif "mask" in told:
        task, takes = pipeline.inpaint, {"mask", "feather", "strength", "exact_steps"}
    else:
        task, takes = pipeline.image_to_image, {"strength", "exact_steps"}
    if unused := [key for key in told if key not in takes]:
        option = unused[0].replace("_", "-").removesuffix("-scale")
        raise ValueError(f"--{option}: of no use to {task.__name__}, which is what this model is asked for here")
    return task, told
