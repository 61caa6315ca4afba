"""The house rules: imports go one way, constants have one owner, no drawers, no scrolls, nothing that rots."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "ldm").rglob("*.py"))
LAYERS = [  # a room imports from its own layer's leaves and from the layers before it
    {"files", "prompts", "interpolating", "precision", "moments", "draws"},
    {"images", "masks", "metadata", "roundtrip", "tiling", "latents", "text", "noising", "samplers", "checkpoints"},
    {"denoising", "sampling", "bridging", "lora", "inversion", "data", "autoencoders", "vectors"},
    {"tryon"},
    {"training", "evaluation", "order"},
    {"drawing", "engines"},
    {"pipeline"},
    {"batch", "ui"},
    {"cli"},
]
LEAVES = {  # within a layer: who may know whom
    "masks": {"images"},
    "metadata": {"images"},
    "roundtrip": {"images"},
    "latents": {"images", "roundtrip", "tiling", "checkpoints"},
    "checkpoints": {"text", "noising"},
    "samplers": {"noising"},
    "sampling": {"denoising"},
    "bridging": {"denoising", "sampling"},
    "evaluation": {"training"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "ldm").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of ldm that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ldm":
            module = node.module.split(".")
            names |= {module[1]} if len(module) > 1 else {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative import")
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ldm.")}
    return names


def layer(name: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if name in rooms)


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(p) not in ("__init__", "__main__")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_one_way(path):
    own = room(path)
    for other in imports(path) - {own}:
        lower = layer(other) < layer(own)
        assert lower or other in LEAVES.get(own, set()), f"{path.name} of {own} imports {other}"


def test_every_room_is_in_the_map_and_the_map_names_no_other():
    docstring = ast.get_docstring(ast.parse((ROOT / "ldm" / "__init__.py").read_text(encoding="utf-8")))
    named = set(re.findall(r"^    (\w+)(?:\.py|/)  ", docstring + "\n", re.M))
    there = {room(path) for path in FILES} - {"__init__", "__main__"} | {"weights"}
    assert named == there


def test_the_scale_stands_once():
    found = [path.name for path in FILES for _ in re.findall(r"0\.18215", path.read_text(encoding="utf-8"))]
    assert found == ["latents.py"]


def test_no_drawers():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc", "util")]


def test_no_scrolls():
    lengths = {
        f"{path.name}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > 75}
    assert sorted(lengths.values())[len(lengths) // 2] <= 12


def test_no_debris():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(TODO|FIXME|XXX|breakpoint\(|ipdb|pdb)\b", text), path


def test_the_tracked_tree_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.exists()) < 45 * 2**20
    weights = sum(path.stat().st_size for path in (ROOT / "ldm" / "weights").rglob("*") if path.is_file())
    assert weights <= 32 * 10**6
