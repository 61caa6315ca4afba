"""One model, and one thread that works with it: what is asked for waits its turn.

task --the thread--> steps, newest alone, and at last what the task returns
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ldm.pipeline import LatentDiffusion

PAUSE = 0.1  # seconds between two steps that are told: drawing needs the processor more than sketches do


class Step(NamedTuple):
    """How far a drawing is: step of total, and the estimate z_0 (1,C,H/f,W/f)."""

    step: int
    total: int
    z_0: Tensor


class Studio:
    """A model that is drawn with by one thread alone, whoever asks."""

    def __init__(self, pipeline: LatentDiffusion):
        self.pipeline = pipeline
        self._worker = ThreadPoolExecutor(1, "studio")

    def warm(self) -> None:
        """Begins to prepare what the first drawing would have to wait for."""
        self._worker.submit(self.pipeline.text_to_image, "", num_inference_steps=1)
        self._worker.submit(self.sketch, torch.zeros(1, self.pipeline.latents.channels, 1, 1))

    def working(self, task: Callable[[Callable[..., bool]], Any]) -> Generator[Any, None, None]:
        """task(callback) -> a `Step` for each call of the callback, the newest for a slow reader; last its result.

        Closed before its end, it has the task stopped at its next step.
        """
        news, closed = SimpleQueue[Step | None](), Event()

        def told(step: int, total: int, t: float, z_0: Tensor) -> bool:
            news.put(Step(step, total, z_0))
            return not closed.is_set()

        work = self._worker.submit(task, told)
        work.add_done_callback(lambda _: news.put(None))
        try:
            while (step := _newest(news)) is not None:
                yield step
                wait([work], PAUSE)
            yield work.result()
        finally:
            closed.set()

    def sketch(self, z_0: Tensor) -> Image.Image:
        """z_0 (1,C,h,w) -> a sketch of the picture."""
        return self.pipeline.latents.preview(z_0)[0]

    @property
    def side(self) -> int:
        """The longer side, in pixels, of the pictures that the model draws."""
        return max(self.pipeline.size(None, None))


def _newest(news: SimpleQueue[Step | None]) -> Step | None:
    """The last of what is there, or the first that comes; None ends it."""
    step = news.get()
    while step is not None and not news.empty():
        step = news.get()
    return step
