"""Many pictures: how many a second, in how much memory, by how many processes and in which batches?

    (seconds of a long run) - (seconds of a short run) = seconds of the pictures that the long run had more

Commands are run from start to end, `ldm generate --prompts` and `ldm encode`; so starting and loading cancel. Several
processes share a machine's cores and the work, as torchrun has them.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from ldm.evaluation.speed.processes import LDM, Run, Runner, ran
from ldm.evaluation.speed.training import Rate
from ldm.evaluation.speed.turns import here

SHORT = 8  # pictures of a short run, for each process
ENCODED = 16  # times as many pictures are encoded as are drawn: each takes so much less that starting would hide it


def measure_scale(
    model: str = "emoji",
    count: int = 96,
    many: int = 1000,
    batch_sizes: Sequence[int] = (1, 4, 16),
    processes: Sequence[int] = (1, 2),
    run: Runner = ran,
) -> dict[str, Any]:
    """Pictures a second and MiB of drawing, by two engines, and of encoding; and memory at `count` and at `many`.

    `count` pictures are what a long run has more than a short one, ENCODED times as many where they are encoded.
    """
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), model, run)
        bench.shared("openvino", 1, 1, 1)  # its networks are prepared by the first that draws
        cases: list[tuple[str, int, int]]
        cases = [(work, size, each) for work in ("torch", "encode") for size in batch_sizes for each in processes]
        cases += [("openvino", max(batch_sizes), each) for each in processes]  # which draws one by one
        rows = [bench.row(work, size, each, count) for work, size, each in tqdm(cases, "ways", disable=None)]
        memory = {work: bench.growth(work, max(batch_sizes), (count, many)) for work in ("torch", "openvino")}
    return {
        "what": f"many pictures, {model}: pictures a second beyond starting, and MiB of all processes",
        "rows": rows,
        "memory": memory,
        "settings": {"model": model, "count": count, "many": many},
        **here(),
    }


class Bench:
    """Runs of one model in a folder."""

    def __init__(self, folder: Path, model: str, run: Runner):
        self.folder, self.model, self.run, self.runs = folder, model, run, 0

    def row(self, work: str, batch_size: int, processes: int, count: int) -> dict[str, Any]:
        """Drawing by an engine, or encoding, in batches, by some processes."""
        count *= ENCODED if work == "encode" else 1
        short = self.shared(work, batch_size, processes, SHORT * processes)
        long = self.shared(work, batch_size, processes, SHORT * processes + count)
        rate = Rate(short, long, count).images_per_second
        return {"work": work, "batch_size": batch_size, "processes": processes,
                "pictures_per_second": float(f"{rate:.3g}"), "memory_mib": long.memory_mib}  # fmt: skip

    def growth(self, work: str, batch_size: int, counts: Sequence[int]) -> dict[str, int]:
        """MiB that one process holds at most, by how many pictures it draws."""
        return {str(count): self.shared(work, batch_size, 1, count).memory_mib for count in counts}

    def shared(self, work: str, batch_size: int, processes: int, count: int) -> Run:
        """Some processes at once, each with its share of the pictures and of the cores, in a new folder."""
        self.runs += 1
        out = self.folder / str(self.runs)
        words = self._encoding(out) if work == "encode" else self._drawing(work, out, count)
        threads = max(1, (os.cpu_count() or 1) // processes)
        shares = [
            ["env", f"RANK={rank}", f"WORLD_SIZE={processes}", f"OMP_NUM_THREADS={threads}", *LDM, *words,
             "--batch-size", batch_size, *(("--count", count) if work == "encode" else ())]
            for rank in range(processes)
        ]  # fmt: skip
        with ThreadPoolExecutor(processes) as pool:
            runs = list(pool.map(self.run, shares))
        return Run(max(run.seconds for run in runs), sum(run.memory_mib for run in runs))

    def _drawing(self, engine: str, out: Path, count: int) -> list[object]:
        prompts = self.folder / f"{count}.jsonl"
        line = {"prompt": "a red apple on a blue background", "count": count}
        prompts.write_text(json.dumps(line), encoding="utf-8")
        return [
            "generate",
            "--prompts",
            prompts,
            "--model",
            self.model,
            "--device",
            "cpu",
            "--engine",
            engine,
            "-o",
            out,
        ]

    def _encoding(self, out: Path) -> list[object]:
        return ["encode", "emoji", "--vae", self.model, "--device", "cpu", "--out", out]


def said(found: dict[str, Any]) -> str:
    """Rows in lines to read."""
    lines = [found["what"]]
    for row in found["rows"]:
        way = f"{row['work']}, batches of {row['batch_size']}, {row['processes']} process(es)"
        lines.append(f"{way}: {row['pictures_per_second']} pictures/s, {row['memory_mib']} MiB")
    for work, held in found["memory"].items():
        lines.append(f"{work}: " + ", ".join(f"{mib} MiB for {count} pictures" for count, mib in held.items()))
    return "\n".join(lines)
