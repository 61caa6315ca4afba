"""Which engine draws: torch, which can do everything, or OpenVINO, which is faster on a CPU and starts sooner."""

import logging
import shutil
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options
from ldm.engines import ENGINES

log = logging.getLogger("ldm")

CHOICES = ("auto", *ENGINES)
Engine = Annotated[
    str,
    typer.Option(
        help="torch, tuned (the fastest that torch is here), openvino, openvino-int8, or auto: openvino for the "
        "package's own models on a CPU."
    ),
]
DType = Annotated[
    str, typer.Option(help="float32, bfloat16, float16, or auto: float32, or what --engine tuned finds fastest.")
]


def drawing_of(
    engine: str, model: str, device: str, dtype: str, memory: str, loras: list[str] | None, embeddings: list[str] | None
) -> Any:
    """What draws from words: a pipeline, or one without torch.

    OpenVINO's networks are prepared once, where a model is first drawn with.
    """
    options.one_of("--engine", engine, CHOICES)
    usual = device in ("auto", "cpu") and dtype in ("auto", "float32") and memory == "auto"
    plain = usual and not (loras or embeddings)
    if engine.startswith("openvino") and not plain:
        raise ValueError(f"--engine {engine} draws on the CPU in float32, without --memory, --lora or --embedding")
    if engine == "auto" and not (plain and fitting(model, device)):
        engine = "torch"
    if engine in ("torch", "tuned"):
        return options.pipeline_of(model, device, dtype, memory, loras, embeddings, engine)
    from ldm.engines.swift import SwiftDiffusion

    whole = cache(partial(options.pipeline_of, model, "cpu", dtype, memory, loras, embeddings))
    swift = partial(SwiftDiffusion, model, whole, engine == "openvino-int8")
    return _else_torch(swift, whole) if engine == "auto" else swift()


def pipeline_by(engine: str, model: str, device: str, dtype: str) -> Any:
    """A whole pipeline, for every task; on a CPU its U-Net is run by OpenVINO where that fits, or is asked for."""
    options.one_of("--engine", engine, CHOICES)
    by = partial(options.pipeline_of, model, device, dtype, "auto", None, None)
    if engine != "auto" or not fitting(model, device) or dtype not in ("auto", "float32"):
        return by(engine.replace("auto", "torch"))
    return _else_torch(partial(by, "openvino"), partial(by, "torch"))


def _else_torch(swift: Callable[[], Any], torch: Callable[[], Any]) -> Any:
    """What OpenVINO draws by; where that fails, which is said, what torch does."""
    try:
        return swift()
    except (ValueError, OSError) as error:
        log.warning("%s; torch draws", error)
        return torch()


def fitting(model: str, device: str) -> bool:
    """Whether OpenVINO is here and draws this model as torch does, and faster: the package's own, on a CPU."""
    from ldm.checkpoints import embedded

    return model in embedded() and bool(find_spec("openvino")) and (device == "cpu" or not accelerated())


def accelerated() -> bool:
    """Whether there may be something faster than the CPU, found out without torch."""
    return sys.platform == "darwin" or Path("/dev/nvidiactl").exists() or bool(shutil.which("nvidia-smi"))
