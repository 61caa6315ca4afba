"""Networks that pictures are judged by, in small."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fuzzing.loaders.loader import loader


@cache
def seen() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)


def write_lpips(folder: Path) -> None:
    import test_losses

    from ldm.training.perceptual import BACKBONE, LINEAR

    backbone, linear = test_losses.vgg_in_small()
    (folder / "two").mkdir()
    torch.save(backbone, folder / "two" / BACKBONE)
    torch.save(linear, folder / "two" / LINEAR)
    save_file(backbone | linear, folder / "one.safetensors")


def lpips(root: Path, damaged: Path) -> None:
    from ldm.training.perceptual import load_lpips

    load_lpips(damaged if damaged.parent == root else root / "two")(seen(), -seen())


def write_clip(folder: Path) -> None:
    import test_evaluation_images

    test_evaluation_images.write_clip(folder)


def clip(root: Path, damaged: Path) -> None:
    from ldm.evaluation.images.clip import load_clip

    found: Any = load_clip(root)
    found.scores(found.images(seen()), ["a red apple"])


def write_inception(folder: Path) -> None:
    import test_evaluation_images

    from ldm.evaluation.distances import INCEPTION

    torch.jit.script(test_evaluation_images.Inception()).save(str(folder / INCEPTION))


def inception(root: Path, damaged: Path) -> None:
    from ldm.evaluation.distances import load_inception

    load_inception(root)(seen())


loader(inception, write_inception)
loader(lpips, write_lpips)
loader(clip, write_clip)
