"""What every training is asked for: options, each declared once, and the plan that they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldm.cli import options

if TYPE_CHECKING:
    from ldm.training.loop import Plan

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, the log, samples and the checkpoint.")]
Side = Annotated[int, typer.Option(help="Height and width of the pictures.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int, typer.Option("--batch-size", help="Pictures in one step.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="The highest; a cosine to 0 follows the warm-up.")]
Warmup = Annotated[int, typer.Option(help="Steps in which the learning rate rises.")]
Precision = Annotated[str, typer.Option("--mixed-precision", help="no or bf16.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare pictures.")]
Save = Annotated[int, typer.Option("--save-every", help="Steps between checkpoints.")]
RunSeed = Annotated[int, typer.Option("--seed", help="Of weights, order and noise.")]


def plan_of(
    steps: int, batch: int, rate: float, warmup: int, ema: float, seed: int, precision: str, workers: int, save: int
) -> "Plan":
    """The options -> Plan; ValueError that names one that is out of range."""
    from ldm.training.loop import Plan

    options.at_least_one(steps=steps, batch_size=batch, save_every=save)
    options.one_of("--mixed-precision", precision, ("no", "bf16"))
    return Plan(
        steps, batch, rate, warmup, ema=ema, seed=seed, mixed_precision=precision, workers=workers, save_every=save
    )
