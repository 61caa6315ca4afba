"""Text to image without torch: NumPy, tokenizers, and OpenVINO's networks; a command that draws one picture is mostly
imports, and these are the small ones.

    words --tokenizer--> ids --text--> cond;   seeds --noise--> z_T --DDIM, unet--> z_0 --decoder--> x --> images

It draws what DDIM draws for words without weights, in one chunk; for everything else it asks the whole pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm import __version__, metadata
from ldm.checkpoints import load_tokenizer, locate
from ldm.engines.noise import SIXTEEN, gaussian
from ldm.engines.preparing import prepared
from ldm.images import to_images
from ldm.noising import Diffusion
from ldm.order import Order, ordered
from ldm.samplers import checked_seed, default_sampler, grid_of

if TYPE_CHECKING:
    from PIL import Image

ALIKE = {  # what `text_to_image` takes and this does too
    "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "sampler", "seed",
    "num_images_per_prompt", "guidance_interval", "prompt_weights", "callback",
}  # fmt: skip


class SwiftDiffusion:
    """A prepared model; `whole` makes the pipeline that is asked for what this cannot draw.

    Its networks are prepared where they are not yet. ValueError for a single file, and for a model that takes anything
    but words. `eight` has the U-Net in int8.
    """

    def __init__(self, source: str | Path, whole: Callable[[], Any], eight: bool = False):
        told, self.text, self.unet, self.decoder = prepared(source, whole, eight)
        self.engine = {"engine": "openvino-int8"} if eight else {}  # its pictures are others
        self.name, self.hash, self.whole = str(source), told["hash"], whole
        self.loras, self.embeddings = SimpleNamespace(scales={}), dict[str, str]()
        self.tokenizer = load_tokenizer(locate(source))
        self.channels, self.factor, self.sample_size = (told[key] for key in ("channels", "factor", "sample_size"))
        self.scale, self.scheduler = told["scale"], told["scheduler"]
        self.defaults = {"sampler": default_sampler(self.scheduler)} | told["defaults"]
        self.process = Diffusion.from_config(self.scheduler).with_eta(0)

    def __getattr__(self, task: str) -> Any:
        """Every other task of a pipeline: the whole one's."""
        if task.startswith("_"):
            raise AttributeError(task)
        return getattr(self.whole(), task)

    def text_to_image(self, prompt: str | Sequence[str], **settings: Any) -> list[Image.Image]:
        """As `LatentDiffusion.text_to_image`, to a level of 255; a callback is told, but cannot stop the drawing."""
        order = self._order(prompt, settings)
        if order is None:
            return self.whole().text_to_image(prompt, **settings)
        return [metadata.attach(self._drawn(order, row), self._told(order, row)) for row in range(len(order))]

    def _order(self, prompt: str | Sequence[str], settings: dict[str, Any]) -> Order | None:
        """What is asked; None where it is not for this engine, or where the whole pipeline is to say what is wrong."""
        sides = [settings.get(name) or self.factor * self.sample_size for name in ("height", "width")]
        order = ordered(prompt, (sides[0], sides[1]), self.defaults, settings, draws=lambda seeds: [])  # type: ignore[arg-type]
        low, high = order.guidance_interval
        able = (
            settings.keys() <= ALIKE
            and order.sampler == "ddim"
            and not self.scheduler.get("clip_sample")
            and not self.scheduler.get("thresholding")
            and all(side > 0 and side % self.factor == 0 for side in order.size)
            and math.prod(self._shape(order)) >= SIXTEEN
            and 0 <= order.guidance < math.inf
            and not order.guidance_rescale
            and 0 <= low <= high <= 1
            and all(self._plain(words, order.prompt_weights) for words in (*order.prompts, *order.negatives))
        )
        return order if able else None

    def _plain(self, words: str, weights: bool) -> bool:
        """Whether the words make one chunk, and none has a weight."""
        chunks = self.tokenizer.chunks(words, weights)
        return len(chunks) == 1 and all(token.weight == 1 for token in chunks[0])

    def _shape(self, order: Order) -> tuple[int, int, int]:
        """Of one picture's latents (C,H/f,W/f)."""
        return self.channels, order.size[0] // self.factor, order.size[1] // self.factor

    def _drawn(self, order: Order, row: int) -> Image.Image:
        """One picture of the order: alone, so that every one of them meets the networks in the same shape."""
        z = gaussian([checked_seed(order.seeds[row])], self._shape(order))
        cond = self._read([order.negatives[row], order.prompts[row]], order.prompt_weights)
        grid = grid_of(self.scheduler, self.process.T, order.steps)
        for step, (t, s) in enumerate(pairwise(grid), start=1):
            z_0 = self.process.recover(z, t, self._output(z, t, cond, order))
            if order.callback:
                order.callback(row * order.steps + step, len(order) * order.steps, t, z_0)  # type: ignore[arg-type]
            z = self.process.step(z, z_0, t, s, 0.0)
        return to_images(self.decoder(z))[0]

    def _read(self, words: Sequence[str], weights: bool) -> np.ndarray:
        """Negative prompt and prompt -> their conditions (2,L,D)."""
        tokens = [self.tokenizer.padded(self.tokenizer.chunks(text, weights)[0]) for text in words]
        return self.text(np.array([[token.id for token in row] for row in tokens], dtype=np.int64))

    def _output(self, z: np.ndarray, t: int, cond: np.ndarray, order: Order) -> np.ndarray:
        """What the network emits, guided where the order says so: null + scale (cond - null)."""
        low, high = order.guidance_interval
        if order.guidance == 1 or not low <= t / self.process.T <= high:
            return self.unet(z, _clock(t, 1), cond[1:])
        null, plain = np.split(self.unet(z.repeat(2, 0), _clock(t, 2), cond), 2)
        return null + np.float32(order.guidance) * (plain - null)

    def _told(self, order: Order, row: int) -> dict[str, Any]:
        """What a picture's metadata say, as a pipeline's do."""
        words = {"prompt": order.prompts[row], "negative_prompt": order.negatives[row], "seed": order.seeds[row]}
        model = {"scale": self.scale, "model": self.name, "model_hash": self.hash, "version": f"ldm {__version__}"}
        return words | order.settings() | model | self.engine


def _clock(t: int, count: int) -> np.ndarray:
    """A time -> what the network is given of it, `count` times: published checkpoints embed 0..999."""
    return np.full(count, t - 1, dtype=np.float32)
