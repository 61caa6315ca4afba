"""Captions say one scene and no other: every wording is read back, by a grammar written apart."""

import re
from collections import Counter

import numpy as np
import pytest

from ldm.data.scenes import COLOURS, KINDS, Scene, random_scene, split_scene, vocabulary
from ldm.data.scenes.captions import NUMBERS, SIZES, WHERE, plural, with_article
from ldm.data.scenes.settings import SETTINGS
from ldm.data.scenes.vocabulary import TINTS, entries, synonyms, tints

SPOKEN = {word: name for name in vocabulary() for word in (name, *synonyms(name))}
MANY = {plural(word): name for word, name in SPOKEN.items()}
LINKED = [
    (r"(.+) to the left of (.+)", "left of", (1, 2)), (r"(.+) left of (.+)", "left of", (1, 2)),
    (r"(.+) to the right of (.+)", "left of", (2, 1)), (r"(.+) right of (.+)", "left of", (2, 1)),
    (r"(.+) and (.+)", "left of", (1, 2)), (r"(.+) (?:next to|beside) (.+)", "left of", (1, 2)),
    (r"(.+) on the left, (.+) on the right", "left of", (1, 2)),
    (r"(.+) (?:above|over|on top of) (.+)", "above", (1, 2)), (r"(.+) (?:below|under|beneath) (.+)", "above", (2, 1)),
    (r"(.+) at the top, (.+) at the bottom", "above", (1, 2)),
    (r"(.+), (.+) and (.+)", "row", (1, 2, 3)), (r"(.+), (.+), (.+)", "row", (1, 2, 3)),
    (r"(.+), then (.+), then (.+)", "row", (1, 2, 3)), (r"(.+) between (.+) and (.+)", "row", (2, 1, 3)),
    (r"(.+) on the left, (.+) in the middle, (.+) on the right", "row", (1, 2, 3)),
]  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wordings(scene: Scene, number: int = 300) -> Counter:
    stream = rng()
    return Counter(scene.caption(stream) for _ in range(number))


def readings(caption: str) -> set[Scene]:
    """Every scene that the caption could say."""
    opening = r"^(?:a picture of|a drawing of|an emoji of) "
    parted = grounds(caption.lower().removesuffix("."))
    return {scene for things, ground in parted for scene in scenes(re.sub(opening, "", things), **ground)}


def grounds(said: str) -> list[tuple[str, dict[str, str]]]:
    """Every way to part what there is from where it is."""
    found: list[tuple[str, dict[str, str]]] = [(said, {})]
    for colour in COLOURS:
        ground = rf"(?:an? )?{colour} background"
        for form in (rf"(.+) on {ground}", rf"on {ground}, (.+)", rf"(.+), {ground}", rf"{ground} with (.+)",
                     rf"(.+) against {ground}", rf"(.+) on {colour}"):  # fmt: skip
            found += [(match[1], {"background": colour}) for match in [re.fullmatch(form, said)] if match]
    for setting, places in WHERE.items():
        where = "|".join(places)
        for form in (rf"(.+?),? (?:{where})", rf"(?:{where}), (.+)"):
            found += [(match[1], {"setting": setting}) for match in [re.fullmatch(form, said)] if match]
    return found


def scenes(said: str, **ground: str) -> list[Scene]:
    """Every way to read what there is."""
    found = [Scene((name,), tints=(tint,), size=size, **ground) for name, tint, size in things(said, SPOKEN)]
    for count, word in NUMBERS.items():
        for number in (word, str(count)):
            if said.startswith(f"{number} "):
                named = things(said.removeprefix(f"{number} "), MANY)
                found += [
                    Scene((name,), count=count, tints=(tint,), **ground) for name, tint, size in named if not size
                ]
    for form, relation, order in LINKED:
        if match := re.fullmatch(form, said):
            parts = [[(name, tint) for name, tint, size in things(match[i], SPOKEN) if not size] for i in order]
            if all(len(part) == 1 for part in parts):
                names, paints = zip(*(part[0] for part in parts), strict=True)
                found.append(Scene(names, relation, tints=paints, **ground))
            assert all(len(part) <= 1 for part in parts), said
    return found


def things(said: str, names: dict[str, str]) -> list[tuple[str, str | None, str | None]]:
    """Every name, tint and size that a phrase could mean."""
    bare = re.sub(r"^an? ", "", said)
    sizes = {word: size for size, words in SIZES.items() for word in words}
    found = []
    for size_word in ("", *sizes):
        for tint in ("", *TINTS):
            start = "".join(f"{word} " for word in (size_word, tint) if word)
            name = names.get(bare.removeprefix(start)) if bare.startswith(start) else None
            if name and (not tint or tint in tints(name)):
                found.append((name, tint or None, sizes.get(size_word)))
    return found


def some_scenes(number: int = 400) -> list[Scene]:
    return [random_scene(rng(i), tuple(KINDS)[i % len(KINDS)]) for i in range(number)]


def test_every_wording_says_its_scene_and_no_other():
    for i, scene in enumerate(some_scenes(800)):
        stream = rng(i)
        for caption in {scene.caption(stream) for _ in range(6)}:
            assert readings(caption) == {scene}, caption


