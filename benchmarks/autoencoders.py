"""The autoencoder family, each trained and judged by its two commands, and latent diffusion on the codes of three.

python benchmarks/autoencoders.py --json benchmarks/autoencoders.json --samples docs/codes.png
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

import ldm
from ldm import images, metadata
from ldm.evaluation.digits import recognised
from ldm.evaluation.speed.processes import machine, versions
from ldm.files import write_json

FAMILY = {  # name: what ldm train autoencoder is told, and ldm evaluate autoencoder
    "ae": ("ae", ""),
    "denoising": ("denoising", ""),
    "sparse": ("sparse", ""),
    "contractive": ("contractive", ""),
    "vae": ("vae --likelihood gaussian --sigma 0.15", ""),
    "vae, binarised": ("vae --binarise", "--binarise"),
    "beta": ("beta --likelihood gaussian --sigma 0.15", ""),
    "conditional": ("conditional --likelihood gaussian --sigma 0.15", ""),
    "vq": ("vq --preset digits-conv --entries 64 --sigma 0.2", ""),
    "vq2": (
        "vq2 --data emoji --samples 6000 --entries 128 --sigma 0.2 --batch-size 64 --steps 2000 --prior-steps 1000",
        "--data emoji",
    ),
    "sequential": (
        "sequential --likelihood gaussian --sigma 0.15 --batch-size 64 --steps 12000 --learning-rate 2e-3",
        "",
    ),
    "td": ("td --batch-size 32", ""),
}
STAGES = ("ae", "vae", "vq")  # those that diffusion models are trained on
DIFFUSION = "--data digits --split train --side 8 --condition class --preset mini --steps 4000 --learning-rate 1e-3"
COLUMNS = ("error", "log_likelihood", "perplexity", "top_perplexity", "distance", "recognised", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--samples", type=Path, help="a picture: two of each digit, a row for each of the three")
    parser.add_argument("--runs", type=Path, help="a folder to keep the runs in")
    parser.add_argument("--only", default="", help="names, with commas: these anew, the others as --json has them")
    parser.add_argument("--faster", default="", help="more options for each training, such as '--steps 10'")
    told = parser.parse_args()
    with contextlib.ExitStack() as stack:
        runs = told.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if told.only:
            return some_anew(told.json, told.only.split(","), runs, told.faster)
        family = {name: judged(runs / name.replace(", ", "-"), *asked, told.faster) for name, asked in FAMILY.items()}
        drawn = {name: diffusion(runs, name, told.faster) for name in STAGES}
    found = {
        "what": "autoencoders on scikit-learn's digits (vq2: emoji scenes; sequential and td: moving digits), on what "
                "no training has seen; diffusion models of their codes, and digits drawn to order",
        "family": family,
        "diffusion": {name: figures for name, (figures, _) in drawn.items()},
        "machine": machine(),
        "versions": versions("torch", "transformers", "diffusers"),
    }  # fmt: skip
    print(table(family | {f"diffusion on {name}": figures for name, (figures, _) in drawn.items()}))
    if told.json:
        write_json(told.json, found)
    if told.samples:
        pictures = [picture for _, own in drawn.values() for picture in own[:20]]
        enlarged = [picture.resize((64, 64), Image.Resampling.NEAREST) for picture in pictures]
        metadata.save(images.grid(enlarged, columns=20), told.samples)


def some_anew(path: Path, names: list[str], runs: Path, faster: str) -> None:
    """Some of the family in a file that has all of it."""
    found = json.loads(path.read_text())
    found["family"] |= {name: judged(runs / name.replace(", ", "-"), *FAMILY[name], faster) for name in names}
    print(table(found["family"]))
    write_json(path, found)


def judged(run: Path, training: str, judging: str, faster: str) -> dict[str, Any]:
    """One of the family, trained in a folder -> its figures, how long that took, and by which commands."""
    train, evaluate = f"train autoencoder {training} {faster}".strip(), f"evaluate autoencoder {run}/autoencoder"
    seconds = called(f"{train} --out {shlex.quote(str(run))}")
    called(f"{evaluate} {judging} --json {run}/figures.json")
    figures = json.loads((run / "figures.json").read_text())
    commands = [f"ldm {train} --out RUN", f"ldm evaluate autoencoder RUN/autoencoder {judging}".strip()]
    return {"commands": commands, "seconds": round(seconds, 1), **figures}


def diffusion(runs: Path, name: str, faster: str) -> tuple[dict[str, Any], list[Image.Image]]:
    """A diffusion model of the codes of one of the family -> its figures, and two pictures of each digit."""
    train, run = f"train diffusion --vae RUN/autoencoder {DIFFUSION} {faster}".strip(), runs / f"{name}-diffusion"
    seconds = called(f"{train.replace('RUN', str(runs / name))} --out {run}")
    pipeline = ldm.LatentDiffusion.from_pretrained(str(run / "model"))
    asked = [label for label in range(10) for _ in range(10)]
    drawn: Any = pipeline.class_to_image(range(10), num_images_per_prompt=10, guidance_scale=2, seed=0)
    shown = [drawn[10 * label + i] for label in range(10) for i in range(2)]
    commands = [f"ldm {train} --out OUT"]
    return {"commands": commands, "seconds": round(seconds, 1), "recognised": recognised(drawn, asked)}, shown


def called(command: str) -> float:
    """Runs an ldm command -> seconds."""
    began = time.perf_counter()
    print(f"ldm {command}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "ldm", *shlex.split(command)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Figures by name, in Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, figures in rows.items():
        cells = [f"{figures[column]:.4g}" if column in figures else "" for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
