"""What a model is asked: a prompt, the scene that it names, and the scenes that this could be mistaken for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ldm.data.scenes import Scene, split_scene, variants

SPLITS = ("single", "seen", "heldout")
CANDIDATES = 32
STATED, UNSTATED = 10, 4  # candidates at most that differ in what a scene states, and in what it leaves as it is

Draw = Callable[[list[str], list[int]], list[Image.Image]]  # prompts, seeds -> pictures


@dataclass(frozen=True)
class Question:
    """A prompt, the seed to draw it with, the scene that it names, and the scenes among which it is judged.

    `alone` has, for each respect in which the scene says something, the scene and those of the candidates that differ
    from it there and nowhere else: so a picture that is wrong elsewhere too may be taken for none of them.
    """

    prompt: str
    seed: int
    scene: Scene
    candidates: list[Scene]
    alone: dict[str, list[Scene]]
    judge_seed: int

    def rendering(self, side: int) -> Image.Image:
        """A true picture of the scene, `side` x `side`."""
        return self.scene.draw(np.random.default_rng((self.judge_seed, 1)), side)


def question(split: str, seed: int, i: int) -> Question:
    """Question i of a series; depends on (split, seed, i) alone."""
    rng = np.random.default_rng((seed, i))
    return about(split_scene(rng, split), seed + i, rng)


def about(scene: Scene, seed: int, rng: np.random.Generator) -> Question:
    """A question that the scene answers, to be drawn with `seed`."""
    prompt, candidates = scene.caption(rng), among(scene, rng)
    return Question(prompt, seed, scene, candidates, alone(scene, candidates), int(rng.integers(2**32)))


def series(split: str, count: int, seed: int) -> list[Question]:
    """The first questions of a series.

    `split` is "single" (one emoji on white), "seen" or "heldout" (composed scenes that training may see, and that none
    may). ValueError for another, a count below 1 or a negative seed.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")
    if count < 1 or seed < 0:
        raise ValueError(f"count {count} and seed {seed}; expected a count of 1 or more and a seed of 0 or more")
    return [question(split, seed, i) for i in range(count)]


def drawings(draw: Draw, asked: Sequence[Question], prompts: Sequence[str], batch: int) -> Iterator[Image.Image]:
    """The model's picture of each prompt, drawn `batch` at a time with the seeds of the questions."""
    with tqdm(total=len(asked), desc="prompts", unit="picture", disable=None) as bar:
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            pictures = draw(list(prompts[start : start + batch]), [q.seed for q in part])
            for _, picture in zip(part, pictures, strict=True):
                yield picture
                bar.update()


def among(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """The scene among CANDIDATES different ones, in random order.

    Of those that differ from it in a respect that it states all are there (ten at most), so that a picture with any of
    these wrong is judged wrong; of those that add what it does not state, four; the rest differ in one object.
    """
    pools, said = variants(scene), stated(scene)
    scenes = [scene]
    for respect, others in pools.items():
        if respect != "object":
            scenes += some(others, STATED if respect in said else UNSTATED, rng)
    scenes += some(pools["object"], CANDIDATES - len(scenes), rng)
    return some(scenes, CANDIDATES, rng)


def some(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[Scene]:
    """`count` of the scenes in random order; all of them where there are fewer."""
    return [scenes[i] for i in rng.permutation(len(scenes))[:count]]


def alone(scene: Scene, candidates: Sequence[Scene]) -> dict[str, list[Scene]]:
    """Respect -> the scene and the candidates that differ from it there, in their order."""
    pools = {respect: {scene, *others} for respect, others in variants(scene).items() if respect in stated(scene)}
    return {respect: [other for other in candidates if other in pool] for respect, pool in pools.items()}


def stated(scene: Scene) -> set[str]:
    """The respects in which a scene says something; of its objects it always does."""
    says = {
        "object": True, "relation": scene.relation is not None, "colour": scene.background != "white",
        "tint": any(scene.tints), "count": scene.count > 1, "setting": scene.setting is not None,
    }  # fmt: skip
    return {respect for respect, said in says.items() if said}


def kind(scene: Scene) -> str:
    """The kind of scene that it is, by the first that holds."""
    if scene.relation:
        return "row" if scene.relation == "row" else "relation"
    kinds = {
        "count": scene.count > 1, "setting": scene.setting, "background": scene.background != "white",
        "tinted": any(scene.tints), "sized": scene.size,
    }  # fmt: skip
    return next((name for name, holds in kinds.items() if holds), "single")
