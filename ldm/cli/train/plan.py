"""What every training is asked for: options, each declared once, and the plan that they make."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.training.plan import Plan

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, the log, samples and checkpoints.")]
PANEL = "How long, how fast, how exact"


def _option(name: str, words: str) -> Any:
    return typer.Option(f"--{name.replace('_', '-')}", help=words, rich_help_panel=PANEL)


OPTIONS: dict[str, Any] = {  # of Plan; each command has its own defaults
    "steps": Annotated[int, _option("steps", "Optimiser steps.")],
    "batch_size": Annotated[int, _option("batch_size", "Pictures in one step, over all processes.")],
    "learning_rate": Annotated[float, _option("learning_rate", "The highest.")],
    "warmup": Annotated[int, _option("warmup", "Steps in which the learning rate rises.")],
    "schedule": Annotated[str, _option("schedule", "After the warm-up: cosine, to 0 at the end, or constant.")],
    "weight_decay": Annotated[float, _option("weight_decay", "AdamW's.")],
    "clip": Annotated[float, _option("clip", "Largest norm of the gradient.")],
    "ema": Annotated[float, _option("ema", "Decay of the averaged weights, which are the result.")],
    "seed": Annotated[int, _option("seed", "Of weights, order and noise.")],
    "mixed_precision": Annotated[str, _option("mixed_precision", "no, bf16 or fp16.")],
    "accumulation": Annotated[int, _option("accumulation", "Parts of a batch, one after the other: less memory.")],
    "gradient_checkpointing": Annotated[bool, _option("gradient_checkpointing", "Compute twice, for less memory.")],
    "compile": Annotated[bool, _option("compile", "Compile the network first (torch.compile).")],
    "patience": Annotated[int, _option("patience", "Steps in a row whose loss may be NaN, and are skipped.")],
    "workers": Annotated[int, _option("workers", "Processes that prepare pictures.")],
    "log_every": Annotated[int, _option("log_every", "Steps between rows of the log.")],
    "save_every": Annotated[int, _option("save_every", "Steps between checkpoints.")],
    "keep": Annotated[int, _option("keep", "Checkpoints that are kept.")],
    "tensorboard": Annotated[
        bool | None,
        _option("tensorboard/--no-tensorboard", "Write for TensorBoard; by default if it is installed."),
    ],
}


def planned(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes a `plan: Plan` -> one with the options of a plan instead, `defaults` over Plan's own."""
    return gathered("plan", OPTIONS, made, {field.name: field.default for field in fields(Plan)} | defaults)


def gathered(
    name: str, kinds: dict[str, Any], build: Callable[..., Any], defaults: dict[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with a parameter `name` -> one with options `kinds` instead, of which `build(**values)` makes it."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            command(**{name: build(**{kind: values.pop(kind) for kind in kinds})}, **values)

        own = {key: parameter for key, parameter in signature(command).parameters.items() if key != name}
        named = Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=named) for parameter in own.values()]
        parameters += [Parameter(n, named, default=defaults[n], annotation=kind) for n, kind in kinds.items()]
        run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def made(**values: Any) -> Plan:
    """Options -> Plan; ValueError that names one that is out of range as it is written on the command line."""
    try:
        return Plan(**values)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from None
