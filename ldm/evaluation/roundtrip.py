"""What does the autoencoder lose on pictures that it has not seen?"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from PIL import Image
from tqdm import tqdm

from ldm import data as sources
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.roundtrip import psnr, ssim

Repair = Callable[[Image.Image], Image.Image]

PHOTOGRAPH = 256  # the side that photographs are cut to, as in the published figures


def evaluate_roundtrip(
    space: LatentSpace,
    split: str | None = None,
    count: int = 200,
    seed: int = 0,
    side: int | None = None,
    data: str = "emoji",
    repair: Repair | None = None,
) -> dict[str, Any]:
    """Pictures there and back -> means over them: psnr in dB, ssim, and the deviation of the latents.

    `data` is anything that `ldm.data.open` takes, of which at most `count` are seen; what is drawn comes from a seed
    that training does not use. `split` is by default the one that no training sees: "heldout" of emoji, "test" of
    photographs (scikit-learn's two on a fixed grid). `side` is by default the autoencoder's own, 256 for photographs.
    With `repair` of what comes back, that is compared too: refined_psnr and refined_ssim.
    ValueError for an unknown split or a count below 1, and what `ldm.data.open` raises.
    """
    if count < 1:
        raise ValueError(f"count {count}: expected 1 or more")
    side = side or (PHOTOGRAPH if data == "photographs" else space.side)
    split = split or sources.UNSEEN.get(data)
    pictures = sources.open(data, side, split=split, seed=1_000_000 + seed)
    count = min(count, len(pictures))
    checks, repaired = [], list[dict[str, float]]()
    for i in tqdm(range(count), desc=f"{data}, {split}", disable=None):
        checks.append(space.roundtrip(pictures[i][0]))
        if repair:
            x, y = to_pixels(pictures[i][0]), to_pixels(repair(checks[-1].image))
            repaired.append({"refined_psnr": psnr(x, y), "refined_ssim": ssim(x, y)})
    return {
        "psnr": fmean(check.psnr for check in checks),
        "ssim": fmean(check.ssim for check in checks),
        "latent_std": fmean(check.latent_std for check in checks),
        "worst_psnr": min(check.psnr for check in checks),
        **{name: fmean(row[name] for row in repaired) for name in (repaired[0] if repaired else ())},
        "count": count,
        "settings": {"data": data, "split": split, "seed": seed, "side": side},
    }
