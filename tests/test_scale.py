"""ldm bench scale: what is asked of whom, and what is made of it."""

import json
import threading

import pytest

from ldm.evaluation.speed import scale
from ldm.evaluation.speed.processes import Run


class Machine:
    """A tenth of a second for a picture, however it is drawn, and a second to begin."""

    def __init__(self):
        self.asked, self.lock = [], threading.Lock()

    def __call__(self, command):
        words = [str(word) for word in command]
        environment = dict(word.split("=") for word in words[1:4])
        count = int(words[words.index("--count") + 1]) if "--count" in words else self.prompts(words)
        with self.lock:
            self.asked.append((environment, words[7:]))
        return Run(1 + 0.1 * count / int(environment["WORLD_SIZE"]), 100 + count // 100)

    def prompts(self, words):
        path = words[words.index("--prompts") + 1]
        with open(path, encoding="utf-8") as file:
            return json.load(file)["count"]


def test_rates_are_beyond_starting_and_memory_of_all_processes():
    machine = Machine()
    found = scale.measure_scale(count=40, many=1000, batch_sizes=(1, 4), processes=(1, 2), run=machine)
    rates = {(row["work"], row["batch_size"], row["processes"]): row["pictures_per_second"] for row in found["rows"]}
    assert rates == {(work, size, each): 10.0 * each
                     for work, sizes in (("torch", (1, 4)), ("encode", (1, 4)), ("openvino", (4,)))
                     for size in sizes for each in (1, 2)}  # fmt: skip
    assert {row["memory_mib"] for row in found["rows"] if row["processes"] == 2 and row["work"] != "encode"} == {200}
    assert found["memory"] == {work: {"40": 100, "1000": 110} for work in ("torch", "openvino")}
    assert "110 MiB for 1000 pictures" in scale.said(found)
    encoded = [int(words[words.index("--count") + 1]) for _, words in machine.asked if "encode" in words]
    assert max(encoded) == 2 * scale.SHORT + 40 * scale.ENCODED


def test_processes_share_the_cores_and_each_knows_its_own_number(monkeypatch):
    monkeypatch.setattr(scale.os, "cpu_count", lambda: 4)
    machine = Machine()
    scale.measure_scale(count=4, many=8, batch_sizes=(1,), processes=(2,), run=machine)
    drawn = [environment for environment, words in machine.asked if environment["WORLD_SIZE"] == "2"]
    assert {environment["RANK"] for environment in drawn} == {"0", "1"}
    assert {environment["OMP_NUM_THREADS"] for environment in drawn} == {"2"}


def test_a_real_run(folder):
    bench = scale.Bench(folder.parent / "scale", str(folder), scale.ran)
    bench.folder.mkdir()
    run = bench.shared("torch", 2, 2, 3)
    assert run.seconds > 0 and run.memory_mib > 0
    assert len(list((bench.folder / "1").glob("*.png"))) == 3


def test_what_is_wrong_is_said_in_one_line(ldm):
    status, _, err = ldm("bench", "scale", "--count", 0)
    assert status == 2 and "count" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("size", [1, 3, 16])
def test_batches_hold_so_many_at_most(size):
    from pathlib import Path

    from ldm.batch import Job, batches

    jobs = [Job(Path(f"{i}.png"), "a fox", i) for i in range(7)]
    groups = batches(jobs, size)
    assert [job for group in groups for job in group] == jobs and max(map(len, groups)) == min(size, 7)
