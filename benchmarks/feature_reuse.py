"""Does it pay to keep what the deep levels of a U-Net say for some steps (DeepCache, Ma et al. 2023)?

python benchmarks/feature_reuse.py --json benchmarks/feature-reuse.json

Beside it stands what costs nothing to build: fewer steps. Quality is PSNR against many steps, and the cost is counted
in whole evaluations: one in which the deep levels are not asked costs the share that is measured here, in turn.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ldm.evaluation.speed.processes import machine, versions
from ldm.pipeline import LatentDiffusion

PROMPTS = [
    "a cat face on a green background", "two rockets", "a tulip to the left of a pizza", "five blue hearts",
    "a crown above a dog face", "a yellow car in the night sky", "an owl", "a small tomato on a lawn",
    "a strawberry below a fox", "a unicorn on a red background", "three snails", "a red cup",
]  # fmt: skip
SEED, TRUE, STEPS = 100, 200, 20
WAYS = [(1, 20), (1, 16), (1, 14), (1, 12), (1, 10), (1, 8), (2, 20), (3, 20), (5, 20), (2, 24), (2, 16)]


class Reusing:
    """A U-Net whose deep levels are asked in every n-th evaluation alone; the others take their last answers."""

    def __init__(self, unet: Any):
        self.unet, self.every, self.asked, self.answers = unet, 1, 0, dict[int, Any]()
        deep = [*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]
        for i, block in enumerate(deep):
            block.forward = self._reusing(i, block.forward)

    def begin(self, every: int) -> None:
        self.every, self.asked = every, 0

    def _reusing(self, i: int, forward: Any) -> Any:
        def answer(*args: Any, **named: Any) -> Any:
            if self.asked % self.every == 0:
                self.answers[i] = forward(*args, **named)
            return self.answers[i]

        return answer

    def __call__(self, *args: Any, **named: Any) -> Any:
        output = self.unet(*args, **named)
        self.asked += 1
        return output


def drawn(model: LatentDiffusion, every: int, steps: int) -> np.ndarray:
    """Pictures of all prompts (B,H,W,3), 0 to 255."""
    model.denoiser.unet.begin(every)  # type: ignore[attr-defined]
    images = model.text_to_image(PROMPTS, seed=SEED, num_inference_steps=steps)
    return np.stack([np.asarray(image, dtype=float) for image in images])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """The mean over pictures, dB."""
    return round(float(np.mean(10 * np.log10(255**2 / ((one - other) ** 2).mean((1, 2, 3)).clip(1e-9)))), 2)


@torch.no_grad()
def share(unet: Any, side: int, features: int, rounds: int = 21) -> float:
    """The time of an evaluation without the deep levels, as a share of a whole one's: the median of rounds in turn."""
    z, t, cond = torch.randn(2, 4, side, side), torch.tensor([500, 500]), torch.randn(2, 20, features)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(rounds):
        unet.begin(2)
        for kind in seconds:
            began = time.perf_counter()
            unet(z, t, encoder_hidden_states=cond)
            seconds[kind].append(time.perf_counter() - began)
    return round(median(b / a for a, b in zip(*seconds.values(), strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    path = parser.parse_args().json
    model = LatentDiffusion.from_pretrained("emoji")
    config, words = model.denoiser.unet.config, model.text
    assert words is not None
    model.denoiser.unet = Reusing(model.denoiser.unet)
    model.denoiser.unet.config = config  # type: ignore[attr-defined]
    cost = share(model.denoiser.unet, config.sample_size, words.features)
    true, full = drawn(model, 1, TRUE), drawn(model, 1, STEPS)
    rows = []
    for every, steps in WAYS:
        pictures, asked = drawn(model, every, steps), -(-steps // every)
        rows.append({
            "steps": steps, "deep_levels_every": every,
            "evaluations": round(asked + cost * (steps - asked), 1),
            "psnr_to_20_steps": None if (every, steps) == (1, STEPS) else psnr(pictures, full),
            f"psnr_to_{TRUE}_steps": psnr(pictures, true),
        })  # fmt: skip
        print(rows[-1], flush=True)
    told = {"what": "deep levels of the embedded model's U-Net every n steps, beside fewer steps", "rows": rows,
            "shallow_share": cost, "machine": machine(), "versions": versions("torch", "diffusers")}  # fmt: skip
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
