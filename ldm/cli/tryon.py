"""ldm tryon: garments on persons, drawn, looked over and repaired."""

from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import options


def tryon(
    data: Annotated[Path, typer.Argument(help="A folder in VITON-HD's or DressCode's layout.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="A run of ldm train tryon.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for the pictures.")],
    paired: Annotated[
        bool, typer.Option("--paired/--unpaired", help="The garment that each person wears, or another's.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", help="The first so many.  [default: all]")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the base model.")] = 20,
    refinement: Annotated[int, typer.Option(help="Evaluations of the bridge.")] = 10,
    strength: Annotated[float, typer.Option(help="Steer the bridge by the error classifier; 0: not.")] = 0.0,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Pictures of all: person, garment, drawn, its errors, repaired.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Puts the garments of a set's test part on its persons.

    **Examples**

    ldm tryon dolls/ --model runs/tryon -n 8 --sheet -o tried/

    ldm tryon VITON-HD/ --model runs/viton --paired --refinement 25 -o tried/
    """
    options.at_least_one(count=count, steps=steps, refinement=refinement)

    from tqdm import tqdm

    from ldm.data.tryon import TryOn
    from ldm.evaluation.tryon import size_of
    from ldm.images import grid, to_images
    from ldm.tryon.given import given
    from ldm.tryon.heat import heated
    from ldm.tryon.model import TryOnModel

    worker, looks = TryOnModel.from_pretrained(model), TryOn(data, "test", paired, size_of(model))
    out.mkdir(parents=True, exist_ok=True)
    total = len(looks) if count is None else min(count, len(looks))
    for i in tqdm(range(total), unit="picture", disable=None, delay=2):
        look = looks[i]
        x_1, M, x = worker.try_on(given([look]), [seed + i], steps, refinement, strength)
        [drawn, picture] = to_images(x_1) + to_images(x)
        if sheet:
            picture = grid([look.person, look.garment, drawn, heated(drawn, M[0]), picture], columns=5)
        path = out / f"{Path(look.name).stem}-{Path(look.garment_name).stem}.png"
        options.save_picture(picture, path)
        print(path)
