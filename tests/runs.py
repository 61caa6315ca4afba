"""Tiny trainings in processes of their own, which tests and benchmarks/resume.py start, kill and compare.

A run may be told to die: by SIGKILL, before it reads sample number n, ("read", n), or writes a checkpoint's piece
number n, ("write", n), counted from its own start. `python runs.py FOLDER` trains in this process (for torchrun).
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ldm.draws import gaussian
from ldm.training import checkpoint, curves
from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.processes import leave
from ldm.training.randomness import keyed

STEPS = 12
PIECE = 512  # bytes


class Points:
    """25 points (x (4,), y (1,)), each moved a little by its own generator; `nan` lists those that are damaged."""

    def __init__(self, dtype=torch.float32, nan=(), tick=lambda what: None):
        self.dtype, self.nan, self.tick = dtype, nan, tick

    def __len__(self):
        return 25

    def draw(self, index, generator):
        self.tick("read")
        x = torch.randn(4, generator=keyed(7, index)).to(self.dtype)
        y = x.sum(dim=0, keepdim=True).sin() * (float("nan") if index in self.nan else 1)
        return x + 0.1 * torch.rand(4, generator=generator).to(x), y


class Tiny(nn.Module):
    """A network that learns y from x with noise on it."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)

    def forward(self, batch, generators):
        x, y = batch
        x = x + 0.1 * gaussian(generators, x.shape[1:]).to(x)
        loss = (self.net(x) - y).square().mean()
        return {"loss": loss, "size": self.net(x).detach().abs().mean()}


def plan(**changes):
    told = {"steps": STEPS, "batch_size": 8, "learning_rate": 0.01, "warmup": 3, "log_every": 1, "save_every": 3}
    return Plan(**{**told, "tensorboard": False, **changes})


def train(folder, double=False, death=None, slow=0.0, began=None, **changes):
    """One process's part of a run; -> how many samples it read and pieces it wrote.

    Each of them takes `slow` seconds; the file `began` appears with the first.
    """
    events = Events(death, slow, began)
    torch.set_num_threads(1)
    dtype = torch.float64 if double else torch.float32
    curves.draw = lambda folder: None  # it takes longer than the training
    checkpoint.replacing = events.in_pieces(checkpoint.replacing)
    fit(Tiny(dtype), Points(dtype, tick=events.tick), plan(**changes), Path(folder))
    return events.counts


class Events:
    def __init__(self, death, slow, began):
        self.death, self.slow, self.began, self.counts = death, slow, began, {"read": 0, "write": 0}

    def tick(self, what):
        if self.began and not any(self.counts.values()):
            Path(self.began).touch()
        self.counts[what] += 1
        if (what, self.counts[what]) == self.death:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow)

    def in_pieces(self, replacing):
        """replacing(path), whose file is written piece by piece."""

        @contextmanager
        def pieces(path):
            with replacing(path) as file:
                yield Pieces(file, self.tick)

        return pieces


class Pieces:
    def __init__(self, file, tick):
        self.file, self.tick = file, tick

    def write(self, data):
        for start in range(0, len(data), PIECE):
            self.tick("write")
            self.file.write(data[start : start + PIECE])
            self.file.flush()


# Processes: forked from a server that has imported torch once.

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["ldm.training.loop", "torch.distributed"])


def start(folder, processes=1, deaths=(), **options):
    """Starts a run of 1, 2 or 4 processes; `deaths` tells each when to die, None for not at all."""
    deaths = dict(enumerate(deaths))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = [(folder, rank, processes, port, {**options, "death": deaths.get(rank)}) for rank in range(processes)]
    started = [context.Process(target=_child, args=args) for args in told]
    for process in started:
        process.start()
    return started


def ended(started):
    """Waits until each has ended or, if one was killed, kills the others; -> exit codes."""
    while any(process.is_alive() for process in started):
        if any(process.exitcode for process in started):
            kill(started)
        time.sleep(0.01)
    return [process.exitcode for process in started]


def kill(started):
    for process in started:
        process.kill()
        process.join()


def _child(folder, rank, processes, port, options):
    sys.stderr = open(f"{folder}-{rank}.txt", "a", buffering=1)  # noqa: SIM115
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        os.environ.update({name: str(value) for name, value in place.items()})
    counts = train(folder, **options)
    Path(f"{folder}-{rank}.json").write_text(json.dumps(counts))
    leave(0)


def final(folder, steps=STEPS):
    """Every tensor of a finished run."""
    return checkpoint.read(Path(folder) / f"checkpoint-{steps:08d}.safetensors").tensors


def differences(one, other):
    """Names of tensors that are not equal bit by bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


if __name__ == "__main__":
    train(sys.argv[1], double=True, steps=2)
    leave(0)
