"""ldm evaluate: is it any good?"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import LatentDiffusion

app = typer.Typer(help="Quality: does a picture show what was asked for.")


@app.command()
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
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
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
    pipeline, draw, settings = _model(model, device, dtype, steps, guidance, sampler)
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
        _save(pictured.worst(asked, pictures), gallery)
    if sheet:
        _save(pictured.sheet(asked, pictures), sheet)


@app.command()
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
        _save(beside_training(result, rows), sheet)


def _model(
    model: str, device: str, dtype: str, steps: int | None, guidance: float | None, sampler: str | None
) -> tuple["LatentDiffusion", Callable[[list[str], list[int]], list["Image.Image"]], dict[str, Any]]:
    """A model, how it draws prompts from seeds, and the settings that say so."""
    from ldm.pipeline import LatentDiffusion

    pipeline = LatentDiffusion.from_pretrained(model, options.device_of(device), options.dtype_of(dtype))
    settings = {
        "model": model, "model_hash": pipeline.hash, "dtype": dtype,
        "steps": steps or pipeline.defaults["num_inference_steps"], "sampler": sampler or "default",
        "guidance": pipeline.defaults["guidance_scale"] if guidance is None else guidance,
    }  # fmt: skip

    def draw(texts: list[str], seeds: list[int]) -> list["Image.Image"]:
        return pipeline.text_to_image(  # type: ignore[return-value]
            texts, seed=seeds, num_inference_steps=steps, guidance_scale=guidance, sampler=sampler
        )

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


def _save(picture: "Image.Image", path: Path) -> None:
    from ldm import metadata

    path.parent.mkdir(exist_ok=True)
    metadata.save(picture, path)


@app.command()
def roundtrip(
    model: options.Model = "emoji",
    data: Annotated[str, typer.Option(help="emoji, photographs, or other pictures that train vae takes.")] = "emoji",
    split: Annotated[
        str | None, typer.Option(help="A part of the data.  [default: heldout of emoji, test of photographs]")
    ] = None,
    count: Annotated[int, typer.Option(help="How many pictures, at most.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the pictures that are drawn.")] = 0,
    side: Annotated[
        int | None, typer.Option(help="Height and width.  [default: the autoencoder's, 256 for photographs]")
    ] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Sends pictures that no training has seen through the autoencoder and back.

    Of emoji these are scenes that are held out; of photographs scikit-learn's two, cut on a fixed grid.

    **Examples**

    ldm evaluate roundtrip --count 200 --json roundtrip.json

    ldm evaluate roundtrip --model runs/vae/vae --data photographs
    """
    options.json_target(json)
    options.at_least_one(count=count, side=1 if side is None else side)

    from ldm.evaluation.autoencoder import evaluate_roundtrip
    from ldm.latents import LatentSpace

    space = LatentSpace.from_pretrained(model).to(options.device_of(device), options.dtype_of(dtype))
    result = evaluate_roundtrip(space, split, count, seed, side, data)
    result["settings"] |= {"model": model, "dtype": dtype}
    if str(json) != "-":
        seen, figures = result["settings"], f"{result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}"
        part = f", {seen['split']}" if seen["split"] else ""
        print(f"{data}{part}: {figures}, mean of {result['count']} pictures, {seen['side']} x {seen['side']}")
    options.write_json(json, result)


@app.command()
def autoencoder(
    model: Annotated[str, typer.Argument(metavar="FOLDER", help="What ldm train autoencoder wrote: OUT/autoencoder.")],
    data: Annotated[
        str | None, typer.Option(help="As for ldm train autoencoder.  [default: digits; moving for sequences]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="A part of the data.  [default: test; heldout of emoji]")] = None,
    count: Annotated[int, typer.Option(help="Of what has no end: how many.")] = 1000,
    length: Annotated[int, typer.Option(help="Frames of a sequence.")] = 12,
    samples: Annotated[int, typer.Option(help="Codes of each picture, for the bound of its log-likelihood.")] = 100,
    pictures: Annotated[Path | None, typer.Option(help="A folder for pictures of what was learnt.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="One of these pictures, by name; may be repeated.  [default: all]")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """What an autoencoder loses, in what units its paper counts, and pictures of what it has learnt.

    The pictures: reconstructions, samples, interpolation, traversal, scatter, undone (of a denoising one), use (of a
    codebook), sequences, rollout; those that suit the model.

    **Examples**

    ldm evaluate autoencoder runs/vae/autoencoder --pictures runs/vae/pictures

    ldm evaluate autoencoder runs/beta/autoencoder --pictures . --only traversal

    ldm evaluate autoencoder runs/vq2/autoencoder --data emoji --json vq2.json
    """
    options.json_target(json)
    options.at_least_one(count=count, length=length, samples=samples)

    from ldm import data as sources
    from ldm.autoencoders.base import Autoencoder, Model
    from ldm.autoencoders.priors import prior_of
    from ldm.data.tensors import MOVING, numbers
    from ldm.evaluation.autoencoders import classifier_features, evaluate_autoencoder
    from ldm.evaluation.portraits import portraits

    found = Model.from_pretrained(model)
    still = isinstance(found, Autoencoder)
    source = data or ("digits" if still else MOVING)
    if still == (source == MOVING):
        raise ValueError(
            f"--data {source}: {model} is of {'single pictures' if still else 'sequences, that is moving'}"
        )
    shape: Any = found.shape
    told = (shape.size[0], shape.channels, count, length)
    unseen = numbers(source, split or sources.UNSEEN.get(source, "test"), *told, seed)
    prior = prior_of(found, model) if isinstance(found, Autoencoder) else None
    features = classifier_features(numbers(source, None, *told, seed)) if still and unseen.classes else None
    made = portraits(found, unseen, prior)
    for name in only or []:
        options.one_of("--only", name, made)
    result = evaluate_autoencoder(found, unseen, prior, features, samples, seed)
    if str(json) != "-":
        for name, value in result.items():
            print(f"{name}: {value:.4g}")
    options.write_json(json, result)
    for name in (only or made) if pictures else []:
        _save(made[name](), pictures / f"{name}.png")  # type: ignore[operator]
