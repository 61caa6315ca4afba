"""Does a picture show what its prompt says, and is it well drawn?

question --model--> picture --judging---> the likeliest of 32 scenes: the true one, and 31 that differ in one respect
                            --judging---> the likeliest of those that differ in one and the same respect
                            --fidelity--> dB to the nearest rendering of the true scene
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm.evaluation import judging
from ldm.evaluation.fidelity import fidelity, simple
from ldm.evaluation.questions import CANDIDATES, Draw, Question, drawings, kind, series

Answers = list[dict[str, Any]]
Reconstruct = Callable[[list[Image.Image]], list[Image.Image]]  # pictures -> what the autoencoder makes of them


def evaluate_prompts(
    draw: Draw,
    split: str,
    count: int,
    seed: int = 0,
    batch: int = 32,
    reconstruct: Reconstruct | None = None,
    shuffled: bool = False,
) -> dict[str, Any]:
    """The share of prompts whose picture the judge takes for the scene that the prompt names, in 0..1.

    `draw(prompts, seeds)` is the model; it gets `batch` prompts at a time, and seed + i for the i-th. `split` is as for
    `questions.series`. Chance is 1 in CANDIDATES. Beside it stand its 95 % interval, the count, the mean likeness of
    the pictures to their own scenes, all that by kind of scene; the share that is right in each respect alone; the
    fidelity in dB (accuracy says "recognised", not "well drawn") and its ceiling, that of true renderings after the
    round trip of `reconstruct`, where it is given; and every answer.
    `shuffled` draws each picture from the next question's prompt: then accuracy is chance if the prompt is heeded.
    Raises ValueError for an unknown split, a count below 1 (2 if shuffled) or a negative seed.
    """
    asked = series(split, count, seed)
    if shuffled and count < 2:
        raise ValueError(f"count {count}: shuffled prompts are those of other questions, expected 2 or more")
    prompts = [q.prompt for q in asked[1:] + asked[:1]] if shuffled else [q.prompt for q in asked]
    pictures = drawings(draw, asked, prompts, batch)
    answers = [answer(q, picture, reconstruct) for q, picture in zip(asked, pictures, strict=True)]
    kinds = sorted({a["kind"] for a in answers})
    return {
        **tally(answers),
        "chance": 1 / CANDIDATES,
        "kinds": {name: tally([a for a in answers if a["kind"] == name]) for name in kinds},
        "alone": respects(asked, answers),
        "fidelity": spread(answers),
        "settings": {"split": split, "seed": seed, "shuffled": shuffled, "candidates": CANDIDATES, **judging.SETTINGS},
        "pictures": answers,
    }


def answer(asked: Question, picture: Image.Image, reconstruct: Reconstruct | None = None) -> dict[str, Any]:
    """What the judges say of one picture."""
    found = judging.likenesses(picture, asked.candidates, asked.judge_seed)
    shown = judging.chosen(found, asked.candidates, asked.judge_seed)
    alone = {name: judging.chosen(found, scenes, asked.judge_seed) for name, scenes in asked.alone.items()}
    return {
        "prompt": asked.prompt,
        "seed": asked.seed,
        "kind": kind(asked.scene),
        "key": asked.scene.key,
        "chosen": shown.key,
        "correct": shown == asked.scene,
        "alone": {name: scene == asked.scene for name, scene in alone.items()},
        "likeness": round(found[asked.scene].own, 4),
        **(faithful(asked, picture, reconstruct) if simple(asked.scene) else {}),
    }


def faithful(asked: Question, picture: Image.Image, reconstruct: Reconstruct | None) -> dict[str, float]:
    """The picture's fidelity in dB, and that of a true rendering after the round trip."""
    figures = {"fidelity": round(fidelity(picture, asked.scene), 2)}
    if reconstruct:
        [returned] = reconstruct([asked.rendering(picture.width)])
        figures["ceiling"] = round(fidelity(returned, asked.scene), 2)
    return figures


def tally(answers: Answers) -> dict[str, Any]:
    """accuracy with its 95 % interval, count, and the mean likeness of the pictures to their own scenes."""
    likeness = sum(a["likeness"] for a in answers) / len(answers)
    return share([a["correct"] for a in answers]) | {"likeness": round(likeness, 4)}


def respects(asked: Sequence[Question], answers: Answers) -> dict[str, Any]:
    """Respect -> accuracy among scenes that differ in it alone, over the questions that state it; and chance there."""
    found = {}
    for name in sorted({name for q in asked for name in q.alone}):
        chances = [1 / len(q.alone[name]) for q in asked if name in q.alone]
        right = [a["alone"][name] for a in answers if name in a["alone"]]
        found[name] = share(right) | {"chance": sum(chances) / len(chances)}
    return found


def share(right: list[bool]) -> dict[str, Any]:
    """accuracy, its 95 % interval, count."""
    return {"accuracy": sum(right) / len(right), "interval": wilson(sum(right), len(right)), "count": len(right)}


def wilson(correct: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a binomial share; 95 % for z = 1.96 (Wilson 1927)."""
    centre = correct + z * z / 2
    half = z * math.sqrt(correct * (count - correct) / count + z * z / 4)
    return (centre - half) / (count + z * z), (centre + half) / (count + z * z)


def spread(answers: Answers) -> dict[str, Any] | None:
    """The fidelity in dB and its ceiling, over the answers that have them; None where none has."""
    fidelities = [a["fidelity"] for a in answers if "fidelity" in a]
    ceilings = [a["ceiling"] for a in answers if "ceiling" in a]
    if not fidelities:
        return None
    return percentile(fidelities) | {"count": len(fidelities), "ceiling": percentile(ceilings) if ceilings else None}


def percentile(values: list[float]) -> dict[str, float]:
    """mean and tenth percentile."""
    return {"mean": float(np.mean(values)), "tenth_percentile": float(np.percentile(values, 10))}
