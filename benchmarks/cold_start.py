"""A cold `ldm generate` beside a plain diffusers script: whole processes, in turn, on the same weights and steps.

python benchmarks/cold_start.py --runs 5 --json benchmarks/cold_start.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from ldm import checkpoints

PROMPT, STEPS = "a red apple on a blue background", 20
PEER = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
generator = torch.Generator().manual_seed(0)
images = pipe(sys.argv[2], num_inference_steps=int(sys.argv[3]), guidance_scale=3.0, generator=generator).images
images[0].save(sys.argv[4])
"""


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each, after one that is not counted")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "ldm", "generate", PROMPT, "--steps", str(STEPS), "--guidance", "3"]
        ours += ["--device", "cpu"]
        ours += ["-o", f"{folder}/ours.png"]
        weights = str(checkpoints.resolve("emoji"))
        theirs = [sys.executable, "-c", PEER, weights, PROMPT, str(STEPS), f"{folder}/theirs.png"]
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(arguments.runs + 1)][1:]
    result = {
        "what": f"cold process to picture, embedded model, {STEPS} steps, seconds",
        "ldm": {"median": statistics.median(a for a, _ in pairs), "runs": [round(a, 2) for a, _ in pairs]},
        "diffusers": {"median": statistics.median(b for _, b in pairs), "runs": [round(b, 2) for _, b in pairs]},
        "ratio": statistics.median(b / a for a, b in pairs),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
