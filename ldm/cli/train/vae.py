"""ldm train vae: pictures -> an AutoencoderKL."""

from typing import Annotated

import typer

from ldm.cli import options
from ldm.cli.train.plan import Batch, Out, Precision, Rate, RunSeed, Save, Side, Steps, Warmup, Workers, plan_of


def vae(
    out: Out,
    preset: Annotated[str, typer.Option(help="small (f4, 1.4 M parameters) or tiny (for tests).")] = "small",
    side: Side = 64,
    steps: Steps = 3000,
    batch_size: Batch = 16,
    learning_rate: Rate = 1.5e-3,
    warmup: Warmup = 100,
    kl_weight: Annotated[float, typer.Option(help="Weight of the KL divergence, a mean over latents.")] = 5e-4,
    init: Annotated[str | None, typer.Option(help="Folder of an autoencoder to start from.")] = None,
    mixed_precision: Precision = "no",
    workers: Workers = 0,
    save_every: Save = 400,
    seed: RunSeed = 0,
) -> None:
    """Trains an AutoencoderKL on emoji scenes; OUT/vae is in diffusers' layout, its latents of unit variance.

    **Example**

    ldm train vae --out runs/vae --steps 3000

    ldm train vae --out runs/vae2 --init runs/vae/vae --steps 1600 --learning-rate 1e-3 --seed 1
    """
    from ldm.data.emoji import EmojiScenes
    from ldm.training.vae import PRESETS, train_vae

    options.one_of("--preset", preset, PRESETS)
    options.at_least_one(side=side)
    plan = plan_of(steps, batch_size, learning_rate, warmup, 0.998, seed, mixed_precision, workers, save_every)
    train_vae(out, EmojiScenes(side, seed), plan, preset, side, kl_weight, init)
    print(out / "vae")
