"""ldm evaluate: is it any good?"""

from typing import Annotated

import typer

from ldm.cli import options

app = typer.Typer(help="Quality: does a picture show what was asked for.")


@app.command()
def prompts(
    model: options.Model = "emoji",
    split: Annotated[str, typer.Option(help="single (one emoji), seen or heldout (composed scenes).")] = "single",
    count: Annotated[int, typer.Option(help="How many prompts.")] = 200,
    seed: options.Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Evaluations of the network.  [default: the model's]")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.  [default: the model's]")] = None,
    sampler: Annotated[str | None, typer.Option(help="As for generate.  [default: the model's]")] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Draws emoji scenes and lets the nearest of 32 candidate scenes decide what each picture shows.

    **Examples**

    ldm evaluate prompts --split single --count 200 --json single.json

    ldm evaluate prompts --model out/model --split heldout
    """
    options.json_target(json)

    from ldm.evaluation.prompts import evaluate_prompts
    from ldm.pipeline import LatentDiffusion

    pipeline = LatentDiffusion.from_pretrained(model, options.device_of(device), options.dtype_of(dtype))

    def draw(texts: list[str], seeds: list[int]) -> list:
        return pipeline.text_to_image(  # type: ignore[return-value]
            texts, seed=seeds, num_inference_steps=steps, guidance_scale=guidance, sampler=sampler
        )

    result = evaluate_prompts(draw, split, count, seed)
    result["settings"] |= {"model": model, "model_hash": pipeline.hash, "dtype": dtype}
    result["settings"] |= {"steps": steps or pipeline.defaults["num_inference_steps"], "sampler": sampler or "default"}
    result["settings"] |= {"guidance": pipeline.defaults["guidance_scale"] if guidance is None else guidance}
    if str(json) != "-":
        print(f"{split}: {result['accuracy']:.3f} of {result['count']} (chance {result['chance']:.3f})")
        for kind, figures in result["kinds"].items():
            print(f"  {kind}: {figures['accuracy']:.3f} of {figures['count']}")
    options.write_json(json, result)


@app.command()
def roundtrip(
    model: options.Model = "emoji",
    split: Annotated[str, typer.Option(help="single (one emoji), seen or heldout (composed scenes).")] = "heldout",
    count: Annotated[int, typer.Option(help="How many scenes.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 0,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Sends emoji scenes that no training has seen through the autoencoder and back.

    **Example**

    ldm evaluate roundtrip --count 200 --json roundtrip.json
    """
    options.json_target(json)

    from ldm.evaluation.autoencoder import evaluate_roundtrip
    from ldm.latents import LatentSpace

    space = LatentSpace.from_pretrained(model).to(options.device_of(device), options.dtype_of(dtype))
    result = evaluate_roundtrip(space, split, count, seed)
    if str(json) != "-":
        print(f"{split}: {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}, mean of {count} pictures")
    options.write_json(json, result)
