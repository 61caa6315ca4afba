"""ldm bench: the commands that are run, what is made of their times, and one line for whatever is wrong."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ldm.evaluation.speed import processes, training
from ldm.evaluation.speed.processes import Run, ran
from ldm.evaluation.speed.training import Rate, Setting, compare_training, encoding, own_training, peer_training
from ldm.training.cache import LatentCache

PEER = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("pretrained_model_name_or_path", "train_data_dir", "cache_dir", "output_dir", "mixed_precision",
             "lr_scheduler"):
    parser.add_argument("--" + name, required=True)
for name in ("resolution", "train_batch_size", "max_train_steps", "checkpointing_steps", "lr_warmup_steps", "seed"):
    parser.add_argument("--" + name, type=int, required=True)
for name in ("learning_rate", "adam_weight_decay", "max_grad_norm"):
    parser.add_argument("--" + name, type=float, required=True)
parser.add_argument("--use_ema", action="store_true", required=True)
parser.add_argument("--center_crop", action="store_true", required=True)
told = parser.parse_args()
assert (pathlib.Path(told.pretrained_model_name_or_path) / "text_encoder" / "model.safetensors").is_file()
rows = (pathlib.Path(told.train_data_dir) / "metadata.jsonl").read_text().splitlines()
assert all((pathlib.Path(told.train_data_dir) / json.loads(row)["file_name"]).is_file() for row in rows)
assert told.checkpointing_steps > told.max_train_steps
pathlib.Path(told.output_dir).mkdir()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "peer.py"
    path.write_text(PEER)
    return path


def value(command: list, option: str):
    return command[command.index(option) + 1]


class Clock:
    """A runner by which a step of the peer takes half a second, one of ours a quarter, a picture's encoding 10 ms."""

    def __init__(self, do=lambda command: None):
        self.do, self.commands = do, []

    def __call__(self, command):
        self.do(command)
        self.commands.append(command)
        if "--max_train_steps" in command:
            return Run(7 + 0.5 * value(command, "--max_train_steps"), 3000, 900)
        if "--steps" in command:
            return Run(9 + 0.25 * value(command, "--steps"), 1000, 600)
        return Run(8 + 0.01 * value(command, "--count") if "encode" in command else 5, 500, 100)


def test_throughput_is_that_of_the_steps_without_all_that_is_done_once(script):
    clock = Clock()
    found = compare_training(script, "some", Setting(batch_size=8), steps=40, rounds=3, run=clock)
    assert found["peer"]["images_per_second"] == {"median": 16, "rounds": [16] * 3}
    assert found["ldm"]["images_per_second"] == {"median": 32, "rounds": [32] * 3}
    assert found["ratio"] == {"median": 2, "rounds": [2] * 3}
    assert found["peer"]["seconds"] == [[12, 32]] * 3 and found["ldm"]["seconds"] == [[11.5, 21.5]] * 3
    assert found["encoding"]["images_per_second"]["median"] == 100
    assert found["encoding"]["epochs_until_paid"] == 0.32  # 1/100 s for what is 1/16 - 1/32 s cheaper each time
    assert (found["ldm"]["memory_mib"], found["peer"]["memory_mib"], found["ldm"]["gpu_memory_mib"]) == (
        1000,
        3000,
        600,
    )
    assert found["settings"]["steps"] == 40 and found["machine"]["cores"]
    json.dumps(found)


def test_programs_take_turns_and_each_run_has_a_folder_of_its_own(script):
    clock = Clock()
    compare_training(script, "some", rounds=2, steps=1, run=clock)
    kinds = [[part for part in ("convert", "encode", "diffusion", script) if part in c][0] for c in clock.commands]
    turn = [script, script, "encode", "encode", "diffusion", "diffusion"]
    assert kinds == ["convert", *turn, *turn]
    outs = [c[c.index(option) + 1] for c in clock.commands for option in ("--out", "--output_dir") if option in c]
    assert len(set(outs)) == len(outs) == 12 and not any(out.exists() for out in outs)
    for encoded, trained in ((4, 5), (4, 6), (10, 11), (10, 12)):
        assert value(clock.commands[trained], "--data") == value(clock.commands[encoded], "--out")


