"""`ldm evaluate prompts` and `nearest`: figures in words and JSON, pictures where they were asked for."""

import json

import pytest
from PIL import Image

QUICK = ("--steps", 1, "--count", 3)


def test_prompts_are_judged_and_shown(ldm, folder, tmp_path):
    figures, sheet, gallery = (tmp_path / "out" / name for name in ("a.json", "sheet.png", "gallery.png"))
    (tmp_path / "out").mkdir()
    told = ("--json", figures, "--sheet", sheet, "--gallery", gallery)
    status, out, err = ldm("evaluate", "prompts", "-m", folder, *QUICK, *told)
    assert (status, err) == (0, "") and "fidelity: " in out and "its ceiling: " in out and "object alone: " in out
    found = json.loads(figures.read_text())
    assert found["fidelity"]["count"] == 3 and found["fidelity"]["ceiling"]["mean"] > 0
    assert found["settings"]["steps"] == 1 and not found["settings"]["shuffled"]
    assert Image.open(sheet).width > 3 * 32 and Image.open(gallery).width > 3 * 2 * 32


def test_shuffled_prompts_give_other_pictures(ldm, folder):
    told = [ldm("evaluate", "prompts", "-m", folder, *QUICK, "--json", "-", *how)[1] for how in ((), ("--shuffled",))]
    straight, shuffled = map(json.loads, told)
    assert shuffled["settings"]["shuffled"] and straight["pictures"] != shuffled["pictures"]
    assert [a["key"] for a in straight["pictures"]] == [a["key"] for a in shuffled["pictures"]]


def test_the_nearest_training_pictures_are_shown(ldm, folder, tmp_path):
    figures, sheet = tmp_path / "a.json", tmp_path / "sheet.webp"
    told = ("--among", 30, "--training-seed", 4, "--json", figures, "--sheet", sheet)
    status, out, err = ldm("evaluate", "nearest", "-m", folder, *QUICK, *told)
    assert (status, err) == (0, "") and out.startswith("nearest of 30 training pictures, mean of 3: ")
    found = json.loads(figures.read_text())
    assert found["settings"]["training_seed"] == 4 and len(found["pictures"]) == 3
    assert all(row["drawn"]["index"] < 30 for row in found["pictures"])
    assert Image.open(sheet).width > 4 * 32


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (("prompts", "--gallery", "nowhere/there/a.png"), "nowhere"),
        (("prompts", "--sheet", "a.txt"), "a.txt"),
        (("prompts", "--split", "heldout", "--count", 2, "--seed", 2, "--gallery", "a.png"), "no scene of one thing"),
        (("prompts", "--split", "all"), "all"),
        (("prompts", "--shuffled", "--count", 1), "count 1"),
        (("nearest", "--count", 0), "--count 0"),
        (("nearest", "--among", 0), "--among 0"),
        (("nearest", "--training-seed", -1), "seed -1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(ldm, folder, told, named):
    status, out, err = ldm("evaluate", *told, "-m", folder)
    assert (status, out) == (2, "") and named in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["prompts", "nearest"])
def test_help(ldm, command):
    status, out, _ = ldm("evaluate", command, "--help")
    assert status == 0 and "Example" in out
