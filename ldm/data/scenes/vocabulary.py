"""What there is to draw, what people call it, and the colours that it may have: vocabulary.txt, read."""

import re
from functools import cache
from pathlib import Path

COLOURS = {
    "red": (214, 48, 49), "orange": (245, 146, 40), "yellow": (250, 218, 80), "green": (70, 160, 80),
    "blue": (60, 110, 215), "purple": (130, 75, 185), "pink": (250, 165, 195), "brown": (130, 90, 60),
    "grey": (150, 150, 150), "black": (25, 25, 25), "white": (255, 255, 255),
}  # of backgrounds  # fmt: skip
TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")  # of objects
LINE = re.compile(r"(?P<name>[^(:]+?)(?: \((?P<own>[^)]+)\))?(?:: (?P<others>.+))?")


@cache
def entries() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """name -> (the colours that it has already, what else it is called)."""
    lines = Path(__file__).with_name("vocabulary.txt").read_text(encoding="utf-8").splitlines()
    found = [entry for line in lines if not line.startswith("#") and (entry := LINE.fullmatch(line))]
    return {entry["name"]: (listed(entry["own"]), listed(entry["others"])) for entry in found}


def listed(words: str | None) -> tuple[str, ...]:
    return tuple(words.split(", ")) if words else ()


@cache
def vocabulary() -> tuple[str, ...]:
    """The names that scenes are made of: a few hundred common emoji out of `sprites.names()`."""
    return tuple(entries())


def synonyms(name: str) -> tuple[str, ...]:
    """What else people call it: "dog face" -> "dog", "puppy"."""
    return entries().get(name, ((), ()))[1]


@cache
def tints(name: str) -> tuple[str, ...]:
    """The colours that it can be painted in and looks another for: none for "rainbow", nor for "red apple"."""
    own = entries().get(name, ((), ()))[0]
    if "any" in own or not COLOURS.keys().isdisjoint(name.split()):
        return ()
    return tuple(tint for tint in TINTS if tint not in own)
