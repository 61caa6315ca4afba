"""What a network was trained to emit: the caller's word, else what the files state, else what such models mostly do."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm.checkpoints.architecture import TASKS
from ldm.checkpoints.contents import Decision, file_name
from ldm.checkpoints.faults import CheckpointError
from ldm.checkpoints.tensors import File

TYPES = ("epsilon", "v_prediction", "sample")
WORDS = {"epsilon": "epsilon", "eps": "epsilon", "v_prediction": "v_prediction", "v": "v_prediction",
         "sample": "sample", "x0": "sample"}  # fmt: skip
# Steps that the published 2.x files counted: 512-base-ema and v2-1_768-ema-pruned.
STEPS = {875000: "epsilon", 110000: "v_prediction"}
# A line of options that only a model of CompVis' kind has: LatentDiffusion, LatentInpaintDiffusion, or their schedule.
COMPVIS = re.compile(r"""^\s*(target\s*:\s*["']?[\w.]*\bLatent\w*Diffusion\b|linear_start\s*:)""", re.M)


def asked(prediction_type: str | None) -> Decision | None:
    """The caller's word. CheckpointError for one that is unknown."""
    if prediction_type is None:
        return None
    if prediction_type not in TYPES:
        raise CheckpointError(f"prediction type {prediction_type!r}: expected one of {', '.join(TYPES)}")
    return Decision(prediction_type, "as asked")


def configured(scheduler: dict[str, Any]) -> Decision:
    """What a folder's scheduler says; diffusers' default is epsilon."""
    if "prediction_type" in scheduler:
        return Decision(scheduler["prediction_type"], "scheduler_config.json")
    return Decision("epsilon", "diffusers' default, scheduler_config.json names none")


def stated(file: File, scheduler: dict[str, Any] | None = None) -> Decision | None:
    """What a single file says, first of all by itself; None if it says nothing."""
    return next(_statements(file, scheduler or {}), None)


def _statements(file: File, scheduler: dict[str, Any]) -> Iterator[Decision]:
    if "v_pred" in file.tensors:
        yield Decision("v_prediction", "the file's key v_pred")
    if scheduler.get("prediction_type") in TYPES:
        yield Decision(scheduler["prediction_type"], "the file's metadata")
    word = file.metadata.get("modelspec.prediction_type", "").lower()
    if word in WORDS:
        yield Decision(WORDS[word], "the file's metadata, modelspec.prediction_type")
    word = options(file.path).get("parameterization", "")
    if word in WORDS:
        yield Decision(WORDS[word], file_name(_beside(file.path)))


def guessed(file: File, family: str, channels: int) -> Decision:
    """What published models of this architecture emit: v only where 2.x draws from text alone, and not its base."""
    if family == "sd1" or channels != 4:
        task = TASKS.get(channels, f"{channels}-channel")
        return Decision("epsilon", f"as Stability's and CompVis' own {task} models of this family", sure=False)
    if file.global_step in STEPS:
        return Decision(STEPS[file.global_step], f"the file's step {file.global_step}, as published", sure=False)
    return Decision("v_prediction", "as 2.x at 768 pixels; its base models at 512 emit epsilon", sure=False)


def options(path: Path) -> dict[str, str]:
    """parameterization and scale_factor from CompVis' options, a .yaml of the file's name beside it; empty without.

    CompVis' own default, eps, counts only where the .yaml shows that it is of such a model: it may be anyone's notes.
    """
    try:
        text = _beside(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    default = {"parameterization": "eps"} if COMPVIS.search(text) else {}
    return default | dict(re.findall(r"""^\s*(parameterization|scale_factor)\s*:\s*["']?([\w.]+)""", text, re.M))


def _beside(path: Path) -> Path:
    return path.with_suffix(".yaml")
