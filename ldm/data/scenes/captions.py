"""A scene in the words that people would type: its plain wording most of the time, and freer ones."""

import re
from typing import TYPE_CHECKING

import numpy as np

from ldm.data.scenes.vocabulary import synonyms

if TYPE_CHECKING:
    from ldm.data.scenes.scene import Scene

Ways = tuple[tuple[str, ...], tuple[str, ...]]  # the plain wordings, and the freer ones

PLAIN = 0.75  # the share of captions in plain wording
NAMED = 0.65  # the share of things that are called by their first name, not by another
WHITE = 0.1  # the share of captions that mention a white background
BARE, DIGITS, OPENED, RAISED, STOPPED = 0.4, 0.4, 0.2, 0.4, 0.4  # shares of the freer captions

LINKS: dict[str, Ways] = {
    "left of": (
        ("{0} to the left of {1}", "{0} left of {1}", "{1} to the right of {0}", "{1} right of {0}"),
        ("{0} and {1}", "{0} next to {1}", "{0} beside {1}", "{0} on the left, {1} on the right"),
    ),
    "above": (
        ("{0} above {1}", "{1} below {0}", "{1} under {0}"),
        ("{0} over {1}", "{0} on top of {1}", "{1} beneath {0}", "{0} at the top, {1} at the bottom"),
    ),
    "row": (
        ("{0}, {1} and {2}", "{1} between {0} and {2}"),
        ("{0}, {1}, {2}", "{0}, then {1}, then {2}", "{0} on the left, {1} in the middle, {2} on the right"),
    ),
}  # without a hint, what is said first stands on the left
ON_COLOUR: Ways = (
    ("{things} on {a_background}",),
    (
        "on {a_background}, {things}",
        "{things}, {background}",
        "{background} with {things}",
        "{things} against {a_background}",
        "{things} on {colour}",
    ),
)
IN_SETTING: Ways = (("{things} {where}",), ("{where}, {things}", "{things}, {where}"))
WHERE = {
    "grass": ("on the grass", "in a meadow", "on a lawn"),
    "beach": ("on the beach", "at the beach", "on the sand"),
    "snow": ("in the snow", "on the snow"),
    "night sky": ("in the night sky", "at night", "under the stars"),
    "sea": ("in the sea", "in the ocean", "in the water"),
    "table": ("on a table", "on the table", "on a wooden table"),
    "road": ("on the road", "on a road", "on the street"),
    "sky": ("in the sky", "in the clouds", "up in the sky"),
}
SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
OPENINGS = ("a picture of", "a drawing of", "an emoji of")
PLURALS = {
    r"(fish|deer)$": r"\1", r"man$": "men", r"mouse$": "mice", r"die$": "dice", r"(ea|oa|l)f$": r"\1ves",
    r"([^aeiou])y$": r"\1ies", r"(s|sh|ch|x|ato|mosquito)$": r"\1es", r"$": "s",
}  # the first ending that fits: what stands in its place  # fmt: skip


def caption(scene: "Scene", rng: np.random.Generator) -> str:
    """One of the scene's wordings."""
    free = rng.random() >= PLAIN
    bare = free and rng.random() < BARE
    things, where = phrase(scene, rng, free, bare), located(scene, rng, free)
    if free and not bare and where.startswith("{things}") and rng.random() < OPENED:
        things = f"{OPENINGS[rng.integers(len(OPENINGS))]} {things}"
    return dressed(where.format(things=things), rng) if free else where.format(things=things)


def phrase(scene: "Scene", rng: np.random.Generator, free: bool, bare: bool) -> str:
    """What there is: "two purple cats", "a dog between a small cat and a tulip"."""
    things = [described(scene, i, rng) for i in range(len(scene.objects))]
    if scene.count > 1:
        number = str(scene.count) if free and rng.random() < DIGITS else NUMBERS[scene.count]
        return f"{number} {plural(things[0])}"
    if not bare:
        things = [with_article(thing) for thing in things]
    return worded(LINKS[scene.relation], rng, free).format(*things) if scene.relation else things[0]


def described(scene: "Scene", i: int, rng: np.random.Generator) -> str:
    """Object i: "tiny purple cat"."""
    name, tint = scene.objects[i], scene.tints[i]
    size = called(SIZES[scene.size], rng) if scene.size else None
    return " ".join(word for word in (size, tint, called((name, *synonyms(name)), rng)) if word)


def located(scene: "Scene", rng: np.random.Generator, free: bool) -> str:
    """Where it is: "{things} on a blue background", "in the snow, {things}"."""
    if scene.setting:
        where = called(WHERE[scene.setting], rng)
        return worded(IN_SETTING, rng, free).format(things="{things}", where=where)
    if scene.background == "white" and rng.random() >= WHITE:
        return "{things}"
    background = f"{scene.background} background"
    return worded(ON_COLOUR, rng, free).format(
        things="{things}", colour=scene.background, background=background, a_background=with_article(background)
    )


def dressed(sentence: str, rng: np.random.Generator) -> str:
    """With a capital or a full stop, or without."""
    raised, stopped = rng.random(2) < (RAISED, STOPPED)
    return (sentence[0].upper() + sentence[1:] if raised else sentence) + ("." if stopped else "")


def called(names: tuple[str, ...], rng: np.random.Generator) -> str:
    """The first of the names mostly, else one of the others."""
    others = names[1:]
    return others[rng.integers(len(others))] if others and rng.random() >= NAMED else names[0]


def worded(ways: Ways, rng: np.random.Generator, free: bool) -> str:
    """One of the plain ways to say it, or of all."""
    plain, freer = ways
    wordings = plain + freer if free else plain
    return wordings[rng.integers(len(wordings))]


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
