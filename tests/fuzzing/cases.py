"""Which damage: drawn by hypothesis, and numbered, so that any of it comes again.

Hypothesis likes ends of ranges, NaN, and small numbers, which is where readers err; in a test it also finds the least
damage that still does harm. A number means the same as long as the loaders' files and hypothesis stay the same.
"""

import json
import zlib
from collections.abc import Mapping
from functools import cache
from itertools import count as count_from
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from fuzzing.loaders import LOADERS, Loader, folder_of
from fuzzing.shells import inside, shell_of
from fuzzing.steps import STEPS

BLOCK = 100  # cases that hypothesis draws in one go
ALONE: Any = {"database": None, "deadline": None, "suppress_health_check": HealthCheck}  # the same wherever it runs
MISLEADING = ["\0", '"', "'", ",", "\n", "\r", "\ufeff", "\ud800", "--", " --count 1000000000", "9" * 30, "9" * 5000]

places = st.integers(0, 64) | st.integers(0, 2**20)
lengths = st.integers(1, 16) | st.integers(1, 4096)
EXTREME = [0, 1, -1, 2**7, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
numbers = st.sampled_from(EXTREME) | st.integers(0, 2**64 - 1)
DOCUMENTS = [
    "null", "true", "[]", "{}", '""', "0", "-1", "1", "2", "1.5", "1e400", "NaN", "-Infinity", "65536",
    "1000000000", "9" * 5000, "[" * 100_000 + "]" * 100_000, "[[]]", '[1, "a", null]', '{"a": {"a": []}}',
    '"\\ud800"', '"\\u0000"', '"../../x"', '"/"', '"."', json.dumps("x" * 5000), "[" + "1," * 5000 + "1]",
    "", "{", "'a'",
    '"F32"', '"I32"', '"F16"', '"BF16"', '"I64"', '"F8_E4M3"', '"C64"', "[1, 1, 1, 1]", "[0]", "[-1]",
    "[9223372036854775807]",
]  # fmt: skip
documents = st.sampled_from(DOCUMENTS) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
ENCODINGS = ["utf-16", "utf-8-sig", "latin-1", "utf-32", "utf-7", "cp037"]


class Step(NamedTuple):
    """A damage by name, what it is told, and in which part of the content; None: in the content as it is."""

    how: str
    told: tuple[Any, ...]
    part: int | None = None


class Case(NamedTuple):
    """A loader's file, and what is done to it."""

    loader: str
    file: str
    steps: tuple[Step, ...]

    def content(self, whole: bytes) -> bytes:
        """The whole file's content -> what the loader is given."""
        for how, told, part in self.steps:
            damage = STEPS[how]
            if part is None:
                whole = damage(whole, *told)
            else:
                whole = inside(whole, part, lambda piece, damage=damage, told=told: damage(piece, *told))
        return whole


def _step(how: str, *told: Any, part: st.SearchStrategy[int | None] = st.none()) -> st.SearchStrategy[Step]:  # noqa: B008
    return st.builds(Step, st.just(how), st.tuples(*told), part)


def bytewise(part: st.SearchStrategy[int | None] = st.none()) -> st.SearchStrategy[Step]:  # noqa: B008
    blocks = st.binary(min_size=1, max_size=64)
    widths, orders = st.sampled_from([1, 2, 4, 8]), st.sampled_from(["little", "big"])
    return st.one_of(
        _step("flipped", places, st.integers(0, 7), part=part),
        _step("cut", places, part=part),
        _step("zeroed", places, lengths, part=part),
        _step("written", places, blocks, part=part),
        _step("numbered", places, numbers, widths, orders, part=part),
        _step("inserted", places, blocks, part=part),
        _step("removed", places, lengths, part=part),
        _step("repeated", places, lengths, st.integers(2, 200), part=part),
        _step("swapped", places, lengths, part=part),
    )


def kinds_of(name: str, content: bytes) -> list[st.SearchStrategy[Step]]:
    """Kinds of damage that go with a file: to its bytes, and to what its format puts on top of them.

    A kind that stands there more often is drawn more often. They are not mixed: a document that has lost a byte is no
    JSON any more, and no other damage to it would be seen.
    """
    texts = st.sampled_from(MISLEADING) | st.text(min_size=1, max_size=20)
    textual = _step("inserted", places, texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
    coded = _step("recoded", st.sampled_from(ENCODINGS))
    if Path(name).suffix in (".json", ".jsonl"):
        return [*[documented()] * 5, textual | coded, bytewise()]
    if Path(name).suffix in (".csv", ".txt", ".yaml"):
        return [textual, textual, coded, bytewise()]
    if content[8:9] == b"{":
        return [*[documented(st.just(0))] * 3, bytewise(), bytewise(st.integers(0, 1))]
    return [bytewise(), bytewise(st.integers(0, 40))] if shell_of(content) else [bytewise()]


def documented(part: st.SearchStrategy[int | None] = st.none()) -> st.SearchStrategy[Step]:  # noqa: B008
    changed = _step("valued", places, documents | st.none(), part=part)
    return changed | _step("borrowed", places, places, part=part)


def cases(loader: Loader, whole: Mapping[str, bytes]) -> st.SearchStrategy[Case]:
    """A loader, its whole files by name -> cases, in each of which one file is not as it was."""

    @st.composite
    def draw_case(draw: st.DrawFn) -> Case:
        file = draw(st.sampled_from(sorted(whole)))
        kind = draw(st.sampled_from(kinds_of(file, whole[file])))
        steps = draw(st.lists(kind, min_size=1, max_size=3))
        case = Case(loader.name, file, tuple(steps))
        assume(case.content(whole[file]) != whole[file])
        return case

    return draw_case()


def numbered(loader: Loader, count: int) -> list[Case]:
    """The first so many cases of a loader, none twice: number i is the same whatever the count."""
    found: dict[Case, None] = {}
    for block in count_from():
        if len(found) >= count:
            break
        found |= dict.fromkeys(_block(loader.name, block))
    return list(found)[:count]


@cache
def _block(name: str, block: int) -> tuple[Case, ...]:
    found: list[Case] = []

    @seed(zlib.crc32(f"{name} {block}".encode()))
    @settings(max_examples=BLOCK, phases=[Phase.generate], **ALONE)
    @given(cases(LOADERS[name], whole_files(name)))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return tuple(found)


@cache
def whole_files(name: str) -> dict[str, bytes]:
    """A loader's whole files that are damaged, by their paths in its folder."""
    root, loader = folder_of(name), LOADERS[name]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    chosen = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in chosen.items() if not loader.beside(name)}
