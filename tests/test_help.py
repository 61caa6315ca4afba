"""Every command's --help: it ends well, loads nothing heavy, and its examples are commands that exist as they stand."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from ldm.cli import app

ROOT: Any = get_command(app)
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "openvino", "gradio", "PIL", "numpy")
SCRIPT = f"""
import contextlib, io, json, sys
from ldm.cli import main

shown = {{}}
for words in json.loads(sys.argv[1]):
    sys.argv, out = ["ldm", *words, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as stop:
        shown[" ".join(words)] = [stop.code, out.getvalue()]
print(json.dumps([shown, [name for name in {HEAVY} if name in sys.modules]]))
"""


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each after the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


ALL = dict(commands(ROOT))
LEAVES = [words for words, command in ALL.items() if not hasattr(command, "commands")]


def examples(text: str) -> list[list[str]]:
    """What stands below **Examples** in a help text -> the words of each, which a blank line ends."""
    _, _, below = re.sub(r"\*\*Examples?\*\*", "**Examples**", text).partition("**Examples**")
    return [shlex.split(" ".join(paragraph.split())) for paragraph in below.split("\n\n") if paragraph.strip()]


def parsed(words: list[str]) -> tuple[str, ...]:
    """Words of a command line, read as `ldm` reads them and not run -> the command that would; typer's error if not."""
    own, command, context = (), ROOT, None
    rest = words[words.index("ldm") + 1 :]  # torchrun ... -m ldm
    while True:
        context = command.make_context(command.name, list(rest), parent=context)
        if not hasattr(command, "commands"):
            return own
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        own = (*own, name)


@pytest.fixture(scope="module")
def shown() -> tuple[dict[str, list[Any]], list[str]]:
    """In one process: the exit status and text of every command's --help, and what it loaded that is heavy."""
    asked = json.dumps([list(words) for words in ALL])
    done = subprocess.run([sys.executable, "-c", SCRIPT, asked], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_help_of_no_command_loads_anything_heavy(shown):
    assert shown[1] == []


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_ends_well(shown, words):
    status, text = shown[0][" ".join(words)]
    assert status == 0 and "Usage" in text
    assert words not in LEAVES or "Example" in text


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_examples_are_commands(words):
    called = [parsed(example) for example in examples(ALL[words].help)]
    assert words in called, "expected an example of the command itself"


@pytest.mark.parametrize(
    "line",
    ["ldm nothing", "ldm generate a --no-such-option", "ldm generate a --steps many", "ldm edit", "ldm train x"],
)
def test_what_is_no_command_is_no_example(line):
    with pytest.raises(Exception, match="No such|valid integer|Missing") as refused:
        parsed(shlex.split(line))
    assert "typer" in type(refused.value).__module__ or "click" in type(refused.value).__module__


def test_paragraphs_are_examples():
    assert examples("Does.\n\n**Example**\n\nldm a 'b c'\n--d 1\n\nldm e") == [
        ["ldm", "a", "b c", "--d", "1"],
        ["ldm", "e"],
    ]
