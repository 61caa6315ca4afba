"""Brackets become weights, and nothing but brackets is lost."""

import math
import random

import pytest

from ldm.prompts import ROUND, SQUARE, Fragment, parse

PLAIN = ["", "a red apple", " A  Big,, DOG'S\n 12: café ☕ ", "ratio 16:9", "breaking BREAKFAST break", "a\\b c\\"]


def texts(prompt: str) -> list[str]:
    return ["".join(fragment.text for fragment in section) for section in parse(prompt)]


def weights(prompt: str) -> dict[str, float]:
    return {fragment.text: fragment.weight for section in parse(prompt) for fragment in section}


@pytest.mark.parametrize("prompt", PLAIN)
def test_text_without_syntax_passes_unchanged(prompt):
    assert parse(prompt) == [[Fragment(prompt, 1.0)]]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("(a)", {"a": 1.1}),
        ("((a))", {"a": 1.21}),
        ("[a]", {"a": 1 / 1.1}),
        ("([a])", {"a": 1.0}),
        ("(a:1.3)", {"a": 1.3}),
        ("(a:2)", {"a": 2}),
        ("(a : .5 )", {"a ": 0.5}),
        ("(a:-1)", {"a": -1}),
        ("(a:+1.5)", {"a": 1.5}),
        ("(a:0)", {"a": 0}),
        ("(a (b) c:2) d", {"a ": 2, "b": 2.2, " c": 2, " d": 1}),
        ("((a:1.5) b:2)", {"a": 3, " b": 2}),
        ("a (red) apple", {"a ": 1, "red": 1.1, " apple": 1}),
        ("(a)(b)", {"ab": 1.1}),
        ("()a[]", {"a": 1}),
        ("(16:9 frame:1.2)", {"16:9 frame": 1.2}),
    ],
)
def test_weights(prompt, expected):
    assert weights(prompt) == pytest.approx(expected)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("(a", {"a": 1.1}),  # closed at the end
        ("x (a [b", {"x ": 1, "a ": 1.1, "b": 1}),
        ("a)", {"a)": 1}),
        ("a] b", {"a] b": 1}),
        ("a:1.3)", {"a:1.3)": 1}),
        ("[a:1.3)", {"a:1.3)": 1 / 1.1}),
        ("(a:much)", {"a:much": 1.1}),
        ("(a:1.2.3)", {"a:1.2.3": 1.1}),
        ("(a:.)", {"a:.": 1.1}),
        ("(a:)", {"a:": 1.1}),
        ("(a:1e3)", {"a:1e3": 1.1}),
        ("(a:nan)", {"a:nan": 1.1}),
        (f"(a:{'9' * 400})", {f"a:{'9' * 400}": 1.1}),
    ],
)
def test_unbalanced_brackets_and_malformed_numbers(prompt, expected):
    assert weights(prompt) == pytest.approx(expected)


def test_escapes_are_literal():
    assert parse(r"\(a\) \[b\] \\ (c\):2)") == [[Fragment(r"(a) [b] \ ", 1.0), Fragment("c)", 2.0)]]
    assert parse(r"\\(a)") == [[Fragment("\\", 1.0), Fragment("a", ROUND)]]


def test_break_splits_inside_brackets_too():
    assert texts("a cat BREAK a dog\nBREAK\na bird") == ["a cat", "a dog", "a bird"]
    assert parse("(a BREAK b:2)") == [[Fragment("a", 2.0)], [Fragment("b", 2.0)]]
    assert texts("BREAK a BREAK BREAK b BREAK") == ["a", "b"]
    assert parse("BREAK") == parse("()") == [[Fragment("", 1.0)]]


def random_prompt(rng: random.Random, depth: int = 0) -> tuple[str, list[Fragment]]:
    """A well-formed prompt, and the letters that it must yield, each with its weight."""
    prompt, expected = "", []
    for _ in range(rng.randrange(1, 5)):
        kind = rng.choice(["letter", "escape", "round", "square", "number"] if depth < 4 else ["letter"])
        if kind == "letter":
            piece, inner = rng.choice("abc ,:\n☕é"), None
            expected.append(Fragment(piece, 1.0))
        elif kind == "escape":
            expected.append(Fragment(rng.choice("()[]\\"), 1.0))
            piece = "\\" + expected[-1].text
        else:
            inner, letters = random_prompt(rng, depth + 1)
            number = rng.choice([0.5, 1.25, 2])
            piece, factor = {
                "round": (f"({inner})", ROUND),
                "square": (f"[{inner}]", SQUARE),
                "number": (f"({inner}:{number})", number),
            }[kind]
            expected += [Fragment(text, weight * factor) for text, weight in letters]
        prompt += piece
    return prompt, expected


@pytest.mark.parametrize("seed", range(60))
def test_nesting_multiplies_and_every_literal_is_kept(seed):
    prompt, expected = random_prompt(random.Random(seed))
    letters = [(letter, weight) for text, weight in parse(prompt)[0] for letter in text]
    assert [letter for letter, _ in letters] == [fragment.text for fragment in expected]
    assert [weight for _, weight in letters] == pytest.approx([fragment.weight for fragment in expected])


@pytest.mark.parametrize("seed", range(60))
def test_any_string_can_be_parsed(seed):
    rng = random.Random(seed)
    pieces = [*"ab .1:()[]\\☕\n", "BREAK", ":1.2)", ":-3)", "\ud800"]
    prompt = "".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
    sections = parse(prompt)
    assert sections and all(sections)
    assert all(math.isfinite(fragment.weight) for section in sections for fragment in section)
    for section in sections:
        assert all(a.weight != b.weight for a, b in zip(section, section[1:]))
    kept = sum(letter in "ab☕" for text in texts(prompt) for letter in text)
    assert kept == sum(letter in "ab☕" for letter in prompt)
