"""Runs killed by SIGKILL at random moments, also while a checkpoint is written, and started again until they are done:
are the weights those of a run that nothing interrupted, bit by bit, and does every checkpoint load?

python benchmarks/resume.py --kills 20 --json benchmarks/resume.json
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import runs

from ldm.evaluation.speed.processes import machine, versions
from ldm.training import checkpoint

STEPS = 36
SLOW = 0.004  # seconds for each sample that is read and each 512 bytes of a checkpoint, so that both take their time
SPAN = 2.0  # seconds of training within which a run is killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    figures = {name: measured(count, told.kills, told.seed) for name, count in (("one", 1), ("two", 2))}
    told = {"machine": machine(), "versions": versions("torch")}
    text = json.dumps({"processes": figures, "steps": STEPS, **told}, indent=2)
    print(text)
    if told.json:
        told.json.write_text(text + "\n", encoding="utf-8")


def measured(processes: int, kills: int, seed: int) -> dict[str, int | float]:
    """As many kills as asked, over as many runs as they take to finish."""
    rng, began = random.Random(seed + processes), time.perf_counter()
    figures = {"kills": 0, "while_writing": 0, "runs": 0, "checkpoints_that_do_not_load": 0, "tensors_that_differ": 0}
    with tempfile.TemporaryDirectory() as folder:
        runs.ended(started(f"{folder}/whole", processes, folder))
        whole = runs.final(f"{folder}/whole", STEPS)
        while figures["kills"] < kills:
            figures["runs"] += 1
            run = Path(folder) / str(figures["runs"])
            while killed(run, processes, folder, rng.uniform(0, SPAN) if figures["kills"] < kills else None, figures):
                figures["checkpoints_that_do_not_load"] += damaged(run)
            figures["tensors_that_differ"] += len(runs.differences(whole, runs.final(run, STEPS)))
    return {**figures, "tensors": len(whole), "seconds": round(time.perf_counter() - began, 1)}


def started(run: Path | str, processes: int, folder: str) -> list:
    return runs.start(run, processes, slow=SLOW, steps=STEPS, began=f"{folder}/began")


def killed(run: Path, processes: int, folder: str, after: float | None, figures: dict[str, int]) -> bool:
    """Starts or goes on with a run and kills it `after` so many seconds of training; whether it was killed."""
    signal = Path(folder) / "began"
    signal.unlink(missing_ok=True)
    group = started(run, processes, folder)
    if after is not None:
        while not signal.exists() and group[0].is_alive():
            time.sleep(0.005)
        time.sleep(after)
    if after is None or not group[0].is_alive():
        codes = runs.ended(group)
        assert codes == [0] * processes, Path(f"{run}-0.txt").read_text()
        return False
    runs.kill(group)
    figures["kills"] += 1
    figures["while_writing"] += any(run.glob(".*.tmp"))
    return True


def damaged(run: Path) -> int:
    """How many of a run's checkpoints do not load."""
    count = 0
    for path in checkpoint.paths(run):
        try:
            checkpoint.read(path)
        except ValueError:
            count += 1
    return count


if __name__ == "__main__":
    main()
