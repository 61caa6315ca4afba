"""From a command to its picture: whole processes, beside a plain script of diffusers; and what importing takes."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldm.evaluation.speed.processes import LDM, Runner, ran
from ldm.evaluation.speed.turns import GUIDANCE, PEER, PROMPT, agreement, here, in_turn, rows

SCRIPT = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
generator = torch.Generator().manual_seed(0)
images = pipe(sys.argv[2], num_inference_steps=int(sys.argv[3]), guidance_scale=float(sys.argv[4]),
              generator=generator).images
images[0].save(sys.argv[5])
"""
IMPORT = "import sys, time; t = time.perf_counter(); __import__(sys.argv[1]); print(time.perf_counter() - t)"


def compare_start(model: str = "emoji", steps: int = 20, rounds: int = 5, run: Runner = ran) -> dict[str, Any]:
    """`ldm generate` by either engine, and a plain script of diffusers: seconds of whole processes, and imports."""
    from ldm import checkpoints

    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.png" for i, name in enumerate(("openvino", "torch", PEER))}
        asked = ["generate", PROMPT, "--model", model, "--steps", steps, "--guidance", GUIDANCE, "--device", "cpu"]
        commands = {name: [*LDM, *asked, "--engine", name, "-o", files[name]] for name in ("openvino", "torch")}
        weights = checkpoints.resolve(model)
        commands[PEER] = [sys.executable, "-c", SCRIPT, weights, PROMPT, steps, GUIDANCE, files[PEER]]
        found = in_turn({name: partial(_seconds, run, words) for name, words in commands.items()}, rounds)
        agreeing = {name: agreement([_open(path)], [_open(files[PEER])]) for name, path in files.items()}
    imports = in_turn({f"import {name}": partial(imported, name) for name in ("ldm", PEER)}, rounds)
    return {
        "what": f"command to picture, {model}, {steps} steps, and imports: whole processes, seconds",
        "rows": {name: row | agreeing[name] for name, row in rows(found).items()},
        "imports": rows(imports),
        "settings": {"model": model, "steps": steps, "guidance": GUIDANCE, "prompt": PROMPT, "rounds": rounds},
        **here(),
    }


def _seconds(run: Runner, command: Sequence[object]) -> float:
    return run(command).seconds


def imported(package: str) -> float:
    """The seconds that a new interpreter takes to import a package."""
    found = subprocess.run([sys.executable, "-c", IMPORT, package], check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def _open(path: Path) -> Any:
    from ldm import images

    return images.load(path)
