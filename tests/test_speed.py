"""ldm bench start and drawing: turns, ratios, agreement; no test asserts a time."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm.engines import kept
from ldm.evaluation.speed import drawing, network, shapes, start, turns
from ldm.evaluation.speed.processes import Run, versions
from ldm.pipeline import LatentDiffusion


def test_programs_take_turns_and_the_first_round_is_not_counted():
    taken, clock = [], iter(range(100))

    def turn(name):
        taken.append(name)
        return float(next(clock))

    found = turns.in_turn({name: lambda name=name: turn(name) for name in "abc"}, 2)
    assert taken == list("abc") * 3 and found == {"a": [3.0, 6.0], "b": [4.0, 7.0], "c": [5.0, 8.0]}


def test_ratios_are_of_turns_of_one_round():
    found = turns.rows({"ours": [1.0, 2.0, 4.0], "peer": [3.0, 4.0, 4.0]})
    assert found["ours"]["ratio"] == {"median": 2.0, "rounds": [3.0, 2.0, 1.0]}
    assert found["peer"]["ratio"]["rounds"] == [1.0, 1.0, 1.0] and found["ours"]["seconds"]["median"] == 2.0


def test_whole_commands_are_told_the_same_and_their_pictures_compared():
    seen = []

    def run(command):
        words = [str(word) for word in command]
        seen.append(words)
        Image.new("RGB", (4, 4), (0, 0, 9 if "torch" in words else 0)).save(Path(words[-1]))
        return Run(float(len(seen)), 1)

    found = start.compare_start("emoji", 3, 2, run)
    assert list(found["rows"]) == ["openvino", "torch", "diffusers"] and len(seen) == 3 * 3
    assert [found["rows"][name]["levels"] for name in found["rows"]] == [0, 9, 0]
    for words in seen:
        assert {turns.PROMPT, "3", "3.0"} <= set(words)
    assert found["imports"]["import ldm"]["ratio"]["median"] > 1  # it imports nothing that diffusers does not
    assert "import ldm: " in turns.said(found) and "9 levels" in turns.said(found)


def test_pictures_of_every_way_are_the_peers(folder):
    ways = {"torch": {}, "openvino": {"engine": "openvino"}}
    setting = drawing.Setting(str(folder), "tiny", steps=2)
    found = drawing.compare_drawing(LatentDiffusion.from_pretrained, setting, 1, ways)
    assert list(found["rows"]) == ["torch", "openvino", "diffusers"]
    assert all(row["levels"] <= 1 and len(row["seconds"]["rounds"]) == 1 for row in found["rows"].values())


def test_the_ways_are_those_that_there_are():
    assert set(drawing.Setting().ways) == set(drawing.WAYS)
    assert "openvino, 4 steps distilled" not in drawing.Setting(name="sd15").ways
    assert set(drawing.Setting(device="cuda:0").ways) == {"torch", "tuned"}


def test_diffusers_fast_recipe_draws_the_same_picture(folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda part, **settings: compiled.append(settings) or part)
    setting = drawing.Setting(str(folder), "tiny", steps=2)
    plain, fast = drawing._theirs(setting), drawing._theirs(setting, drawing.fast_recipe)
    assert len(compiled) == 2 and turns.agreement([fast(0)], [plain(0)])["levels"] <= 1
    assert turns.agreement([plain(0)], [plain(1)])["psnr"] < 40


def test_agreement_is_the_largest_difference_and_the_mean_psnr():
    black, grey = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (51, 51, 51))
    assert turns.agreement([black], [black]) == {"levels": 0}
    assert turns.agreement([grey, grey], [black, black]) == {"levels": 51, "psnr": 14.0}  # 20 log10(255 / 51)


def test_networks_of_every_engine_give_the_peers_output(folder):
    found = network.compare_network(LatentDiffusion.from_pretrained, str(folder), 64, 1, ("openvino",))
    assert found["rows"]["openvino"]["off"] < 1e-4 and found["rows"]["diffusers"]["off"] == 0
    assert "times as fast" in turns.said(found)


def test_a_step_of_another_program_is_what_a_second_one_takes_longer(folder):
    asked = []

    def run(command):
        asked.append([str(word) for word in command])
        assert Path(asked[-1][2]).stat().st_size
        return Run(5 + 3.0 * int(command[-1]), 1)

    with network._evaluated_by(Path("sd-cli"), str(folder), 64, run) as clocks:
        assert clocks["stable-diffusion.cpp"]() == 3.0
    assert [words[-1] for words in asked] == ["2", "1"] and not Path(asked[0][2]).exists()
    with network._evaluated_by(None, str(folder), 64, run) as clocks:
        assert clocks == {}


def test_a_shape_is_borrowed_with_a_cache_of_its_own(monkeypatch):
    monkeypatch.setenv("LDM_CACHE", "before")
    monkeypatch.setattr(shapes, "random_model", lambda shape, folder: folder.mkdir())
    with shapes.borrowed("sd15") as source:
        assert Path(source).is_dir() and kept.home().parent == Path(source).parent
    assert not Path(source).exists() and kept.home() == Path("before")
    with shapes.borrowed("emoji") as source:
        assert source == "emoji" and kept.home() == Path("before")


@pytest.mark.parametrize("command", ["start", "drawing", "network"])
def test_what_is_wrong_is_said_in_one_line(ldm, command):
    status, _, err = ldm("bench", command, "--rounds", 0)
    assert status == 2 and "rounds" in err and len(err.splitlines()) == 1


def test_a_report_is_a_table_and_a_plot(ldm, tmp_path):
    ratio = {"median": 3.0, "rounds": [2.5, 3.0, 4.0]}
    row = {"seconds": {"median": 1.25, "rounds": [1.2, 1.25, 1.3]}, "ratio": ratio}
    rows = {"openvino": row | {"levels": 1}, "diffusers": row | {"levels": 0}}
    told = {"what": "a picture", "rows": rows, "imports": {"import ldm": row, "import diffusers": row}}
    (tmp_path / "a.json").write_text(json.dumps(told))
    status, out, err = ldm("bench", "report", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert status == 0, err
    assert out.splitlines()[2:] == [
        "| **a picture** | | | | |",
        "| openvino | 1.25 | **3** | 2.50 to 4.00 | 1 of 255 |",
        "| import ldm | 1.25 | **3** | 2.50 to 4.00 |  |",
    ]
    assert Image.open(tmp_path / "a.png").size[0] > 400
    (tmp_path / "b.json").write_text("{}")
    status, _, err = ldm("bench", "report", tmp_path / "b.json")
    assert status == 2 and "expected what ldm bench" in err
    assert ldm("bench", "report", tmp_path / "none.json")[0] == 2


def test_a_package_that_is_not_installed_has_no_version():
    assert versions("torch", "no-such-package") == {"torch": version("torch"), "no-such-package": None}
