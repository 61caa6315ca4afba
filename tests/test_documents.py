"""The documents say what is true: their code runs, their files exist, their commands are commands."""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WEIGHTS = (ROOT / "weights.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)


def test_the_first_two_commands_are_one_line_each():
    commands = blocks("bash")[:2]
    assert all(command.strip().count("\n") == 0 and "-c constraints.txt" in command for command in commands)
    assert "ldm generate" in commands[0] and "pytest" in commands[1]


@pytest.mark.parametrize("text", [README, WEIGHTS], ids=["README", "weights"])
def test_links_and_pictures_exist(text):
    targets = [t for t in re.findall(r"(?:\]\(|src=\")([^)\"#]+)", text) if not t.startswith("http")]
    assert targets and not [target for target in targets if not (ROOT / target).exists()]
    for target in targets:
        if target.endswith((".png", ".webp")):
            Image.open(ROOT / target).verify()


def test_every_command_and_option_named_in_the_readme_exists():
    from typer.main import get_command

    from ldm.cli import app

    root = get_command(app)
    for words in re.findall(r"`ldm ((?:evaluate |train )?\w[\w-]*)", README):
        command = root
        for word in words.split():
            if word == "COMMAND":
                break
            assert word in command.commands, words  # type: ignore[attr-defined]
            command = command.commands[word]  # type: ignore[attr-defined]
    generate = root.commands["generate"]  # type: ignore[attr-defined]
    known = {option for parameter in generate.params for option in parameter.opts}
    row = next(line for line in README.splitlines() if line.startswith("| `ldm generate"))
    assert set(re.findall(r"`(--[\w-]+)`", row)) <= known


def published() -> list[Path]:
    """What git tracks, or, outside of a clone, everything but environments and build products."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        return [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        return [p for p in ROOT.rglob("*") if not {".venv", "build", "dist"} & set(p.relative_to(ROOT).parts)]


def test_nothing_tells_of_the_place_where_it_was_made():
    hosts = ["pypi" + ".org", "npmjs" + ".", "/root" + "/", "/work" + "/"]
    texts = [p for p in published() if p.suffix in {".py", ".md", ".toml", ".txt", ".json", ".ipynb"} and p.exists()]
    assert texts
    for path in texts:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [host for host in hosts if host in text], path


def test_the_prompts_under_the_grid_are_the_pictures_own():
    """The README's grid carries the prompts that made it, in the order in which the README lists them."""
    from ldm.metadata import read

    told = read(ROOT / "docs" / "sixteen.png")["ldm"]
    listed = re.search(r"<!-- sixteen prompts -->\n(.*?)\n\n", README, re.S)
    assert listed and told["prompts"] == [prompt.strip() for prompt in listed[1].replace("\n", " ").split(";")]
    assert told["seed"] == 0 and len(told["prompts"]) == 16