def test_the_median_of_the_rounds_is_reported_with_all_of_them():
    rates = [Rate(Run(1, 10), Run(1 + seconds, memory), 12) for seconds, memory in ((1, 30), (6, 20), (3, 40))]
    found = training.figures(rates)
    assert found["images_per_second"] == {"median": 4, "rounds": [12, 2, 4]}
    assert found["memory_mib"] == 40 and found["gpu_memory_mib"] is None


def test_both_programs_are_told_the_same():
    setting = Setting(side=96, batch_size=3, mixed_precision="bf16", learning_rate=2e-4, weight_decay=0.03, clip=0.7)
    folder = Path("a")
    theirs = peer_training(Path("b.py"), folder, Path("c"), setting, 17)
    ours = own_training(folder, Path("d"), Path("e"), setting, 17)
    pairs = {
        "--resolution": "--side", "--train_batch_size": "--batch-size", "--max_train_steps": "--steps",
        "--mixed_precision": "--mixed-precision", "--learning_rate": "--learning-rate", "--seed": "--seed",
        "--adam_weight_decay": "--weight-decay", "--max_grad_norm": "--clip", "--lr_scheduler": "--schedule",
        "--lr_warmup_steps": "--warmup", "--checkpointing_steps": "--save-every",
        "--pretrained_model_name_or_path": "--init",
    }  # fmt: skip
    assert all(value(theirs, name) == value(ours, own) for name, own in pairs.items())
    assert value(ours, "--save-every") > 17 and value(ours, "--drop") == 0 and "--freeze-text" in ours
    assert value(ours, "--ema") == setting.ema > 0 and "--use_ema" in theirs
    encoded = encoding(folder, Path("d"), setting, 5)
    assert value(encoded, "--side") == 96 and value(encoded, "--text") == value(encoded, "--vae") == folder / "model"


def test_the_average_s_decay_is_the_peer_s_own():
    import torch
    from diffusers.training_utils import EMAModel

    assert Setting().ema == EMAModel([torch.nn.Parameter(torch.zeros(1))]).decay


def test_the_commands_are_understood_by_both_programs(ldm, script, folder):
    """The real commands on a tiny model, each on a clock of its own; the latents and words are used as encoded."""
    used = []

    def do(command):
        if command[1:3] != ["-m", "ldm"]:
            return subprocess.run([str(word) for word in command], check=True)
        status, _, err = ldm(*command[3:])
        assert status == 0, err
        if "diffusion" in command:
            cache = LatentCache(value(command, "--data"))
            settings = json.loads((value(command, "--out") / "settings.json").read_text())
            used.append((len(cache), "states" in cache[0][3], settings["recipe"]["train_text"]))

    compare_training(script, str(folder), Setting(16, 24, 2), steps=1, rounds=1, run=Clock(do))
    assert used == [(64, True, False)] * 2


def test_frozen_words_are_read_from_the_cache(ldm, folder, tmp_path):
    from ldm.training.diffusion import reading, trained_model

    setting = Setting(16, 24, 2)
    ldm("convert", folder, tmp_path / "model", "--dtype", "float32")
    training.draw(tmp_path / "pictures", setting)
    ldm(*encoding(tmp_path, tmp_path / "cache", setting, 4)[3:])
    _, text = trained_model(tmp_path / "model")
    assert reading(LatentCache(tmp_path / "cache"), text, learns=False) is None


# ---- processes ----


def test_a_process_is_timed_and_weighed():
    hungry = "x = b'x' * (300 << 20); import os; assert os.environ['HF_HUB_OFFLINE'] == '1'"
    found = ran([sys.executable, "-c", hungry])
    assert found.seconds > 0 and found.memory_mib > 300


