"""Random scenes by their kinds and shares, the splits of training and evaluation, and what a scene is mistaken for."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import TypeVar

import numpy as np

from ldm.data.scenes.captions import NUMBERS
from ldm.data.scenes.scene import Scene
from ldm.data.scenes.settings import SETTINGS
from ldm.data.scenes.vocabulary import COLOURS, tints, vocabulary

KINDS = {
    "single": 0.33,  # one emoji as it is, on white
    "sized": 0.05,  # small or large
    "tinted": 0.10,  # in another colour
    "background": 0.10,  # on a colour
    "setting": 0.10,  # on the grass, in the snow ...
    "count": 0.12,  # two to five
    "relation": 0.15,  # two, one left of or above the other
    "row": 0.05,  # three, from left to right
}  # shares in training
TINTED = {"single": 0.0, "tinted": 1.0}  # the share of objects in another colour, by kind
GROUNDS = {
    "single": (0.0, 0.0),
    "background": (1.0, 0.0),
    "setting": (0.0, 1.0),
}  # the shares on a colour, in a setting
OFTEN_TINTED, OFTEN_GROUNDS = 0.15, (0.2, 0.1)  # the same of all other kinds
COMPOSED = tuple(kind for kind in KINDS if kind not in ("single", "sized"))  # what "seen" and "heldout" ask

T = TypeVar("T")


def random_scene(rng: np.random.Generator, kind: str) -> Scene:
    """A scene of one of KINDS, held out or not."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scene {kind!r}; expected one of {', '.join(KINDS)}")
    background, setting = random_ground(rng, kind)
    objects, paints = random_objects(rng, kind, background)
    relation = {"relation": one_of(("left of", "above"), rng), "row": "row"}.get(kind)
    count = one_of(tuple(NUMBERS), rng) if kind == "count" else 1
    size = one_of(("small", "large"), rng) if kind == "sized" else None
    return Scene(objects, relation, count, size, background, setting, paints)


def random_ground(rng: np.random.Generator, kind: str) -> tuple[str, str | None]:
    """A background and a setting, of which at most one is other than white and None."""
    on_colour, in_setting = GROUNDS.get(kind, OFTEN_GROUNDS)
    lot = rng.random()
    if lot < on_colour:
        return one_of([colour for colour in COLOURS if colour != "white"], rng), None
    return "white", one_of(tuple(SETTINGS), rng) if lot < on_colour + in_setting else None


def random_objects(
    rng: np.random.Generator, kind: str, background: str
) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Different names and their tints, none in the background's own colour."""
    names = [name for name in vocabulary() if kind != "tinted" or tints(name)]
    number = {"relation": 2, "row": 3}.get(kind, 1)
    objects = tuple(names[i] for i in rng.choice(len(names), number, replace=False))
    paints = []
    for name in objects:
        choices = [tint for tint in tints(name) if tint != background]
        wanted = rng.random() < TINTED.get(kind, OFTEN_TINTED)
        paints.append(one_of(choices, rng) if wanted and choices else None)
    return objects, tuple(paints)


def one_of(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def split_scene(rng: np.random.Generator, split: str) -> Scene:
    """A scene of a split: "single" (one emoji on white), "seen" or "heldout" (composed; in or out of training),
    or "train" (the mixture that training sees)."""
    if split == "single":
        return random_scene(rng, "single")
    if split not in ("train", "seen", "heldout"):
        raise ValueError(f"unknown split {split!r}; expected single, seen, heldout or train")
    kinds = tuple(KINDS) if split == "train" else COMPOSED
    shares = np.array([KINDS[kind] for kind in kinds])
    while True:
        scene = random_scene(rng, kinds[rng.choice(len(kinds), p=shares / shares.sum())])
        if scene.held_out == (split == "heldout"):
            return scene


def variants(scene: Scene) -> dict[str, list[Scene]]:
    """The scenes that differ from this one in one named respect, of those a listener could confuse it with.

    "object", "relation", "colour" (of the background), "tint" (of the objects), "count" and "setting"; a respect is
    empty where it does not apply: two objects in a relation have no count, a setting has no other colour.
    """
    counts = (1, *NUMBERS) if scene.relation is None and scene.size is None else (1,)
    colours = tuple(COLOURS) if scene.setting is None else ("white",)
    settings = (None, *SETTINGS) if scene.background == "white" else (None,)
    return {
        "object": other_objects(scene),
        "relation": other_arrangements(scene),
        "colour": [replace(scene, background=colour) for colour in colours if colour != scene.background],
        "tint": other_tints(scene),
        "count": [replace(scene, count=count) for count in counts if count != scene.count],
        "setting": [replace(scene, setting=setting) for setting in settings if setting != scene.setting],
    }


def other_objects(scene: Scene) -> list[Scene]:
    """One object is another, which can have the same tint."""
    return [
        replace(scene, objects=(*scene.objects[:i], name, *scene.objects[i + 1 :]))
        for i, tint in enumerate(scene.tints)
        for name in vocabulary()
        if name not in scene.objects and (tint is None or tint in tints(name))
    ]


def other_arrangements(scene: Scene) -> list[Scene]:
    """The same objects, each in its tint, in all other orders and relations."""
    relations = ("left of", "above") if len(scene.objects) == 2 else (scene.relation,)
    orders = list(permutations(range(len(scene.objects))))
    arranged = [
        replace(
            scene,
            relation=relation,
            objects=tuple(scene.objects[i] for i in order),
            tints=tuple(scene.tints[i] for i in order),
        )
        for relation in relations
        for order in orders
    ]
    return [other for other in arranged if other != scene]


def other_tints(scene: Scene) -> list[Scene]:
    """One object is in another tint, or the objects have exchanged theirs."""
    able = [(None, *tints(name)) for name in scene.objects]
    repainted = [(*scene.tints[:i], tint, *scene.tints[i + 1 :]) for i, choices in enumerate(able) for tint in choices]
    exchanged = [
        paints
        for paints in permutations(scene.tints)
        if all(p in choices for p, choices in zip(paints, able, strict=True))
    ]
    return [replace(scene, tints=paints) for paints in dict.fromkeys(repainted + exchanged) if paints != scene.tints]
