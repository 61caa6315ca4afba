"""Emoji scenes: a structure -> a picture and its captions, drawn from the sprite sheet.

    Scene --caption(rng)--> "two red apples on a blue background"
          --draw(rng)-----> RGB picture, with jitter in place and size
          --key-----------> the one name of the scene, whichever words describe it

A scene is one emoji (normal, small or large), two to four of one kind, or two kinds in a relation; each on white or on
one of ten colours. About a tenth of the composed scenes are held out of every training, by the hash of their key.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm.data import sprites
from ldm.data.items import Item

COLOURS = {
    "red": (214, 48, 49), "orange": (245, 146, 40), "yellow": (250, 218, 80), "green": (70, 160, 80),
    "blue": (60, 110, 215), "purple": (130, 75, 185), "pink": (250, 165, 195), "brown": (130, 90, 60),
    "grey": (150, 150, 150), "black": (25, 25, 25), "white": (255, 255, 255),
}  # fmt: skip
SIZES = {"small": (0.34, 0.44), None: (0.62, 0.74), "large": (0.86, 0.96)}  # of the picture's side
SEVERAL = (0.38, 0.46)  # the same for each object where there are several
JITTER = 0.04  # how far an object's centre may lie from its place, of the picture's side
PLACES = {
    ("left of", 1): [(0.27, 0.5), (0.73, 0.5)],
    ("above", 1): [(0.5, 0.27), (0.5, 0.73)],
    (None, 1): [(0.5, 0.5)],
    (None, 2): [(0.27, 0.5), (0.73, 0.5)],
    (None, 3): [(0.5, 0.27), (0.27, 0.73), (0.73, 0.73)],
    (None, 4): [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)],
}  # centres (x, y), of the picture's side
NUMBERS = {2: "two", 3: "three", 4: "four"}
WORDINGS = {
    "left of": (("to the left of", "left of"), ("to the right of", "right of")),
    "above": (("above",), ("below", "under")),
}  # relation: as it stands, and as said from the other object
PLURALS = {
    r"(fish|deer)$": r"\1", r"man$": "men", r"die$": "dice", r"(ea|l)f$": r"\1ves", r"([^aeiou])y$": r"\1ies",
    r"(s|sh|ch|x|ato|mosquito)$": r"\1es", r"$": "s",
}  # the first ending that fits: what stands in its place  # fmt: skip
KINDS = {"single": 0.34, "sized": 0.06, "background": 0.275, "count": 0.15, "relation": 0.175}  # shares in training


@cache
def vocabulary() -> tuple[str, ...]:
    """The names that scenes are made of: a few hundred common emoji out of `sprites.names()`."""
    return tuple(Path(__file__).with_name("vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1])


@dataclass(frozen=True)
class Scene:
    """One object, `count` of them, or two with objects[0] `relation` objects[1]; on a background colour.

    `relation` is None, "left of" or "above": the two others are these, said from the other object.
    `size` is None, "small" or "large" and goes with a single object.
    """

    objects: tuple[str, ...]
    relation: str | None = None
    count: int = 1
    size: str | None = None
    background: str = "white"

    @property
    def key(self) -> str:
        """The canonical name: `part:value` for each part that is not the default, sorted, joined by "; "."""
        roles = {None: ("object",), "left of": ("left", "right"), "above": ("bottom", "top")}[self.relation]
        names = self.objects[::-1] if self.relation == "above" else self.objects
        parts = [f"{role}:{name}" for role, name in zip(roles, names, strict=True)]
        parts += [f"background:{self.background}"] if self.background != "white" else []
        parts += [f"count:{self.count}"] if self.count > 1 else []
        parts += [f"size:{self.size}"] if self.size else []
        return "; ".join(sorted(parts))

    @property
    def composed(self) -> bool:
        return self.relation is not None or self.count > 1 or self.background != "white"

    @property
    def held_out(self) -> bool:
        """Whether no training may see this scene: about a tenth of the composed ones."""
        return self.composed and int(hashlib.sha256(self.key.encode()).hexdigest()[:2], 16) < 26

    def caption(self, rng: np.random.Generator) -> str:
        """One of the scene's wordings."""
        if self.relation:
            straight, turned = WORDINGS[self.relation]
            (first, second), words = (self.objects, straight) if rng.random() < 0.5 else (self.objects[::-1], turned)
            phrase = f"{with_article(first)} {words[rng.integers(len(words))]} {with_article(second)}"
        elif self.count > 1:
            phrase = f"{NUMBERS[self.count]} {plural(self.objects[0])}"
        else:
            phrase = with_article(f"{self.size} {self.objects[0]}" if self.size else self.objects[0])
        said = self.background != "white" or rng.random() < 0.1
        return f"{phrase} on {with_article(self.background)} background" if said else phrase

    def draw(self, rng: np.random.Generator, side: int = 64) -> Image.Image:
        """RGB picture, `side` x `side`."""
        picture = Image.new("RGB", (side, side), COLOURS[self.background])
        places = PLACES[self.relation, self.count]
        low, high = SIZES[self.size] if len(places) == 1 else SEVERAL
        for name, (x, y) in zip(self.objects * self.count, places, strict=True):
            width = round(side * rng.uniform(low, high))
            room = max(0.0, min(JITTER, 0.5 - width / side / 2))
            dx, dy = rng.uniform(-room, room, 2)
            sprite = scaled_sprite(name, width)
            picture.paste(sprite, (round((x + dx) * side - width / 2), round((y + dy) * side - width / 2)), sprite)
        return picture


