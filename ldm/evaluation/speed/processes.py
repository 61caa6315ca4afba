"""Whole programs, measured from outside: how long, in how much memory, on what machine.

Nothing heavy is imported here: a process begins with the memory that its parent holds, and Linux counts that as its own
peak.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LDM = [sys.executable, "-m", "ldm"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
GPU_MEMORY = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"]  # in MiB


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds of a process; the most memory that it held at once, and that was taken on the GPU meanwhile
    beyond what others held as it began; None without nvidia-smi."""

    seconds: float
    memory_mib: int
    gpu_memory_mib: int | None = None


Runner = Callable[[Sequence[object]], Run]


def ran(command: Sequence[object]) -> Run:
    """Runs a command without a network -> how it was. ValueError where it fails: its last line on stderr."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as said, _gpu_memory() as gpu:
        began = time.perf_counter()
        process = subprocess.Popen(words, env=os.environ | OFFLINE, stdout=subprocess.DEVNULL, stderr=said)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
            reason = next((line.strip() for line in reversed(lines) if line.strip()), f"status {process.returncode}")
            raise ValueError(f"{_name(words)}: {reason}")
    kib = usage.ru_maxrss // (1024 if platform.system() == "Darwin" else 1)
    return Run(seconds, kib >> 10, max(gpu) - gpu[0] if gpu else None)


def _name(words: list[str]) -> str:
    """[python, script.py, ...] -> "script.py"; [python, -m, ldm, encode, ...] -> "ldm encode"."""
    return " ".join(words[2:4]) if words[1] == "-m" else Path(words[1]).name


@contextmanager
def _gpu_memory() -> Iterator[list[int]]:
    """A list that at the end holds what was taken on the first GPU, in MiB, five times a second; empty without one."""
    found: list[int] = []
    if not shutil.which("nvidia-smi"):
        yield found
        return
    with tempfile.TemporaryFile("w+") as told:
        watcher = subprocess.Popen(_asked_of_gpu(*GPU_MEMORY, "--loop-ms=200"), stdout=told)
        try:
            yield found
        finally:
            watcher.terminate()
            watcher.wait()
        told.seek(0)
        found += [int(line) for line in told.read().split("\n") if line.strip().isdigit()]


def _asked_of_gpu(*questions: str) -> list[str]:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return ["nvidia-smi", f"--id={first or 0}", *questions]


def machine() -> dict[str, Any]:
    """Processor, cores and threads, GPU if there is one, and Python's version."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),  # None: as many as torch takes by itself
        "gpu": _gpu(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").split("\n") if information.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _gpu() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    asked = _asked_of_gpu("--query-gpu=name", "--format=csv,noheader")
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None


def versions(*packages: str) -> dict[str, str | None]:
    """Packages -> their versions; None for one that is not installed."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
