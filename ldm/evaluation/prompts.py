"""Does a picture show what its prompt says? A judge for emoji scenes, without a network.

    prompt --model--> picture --judge--> the likeliest of 32 scenes: the true one, and 31 that differ in one respect

A scene is likened to the picture by K renderings with jitter in place and size, drawn anew for each picture and with
the same jitter for all 32 scenes, so that the true one has no advantage. What is compared is the detail: each picture
less its own blur. So a plain or blurred picture shows no scene at all, and a background speaks through the contrast
along the objects' contours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ldm.data.emoji import Scene, split_scene, variants

SPLITS = ("single", "seen", "heldout")
CANDIDATES = 32
RENDERINGS = 12  # of each candidate
RENDERED_SIDE = 64  # pixels
SIDE = 32  # pixels at which pictures are compared
BLUR = 2.0  # standard deviation of the blur that is taken away, in those pixels
PALEST = 2 / 3  # of a rendering's contrast that a picture may have: a slight blur must not pass for another background
SHOWN = 0.3  # least likeness at which a picture shows a scene; that of true renderings is above 0.6

Draw = Callable[[list[str], list[int]], list[Image.Image]]  # prompts, seeds -> pictures


@dataclass(frozen=True)
class Question:
    """A prompt, the seed to draw it with, the scene that it names, and the scenes among which it is judged."""

    prompt: str
    seed: int
    scene: Scene
    candidates: list[Scene]
    judge_seed: int


def question(split: str, seed: int, i: int) -> Question:
    """Question i of a series; depends on (split, seed, i) alone."""
    rng = np.random.default_rng((seed, i))
    scene = split_scene(rng, split)
    return Question(scene.caption(rng), seed + i, scene, candidates(scene, rng), int(rng.integers(2**32)))


def candidates(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """The scene among CANDIDATES different ones, in random order.

    All that differ from it in the relation (3), the number (3) or the background (10) are there, so that a picture with
    any of these wrong is judged wrong; the others differ in one object.
    """
    pools = variants(scene)
    scenes = [scene, *pools["relation"], *pools["count"], *pools["colour"]]
    others = rng.choice(len(pools["object"]), CANDIDATES - len(scenes), replace=False)
    scenes += [pools["object"][i] for i in others]
    return [scenes[i] for i in rng.permutation(CANDIDATES)]


@cache
def blurring() -> np.ndarray:
    """(SIDE, SIDE) matrix: a Gaussian blur whose rows sum to 1, so that a plain picture stays as it is."""
    pixels = np.arange(SIDE)
    weights = np.exp(-((pixels[:, None] - pixels) ** 2) / (2 * BLUR**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def detail(pictures: list[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (N,3,SIDE,SIDE) float32: each brought there by area, less its own blur."""
    small = [picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX) for picture in pictures]
    x = np.stack([np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 for picture in small])
    return x - blurring() @ x @ blurring().T


def shifted(x: np.ndarray) -> np.ndarray:
    """(3,SIDE,SIDE) -> (5,3,SIDE,SIDE): as it is, and one pixel down, up, right and left."""
    return np.stack([np.roll(x, shift, (1, 2)) for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))])


def quarters(x: np.ndarray) -> np.ndarray:
    """(N,3,SIDE,SIDE) -> (4,N,F)."""
    half = SIDE // 2
    return x.reshape(-1, 3, 2, half, 2, half).transpose(2, 4, 0, 1, 3, 5).reshape(4, len(x), -1)


def likeness(picture: np.ndarray, renderings: np.ndarray, palest: float = 1.0) -> float:
    """Quarters (4,S,F) of a picture's shifts, (4,K,F) of renderings -> 1 for equal, about 0 for unrelated ones.

    2 <p,r> / (<p,p> + <r,r>): SSIM's contrast and structure, over the whole picture (Wang et al. 2004, section III.B).
    Each quarter takes the p and r that are nearest there, because each of several objects has its own jitter. A picture
    that is paler than r is likened to a paler r, down to `palest` of its contrast.
    """
    own, energies = np.square(picture).sum(-1), np.square(renderings).sum(-1)
    contrast = np.sqrt(own[:, 0].sum() / energies.sum(0)).clip(palest, 1)  # (K,)
    products = contrast * (picture @ renderings.swapaxes(1, 2)).reshape(4, -1, len(contrast))
    sums = own[:, :, None] + (contrast**2 * energies)[:, None]
    nearest = np.arange(4), (sums - 2 * products).reshape(4, -1).argmin(1)
    return float(2 * products.reshape(4, -1)[nearest].sum() / sums.reshape(4, -1)[nearest].sum())


