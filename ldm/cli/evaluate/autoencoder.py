"""ldm evaluate autoencoder: one of the family, in figures and pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from ldm.autoencoders.base import Model

SPLIT = "A part of the data, or all.  [default: what training does not see, where there is such a part]"


def autoencoder(
    model: Annotated[str, typer.Argument(metavar="FOLDER", help="What ldm train autoencoder wrote: OUT/autoencoder.")],
    data: Annotated[
        str | None, typer.Option(help="As for ldm train autoencoder.  [default: digits; moving for sequences]")
    ] = None,
    split: Annotated[str | None, typer.Option(help=SPLIT)] = None,
    count: Annotated[int, typer.Option(help="Of what has no end: how many.")] = 1000,
    length: Annotated[int, typer.Option(help="Frames of a sequence.")] = 12,
    binarise: Annotated[bool, typer.Option("--binarise", help="Every pixel drawn once to be black or white.")] = False,
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

    ldm evaluate autoencoder runs/mnist/autoencoder --data mnist/ --binarise --samples 200
    """
    options.json_target(json)
    options.at_least_one(count=count, length=length, samples=samples)

    from ldm.autoencoders.base import Autoencoder, Model
    from ldm.autoencoders.priors import prior_of
    from ldm.evaluation.autoencoders import classifier_features, evaluate_autoencoder
    from ldm.evaluation.portraits import portraits

    found = Model.from_pretrained(model)
    learnt, unseen = _data(found, data, split, count, length, seed, binarise)
    prior = prior_of(found, model) if isinstance(found, Autoencoder) else None
    made = portraits(found, unseen, prior)
    for name in only or []:
        options.one_of("--only", name, made)
    result = evaluate_autoencoder(found, unseen, prior, classifier_features(learnt) if prior else None, samples, seed)
    if str(json) != "-":
        for name, value in result.items():
            print(f"{name}: {value:.4g}")
    options.write_json(json, result)
    for name in (only or made) if pictures else []:
        options.save_picture(made[name](), pictures / f"{name}.png")  # type: ignore[operator]


def _data(
    model: "Model", data: str | None, split: str | None, count: int, length: int, seed: int, binarise: bool
) -> tuple[Any, Any]:
    """What a model could have learnt from, and what it has not seen."""
    from ldm.autoencoders import Autoencoder
    from ldm.data import UNSEEN
    from ldm.data.tensors import MOVING, numbers, parted

    still = isinstance(model, Autoencoder)
    source = data or ("digits" if still else MOVING)
    if still == (source == MOVING):
        raise ValueError(f"--data {source}: the model is of {'single pictures' if still else 'sequences: moving'}")
    split = split or UNSEEN.get(source) or ("test" if parted(source) or source == MOVING else None)
    if split is None:
        raise ValueError(f"--data {source}: there is no part that training does not see; expected --split all")
    told = model.shape.size[0], model.shape.channels, count, length, seed, binarise
    learnt, unseen = (numbers(source, part, *told) for part in (None, split))
    if learnt.classes != unseen.classes:
        raise ValueError(f"{source}: classes {learnt.classes} in the training, {unseen.classes} in {split}")
    return learnt, unseen
