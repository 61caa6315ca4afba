"""The documents say what is true: their code runs, their files exist, their commands are commands."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from test_help import parsed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WEIGHTS = (ROOT / "weights.md").read_text(encoding="utf-8")
BRIEF = "--preset tiny --steps 2 --batch-size 2"
SMALL = {  # what is added to a command of the README so that it takes seconds; what is said later counts
    "generate": "--steps 1 --engine torch",
    "train vae": f"{BRIEF} --side 32 --held-out 2",
    "encode": "--side 32",
    "train diffusion": BRIEF,
    "train distill": "--steps 2 --batch-size 2",
    "train autoencoder": "--steps 2",
    "evaluate autoencoder": "--samples 2",
    "train bridge": f"{BRIEF} --side 32 --patch 16 --samples 3",
    "evaluate roundtrip": "--count 2",
    "refine": "--steps 1",
    "dolls": "--people 8 --test 4",
    "train tryon": "--tiny --effort 0.001 --size 32x32",
    "evaluate tryon": "--evaluations 1",
    "roundtrip": "",
    "evaluate images": "",
}
PARSED = {"ui"}  # it serves until it is stopped; its own tests drive it


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def lines(block: str) -> list[str]:
    """The commands of a block, without remarks, and without where the environment lies."""
    return [line.split("  #")[0].strip().replace(".venv/bin/", "") for line in block.splitlines() if line.strip()]


def own(block: str) -> list[str]:
    """The commands of a block that are ours, whatever is made ready before them."""
    return [part.strip() for line in lines(block) for part in line.split("&&") if part.strip().startswith("ldm ")]


OURS = [block for block in blocks("bash") if own(block)]


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)


@pytest.mark.parametrize("block", OURS, ids=[" ".join(own(block)[0].split()[1:3]) for block in OURS])
def test_commands_of_a_block_run_one_after_the_other_in_small(ldm, tmp_path, monkeypatch, block):
    """In a folder with photos/, with captions, and compressed.jpg."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, colour in enumerate(["red", "green", "blue", "teal"]):
        picture = Image.radial_gradient("L").resize((40 + i, 48))
        Image.merge("RGB", [picture, picture.rotate(90 * i), Image.new("L", picture.size, colour)]).save(
            tmp_path / "photos" / f"{i}.png"
        )
        (tmp_path / "photos" / f"{i}.txt").write_text(f"something {colour}")
    Image.open(tmp_path / "photos" / "0.png").save(tmp_path / "compressed.jpg", quality=10)
    for line in own(block):
        words = shlex.split(line)
        command = " ".join(parsed(words))
        assert command in SMALL | dict.fromkeys(PARSED), f"{line}: say in SMALL how it is to be run in small"
        if command in PARSED:
            continue
        status, _, err = ldm(*words[1:], *SMALL[command].split())
        assert status == 0, f"{line}: {err}"


MADE = [line for block in blocks("bash", WEIGHTS) for line in lines(block) if line.startswith("ldm ")]


@pytest.mark.parametrize("line", MADE)
def test_what_the_models_were_made_by_are_commands(line):
    assert parsed(shlex.split(line))


def test_what_is_installed_is_what_the_project_names():
    """The lines of pip are read, not run: .ci/run runs the second, and installs what the first does."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    installs = [line for block in blocks("bash") for line in lines(block) if "pip install" in line]
    assert len(installs) >= 4
    for line in installs:
        for name in re.findall(r"\.\[([\w,]+)\]", line):
            assert set(name.split(",")) <= extras.keys(), line
        for package, version in re.findall(r" (\w+)==(\S+)", line):
            assert pinned[package] == version, line


def test_there_is_no_other_command_in_the_blocks():
    known = ("ldm ", "pip install ", "python3 -m venv ", "python -m pytest")
    parts = [part.strip() for block in blocks("bash") for line in lines(block) for part in line.split("&&")]
    assert parts and all(part.startswith(known) for part in parts)


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
