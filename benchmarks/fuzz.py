"""Damaged pictures, weights and data against every loader: is each read, or refused in one line that names it?

Nothing else may happen: no traceback, no hang, no file left behind, and memory that does not grow. Which damage is
drawn by hypothesis, and every case has a number by which it comes again.

python benchmarks/fuzz.py --count 2000 --json benchmarks/fuzz.json
python benchmarks/fuzz.py --only "pictures" --count 500
python benchmarks/fuzz.py --case "pictures 17"
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing import limits
from fuzzing.cases import Case, numbered
from fuzzing.loaders import LOADERS, folder_of
from fuzzing.trying import tried
from fuzzing.working import Result, results
from tqdm import tqdm

from ldm.evaluation.speed.processes import machine, versions

PACKAGES = ("hypothesis", "torch", "diffusers", "transformers", "safetensors", "tokenizers", "pillow", "numpy")
STATIONS = 10  # of the run, at which memory is told
GROWTH = 32  # MiB that the second half of a run may add: what is loaded once was loaded in the first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files in all")
    parser.add_argument("--only", action="append", metavar="LOADER", choices=LOADERS, help="these loaders alone")
    parser.add_argument("--case", metavar="NUMBER", help='one case, such as "pictures 17"')
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    if told.case:
        return again(told.case)
    began, chosen = time.perf_counter(), told.only or list(LOADERS)
    wanted = shares(chosen, told.count)
    drawn = {(i, name): case for name in chosen for i, case in enumerate(numbered(LOADERS[name], wanted[name]))}
    planned = {f"{name} {i}": drawn[i, name] for i, name in sorted(drawn)}  # in turns, so that memory can be compared
    bar = tqdm(results(planned.values()), total=len(planned), unit="file", disable=None)
    found = dict(zip(planned, bar, strict=True))
    figures = {
        "command": " ".join(["python", *sys.argv]), "files": len(found), "seconds": round(time.perf_counter() - began),
        "limits": {"seconds": limits.SECONDS, "mib": limits.MIB}, **judged(found),
        "machine": machine(), "versions": versions(*PACKAGES),
    }  # fmt: skip
    text = json.dumps(figures, indent=2)
    print(text)
    if told.json:
        told.json.write_text(text + "\n", encoding="utf-8")
    return int(len(figures["wrong"]) > 0 or figures["grown_mib"] > GROWTH)


def shares(names: Sequence[str], count: int) -> dict[str, int]:
    """How many of `count` files each loader has, by its share."""
    whole, given = sum(LOADERS[name].share for name in names), 0
    found = {}
    for name in names:
        found[name] = round(count * (given + LOADERS[name].share) / whole) - round(count * given / whole)
        given += LOADERS[name].share
    return found


def judged(found: dict[str, Result]) -> dict[str, Any]:
    """Counts by loader and by outcome, all that is wrong, and the memory of the process along the way."""
    loaders = {
        name: dict(Counter(result.outcome.kind for result in _of(found.values(), name)))
        for name in dict.fromkeys(result.case.loader for result in found.values())
    }
    memory = [result.resident_mib for result in found.values()]
    places = [round(i * (len(memory) - 1) / STATIONS) for i in range(STATIONS + 1)]
    slowest = max(found, key=lambda number: found[number].outcome.seconds)
    return {
        "outcomes": dict(Counter(result.outcome.kind for result in found.values())),
        "resident_mib": [memory[place] for place in places],
        "grown_mib": round(memory[-1] - memory[len(memory) // 2], 1),
        "slowest": {"case": slowest, "seconds": found[slowest].outcome.seconds},
        "loaders": loaders,
        "wrong": [_told(number, result) for number, result in found.items() if not result.outcome.right],
    }


def _of(found: Iterable[Result], loader: str) -> list[Result]:
    return [result for result in found if result.case.loader == loader]


def _told(number: str, result: Result) -> dict[str, Any]:
    kind, said, seconds = result.outcome
    return {"case": number, "kind": kind, "said": said, "seconds": seconds, "damage": damage(result.case)}


def damage(case: Case) -> str:
    return f"{case.file}: " + "; ".join(f"{how}{told!r} in {part}"[:300] for how, told, part in case.steps)


def again(number: str) -> int:
    """One case by its number, in this process."""
    name, _, place = number.rpartition(" ")
    case = numbered(LOADERS[name], int(place) + 1)[-1]
    outcome = tried(case, folder_of(name))
    print(damage(case), outcome, sep="\n")
    return 0 if outcome.right else 1


if __name__ == "__main__":
    sys.exit(main())
