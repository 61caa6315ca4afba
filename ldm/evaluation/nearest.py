"""Does a model draw what it was asked for, or what it has seen? The nearest training picture of each drawing.

    drawing of a held-out scene --nearest--> the picture of the training stream that is nearest to it, in dB
    true picture of it ---------nearest--> the same: what is normal

Pictures are compared when they are small, so that shapes count and grain does not. A model that has learnt by heart
draws nearer to pictures of its training than true pictures of the same held-out scenes are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ldm.data.emoji import EmojiScenes
from ldm.evaluation.fidelity import decibels
from ldm.evaluation.judging import small
from ldm.evaluation.questions import Draw, drawings, series

CHUNK = 500  # training pictures that are compared at a time
Nearest = tuple[int, float]  # index in the stream, PSNR in dB


def evaluate_nearest(
    draw: Draw, count: int = 32, seed: int = 0, among: int = 50_000, training_seed: int = 0, batch: int = 32
) -> tuple[dict[str, Any], list[list[Image.Image]]]:
    """Held-out prompts -> figures; and for each the drawing, the nearest training picture, a true one, its nearest.

    The figures are PSNRs in dB to the nearest of the first `among` scenes of the training stream of `training_seed`:
    means of drawings and of true pictures of the same scenes, and each one. `closer` is the share of drawings that are
    nearer to training than the true picture is. `draw(prompts, seeds)` is the model. ValueError for a count or `among`
    below 1, or a negative seed.
    """
    if among < 1 or training_seed < 0:
        raise ValueError(f"among {among} of training seed {training_seed}; expected 1 or more, of a seed of 0 or more")
    asked = series("heldout", count, seed)
    drawn = list(drawings(draw, asked, [q.prompt for q in asked], batch))
    true = [q.rendering(picture.width) for q, picture in zip(asked, drawn, strict=True)]
    stream = EmojiScenes(drawn[0].width, training_seed, "train")
    found = nearest(drawn + true, stream, among)
    pairs = list(zip(found[:count], found[count:], strict=True))
    rows = [
        {
            "prompt": q.prompt,
            "seed": q.seed,
            "key": q.scene.key,
            "drawn": told(stream, own),
            "true": told(stream, other),
        }
        for q, (own, other) in zip(asked, pairs, strict=True)
    ]
    result = {
        "drawn": float(np.mean([own[1] for own, _ in pairs])),
        "true": float(np.mean([other[1] for _, other in pairs])),
        "closer": float(np.mean([own[1] > other[1] for own, other in pairs])),
        "count": count,
        "settings": {"split": "heldout", "seed": seed, "among": among, "training_seed": training_seed},
        "pictures": rows,
    }
    shown = zip(drawn, true, pairs, strict=True)
    return result, [[own, stream[i][0], other, stream[j][0]] for own, other, ((i, _), (j, _)) in shown]


def told(stream: EmojiScenes, found: Nearest) -> dict[str, Any]:
    """The nearest training picture, for JSON."""
    return {"psnr": round(found[1], 2), "index": found[0], "key": stream.scene(found[0]).key}


def nearest(pictures: Sequence[Image.Image], stream: EmojiScenes, among: int) -> list[Nearest]:
    """Pictures -> the nearest to each of the first `among` of a stream."""
    own = flat(pictures)
    indices, errors = np.zeros(len(own), int), np.full(len(own), np.inf)
    for start in tqdm(range(0, among, CHUNK), desc="training pictures", unit="chunk", disable=None):
        others = flat([stream[i][0] for i in range(start, min(start + CHUNK, among))])
        closest = (np.square(others).sum(1) - 2 * own @ others.T).argmin(1)
        error = np.square(own - others[closest]).mean(1)
        indices = np.where(error < errors, start + closest, indices)
        errors = np.minimum(error, errors)
    return [(int(i), decibels(float(error))) for i, error in zip(indices, errors, strict=True)]


def flat(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Pictures of any size -> (N,F), small."""
    return small(pictures).reshape(len(pictures), -1)
