"""ldm train diffusion: latents and captions -> a U-Net and a text encoder."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldm.cli import options
from ldm.cli.train.plan import Batch, Out, Precision, Rate, RunSeed, Save, Side, Steps, Warmup, Workers, plan_of

if TYPE_CHECKING:
    from ldm.latents import LatentSpace

SHOWN = [
    "a red apple", "a cat face", "a dog face on a blue background", "a rocket", "three bananas", "a small pizza",
    "a cow face to the left of a tulip", "a house above a bus",
]  # fmt: skip


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

    plan = plan_of(steps, batch_size, learning_rate, warmup, 0.9995, seed, mixed_precision, workers, save_every)
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
