"""What does the autoencoder lose on scenes that it has not seen?"""

from statistics import fmean
from typing import Any

from tqdm import tqdm

from ldm.data.emoji import EmojiScenes
from ldm.latents import LatentSpace


def evaluate_roundtrip(space: LatentSpace, split: str = "heldout", count: int = 200, seed: int = 0) -> dict[str, Any]:
    """`count` emoji scenes there and back -> means over pictures: psnr in dB, ssim, and the deviation of the latents.

    Scenes are drawn at the autoencoder's own size from a seed that training does not use. ValueError for an unknown
    split or a count below 1.
    """
    if count < 1:
        raise ValueError(f"count {count}: expected 1 or more")
    scenes = EmojiScenes(64, 1_000_000 + seed, split)
    checks = [space.roundtrip(scenes[i][0]) for i in tqdm(range(count), desc=f"{split} scenes", disable=None)]
    return {
        "psnr": fmean(check.psnr for check in checks),
        "ssim": fmean(check.ssim for check in checks),
        "latent_std": fmean(check.latent_std for check in checks),
        "worst_psnr": min(check.psnr for check in checks),
        "count": count,
        "settings": {"split": split, "seed": seed, "side": 64},
    }
