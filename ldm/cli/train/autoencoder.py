"""ldm train autoencoder: any of the family, on digits, pictures or sequences."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from ldm.cli import options
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

DATA, SHAPE, LOSS, QUANTIZED, SEQUENCES = "Data", "Sizes", "What is minimised", "Codebooks", "Sequences"

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
Preset = Annotated[str | None, _option(SHAPE, "784-400-20, digits, plane, digits-conv, frames or pictures.")]
Side = Annotated[int | None, _option(SHAPE, "Height and width.  [default: the preset's]")]
Channels = Annotated[int | None, _option(SHAPE, "1 for grey, 3 for colours.  [default: the preset's]")]
Code = Annotated[int | None, _option(SHAPE, "Numbers of a code, or of each of its places.  [default: the preset's]")]
Network = Annotated[str | None, _option(SHAPE, "dense or conv.  [default: the preset's]")]
WIDTHS = "Hidden layers, or levels of a convolutional network, from the picture inwards: 400 or 32,64."
Widths = Annotated[str | None, _option(SHAPE, WIDTHS)]
Likelihood = Annotated[str | None, _option(LOSS, "bernoulli or gaussian.")]
Sigma = Annotated[float | None, _option(LOSS, "Of gaussian: its standard deviation, of pixels in 0..1.")]
Corruption = Annotated[str | None, _option(LOSS, "denoising: gaussian, masking or salt_and_pepper.")]
Strength = Annotated[float | None, _option(LOSS, "denoising: the noise's deviation, or the share of pixels.")]
Penalty = Annotated[str | None, _option(LOSS, "sparse: l1, or kl of the mean activation.")]
Rho = Annotated[float | None, _option(LOSS, "sparse, kl: what the mean activation should be.")]
Weight = Annotated[float | None, _option(LOSS, "sparse, contractive: how much the penalty counts.")]
Beta = Annotated[float | None, _option(LOSS, "beta: how much the KL counts.")]
Entries = Annotated[int | None, _option(QUANTIZED, "Entries of a codebook.")]
Commitment = Annotated[float | None, _option(QUANTIZED, "How much the encoder's distance to its entries counts.")]
Update = Annotated[str | None, _option(QUANTIZED, "How entries follow: ema or loss.")]
PriorSteps = Annotated[int, _option(QUANTIZED, "Steps for the GPT-2 that codes are drawn from.")]
State = Annotated[int | None, _option(SEQUENCES, "td: numbers of a state.")]
Hidden = Annotated[int | None, _option(SEQUENCES, "Width of the recurrent networks.")]
Jump = Annotated[int | None, _option(SEQUENCES, "td: the longest jump, in frames.")]


@planned(steps=3000, batch_size=128, learning_rate=1e-3, warmup=50, ema=0.99, save_every=1000, weight_decay=0.0)
def autoencoder(
    name: Name,
    out: Out,
    plan: Plan,
    data: Data = None,
    split: Split = None,
    samples: Samples = 10_000,
    length: Length = 12,
    preset: Preset = None,
    side: Side = None,
    channels: Channels = None,
    code: Code = None,
    network: Network = None,
    widths: Widths = None,
    likelihood: Likelihood = None,
    sigma: Sigma = None,
    corruption: Corruption = None,
    strength: Strength = None,
    penalty: Penalty = None,
    rho: Rho = None,
    weight: Weight = None,
    beta: Beta = None,
    entries: Entries = None,
    commitment: Commitment = None,
    update: Update = None,
    prior_steps: PriorSteps = 2000,
    state: State = None,
    hidden: Hidden = None,
    jump: Jump = None,
) -> None:
    """Trains an autoencoder of the family; OUT/autoencoder is a first stage for `ldm train diffusion --vae`.

    In it lies also what codes are drawn from where that is not N(0, I): a Gaussian mixture, or a GPT-2 over the numbers
    of a codebook's entries. Beside it lies the log.

    **Examples**

    ldm train autoencoder vae --out runs/vae

    ldm train autoencoder beta --beta 4 --preset plane --out runs/beta

    ldm train autoencoder denoising --corruption masking --strength 0.5 --out runs/denoising

    ldm train autoencoder vae --data mnist/ --preset 784-400-20 --steps 50000 --out runs/mnist

    ldm train autoencoder td --data moving --out runs/td
    """
    options.at_least_one(samples=samples, length=length, prior_steps=prior_steps)
    told = {
        "likelihood": likelihood, "sigma": sigma, "corruption": corruption, "strength": strength, "penalty": penalty,
        "rho": rho, "weight": weight, "beta": beta, "entries": entries, "commitment": commitment, "update": update,
        "state": state, "hidden": hidden, "jump": jump,
    }  # fmt: skip
    given = {setting: value for setting, value in told.items() if value is not None}
    size = None if side is None else (side, side)
    sizes = {"size": size, "channels": channels, "code": code, "network": network, "widths": _widths(widths)}
    data = data or ("moving" if name in SEQUENTIAL else "digits")
    shape = _shape(name, data, preset, {key: value for key, value in sizes.items() if value is not None})

    import torch

    from ldm.autoencoders.presets import made
    from ldm.data.tensors import numbers

    learnt = numbers(data, split, shape.size[0], shape.channels, samples, length, plan.seed)
    if name == "conditional":
        if not learnt.classes:
            raise ValueError(f"--data {data}: expected classes for a conditional autoencoder, such as folders by name")
        given["classes"] = len(learnt.classes)
    torch.manual_seed(plan.seed)
    model = made(name, shape, given)

    from ldm.autoencoders import Autoencoder
    from ldm.autoencoders.priors import fitted
    from ldm.training import processes
    from ldm.training.autoencoder import train_autoencoder

    trained = train_autoencoder(model, out, learnt, plan)
    if isinstance(trained, Autoencoder) and processes.here().is_main_process:
        fitted(trained, learnt, prior_steps, plan.seed).save_pretrained(out / "autoencoder")
    print(out / "autoencoder")


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(width) for width in text.split(",") if width)
    except ValueError:
        raise ValueError(f"--widths {text}: expected numbers such as 400 or 32,64") from None


def _shape(name: str, data: str, preset: str | None, sizes: dict[str, Any]) -> Any:
    """The preset's, or that which goes with the kind and the data, with what was asked for in its place."""
    from ldm.autoencoders.presets import SHAPES, kind_of

    kind_of(name)
    if (name in SEQUENTIAL) != (data == "moving"):
        raise ValueError(f"--data {data}: expected moving for {' and '.join(SEQUENTIAL)}, pictures for the others")
    usual = "frames" if name in SEQUENTIAL else "pictures" if name == "vq2" or data == "emoji" else "digits"
    options.one_of("--preset", preset or usual, SHAPES)
    return replace(SHAPES[preset or usual], **sizes)
