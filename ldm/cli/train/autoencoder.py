"""ldm train autoencoder: any of the family, on digits, pictures or sequences."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options
from ldm.cli.train.plan import Out, gathered, planned
from ldm.training.plan import Plan

if TYPE_CHECKING:
    from ldm.autoencoders import Shape

DATA, SIZES, LOSS, QUANTIZED, SEQUENCES = "Data", "Sizes", "What is minimised", "Codebooks", "Sequences"
SEQUENTIAL = ("sequential", "td")

_option = options.panelled
NAME = "ae, denoising, sparse, contractive, vae, beta, conditional, vq, vq2; sequential, td: of sequences."
Name = Annotated[str, typer.Argument(help=NAME)]
SOURCE = (
    "digits, emoji, a folder of pictures or of IDX files (MNIST's), others that train vae takes; or moving.  "
    "[default: digits; moving for sequences]"
)
Data = Annotated[str | None, _option(DATA, SOURCE)]
Split = Annotated[str | None, _option(DATA, "A part of the data.  [default: train, where there is one]")]
Samples = Annotated[int, _option(DATA, "Of what has no end: how many.")]
Length = Annotated[int, _option(DATA, "Frames of a sequence.")]
BINARISE = "Every pixel drawn once to be black or white.  [default: no; yes of --preset binary-mnist]"
Binarise = Annotated[bool | None, _option(DATA, BINARISE, "--binarise/--grey")]
PRESETS = (
    "784-400-20, binary-mnist (300,000 steps of 100 black and white pictures), digits, plane, digits-conv, frames or "
    "pictures."
)
Preset = Annotated[str | None, _option(SIZES, PRESETS)]
PriorSteps = Annotated[int, _option(QUANTIZED, "Steps for the GPT-2 that codes are drawn from.")]

WIDTHS = "Hidden layers, or levels of a convolutional network, from the picture inwards: 400 or 32,64."
SHAPE: dict[str, Any] = {  # of Shape; what is not given is the preset's
    "side": Annotated[int | None, _option(SIZES, "Height and width.  [default: the preset's, as below]")],
    "channels": Annotated[int | None, _option(SIZES, "1 for grey, 3 for colours.")],
    "code": Annotated[int | None, _option(SIZES, "Numbers of a code, or of each of its places.")],
    "network": Annotated[str | None, _option(SIZES, "dense or conv.")],
    "vector": Annotated[bool | None, _option(SIZES, "conv: one code for the picture, or a map.", "--vector/--map")],
    "widths": Annotated[str | None, _option(SIZES, WIDTHS)],
}
OWN: dict[str, Any] = {  # of the constructors; what is not given is their default
    "likelihood": Annotated[str | None, _option(LOSS, "bernoulli or gaussian.")],
    "sigma": Annotated[float | None, _option(LOSS, "gaussian: the standard deviation, of pixels in 0..1.")],
    "corruption": Annotated[str | None, _option(LOSS, "denoising: gaussian, masking or salt_and_pepper.")],
    "strength": Annotated[float | None, _option(LOSS, "denoising: the noise's deviation, or the share of pixels.")],
    "penalty": Annotated[str | None, _option(LOSS, "sparse: l1, or kl of the mean activation.")],
    "rho": Annotated[float | None, _option(LOSS, "sparse, kl: what the mean activation should be.")],
    "weight": Annotated[float | None, _option(LOSS, "sparse, contractive: how much the penalty counts.")],
    "drop": Annotated[float | None, _option(LOSS, "conditional: the share of classes that is withheld.")],
    "beta": Annotated[float | None, _option(LOSS, "beta: how much the KL counts.")],
    "entries": Annotated[int | None, _option(QUANTIZED, "Entries of a codebook.")],
    "commitment": Annotated[float | None, _option(QUANTIZED, "How much the encoder's distance to them counts.")],
    "decay": Annotated[float | None, _option(QUANTIZED, "ema: how much of an entry stays in a step.")],
    "revive": Annotated[float | None, _option(QUANTIZED, "Entries that stand for less are moved; 0: never.")],
    "update": Annotated[str | None, _option(QUANTIZED, "How entries follow: ema or loss.")],
    "state": Annotated[int | None, _option(SEQUENCES, "td: numbers of a state.")],
    "hidden": Annotated[int | None, _option(SEQUENCES, "Width of the recurrent networks.")],
    "jump": Annotated[int | None, _option(SEQUENCES, "td: the longest jump, in frames.")],
}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _recommended(context: typer.Context, plan: Plan, preset: str | None) -> Plan:
    """The plan with what a preset says of it, where the command line does not."""
    from ldm.autoencoders.presets import PLANS

    told = PLANS.get(preset or "", {})
    sources = {name: context.get_parameter_source(name) for name in told}
    asked = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    return replace(plan, **{name: value for name, value in told.items() if name not in asked})


@planned(steps=3000, batch_size=128, learning_rate=1e-3, warmup=50, ema=0.99, save_every=1000, weight_decay=0.0)
@gathered("own", OWN, _given, dict.fromkeys(OWN))
@gathered("sizes", SHAPE, _given, dict.fromkeys(SHAPE))
def autoencoder(
    context: typer.Context,
    name: Name,
    out: Out,
    plan: Plan,
    sizes: dict[str, Any],
    own: dict[str, Any],
    data: Data = None,
    split: Split = None,
    samples: Samples = 10_000,
    length: Length = 12,
    binarise: Binarise = None,
    preset: Preset = None,
    prior_steps: PriorSteps = 2000,
) -> None:
    """Trains an autoencoder of the family; OUT/autoencoder is a first stage for `ldm train diffusion --vae`.

    In it lies also what codes are drawn from where that is not N(0, I): a Gaussian mixture, or a GPT-2 over the numbers
    of a codebook's entries. Beside it lies the log.

    **Examples**

    ldm train autoencoder vae --out runs/vae

    ldm train autoencoder beta --beta 4 --preset plane --out runs/beta

    ldm train autoencoder denoising --corruption masking --strength 0.5 --out runs/denoising

    ldm train autoencoder vae --data mnist/ --preset binary-mnist --out runs/mnist

    ldm train autoencoder td --data moving --out runs/td
    """
    options.at_least_one(samples=samples, length=length, prior_steps=prior_steps)
    data = data or ("moving" if name in SEQUENTIAL else "digits")
    if name == "sequential" and "code" in sizes:  # of a sequence; the shape's is that of a frame
        own["code"] = sizes.pop("code")
    shape, plan = _shape(name, data, preset, sizes), _recommended(context, plan, preset)

    import torch

    from ldm.autoencoders import Autoencoder
    from ldm.autoencoders.presets import made
    from ldm.autoencoders.priors import fitted
    from ldm.data.tensors import numbers
    from ldm.training import processes
    from ldm.training.autoencoder import train_autoencoder

    binarise = preset == "binary-mnist" if binarise is None else binarise
    learnt = numbers(data, split, shape.size[0], shape.channels, samples, length, plan.seed, binarise)
    torch.manual_seed(plan.seed)
    model = made(name, shape, own | (_classes(data, learnt) if name == "conditional" else {}))
    trained = train_autoencoder(model, out, learnt, plan)
    if isinstance(trained, Autoencoder) and processes.here().is_main_process:
        fitted(trained, learnt, prior_steps, plan.seed).save_pretrained(out / "autoencoder")
    print(out / "autoencoder")


def _classes(data: str, learnt: Any) -> dict[str, int]:
    if not learnt.classes:
        raise ValueError(f"--data {data}: expected classes for a conditional autoencoder, such as folders by name")
    return {"classes": len(learnt.classes)}


def _shape(name: str, data: str, preset: str | None, sizes: dict[str, Any]) -> "Shape":
    """The preset's, or that which goes with the kind and the data, with what was asked for in its place."""
    from ldm.autoencoders.presets import SHAPES, kind_of

    kind_of(name)
    if (name in SEQUENTIAL) != (data == "moving"):
        raise ValueError(f"--data {data}: expected moving for {' and '.join(SEQUENTIAL)}, pictures for the others")
    preset = preset or _usual(name, data)
    options.one_of("--preset", preset, SHAPES)
    asked = dict(sizes)
    if "side" in asked:
        asked["size"] = (asked.pop("side"),) * 2
    if "widths" in asked:
        asked["widths"] = _widths(asked["widths"])
    return replace(SHAPES[preset], **asked)


def _usual(name: str, data: str) -> str:
    """The preset that goes with a kind and with data."""
    from ldm.data.digits import is_idx

    if name in SEQUENTIAL:
        return "frames"
    if name == "vq2":
        return "pictures"
    if data == "digits":
        return "digits"
    return "784-400-20" if is_idx(Path(data)) else "pictures"


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",") if width)
    except ValueError:
        raise ValueError(f"--widths {text}: expected numbers such as 400 or 32,64") from None
