"""ldm evaluate prompts, and nearest: pictures of emoji scenes, judged."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import engines, options

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import LatentDiffusion


def prompts(
    model: options.Model = "emoji",
    split: Annotated[str, typer.Option(help="single (one emoji), seen or heldout (composed scenes).")] = "single",
    count: Annotated[int, typer.Option(help="How many prompts.")] = 200,
    seed: options.Seed = 0,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Draw from the prompts of other questions: accuracy should be chance.")
    ] = False,
    gallery: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The sixteen of least fidelity, beside what they should be.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The first 64 pictures with their prompts, in order.")
    ] = None,
    interval: options.Interval = None,
    engine: Annotated[str, typer.Option(help="torch, tuned, openvino, or openvino-int8.")] = "torch",
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: engines.DType = "auto",
) -> None:
    """Draws emoji scenes: does the nearest of 32 scenes name each picture rightly, and how well is it drawn?

    The first is accuracy, of everything together and of each respect (relation, colour, number ...) alone. The second
    is fidelity, of pictures of one thing on a plain background: PSNR in dB to the rendering of it that fits best,
    beside that of true pictures after the autoencoder's round trip, the ceiling.

    **Examples**

    ldm evaluate prompts --split single --count 500 --json single.json --gallery worst.png

    ldm evaluate prompts --model out/model --split heldout --sheet sheet.png
    """
    options.json_target(json)
    for path in (gallery, sheet):
        options.writable_picture(path) if path else None

    from ldm.evaluation import gallery as pictured
    from ldm.evaluation.prompts import evaluate_prompts
    from ldm.evaluation.questions import series

    asked = series(split, count, seed)
    if gallery:
        pictured.expect_simple(asked)
    pipeline, draw, settings = _model(model, device, dtype, steps, guidance, sampler, engine, interval)
    pictures: list[Image.Image] = []

    def kept(texts: list[str], seeds: list[int]) -> list["Image.Image"]:
        pictures.extend(drawn := draw(texts, seeds))
        return drawn

    result = evaluate_prompts(kept, split, count, seed, reconstruct=pipeline.latents.reconstruct, shuffled=shuffled)
    result["settings"] |= settings
    if str(json) != "-":
        _tell(split, result)
    options.write_json(json, result)
    if gallery:
        options.save_picture(pictured.worst(asked, pictures), gallery)
    if sheet:
        options.save_picture(pictured.sheet(asked, pictures), sheet)


def nearest(
    model: options.Model = "emoji",
    count: Annotated[int, typer.Option(help="How many held-out prompts.")] = 32,
    seed: options.Seed = 0,
    among: Annotated[int, typer.Option(help="How many scenes of the training stream are looked through.")] = 50_000,
    training_seed: Annotated[int, typer.Option(help="The seed that the model was trained with.")] = 0,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Each drawing and its nearest, a true picture and its nearest.")
    ] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Draws held-out emoji scenes and finds the training picture that is nearest to each: is anything learnt by heart?

    What is normal, true pictures of the same scenes say, which no training has seen either.

    **Example**

    ldm evaluate nearest --sheet nearest.png --json nearest.json
    """
    options.json_target(json)
    options.at_least_one(count=count, among=among)
    if sheet:
        options.writable_picture(sheet)

    from ldm.evaluation.gallery import beside_training
    from ldm.evaluation.nearest import evaluate_nearest

    _, draw, settings = _model(model, device, dtype, steps, guidance, sampler)
    result, rows = evaluate_nearest(draw, count, seed, among, training_seed)
    result["settings"] |= settings
    if str(json) != "-":
        print(f"nearest of {among} training pictures, mean of {count}: {result['drawn']:.2f} dB from what was drawn")
        print(f"  {result['true']:.2f} dB from true pictures; {result['closer']:.2f} of the drawings are nearer")
    options.write_json(json, result)
    if sheet:
        options.save_picture(beside_training(result, rows), sheet)


def _model(
    model: str, device: str, dtype: str, steps: int | None, guidance: float | None, sampler: str | None,
    engine: str = "torch", interval: str | None = None,
) -> tuple["LatentDiffusion", Callable[[list[str], list[int]], list["Image.Image"]], dict[str, Any]]:  # fmt: skip
    """A model, how it draws prompts from seeds, and the settings that say so."""
    between = options.interval_of(interval)
    pipeline = options.pipeline_of(model, device, dtype, "auto", None, None, engine)
    choice = getattr(pipeline.denoiser.unet, "choice", None)
    settings = {
        "model": model, "model_hash": pipeline.hash,
        "dtype": str(choice.dtype).removeprefix("torch.") if choice else dtype.replace("auto", "float32"),
        "steps": steps or pipeline.defaults["num_inference_steps"], "sampler": sampler or "default",
        "guidance": pipeline.defaults["guidance_scale"] if guidance is None else guidance,
    }  # fmt: skip
    if engine != "torch" or interval:
        settings |= {"engine": getattr(pipeline.denoiser.unet, "engine", "") or engine, "guidance_interval": between}

    def draw(texts: list[str], seeds: list[int]) -> list["Image.Image"]:
        return pipeline.text_to_image(  # type: ignore[return-value]
            texts, seed=seeds, num_inference_steps=steps, guidance_scale=guidance, sampler=sampler,
            guidance_interval=between,
        )  # fmt: skip

    return pipeline, draw, settings


def _tell(split: str, result: dict[str, Any]) -> None:
    """The figures of `prompts`, in words."""
    print(f"{split}: {result['accuracy']:.3f} of {result['count']} (chance {result['chance']:.3f})")
    for kind, figures in result["kinds"].items():
        print(f"  {kind}: {figures['accuracy']:.3f} of {figures['count']}")
    for respect, figures in result["alone"].items():
        print(f"  {respect} alone: {figures['accuracy']:.3f} of {figures['count']} (chance {figures['chance']:.3f})")
    if fidelity := result["fidelity"]:
        for name, figures in {"fidelity": fidelity, "its ceiling": fidelity["ceiling"]}.items():
            tenth = f"tenth percentile {figures['tenth_percentile']:.2f}"
            print(f"  {name}: {figures['mean']:.2f} dB, {tenth}, of {fidelity['count']}")
