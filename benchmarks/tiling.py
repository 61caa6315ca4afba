"""A large picture through the embedded autoencoder in tiles, in one piece, and by diffusers' tiling.

python benchmarks/tiling.py --json benchmarks/tiling.json --pictures /tmp/tiling

Each way runs in a process of its own: peak memory is what it holds at most, beyond the loaded model and picture. Seams
are looked for in what differs from the whole: the jump from one row or column of pixels to the next, its mean along the
line and its largest, where tiles overlap, from border to border, and inside of tiles.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from ldm.evaluation.speed.processes import machine
from ldm.images import to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.roundtrip import psnr
from ldm.tiling import Cut, Tiling, ladder

WIDTH, HEIGHT, FACTOR, SIDE = 2048, 1536, 4, 512
WHOLE = Tiling(area=1e12, together=1, tile=SIDE, overlap=64)
WAYS = {"whole": WHOLE, "tiles": "auto", "diffusers": WHOLE}


def photograph(width: int, height: int) -> Tensor:
    """x (1,3,H,W): a photograph that scikit-learn carries, mirrored at its edges until it fills the size."""
    picture = load_sample_images().images[0]
    rows, columns = (max(0, side - length) for side, length in zip((height, width), picture.shape, strict=False))
    return to_pixels(np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="symmetric"))


# ---- in a process of its own ----


def peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@torch.no_grad()
def measure(way: str, folder: Path) -> None:
    """Encodes and decodes the picture in the folder, and leaves latents, pixels and figures there."""
    x, space = torch.load(folder / "x.pt"), LatentSpace.from_pretrained("emoji", memory=WAYS[way])
    space.to_pixels(space.from_pixels(x[..., :64, :64]))  # what a first call loads
    if way == "diffusers":
        space.autoencoder.enable_tiling()
        space.autoencoder.tile_sample_min_size, space.autoencoder.tile_latent_min_size = SIDE, SIDE // FACTOR
    before, start = peak(), time.perf_counter()
    z = space.from_pixels(x)
    encoded = time.perf_counter()
    y = space.to_pixels(z)
    seconds = {"encode": round(encoded - start, 1), "decode": round(time.perf_counter() - encoded, 1)}
    torch.save({"z": z, "y": y, "peak_mib": round((peak() - before) / 2**20), "seconds": seconds}, folder / f"{way}.pt")


# ---- what came out ----


def overlaps(length: int) -> list[tuple[int, int]]:
    """From where to where two tiles have a share in the pixels of a side."""
    tiling = ladder(WAYS["tiles"], FACTOR)[0]
    spans = Cut(length // FACTOR, tiling.tile // FACTOR, tiling.overlap // FACTOR).spans(FACTOR)
    return [(two.start, one.stop) for one, two in itertools.pairwise(spans)]


def jumps(difference: Tensor) -> dict[str, dict[str, float]]:
    """The largest jumps over lines of the difference (1,3,H,W), of 255: where tiles overlap and inside of them."""
    found: dict[str, list[Tensor]] = {"overlaps": [], "inside": []}
    for plane in (difference, difference.transpose(-1, -2)):
        steps = 127.5 * (plane[..., 1:, :] - plane[..., :-1, :]).abs()
        lines, at = torch.stack([steps.mean((0, 1, 3)), steps.amax((0, 1, 3))]), torch.zeros(steps.shape[-2]).bool()
        for start, stop in overlaps(plane.shape[-2]):
            at[start - 1 : stop] = True
        found["overlaps"].append(lines[:, at])
        found["inside"].append(lines[:, ~at])
    largest = {name: torch.cat(lines, 1).amax(1).tolist() for name, lines in found.items()}
    return {name: {"line_mean": round(mean, 4), "pixel": round(pixel, 4)} for name, (mean, pixel) in largest.items()}


def compared(way: str, folder: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """One way's figures, beside the whole."""
    found = torch.load(folder / f"{way}.pt")
    figures = {"peak_mib": found["peak_mib"], "seconds": found["seconds"]}
    if way == "whole":
        return figures
    spread = float(whole["z"].std())
    figures["psnr_db"] = round(psnr(whole["y"].clamp(-1, 1), found["y"].clamp(-1, 1)), 1)
    figures["latent_rms_of_std"] = round(float((found["z"] - whole["z"]).square().mean().sqrt()) / spread, 5)
    figures["peak_of_whole"] = round(found["peak_mib"] / whole["peak_mib"], 3)
    if way == "tiles":
        figures["largest_jump"] = jumps(found["y"] - whole["y"])
    return figures


def draw(folder: Path, out: Path) -> None:
    """What came out, and 20 times what differs from the whole."""
    out.mkdir(parents=True, exist_ok=True)
    pixels = {way: torch.load(folder / f"{way}.pt")["y"] for way in WAYS}
    for way, y in pixels.items():
        to_images(y)[0].save(out / f"{way}.png")
        to_images(20 * (y - pixels["whole"]))[0].save(out / f"{way}-difference-x20.png")


def table(ways: dict[str, dict[str, Any]]) -> str:
    rows = [["", "peak MiB", "encode s", "decode s", "PSNR to whole", "jump at overlaps", "inside"]]
    for way, found in ways.items():
        row = [way, found["peak_mib"], found["seconds"]["encode"], found["seconds"]["decode"]]
        row += [f"{found['psnr_db']} dB"] if "psnr_db" in found else []
        row += [found["largest_jump"][at]["line_mean"] for at in ("overlaps", "inside") if "largest_jump" in found]
        rows.append([str(cell) for cell in row])
    return "\n".join("  ".join(cell.rjust(16) for cell in row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--pictures", type=Path, help="write the pictures and what differs to this folder")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        return measure(arguments.way, arguments.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(photograph(WIDTH, HEIGHT), folder / "x.pt")
        for way in WAYS:
            subprocess.run([sys.executable, __file__, "--way", way, "--folder", name], check=True)
        whole = torch.load(folder / "whole.pt")
        ways = {way: compared(way, folder, whole) for way in WAYS}
        if arguments.pictures:
            draw(folder, arguments.pictures)
    result = {
        "what": f"{WIDTH}x{HEIGHT} through the embedded autoencoder and back, float32; jumps of the difference, of 255",
        "ways": ways,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
    }
    print(table(ways))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
