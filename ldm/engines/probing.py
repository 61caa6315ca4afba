"""In which number format and layout does this machine compute fastest? Processors differ, so it is measured.

A convolution and a linear layer of a U-Net's proportions, for half a second in all.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn.functional import conv2d, linear
from torch.utils.benchmark import Timer

GAIN = 1.1  # how many times as fast a coarser format, or another layout, must be to be chosen
SECONDS = 0.1  # for each choice


class Choice(NamedTuple):
    """How a network computes."""

    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format

    def __str__(self) -> str:
        return ", ".join(str(part).removeprefix("torch.") for part in self)


CHOICES = {  # the plainest first
    "cpu": [Choice(), Choice(layout=torch.channels_last), Choice(torch.bfloat16, torch.channels_last)],
    "cuda": [Choice(dtype, torch.channels_last) for dtype in (torch.float16, torch.bfloat16, torch.float32)],
}


@cache
def fastest(device: str, dtype: torch.dtype | None = None) -> Choice:
    """A kind of device (cpu, cuda), and a dtype if that is given -> the choice that takes least time there."""
    able = [choice for choice in CHOICES.get(device, [Choice()]) if dtype in (None, choice.dtype)]
    best, *others = able or [Choice(dtype or torch.float32)]
    seconds = probe(device, best) if others else 0.0
    for choice in others:
        if (found := probe(device, choice)) * GAIN < seconds:
            best, seconds = choice, found
    return best


@torch.no_grad()
def probe(device: str, choice: Choice) -> float:
    """Seconds that a 3 x 3 convolution of 320 channels at 32 x 32 and a linear layer on as many places take."""
    dtype, layout = choice
    shapes = {"x": (2, 320, 32, 32), "kernel": (320, 320, 3, 3), "tokens": (2, 1024, 320), "weight": (1280, 320)}
    named: dict[str, Any] = {name: torch.ones(shape).to(device, dtype) for name, shape in shapes.items()}
    named |= {name: named[name].contiguous(memory_format=layout) for name in ("x", "kernel")}
    calls = "conv2d(x, kernel, padding=1); linear(tokens, weight)"
    threads = torch.get_num_threads()
    timer = Timer(calls, globals=named | {"conv2d": conv2d, "linear": linear}, num_threads=threads)
    return min(timer.blocked_autorange(min_run_time=SECONDS).times)  # the least: what else runs here does not choose
