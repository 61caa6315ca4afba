"""ldm evaluate roundtrip: what does a first stage lose of pictures that no training has seen?"""

from typing import Annotated, Any

import typer

from ldm.cli import options


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
    bridge: Annotated[
        str | None, typer.Option(help="A model of ldm train bridge: what comes back is also refined by it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Evaluations of the bridge.  [default: its own]")] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Sends pictures that no training has seen through the autoencoder and back.

    Of emoji these are scenes that are held out; of photographs scikit-learn's two, cut on a fixed grid.

    **Examples**

    ldm evaluate roundtrip --count 200 --json roundtrip.json

    ldm evaluate roundtrip --model runs/vae/vae --data photographs

    ldm evaluate roundtrip --bridge runs/sharper/model --steps 5
    """
    options.json_target(json)
    options.at_least_one(count=count, side=side, steps=steps)

    from ldm.evaluation.roundtrip import evaluate_roundtrip
    from ldm.latents import LatentSpace

    space = LatentSpace.from_pretrained(model).to(options.device_of(device), options.dtype_of(dtype))
    repair = None
    if bridge:
        refiner: Any = options.pipeline_of(bridge, device, dtype, "auto", None, None)
        repair = lambda image: refiner.refine(image, num_inference_steps=steps)[0]  # noqa: E731
    result = evaluate_roundtrip(space, split, count, seed, side, data, repair)
    result["settings"] |= {"model": model, "dtype": dtype} | ({"bridge": bridge, "steps": steps} if bridge else {})
    if str(json) != "-":
        seen, figures = result["settings"], f"{result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}"
        part = f", {seen['split']}" if seen["split"] else ""
        print(f"{data}{part}: {figures}, mean of {result['count']} pictures, {seen['side']} x {seen['side']}")
        if bridge:
            print(f"refined: {result['refined_psnr']:.2f} dB, SSIM {result['refined_ssim']:.4f}")
    options.write_json(json, result)