def rendered(scene: Scene, seed: int) -> np.ndarray:
    """(4,K,F): RENDERINGS of the scene."""
    rng = np.random.default_rng(seed)
    return quarters(detail([scene.draw(rng, RENDERED_SIDE) for _ in range(RENDERINGS)]))


def judge(picture: Image.Image, scenes: list[Scene], seed: int = 0) -> tuple[int, list[float]]:
    """The index of the scene that the picture shows, and its likeness to each.

    A picture that shows none gets one by lot, so that what says nothing is right one time in len(scenes).
    """
    seen = quarters(shifted(detail([picture])[0]))
    renderings = [rendered(scene, seed) for scene in scenes]
    likenesses = [likeness(seen, r) for r in renderings]
    best = int(np.argmax([likeness(seen, r, PALEST) for r in renderings]))
    lot = int(np.random.default_rng(seed).integers(len(scenes)))
    return best if likenesses[best] >= SHOWN else lot, likenesses


def kind(scene: Scene) -> str:
    if scene.relation:
        return "relation"
    if scene.count > 1:
        return "count"
    return "single" if scene.background == "white" else "background"


def answer(question: Question, picture: Image.Image) -> dict[str, Any]:
    """What the judge says of one picture."""
    choice, likenesses = judge(picture, question.candidates, question.judge_seed)
    chosen = question.candidates[choice]
    return {
        "prompt": question.prompt,
        "seed": question.seed,
        "kind": kind(question.scene),
        "key": question.scene.key,
        "chosen": chosen.key,
        "correct": chosen == question.scene,
        "likeness": round(likenesses[question.candidates.index(question.scene)], 4),
    }


def tally(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """accuracy with its 95 % interval, count, and the mean likeness of the pictures to their own scenes."""
    count, correct = len(answers), sum(a["correct"] for a in answers)
    return {
        "accuracy": correct / count,
        "interval": wilson(correct, count),
        "count": count,
        "likeness": round(sum(a["likeness"] for a in answers) / count, 4),
    }


def wilson(correct: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a binomial share; 95 % for z = 1.96 (Wilson 1927)."""
    centre = correct + z * z / 2
    half = z * math.sqrt(correct * (count - correct) / count + z * z / 4)
    return (centre - half) / (count + z * z), (centre + half) / (count + z * z)


def evaluate_prompts(draw: Draw, split: str, count: int, seed: int = 0, batch: int = 32) -> dict[str, Any]:
    """The share of prompts whose picture the judge takes for the scene that the prompt names, in 0..1.

    `draw(prompts, seeds)` is the model; it gets `batch` prompts at a time, and seed + i for the i-th. `split` is
    "single" (one emoji on white), "seen" or "heldout" (composed scenes that training may see, and that none may).
    Chance is 1 in CANDIDATES. Beside it stand its 95 % interval, the count, the mean likeness of the pictures to their
    own scenes (1 is equal; accuracy says "recognised", not "well drawn"), all that by kind, and every answer.
    Raises ValueError for an unknown split, a count below 1 or a negative seed.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")
    if count < 1 or seed < 0:
        raise ValueError(f"count {count} and seed {seed}; expected a count of 1 or more and a seed of 0 or more")
    questions = [question(split, seed, i) for i in range(count)]
    answers = []
    with tqdm(total=count, desc=f"{split} prompts", unit="picture", disable=None) as bar:
        for start in range(0, count, batch):
            part = questions[start : start + batch]
            pictures = draw([q.prompt for q in part], [q.seed for q in part])
            for asked, picture in zip(part, pictures, strict=True):
                answers.append(answer(asked, picture))
                bar.update()
    kinds = sorted({a["kind"] for a in answers})
    return {
        **tally(answers),
        "chance": 1 / CANDIDATES,
        "kinds": {name: tally([a for a in answers if a["kind"] == name]) for name in kinds},
        "settings": {"split": split, "seed": seed, "candidates": CANDIDATES, "renderings": RENDERINGS, "side": SIDE,
                     "blur": BLUR, "palest": PALEST, "shown": SHOWN},
        "pictures": answers,
    }  # fmt: skip
