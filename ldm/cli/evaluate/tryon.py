"""ldm evaluate tryon: a base model's pictures, and what bridges make of them."""

from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import options


def tryon(
    run: Annotated[Path, typer.Argument(help="A run of ldm train tryon.")],
    data: Annotated[Path, typer.Option("--data", help="The set that it was trained on; its test part is judged.")],
    evaluations: Annotated[str, typer.Option(help="How often a bridge asks its network, one row each.")] = "5,10,25",
    weights: Annotated[
        Path | None, typer.Option(help="A folder with Inception's and LPIPS's weights (see weights.md).")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="A picture: garment, photograph, drawn, map, repaired.")] = None,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """Compares the base model with bridges without map, with maps at random, the classifier's, and the true ones.

    For what the base model draws and, where the set has them, for pictures with known errors.

    **Example**

    ldm evaluate tryon runs/tryon --data dolls/ --json tryon.json --sheet tryon.png
    """
    options.json_target(json)
    picture = options.writable_picture(sheet) if sheet else None
    try:
        asked = [int(part) for part in evaluations.split(",")]
    except ValueError:
        raise ValueError(f"--evaluations {evaluations}: expected whole numbers, as in 5,10,25") from None
    for number in asked:
        options.at_least_one(evaluations=number)

    from ldm.evaluation.speed.processes import machine, versions
    from ldm.evaluation.tryon import evaluate_tryon, table
    from ldm.evaluation.tryon import sheet as drawn

    found = evaluate_tryon(data, run, asked, seed, weights)
    if str(json) != "-":
        print(table(found["rows"]))
        for kind, figures in found["classifier"].items():
            print(f"{kind}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
        for message in found["missing"]:
            print(f"left out: {message}")
    options.write_json(json, found | {"machine": machine(), "versions": versions("torch", "diffusers")})
    if picture:
        options.save_picture(drawn(data, run), picture)
