"""The order of samples: a pure function of the seed, whatever the processes, workers and restarts.

(samples, seed) -> places (epoch, index) without end -> batches -> the share of each process
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import count, islice

import torch

from ldm.training.randomness import keyed

Place = tuple[int, int]  # (epoch, index)


def places(samples: int, seed: int, start: int = 0) -> Iterator[Place]:
    """Every place from number `start` on, without end: epoch e is a permutation that (seed, e) decides."""
    first, skipped = divmod(start, samples)
    for epoch in count(first):
        order = torch.randperm(samples, generator=keyed(seed, epoch, "order")).tolist()
        yield from ((epoch, index) for index in order[skipped:])
        skipped = 0


def batches(
    samples: int, batch_size: int, seed: int, start: int = 0, sizes: Sequence[Hashable] | None = None
) -> Iterator[list[Place]]:
    """The batch of every step from `start` on, without end; what is left of an epoch is filled from the next.

    `sizes` has one for each sample: only samples of the same size share a batch. ValueError where there are no samples.
    """
    if samples < 1:
        raise ValueError("no samples to train on")
    if sizes is not None:
        yield from islice(_by_size(places(samples, seed), batch_size, sizes), start, None)
    stream = places(samples, seed, start * batch_size)
    while True:
        yield list(islice(stream, batch_size))


def _by_size(stream: Iterator[Place], batch_size: int, sizes: Sequence[Hashable]) -> Iterator[list[Place]]:
    """Samples wait for others of their size, into the next epochs if need be; a batch is given when it is full."""
    waiting: dict[Hashable, list[Place]] = defaultdict(list)
    for place in stream:
        size = sizes[place[1]]
        waiting[size].append(place)
        if len(waiting[size]) == batch_size:
            yield waiting.pop(size)


def shares(batch: list[Place], process: int, processes: int, accumulation: int) -> list[list[Place]]:
    """A batch -> the parts that one process computes one after the other; over all processes they are the batch.

    Raises ValueError for a batch with too few samples.
    """
    parts = processes * accumulation
    if len(batch) < parts:
        raise ValueError(f"batch_size {len(batch)}: expected {parts} or more, for {processes} x {accumulation} parts")
    return [batch[part::parts] for part in range(process * accumulation, (process + 1) * accumulation)]
