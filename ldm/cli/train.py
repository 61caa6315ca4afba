"""ldm train: one command for each kind of model. To resume, run the same command again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from ldm.latents import LatentSpace
    from ldm.training.loop import Plan

app = typer.Typer(help="Training; to resume, run the same command again.")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, the log, samples and the checkpoint.")]
Side = Annotated[int, typer.Option(help="Height and width of the pictures.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int, typer.Option("--batch-size", help="Pictures in one step.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="The highest; a cosine to 0 follows the warm-up.")]
Warmup = Annotated[int, typer.Option(help="Steps in which the learning rate rises.")]
Precision = Annotated[str, typer.Option("--mixed-precision", help="no or bf16.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare pictures.")]
Save = Annotated[int, typer.Option("--save-every", help="Steps between checkpoints.")]
RunSeed = Annotated[int, typer.Option("--seed", help="Of weights, order and noise.")]

SHOWN = [
    "a red apple", "a cat face", "a dog face on a blue background", "a rocket", "three bananas", "a small pizza",
    "a cow face to the left of a tulip", "a house above a bus",
]  # fmt: skip


@app.command()
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
    plan = _plan(steps, batch_size, learning_rate, warmup, 0.998, seed, mixed_precision, workers, save_every)
    train_vae(out, EmojiScenes(side, seed), plan, preset, side, kl_weight, init)
    print(out / "vae")


@app.command()
def diffusion(
    out: Out,
    vae: Annotated[str | None, typer.Option(help="The autoencoder; by default --init's.")] = None,
    preset: Annotated[str, typer.Option(help="small (11 M parameters) or tiny (for tests).")] = "small",
    init: Annotated[str | None, typer.Option(help="A model to start from; its latents must be --vae's.")] = None,
    side: Side = 64,
    samples: Annotated[int, typer.Option(help="Scenes that are drawn, encoded and kept.")] = 40_000,
    steps: Steps = 4200,
    batch_size: Batch = 64,
    learning_rate: Rate = 1e-3,
    warmup: Warmup = 200,
    mixed_precision: Precision = "no",
    workers: Workers = 0,
    save_every: Save = 250,
    seed: RunSeed = 0,
) -> None:
    """Trains a U-Net with its text encoder on the latents of emoji scenes; OUT/model is in diffusers' layout, float16.

    **Example**

    ldm train diffusion --vae runs/vae/vae --out runs/diffusion --steps 4200

    ldm train diffusion --init emoji --out runs/longer --steps 6000 --learning-rate 5e-4 --seed 1
    """
    import torch

    from ldm import checkpoints
    from ldm.data.emoji import EmojiScenes
    from ldm.latents import LatentSpace
    from ldm.training.cache import cached, encode_dataset
    from ldm.training.diffusion import PRESETS, train_diffusion

    plan = _plan(steps, batch_size, learning_rate, warmup, 0.9995, seed, mixed_precision, workers, save_every)
    options.one_of("--preset", preset, PRESETS)
    options.at_least_one(samples=samples, side=side)
    latents_of = vae or init
    if not latents_of:
        raise ValueError("--vae is missing: the autoencoder whose latents are learnt (or --init, a model that has one)")
    space = LatentSpace.from_pretrained(latents_of).to(options.device_of("auto"))
    out.mkdir(parents=True, exist_ok=True)
    made_by = {
        "vae": checkpoints.fingerprint(checkpoints.resolve(latents_of)),
        "side": side,
        "seed": seed,
        "samples": samples,
    }
    scenes = EmojiScenes(side, seed)
    data = cached(out / "latents.safetensors", made_by, lambda: encode_dataset(scenes, space, samples))
    space.to("cpu")

    def preview(unet: Any, text: Any, step: int) -> None:
        from ldm import images, metadata

        drawn = _pipeline(space, unet, text).text_to_image(SHOWN)
        metadata.save(images.grid(drawn, columns=len(SHOWN)), out / f"samples-{step}.png")

    unet, text = train_diffusion(out, data, plan, preset, preview=preview, init=init)
    _pipeline(space, unet, text).save_pretrained(out / "model", torch.float16)
    print(out / "model")


def _pipeline(space: "LatentSpace", unet: Any, text: Any) -> Any:
    from ldm.denoising import Denoiser
    from ldm.noising import Diffusion
    from ldm.pipeline import LatentDiffusion
    from ldm.training.diffusion import SCHEDULER

    defaults = {"num_inference_steps": 20, "guidance_scale": 5.0}
    return LatentDiffusion(space, Denoiser(unet, Diffusion.from_config(SCHEDULER)), text, SCHEDULER, defaults)


def _plan(
    steps: int, batch: int, rate: float, warmup: int, ema: float, seed: int, precision: str, workers: int, save: int
) -> "Plan":
    from ldm.training.loop import Plan

    options.at_least_one(steps=steps, batch_size=batch, save_every=save)
    options.one_of("--mixed-precision", precision, ("no", "bf16"))
    return Plan(
        steps, batch, rate, warmup, ema=ema, seed=seed, mixed_precision=precision, workers=workers, save_every=save
    )