def with_article(phrase: str) -> str:
    """ "red apple" -> "a red apple"; what is a plural already ("grapes") takes none."""
    if is_plural(phrase):
        return phrase
    vowel = phrase[0].lower() in "aeiou" and not phrase.startswith(("uni", "eu"))
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"


def plural(name: str) -> str:
    """ "strawberry" -> "strawberries", "snowman without snow" -> "snowmen without snow"."""
    head, tail = head_and_tail(name)
    if not is_plural(head):
        head = next(re.sub(ending, many, head) for ending, many in PLURALS.items() if re.search(ending, head))
    return head + tail


def is_plural(phrase: str) -> bool:
    head = head_and_tail(phrase)[0]
    return head.endswith("s") and not head.endswith(("ss", "us", "os"))


def head_and_tail(phrase: str) -> tuple[str, str]:
    """ "ear of corn" -> "ear", " of corn": the words that number and article belong to, and what hangs on them."""
    head = re.split(r" (?:of|with|without|done)\b", phrase, maxsplit=1)[0]
    return head, phrase.removeprefix(head)


@lru_cache(maxsize=20_000)
def scaled_sprite(name: str, width: int) -> Image.Image:
    return sprites.sprite(name).resize((width, width), Image.Resampling.LANCZOS)


def random_scene(rng: np.random.Generator, kind: str) -> Scene:
    """A scene of one of KINDS, held out or not."""
    names = vocabulary()
    first, second = (names[i] for i in rng.choice(len(names), 2, replace=False))
    colour = list(COLOURS)[rng.integers(len(COLOURS) - 1)]  # the last is white
    maybe = colour if rng.random() < 0.25 else "white"
    match kind:
        case "single":
            return Scene((first,))
        case "sized":
            return Scene((first,), size=("small", "large")[rng.integers(2)], background=maybe)
        case "background":
            return Scene((first,), background=colour)
        case "count":
            return Scene((first,), count=int(rng.integers(2, 5)), background=maybe)
        case "relation":
            return Scene((first, second), relation=("left of", "above")[rng.integers(2)], background=maybe)
    raise ValueError(f"unknown kind of scene {kind!r}; expected one of {', '.join(KINDS)}")


def split_scene(rng: np.random.Generator, split: str) -> Scene:
    """A scene of a split: "single" (one emoji on white), "seen" or "heldout" (composed; in or out of training),
    or "train" (the mixture that training sees)."""
    if split == "single":
        return random_scene(rng, "single")
    if split not in ("train", "seen", "heldout"):
        raise ValueError(f"unknown split {split!r}; expected single, seen, heldout or train")
    kinds = list(KINDS) if split == "train" else ["background", "count", "relation"]
    shares = np.array([KINDS[kind] for kind in kinds])
    while True:
        scene = random_scene(rng, kinds[rng.choice(len(kinds), p=shares / shares.sum())])
        if scene.held_out == (split == "heldout"):
            return scene


class EmojiScenes:
    """An endless, indexable stream of (picture, caption) in which item i depends on (seed, i) alone."""

    def __init__(self, side: int = 64, seed: int = 0, split: str = "train", length: int = 1_000_000):
        self.side, self.seed, self.split, self.length = side, seed, split, length

    def __len__(self) -> int:
        return self.length

    def rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, i))

    def scene(self, i: int) -> Scene:
        return split_scene(self.rng(i), self.split)

    def __getitem__(self, i: int) -> Item:
        rng = self.rng(i)
        scene = split_scene(rng, self.split)
        return Item(scene.draw(rng, self.side), scene.caption(rng))

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(self.length))

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        return {"kind": "emoji", "side": self.side, "seed": self.seed, "split": self.split, "pictures": self.length}


def variants(scene: Scene) -> dict[str, list[Scene]]:
    """The scenes that differ from this one in one named respect, of those a listener could confuse it with."""
    others: dict[str, list[Scene]] = {"object": [], "relation": [], "colour": [], "count": []}
    for name in vocabulary():
        if name not in scene.objects:
            others["object"] += [
                replace(scene, objects=scene.objects[:i] + (name,) + scene.objects[i + 1 :])
                for i in range(len(scene.objects))
            ]
    if scene.relation:
        turned = "above" if scene.relation == "left of" else "left of"
        swapped = scene.objects[::-1]
        others["relation"] = [
            replace(scene, objects=swapped),
            replace(scene, relation=turned),
            replace(scene, relation=turned, objects=swapped),
        ]
    else:
        others["count"] = [replace(scene, count=n, size=None) for n in (1, *NUMBERS) if n != scene.count]
    others["colour"] = [replace(scene, background=colour) for colour in COLOURS if colour != scene.background]
    return others
