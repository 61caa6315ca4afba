"""ldm train tryon: a try-on set -> all that error-aware try-on needs, stage by stage."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options

Folder = Annotated[
    Path, typer.Option("--data", help="A folder in VITON-HD's or DressCode's layout; ldm dolls draws one.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for every stage's model, log and pictures.")]
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT that all pictures are brought to, multiples of 16.")]
Effort = Annotated[float, typer.Option(help="Times the steps of every stage: 1 is about two hours on two cores.")]
Known = Annotated[float, typer.Option(help="Share of the training pairs whose garments are known.")]
H2G = Annotated[bool, typer.Option("--h2g", help="Take the garments of the others off their photographs.")]
Autoencoder = Annotated[str, typer.Option(help="Its preset: fine (12 channels, for prints), small (4).")]
Boxes = Annotated[float, typer.Option(help="Share of generated pictures whose boxes the error classifier is told.")]
Bridges = Annotated[
    str, typer.Option(help="Which: plain (I2SB), random (maps that know nothing), classified (what ldm tryon takes).")
]
Target = Annotated[str, typer.Option(help="What bridges emit: residual, or epsilon.")]
Experts = Annotated[bool, typer.Option("--experts", help="Two experts of the classified bridge, one for either half.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="Networks for tests.")]


def tryon(
    data: Folder,
    out: Out,
    size: Size = "48x64",
    effort: Effort = 1.0,
    known: Known = 1.0,
    h2g: H2G = False,
    autoencoder: Autoencoder = "fine",
    boxes: Boxes = 0.05,
    bridges: Bridges = "plain,random,classified",
    target: Target = "residual",
    experts: Experts = False,
    seed: options.Seed = 0,
    tiny: Tiny = False,
) -> None:
    """Trains an autoencoder, a base model that draws garments on persons, an error classifier, and bridges that repair.

    What was stopped goes on: run the same command again. OUT/stages.json has each stage's seconds.

    **Examples**

    ldm dolls dolls/ --people 1000 --test 150

    ldm train tryon --data dolls/ --out runs/tryon

    ldm train tryon --data dolls/ --known 0.5 --h2g --bridges classified --out runs/with-h2g
    """
    width, height = options.size_of(size)
    if width is None or height is None:
        raise ValueError(f"--size {size}: expected WIDTHxHEIGHT")
    from ldm.bridging import EMITTED
    from ldm.training.tryon.stages import Recipe, train_tryon

    options.one_of("--target", target, EMITTED)

    options.one_of("--autoencoder", autoencoder, ("fine", "small"))

    networks: dict[str, Any] = {"vae_preset": autoencoder}
    networks |= dict.fromkeys(("preset", "pixel_preset", "vae_preset"), "tiny") if tiny else {}
    recipe = Recipe(effort=effort, known=known, h2g=h2g, boxes=boxes, seed=seed, target=target, experts=experts,
                    bridges=tuple(filter(None, bridges.split(","))), **networks)  # fmt: skip
    train_tryon(data, out, recipe, (height, width))
    print(out)
