"""ldm interpolate: frames on the way from one picture to another."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options, outputs
from ldm.files import slug


def interpolate(
    prompt: Annotated[str, typer.Argument(metavar="FROM", help="What the first frame shows.")],
    other: Annotated[str, typer.Argument(metavar="TO", help="What the last frame shows.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .gif, .webp or .png that moves, or a folder for the frames."),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", "-n", help="Pictures, both ends included.")] = 16,
    seed: Annotated[int, typer.Option(help="The noise that frames are drawn from.")] = 0,
    seed_b: Annotated[int | None, typer.Option(help="The last frame's noise.  [default: the same]")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Given twice: the pictures to go between.")] = None,
    strength: Annotated[float, typer.Option(help="With pictures: how much is drawn over; 0 mixes them alone.")] = 0.6,
    fps: Annotated[float, typer.Option(help="Frames a second of a moving picture.")] = 8.0,
    there_and_back: Annotated[bool, typer.Option("--there-and-back", help="Play it backwards at the end.")] = False,
    model: options.Model = "emoji",
    negative: options.Negative = None,
    size: options.Size = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    lora: options.Lora = None,
    embedding: options.Embedding = None,
    memory: options.Memory = "auto",
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Turns one prompt into another: conditions and noises go by the great circle between them.

    **Examples**

    ldm interpolate "a cat face" "a dog face" -o morph.gif

    ldm interpolate "a red apple" "a green pear" --seed-b 7 -n 12 -o frames/

    ldm interpolate "" "" --image a.png --image b.png --strength 0 -o mixed.webp
    """
    options.at_least_one(frames=frames)
    if len(image or []) not in (0, 2):
        raise ValueError(f"--image given {len(image or [])} times: expected two pictures, or none")
    if not 0 < fps <= 1000:
        raise ValueError(f"--fps {fps}: expected a number above 0, at most 1000")
    out = out or Path(f"{slug(prompt)}-to-{slug(other)}.gif")
    paths = [out / f"{i:04}.png" for i in range(frames)] if outputs.is_folder(out) else [_moving(out)]
    for path in paths:
        options.writable_picture(path)
    settings = options.settings_of(negative, size, steps, guidance, sampler)

    pipeline = options.pipeline_of(model, device, dtype, memory, lora, embedding)
    if image:
        settings |= {"image_a": image[0], "image_b": image[1], "strength": strength}
    with outputs.stepping() as shown:
        images: Any = pipeline.interpolate(prompt, other, frames, seed=seed, seed_b=seed_b, callback=shown, **settings)
    images = [*images, *images[-2:0:-1]] if there_and_back and not outputs.is_folder(out) else images
    if outputs.is_folder(out):
        outputs.save_all(images, paths, metadata=True)
    else:
        from ldm.metadata import save_moving

        save_moving(images, out, fps)
        print(out)


def _moving(out: Path) -> Path:
    options.one_of(f"{out}: suffix", out.suffix.lower(), (".gif", ".webp", ".png"))
    return out
