"""ldm dolls: a try-on data set that is drawn here."""

from pathlib import Path
from typing import Annotated

import typer


def dolls(
    out: Annotated[Path, typer.Argument(help="A folder, new, empty, or begun by the same command.")],
    people: Annotated[int, typer.Option(help="Of the training split.")] = 600,
    test: Annotated[int, typer.Option(help="People of the test split, whose garments nobody else wears.")] = 100,
    seed: Annotated[int, typer.Option(help="Which people: person i is decided by the seed and i alone.")] = 0,
) -> None:
    """Draws paper dolls: people in garments with patterns and letters, 192 x 256 pixels, laid out as VITON-HD is.

    Beside what VITON-HD has, each split has flawed/, the people as a base model could have drawn them, and
    flawed-boxes.json, which says where the errors are. What was stopped goes on: run the same command again.

    **Examples**

    ldm dolls dolls/

    ldm dolls dolls/ --people 5000 --test 500 --seed 1
    """
    from ldm.data.dolls import write

    write(out, people, test, seed)
    print(f"{out}: {people} people to train with, {test} to test")
