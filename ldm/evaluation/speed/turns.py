"""Turns: ours and a peer's, one after the other, round by round; what each took, and how many times as fast it was.

A round is one turn of each program; the first is not counted. Ratios are of turns of one round, as a machine's pace
changes. What each drew is compared with the peer's picture, so that nothing is faster by drawing something else.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ldm.evaluation.speed.processes import machine, versions

if TYPE_CHECKING:
    from PIL import Image

Load = Callable[..., Any]  # (model, device, dtype, engine) -> LatentDiffusion
Clock = Callable[[], float]  # seconds
PEER = "diffusers"
PROMPT, GUIDANCE = "a red apple on a blue background", 3.0


def in_turn(turns: Mapping[str, Clock], rounds: int) -> dict[str, list[float]]:
    """What is measured by name -> seconds of each, `rounds` of them, all in turn; a first round is not counted."""
    found = [{name: turn() for name, turn in turns.items()} for _ in tqdm(range(rounds + 1), "rounds", disable=None)]
    return {name: [row[name] for row in found[1:]] for name in turns}


def timed(turn: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    turn()
    return time.perf_counter() - began


def rows(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Seconds of each round -> those, and how many times faster than the peer, which stands last."""
    *_, peer = seconds.values()
    return {
        name: {"seconds": summary(own), "ratio": summary([b / a for a, b in zip(own, peer, strict=True)])}
        for name, own in seconds.items()
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Values of rounds -> those, and their median, in four digits."""
    return {"median": float(f"{median(values):.4g}"), "rounds": [float(f"{value:.4g}") for value in values]}


def agreement(drawn: Sequence["Image.Image"], expected: Sequence["Image.Image"]) -> dict[str, Any]:
    """Pictures and those of the peer -> the largest difference in levels of 255, and where there is one, PSNR in dB."""
    import numpy as np  # not at the head: a program that is measured begins with its parent's memory

    pairs = [(np.asarray(one, float), np.asarray(other, float)) for one, other in zip(drawn, expected, strict=True)]
    levels = max(int(np.abs(one - other).max()) for one, other in pairs)
    errors = [np.mean((one - other) ** 2) for one, other in pairs]
    psnr = np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors])
    return {"levels": levels} | ({"psnr": round(float(psnr), 1)} if levels else {})


def said(found: Mapping[str, Any]) -> str:
    """Rows in lines to read."""
    lines = [found["what"]]
    for name, row in {**found["rows"], **found.get("imports", {})}.items():
        agreed = f", {row['levels']} levels from the peer's picture" if "levels" in row else ""
        agreed += f", {row['psnr']} dB" if "psnr" in row else ""
        agreed += f", {row['off']:.2g} from the peer's output" if "off" in row else ""
        lines.append(f"{name}: {row['seconds']['median']:.3g} s, {row['ratio']['median']:.3g} times as fast{agreed}")
    return "\n".join(lines)


def here() -> dict[str, Any]:
    """On what it was measured."""
    return {"machine": machine(), "versions": versions("torch", "diffusers", "transformers", "openvino")}