def test_a_process_that_fails_says_why_in_one_line():
    with pytest.raises(ValueError, match="^-c: RuntimeError: no such luck$"):
        ran([sys.executable, "-c", "print('out'); raise RuntimeError('no such luck')"])
    with pytest.raises(ValueError, match="^ldm encode: ldm: .*no such folder"):
        ran([*training.LDM, "encode", "nowhere", "--out", "nowhere"])
    with pytest.raises(ValueError, match="^-c: status 3$"):
        ran([sys.executable, "-c", "raise SystemExit(3)"])


def test_memory_of_the_gpu_is_what_was_taken_beyond_what_others_held(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase \"$*\" in *name*) echo 'A GPU';; *) printf '100\\n450\\n300\\n'; exec sleep 60;; esac"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ran([sys.executable, "-c", "import time; time.sleep(0.5)"]).gpu_memory_mib == 350
    assert processes.machine()["gpu"] == "A GPU"


# ---- the command ----


def test_the_command_writes_the_figures(ldm, script, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "compare_training", partial(compare_training, run=Clock()))
    status, out, err = ldm("bench", "training", "--peer", script, "--rounds", 2, "--json", tmp_path / "a.json")
    assert status == 0 and out.splitlines()[:3] == [
        "ldm: 64.0 images/s, 1000 MiB, 600 MiB on the GPU",
        "peer.py: 32.0 images/s, 3000 MiB, 900 MiB on the GPU",
        "ratio: 2.0",
    ]
    assert "paid after 0.64 epochs" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["ratio"] == {"median": 2.0, "rounds": [2.0, 2.0]} and found["model"] == "emoji"
    status, out, _ = ldm("bench", "training", "--peer", script, "--rounds", 1, "--json", "-")
    assert status == 0 and json.loads(out)["ratio"]["rounds"] == [2.0]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, [], "no such file; expected diffusers' train_text_to_image.py"),
        ("not python at all", [], "expected a script in Python"),
        ("import nowhere_at_all.part\nfrom also_nowhere import x", [], "pip install also_nowhere nowhere_at_all"),
        (PEER, ["--steps", "0"], "--steps 0: expected 1 or more"),
        (PEER, ["--mixed-precision", "half"], "--mixed-precision 'half': expected one of no, bf16, fp16"),
        (PEER, ["--model", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(ldm, tmp_path, content, options, said):
    script = tmp_path / "peer.py"
    if content:
        script.write_text(content)
    status, out, err = ldm("bench", "training", "--peer", script, "--json", tmp_path / "a.json", *options)
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1
    assert not (tmp_path / "a.json").exists()


def test_runs_that_tell_nothing_are_refused():
    with pytest.raises(ValueError, match=r"16 images more took no longer \(3.00 s, then 2.90\): expected more --steps"):
        Rate(Run(3.0, 1), Run(2.9, 1), 16)


def test_an_encoding_that_saves_nothing_is_never_paid():
    slow, fast, encoded = (Rate(Run(0, 1), Run(seconds, 1), 10) for seconds in (2.0, 1.0, 0.5))
    assert training.epochs_until_paid([slow], [encoded], [fast]) == 0.5
    assert training.epochs_until_paid([fast], [encoded], [slow]) is None


def test_the_measuring_holds_no_memory_itself():
    code = "import sys, ldm.evaluation.speed.training; print([n for n in ('torch', 'diffusers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_shows_an_example(ldm):
    status, out, _ = ldm("bench", "training", "--help")
    assert status == 0 and "Examples" in out and "train_text_to_image.py" in out


@pytest.mark.parametrize(
    "content", [{}, [], {"what": "start", "rows": 5}, {"what": "start", "rows": {"ours": {"ratio": 1}}},
                {"what": "x", "rows": {"ours": {"seconds": {"median": "a"}, "ratio": {"median": None, "rounds": [1]}}}}]
)  # fmt: skip
def test_a_report_of_anything_else_is_one_line(ldm, tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    status, out, err = ldm("bench", "report", tmp_path / "a.json")
    assert (status, out) == (2, "") and "a.json" in err and err.count("\n") == 1