def test_no_two_scenes_share_a_caption():
    said: dict[str, str] = {}
    for i in range(8000):
        stream = rng(i)
        scene = split_scene(stream, ("train", "heldout")[i % 2])
        caption = scene.caption(stream).lower().removesuffix(".")
        assert said.setdefault(caption, scene.key) == scene.key, caption


@pytest.mark.parametrize(
    ("scene", "plain", "freer"),
    [
        (
            Scene(("red apple",)),
            {"a red apple", "a red apple on a white background"},
            {"apple", "Red apple.", "an emoji of a red apple"},
        ),
        (Scene(("umbrella",), size="small"), {"a small umbrella"}, {"a tiny umbrella", "little umbrella"}),
        (
            Scene(("cat face",), tints=("purple",)),
            {"a purple cat face", "a purple cat"},
            {"A purple kitten", "purple cat"},
        ),
        (
            Scene(("ship",), background="orange"),
            {"a ship on an orange background"},
            {
                "on an orange background, a ship",
                "ship, orange background",
                "orange background with a ship",
                "a ship on orange",
            },
        ),
        (
            Scene(("fox",), setting="snow"),
            {"a fox in the snow", "a fox on the snow"},
            {"in the snow, a fox", "fox in the snow"},
        ),
        (Scene(("strawberry",), count=5), {"five strawberries"}, {"5 strawberries", "Five strawberries."}),
        (
            Scene(("fox", "koala"), "left of"),
            {"a fox to the left of a koala", "a koala right of a fox"},
            {"a fox and a koala", "fox next to koala"},
        ),
        (
            Scene(("fox", "koala"), "above"),
            {"a fox above a koala", "a koala under a fox"},
            {"a fox on top of a koala", "a koala beneath a fox"},
        ),
        (
            Scene(("fox", "koala", "ant"), "row"),
            {"a fox, a koala and an ant", "a koala between a fox and an ant"},
            {"a fox on the left, a koala in the middle, an ant on the right"},
        ),
    ],
    ids=lambda value: value.key if isinstance(value, Scene) else "",
)
def test_wordings(scene, plain, freer):
    said = wordings(scene, 3000)
    assert plain | freer <= set(said)
    assert min(said[caption] for caption in plain) > max(said[caption] for caption in freer)


def test_most_captions_are_plain():
    """Of a thing on a colour: its name, an article, a place said last, and nothing else."""
    share = np.mean(
        [
            scene.caption(rng(i)) == f"{with_article(scene.objects[0])} on {with_article(scene.background)} background"
            for i in range(2000)
            for scene in [Scene((vocabulary()[i % len(vocabulary())],), background=tuple(COLOURS)[i % 10])]
        ]
    )
    assert 0.55 < share < 0.7


def test_everything_that_can_be_drawn_can_be_said():
    assert WHERE.keys() == SETTINGS.keys()
    assert set(TINTS) <= set(COLOURS)


def test_every_word_means_one_thing():
    words = [word for name in vocabulary() for word in (name, *synonyms(name))]
    assert len(set(words)) == len(words) == len({plural(word) for word in words})
    taken = {"a", "an", *COLOURS, *NUMBERS.values(), *(word for sizes in SIZES.values() for word in sizes)}
    for name, (own, others) in entries().items():
        assert set(own) <= {*TINTS, "any"}
        for word in others:
            assert taken.isdisjoint(word.split()), word
        assert name.split()[0] not in taken - set(COLOURS) - {"four"}


def test_what_has_its_colour_in_its_name_or_no_colour_of_its_own_takes_no_tint():
    assert tints("red apple") == tints("black cat") == tints("rainbow") == ()
    assert "purple" in tints("cat face") and "orange" not in tints("cat face")
    assert len([name for name in vocabulary() if len(tints(name)) >= 4]) > 170


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("airplane", "an airplane", "airplanes"),
        ("unicorn", "a unicorn", "unicorns"),
        ("hourglass done", "an hourglass done", "hourglasses done"),
        ("grapes", "grapes", "grapes"),
        ("wine glass", "a wine glass", "wine glasses"),
        ("glass of wine", "a glass of wine", "glasses of wine"),
        ("pair of scissors", "a pair of scissors", "pairs of scissors"),
        ("purple scissors", "purple scissors", "purple scissors"),
        ("cactus", "a cactus", "cactuses"),
        ("strawberry", "a strawberry", "strawberries"),
        ("orange strawberry", "an orange strawberry", "orange strawberries"),
        ("monkey", "a monkey", "monkeys"),
        ("mouse", "a mouse", "mice"),
        ("fox", "a fox", "foxes"),
        ("tomato", "a tomato", "tomatoes"),
        ("burrito", "a burrito", "burritos"),
        ("wolf", "a wolf", "wolves"),
        ("loaf of bread", "a loaf of bread", "loaves of bread"),
        ("deer", "a deer", "deer"),
        ("spaceman", "a spaceman", "spacemen"),
        ("game die", "a game die", "game dice"),
        ("ear of corn", "an ear of corn", "ears of corn"),
        ("snowman without snow", "a snowman without snow", "snowmen without snow"),
        ("smiling face with sunglasses", "a smiling face with sunglasses", "smiling faces with sunglasses"),
    ],
)
def test_articles_and_plurals(name, one, many):
    assert with_article(name) == one
    assert plural(name) == many
