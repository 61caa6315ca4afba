"""Curves of a run as a picture: log.jsonl -> curves.png."""

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ldm.files import replacing
from ldm.training.log import rows

log = logging.getLogger("ldm")
LEFT_OUT = ("step", "processes", "images_per_second", "peak_memory_mib")


def draw(folder: Path) -> Path | None:
    """A panel for each part of the loss, the learning rate and the gradient -> `folder`/curves.png; None for no rows.

    Needs matplotlib; without it a line says so, once.
    """
    followed = [row for row in rows(folder / "log.jsonl") if "loss" in row]
    if not followed or not _able():
        return None
    with replacing(folder / "curves.png") as file:
        figure(followed).savefig(file, format="png", dpi=100)
    return folder / "curves.png"


@cache
def _able() -> bool:
    found = find_spec("matplotlib") is not None
    if not found:
        log.warning("no curves.png: matplotlib is not installed; log.jsonl has the numbers")
    return found


def figure(followed: list[dict[str, Any]]) -> Any:
    """Rows of the log -> matplotlib's figure, loss first; a logarithmic scale where every value is positive."""
    from matplotlib.figure import Figure

    names = dict.fromkeys(["loss", *(name for row in followed for name in row if name not in LEFT_OUT)])
    drawn = Figure(figsize=(10, 2.2 * ((len(names) + 1) // 2)), layout="constrained")
    for place, name in enumerate(names, 1):
        points = [(row["step"], row[name]) for row in followed if name in row]
        panel = drawn.add_subplot((len(names) + 1) // 2, 2, place)
        panel.plot(*zip(*points, strict=True), linewidth=1)
        panel.set_title(name.replace("_", " "), fontsize=9)
        if name in ("loss", "gradient_norm") and all(value > 0 for _, value in points):
            panel.set_yscale("log")
        panel.grid(alpha=0.3)
    return drawn
