"""ldm bench: how fast is it, and in how much memory?"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import options

app = typer.Typer(help="Speed and memory beside other programs, on this machine.")


@app.command()
def training(
    peer: Annotated[
        Path, typer.Option(metavar="SCRIPT", help="diffusers' examples/text_to_image/train_text_to_image.py.")
    ],
    model: options.Model = "emoji",
    side: Annotated[int, typer.Option(help="Height and width of the pictures.")] = 64,
    picture_side: Annotated[
        int | None,
        typer.Option(help="The same of the pictures in the folder, JPEG: photographs are larger.  [default: --side]"),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures in one step.")] = 16,
    mixed_precision: Annotated[str, typer.Option("--mixed-precision", help="no, bf16 or fp16.")] = "no",
    steps: Annotated[int, typer.Option(help="Steps that are measured.")] = 200,
    rounds: Annotated[int, typer.Option(help="How often each program has its turn.")] = 3,
    json: options.Json = None,
) -> None:
    """Trains a model by a latent cache and by diffusers' own script, which encodes in every step; compares the two.

    Both fine-tune the U-Net on the same pictures with the same settings. Imports, loading and saving do not count.
    What the script needs: pip install "latent-diffusion-kit[bench]"; without a GPU torchvision from PyTorch's index.

    **Examples**

    ldm bench training --peer diffusers/examples/text_to_image/train_text_to_image.py --json training.json

    ldm bench training --peer train_text_to_image.py --picture-side 1024 --batch-size 4

    ldm bench training --peer train_text_to_image.py --model sd15/ --side 512 --batch-size 4 --mixed-precision bf16
    """
    picture_side = side if picture_side is None else picture_side
    options.at_least_one(side=side, picture_side=picture_side, batch_size=batch_size, steps=steps, rounds=rounds)
    options.one_of("--mixed-precision", mixed_precision, ("no", "bf16", "fp16"))
    options.json_target(json)

    from ldm.evaluation.speed.training import Setting, compare_training

    setting = Setting(side, picture_side, batch_size, mixed_precision)
    _shown(compare_training(peer, model, setting, steps, rounds), json, _said)


@app.command()
def autoencoders(
    side: Annotated[int, typer.Option(help="Height and width that the digits are brought to.")] = 28,
    epochs: Annotated[int, typer.Option(help="Over the 1,500 digits; at least 3.")] = 200,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures in one step.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each program has its turn, each from another start.")] = 3,
    json: options.Json = None,
) -> None:
    """Trains AE, VAE, beta-VAE and VQ-VAE here and by pythae, from the same weights; compares speed and what is lost.

    Networks with one hidden layer of 400 and codes of 20, on scikit-learn's digits. Needs pythae and scikit-learn.

    **Example**

    ldm bench autoencoders --json autoencoders.json
    """
    options.at_least_one(side=side, batch_size=batch_size, rounds=rounds)
    if epochs < 3:
        raise ValueError(f"--epochs {epochs}: expected 3 or more")
    options.json_target(json)

    from ldm.evaluation.speed.autoencoders import compare_autoencoders

    result = compare_autoencoders(side, epochs=epochs, batch_size=batch_size, rounds=rounds)
    options.write_json(json, result)
    if str(json) != "-":
        for kind, found in result["kinds"].items():
            rates, losses = (
                ", ".join(f"{found[name][figure]:.{digits}f} {name}" for name in ("ldm", "pythae"))
                for figure, digits in (("images_per_second", 0), ("loss", 3))
            )
            print(f"{kind}: images/s {rates}, ratio {found['ratio']['median']:.2f}; loss {losses}")


@app.command()
def start(
    model: options.Model = "emoji",
    steps: Annotated[int, typer.Option(help="Evaluations of the network.")] = 20,
    rounds: Annotated[int, typer.Option(help="How often each program has its turn.")] = 5,
    json: options.Json = None,
) -> None:
    """Whole commands, from nothing to a picture, beside a plain script of diffusers; and what importing takes.

    **Example**

    ldm bench start --json start.json
    """
    options.at_least_one(steps=steps, rounds=rounds)
    options.json_target(json)

    from ldm.evaluation.speed.start import compare_start
    from ldm.evaluation.speed.turns import said

    _shown(compare_start(model, steps, rounds), json, said)


@app.command()
def drawing(
    model: Annotated[str, typer.Option("--model", "-m", help="Or sd15: its shape, with random weights.")] = "emoji",
    side: Annotated[int | None, typer.Option(help="Height and width of the picture.  [default: the model's]")] = None,
    steps: Annotated[int, typer.Option(help="Evaluations of the network.")] = 20,
    rounds: Annotated[int, typer.Option(help="How often each program has its turn.")] = 5,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """A picture by each engine, and with fewer evaluations, beside diffusers; everything is loaded before.

    On a GPU diffusers has two turns, one of them by its documented fast recipe.

    **Examples**

    ldm bench drawing --rounds 9 --json drawing.json

    ldm bench drawing --model sd15 --side 512 --device cuda --dtype float16 --json gpu.json
    """
    options.at_least_one(steps=steps, rounds=rounds)
    options.json_target(json)

    from ldm.evaluation.speed.drawing import Setting, compare_drawing
    from ldm.evaluation.speed.shapes import borrowed
    from ldm.evaluation.speed.turns import said
    from ldm.pipeline import LatentDiffusion

    with borrowed(model) as source:
        setting = Setting(source, model, side, steps, options.device_of(device), options.dtype_of(dtype))
        found = compare_drawing(LatentDiffusion.from_pretrained, setting, rounds)
    _shown(found, json, said)


@app.command()
def network(
    model: Annotated[str, typer.Option("--model", "-m", help="Or sd15: its shape, with random weights.")] = "emoji",
    side: Annotated[int, typer.Option(help="Height and width of the picture.")] = 128,
    sdcpp: Annotated[
        Path | None, typer.Option(metavar="PROGRAM", help="sd-cli of stable-diffusion.cpp: beside it, too.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each program has its turn.")] = 5,
    json: options.Json = None,
) -> None:
    """One evaluation of a U-Net by OpenVINO, in float32 and in int8, beside diffusers.

    Of sd15 13 GB of disk are needed meanwhile, and 16 GB of memory.

    **Examples**

    ldm bench network --json network.json

    ldm bench network --model sd15 --side 256 --sdcpp stable-diffusion.cpp/build/bin/sd-cli --json sd15.json
    """
    options.at_least_one(side=side, rounds=rounds)
    options.json_target(json)

    from ldm.evaluation.speed.network import compare_network
    from ldm.evaluation.speed.shapes import borrowed
    from ldm.evaluation.speed.turns import said
    from ldm.pipeline import LatentDiffusion

    with borrowed(model) as source:
        found = compare_network(LatentDiffusion.from_pretrained, source, side, rounds, name=model, sdcpp=sdcpp)
    _shown(found, json, said)


@app.command()
def scale(
    model: options.Model = "emoji",
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures that are measured in each way.")] = 96,
    many: Annotated[int, typer.Option(help="Pictures after which memory is looked at once more.")] = 1000,
    json: options.Json = None,
) -> None:
    """Pictures a second and memory of `generate --prompts` and `encode`, by batch sizes and numbers of processes.

    **Example**

    ldm bench scale --json scale.json
    """
    options.at_least_one(count=count, many=many)
    options.json_target(json)

    from ldm.evaluation.speed.scale import measure_scale, said

    _shown(measure_scale(model, count, many), json, said)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="JSON...", help="What start, drawing and network wrote.")],
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Ratios as bars.")] = None,
) -> None:
    """A table in Markdown of what was measured, and a plot.

    **Example**

    ldm bench report start.json drawing.json --plot speed.png
    """
    from ldm.checkpoints import named, read_json
    from ldm.evaluation.speed import report as reporting

    picture = options.writable_picture(plot) if plot else None
    made = []
    for path in files:
        with named(path):
            made += reporting.bars([read_json(path)])
            reporting.markdown(made)  # refuses figures that are none
    print(reporting.markdown(made))
    if picture:
        reporting.plot(made, picture)


def _shown(result: dict, json: Path | None, said: Callable[[dict], str]) -> None:
    """Into the file, and in words unless standard output is for the file."""
    options.write_json(json, result)
    if str(json) != "-":
        print(said(result))


def _said(result: dict) -> str:
    """The figures in one line each."""
    own, other, encoding = (result[name] for name in ("ldm", "peer", "encoding"))

    def row(name: str, found: dict) -> str:
        gpu = f", {found['gpu_memory_mib']} MiB on the GPU" if found["gpu_memory_mib"] is not None else ""
        return f"{name}: {found['images_per_second']['median']} images/s, {found['memory_mib']} MiB{gpu}"

    paid = encoding["epochs_until_paid"]
    cost = f"paid after {paid} epochs" if paid is not None else "never paid"
    ratio = f"ratio: {result['ratio']['median']}"
    return "\n".join([row("ldm", own), row(other["script"], other), ratio, f"{row('encoding', encoding)}; {cost}"])
