"""What a person looks at: sheets of pictures, and pictures beside what they should be."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from ldm.evaluation.fidelity import fitted, psnr, simple
from ldm.evaluation.questions import Question
from ldm.images import grid

WORST = 16
FIRST = 64


def sheet(asked: Sequence[Question], pictures: Sequence[Image.Image]) -> Image.Image:
    """The first FIRST pictures with their prompts, in the order in which they were drawn."""
    return grid(pictures[:FIRST], columns=8, captions=[q.prompt for q in asked[:FIRST]])


def worst(asked: Sequence[Question], pictures: Sequence[Image.Image]) -> Image.Image:
    """The WORST pictures of simple scenes by fidelity, the worst first: drawn | best-fitting rendering | prompt, dB.

    ValueError where no scene is simple.
    """
    expect_simple(asked)
    fits = [
        (q, picture, fitted(picture, q.scene)) for q, picture in zip(asked, pictures, strict=True) if simple(q.scene)
    ]
    ranked = sorted(((psnr(picture, fit), q, picture, fit) for q, picture, fit in fits), key=lambda found: found[0])
    pairs = [grid([picture, fit], columns=2) for _, _, picture, fit in ranked[:WORST]]
    return grid(pairs, columns=4, captions=[f"{q.prompt} {level:.1f} dB" for level, q, _, _ in ranked[:WORST]])


def expect_simple(asked: Sequence[Question]) -> None:
    """ValueError where no scene is simple, so that there is no worst."""
    if not any(simple(q.scene) for q in asked):
        raise ValueError(
            "no scene of one thing on a plain background: expected at least one, to show how well it is drawn"
        )


def beside_training(result: dict[str, Any], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """What `evaluate_nearest` gives -> each drawing | its nearest training picture | a true picture | its nearest."""
    cells = []
    for found, pictures in zip(result["pictures"], rows, strict=True):
        drawn, true = (f"in training {found[name]['psnr']:.1f} dB" for name in ("drawn", "true"))
        cells.append(grid(pictures, columns=4, captions=[found["prompt"], drawn, "true", true]))
    return grid(cells, columns=2)
