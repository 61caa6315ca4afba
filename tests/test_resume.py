"""Runs that are killed go on bit by bit; checkpoints are whole or not there; what does not fit is named."""

import contextlib
import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import runs
import torch
from runs import STEPS, Points, Tiny, plan
from safetensors.torch import load_file

from ldm import files
from ldm.training import checkpoint, curves
from ldm.training.checkpoint import Checkpoint
from ldm.training.loop import fit

forked = pytest.mark.skipif(sys.platform == "win32", reason="no fork, no SIGKILL")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing takes longer than these trainings."""
    monkeypatch.setattr(curves, "draw", lambda folder: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    fit(Tiny(), Points(), plan(keep=9), folder)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "run")


def names(folder):
    return [path.name for path in checkpoint.paths(folder)]


def same(one, other):
    return runs.differences(runs.final(one), runs.final(other)) == []


def logged(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- killed ----


@forked
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_goes_on_bit_by_bit(tmp_path, processes):
    """Killed at three moments, in the middle of a checkpoint's writing among them; every checkpoint left loads."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert runs.ended(runs.start(whole, processes)) == [0] * processes
    counts = json.loads((tmp_path / "whole-0.json").read_text())
    rng = random.Random(processes)
    first, later = rng.randrange(2, counts["write"] // 5), rng.randrange(counts["write"] // 5 + 1, counts["write"] // 2)
    for death in (("write", first), ("read", rng.randrange(counts["read"] // 3, counts["read"])), ("write", later)):
        codes = runs.ended(runs.start(killed, processes, deaths=[death]))
        assert codes[0] == -9, (tmp_path / "killed-0.txt").read_text()
        for path in checkpoint.paths(killed):
            checkpoint.read(path)
    assert runs.ended(runs.start(killed, processes)) == [0] * processes, (tmp_path / "killed-0.txt").read_text()
    assert same(whole, killed) and logged(killed) == logged(whole) == list(range(1, STEPS + 1))
    assert not list(killed.glob(".*.tmp"))


@forked
def test_any_process_may_be_the_one_that_is_killed(tmp_path):
    """The second of two; and what two began one may end, to rounding."""
    assert runs.ended(runs.start(tmp_path / "run", 2, deaths=[None, ("read", 30)], double=True))[1] == -9
    assert names(tmp_path / "run")[-1] == "checkpoint-00000006.safetensors"
    assert runs.ended(runs.start(tmp_path / "run", double=True)) == [0]
    fit(Tiny(torch.float64), Points(torch.float64), plan(), tmp_path / "whole")
    found, wanted = runs.final(tmp_path / "run"), runs.final(tmp_path / "whole")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10)


@forked
def test_the_command_itself_goes_on_under_torchrun(folder, tmp_path):
    """`torchrun -m ldm train diffusion`, both processes killed once a checkpoint is there, and run again."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ldm"]
    told = ["--vae", folder, "--side", 16, "--samples", 8, "--preset", "tiny", "--batch-size", 4, "--no-tensorboard"]
    command = [*launch, "train", "diffusion", "--steps", 40, "--save-every", 2, "--keep", 30, "--log-every", 4, *told]

    def started(run):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = list(map(str, [*command, "--out", run]))
        return psutil.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def finished(run):
        process = started(run)
        said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, said
        return load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")

    process = started(tmp_path / "killed")
    while not names(tmp_path / "killed") and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    said = process.communicate()[0]
    assert 0 < len(names(tmp_path / "killed")) < 20 and not (tmp_path / "killed" / "model").exists(), said
    again, whole = finished(tmp_path / "killed"), finished(tmp_path / "whole")
    assert runs.differences(again, whole) == []
    rows = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert {row["processes"] for row in rows if "processes" in row} == {2}


def test_a_finished_run_is_not_trained_again(run, whole):
    average = fit(Tiny(), Points(), plan(keep=9), run)
    assert same(run, whole) and torch.equal(average.net[0].weight, runs.final(whole)["average/net.0.weight"])


def test_a_run_goes_on_under_other_conditions(run, whole):
    """What the weights do not depend on, or by rounding alone, may change."""
    (run / "checkpoint-00000012.safetensors").unlink()
    fit(Tiny(), Points(), plan(keep=2, save_every=1, workers=1, log_every=2, patience=1), run)
    assert same(run, whole) and names(run) == ["checkpoint-00000011.safetensors", "checkpoint-00000012.safetensors"]


def test_the_scaler_and_the_count_of_skipped_steps_come_back(tmp_path):
    told = {"mixed_precision": "fp16", "keep": 9}
    fit(Tiny(), Points(), plan(**told), tmp_path)
    last = tmp_path / "checkpoint-00000012.safetensors"
    whole = checkpoint.read(last)
    last.unlink()
    fit(Tiny(), Points(), plan(**told), tmp_path)
    again = checkpoint.read(last)
    assert whole.facts == again.facts and runs.differences(whole.tensors, again.tensors) == []
    assert again.facts == {"step": 12, "skipped": 0, "scaler": again.facts["scaler"]}
    assert again.facts["scaler"]["_growth_tracker"] == 12 and again.facts["scaler"]["scale"] == 2.0**16


# ---- what is on disk ----


def test_the_last_few_are_kept(tmp_path):
    fit(Tiny(), Points(), plan(keep=2), tmp_path)
    assert names(tmp_path) == ["checkpoint-00000009.safetensors", "checkpoint-00000012.safetensors"]


def test_any_reader_of_safetensors_reads_a_checkpoint(tmp_path):
    tensors = {
        "b/half": torch.arange(5, dtype=torch.bfloat16),
        "a/channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "c/none": torch.zeros(0, 3),
        "c/number": torch.tensor(7, dtype=torch.int64),
        "d/flags": torch.tensor([True, False]),
        "e": torch.tensor([1.5], dtype=torch.float64),
    }
    facts, settings = {"step": 40, "scaler": {"scale": 0.1}}, {"name": "ü", "nested": {"a": [1, 2]}}
    checkpoint.save(tmp_path, Checkpoint(tensors, facts, settings), keep=1)
    path = tmp_path / "checkpoint-00000040.safetensors"
    found, own = load_file(path), checkpoint.read(path)
    assert runs.differences(found, tensors) == runs.differences(own.tensors, tensors) == []
    assert all(found[name].dtype == value.dtype for name, value in tensors.items())
    assert (own.facts, own.settings) == (facts, settings)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut short":
        content = content[: len(content) // 2]
    elif how == "a bit is wrong":
        content[-100] ^= 1
    else:
        content = b""
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut short", "a bit is wrong", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run, whole, caplog, how):
    damage(run / "checkpoint-00000012.safetensors", how)
    with caplog.at_level(logging.WARNING):
        fit(Tiny(), Points(), plan(keep=9), run)
    assert len(caplog.messages) == 1 and "\n" not in caplog.text.strip()
    assert "checkpoint-00000012.safetensors is damaged" in caplog.text
    assert same(run, whole) and logged(run) == logged(whole)


def test_a_damaged_newer_checkpoint_does_not_cost_a_good_one(run):
    damage(run / "checkpoint-00000012.safetensors", "cut short")
    fit(Tiny(), Points(), plan(keep=1, save_every=10), run)
    assert names(run) == ["checkpoint-00000012.safetensors"]
    shutil.copy(run / "checkpoint-00000012.safetensors", run / "checkpoint-00000099.safetensors")
    damage(run / "checkpoint-00000099.safetensors", "cut short")
    checkpoint.save(run, checkpoint.read(run / "checkpoint-00000012.safetensors"), keep=1)
    assert names(run) == ["checkpoint-00000012.safetensors", "checkpoint-00000099.safetensors"]


def test_a_run_without_a_checkpoint_that_loads_is_not_begun_anew(run):
    for path in checkpoint.paths(run):
        damage(path, "cut short")
    with pytest.raises(FileNotFoundError, match=r"log.jsonl, settings.json, .*00000012.* but no checkpoint that loads"):
        fit(Tiny(), Points(), plan(), run)
    for path in checkpoint.paths(run):
        path.unlink()
    before = (run / "log.jsonl").read_bytes()
    with pytest.raises(FileNotFoundError, match="log.jsonl, settings.json of an earlier run"):
        fit(Tiny(), Points(), plan(), run)
    assert (run / "log.jsonl").read_bytes() == before and names(run) == []


def test_a_new_run_may_lie_among_other_files(tmp_path):
    (tmp_path / "latents.safetensors").write_bytes(b"x")
    (tmp_path / "checkpoint-notes.safetensors").write_bytes(b"x")
    fit(Tiny(), Points(), plan(steps=1), tmp_path)
    assert (tmp_path / "latents.safetensors").exists() and (tmp_path / "checkpoint-notes.safetensors").exists()


def test_what_a_killed_writer_left_is_swept(run):
    left, other = run / f".{'0a' * 16}.tmp", run / ".notes.tmp"
    for path in (left, other):
        path.write_bytes(b"x")
    fit(Tiny(), Points(), plan(keep=9), run)
    assert not left.exists() and other.exists()


@pytest.mark.parametrize("full_at", [1, 4])
def test_a_full_disk_is_one_line_and_leaves_what_is_there(tmp_path, monkeypatch, full_at):
    syncs = []

    def fsync(number):
        syncs.append(number)
        if len(syncs) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(ValueError, match=r"checkpoint-\d+.safetensors: cannot be written: No space left") as caught:
        fit(Tiny(), Points(), plan(keep=9), tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob(".*.tmp"))
    monkeypatch.undo()
    monkeypatch.setattr(curves, "draw", lambda folder: None)
    assert names(tmp_path) == ["checkpoint-00000000.safetensors"][: full_at - 1]
    fit(Tiny(), Points(), plan(keep=9), tmp_path)
    assert names(tmp_path)[-1] == "checkpoint-00000012.safetensors"


def test_a_row_that_a_kill_cut_short_is_forgotten(run, whole):
    (run / "checkpoint-00000012.safetensors").unlink()
    with open(run / "log.jsonl", "a") as file:
        file.write('\0\0{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    fit(Tiny(), Points(), plan(keep=9), run)
    assert logged(run) == logged(whole)


# ---- what was asked for ----


class Named(Points):
    def __init__(self, **identity):
        super().__init__()
        self.named = identity

    def identity(self):
        return {"folder": "a", "view": {"side": 64, "flip": True}, **self.named}


def test_changed_settings_are_refused_field_by_field(tmp_path):
    told = {"kind": "tiny", "scheduler": {"beta_start": 0.1, "name": "x"}}
    fit(Tiny(), Named(), plan(steps=2), tmp_path, settings=told)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    changed = {"kind": "tiny", "scheduler": {"beta_start": 0.2, "name": "x"}, "init": "b"}
    with pytest.raises(ValueError) as caught:
        fit(Tiny(), Named(view={"side": 32, "flip": True}), plan(steps=2, batch_size=4), tmp_path, settings=changed)
    assert "\n" not in str(caught.value)
    assert (
        "checkpoint-00000002.safetensors was made with other settings: batch_size 8 -> 4, data.view.side 64 -> 32, "
        "init None -> 'b', scheduler.beta_start 0.1 -> 0.2; take another folder"
    ) in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    fit(Tiny(), Named(), plan(steps=2), tmp_path, settings=told)


def test_another_model_is_refused_by_name(run):
    class Wider(Tiny):
        def __init__(self):
            super().__init__()
            self.net[0], self.net[2] = torch.nn.Linear(4, 17), torch.nn.Linear(17, 1)

    with pytest.raises(ValueError, match=r"checkpoint-00000012.safetensors .*no model/net.0.weight of shape \(17, 4\)"):
        fit(Wider(), Points(), plan(keep=9), run)
