"""The notebooks run, and only call: logic belongs into the package."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LDM_NOTEBOOK_STEPS", "4")  # of trainings
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_nothing(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [source for source in cells if re.search(r"^\s*(async def|def|class) ", source, re.MULTILINE)]
    assert [source for source in cells if "ldm" in source]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_its_pictures_and_no_error(path):
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    assert sum(bool({"image/png", "image/gif"} & output.get("data", {}).keys()) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_says_where_in_the_course_it_stands(path):
    place = NOTEBOOKS.index(path) + 1
    head = nbformat.read(path, as_version=4).cells[0].source
    assert head.startswith(f"# {place}. ") and f"Part {place} of {len(NOTEBOOKS)}." in head
    assert re.search(r"Needed: .*Here: .*Next: ", head)
    assert place == len(NOTEBOOKS) or f"({NOTEBOOKS[place].name})" in head.split("Next: ")[1]


def test_there_are_notebooks():
    known = ["01_latents", "02_noising", "03_text_to_image", "04_editing", "05_training", "06_autoencoders"]
    known += ["07_bridges_and_try_on"]
    assert [path.stem for path in NOTEBOOKS] == known
