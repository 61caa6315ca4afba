"""An error map -> a picture of it: black is right, pale yellow wrong."""

import numpy as np
from PIL import Image
from torch import Tensor

from ldm.images import HEAT

SHOWN = 0.8  # how much of the picture the hottest places hide


def heat(error_map: Tensor) -> Image.Image:
    """M (H,W), or (1,H,W), in [0,1] -> image (RGB): from black over violet and orange to pale yellow."""
    values = error_map.detach().squeeze().float().cpu().numpy()
    stops = np.linspace(0, 1, len(HEAT))
    return Image.fromarray(
        np.stack([np.interp(values, stops, c) for c in zip(*HEAT, strict=True)], -1).astype(np.uint8)
    )


def heated(image: Image.Image, error_map: Tensor) -> Image.Image:
    """An image and its M (H,W), or (1,H,W) -> the image in grey where it is right, hidden by heat where it is not."""
    shares = (SHOWN * 255 * error_map.detach().squeeze().clamp(0, 1)).round().byte().cpu().numpy()
    grey = image.convert("L").convert("RGB")
    return Image.composite(heat(error_map), grey, Image.fromarray(shares))
