"""An error map -> a picture of it: black is right, pale yellow wrong."""

from PIL import Image
from torch import Tensor

from ldm import images

SHOWN = 0.8  # how much of the picture the hottest places hide


def heat(error_map: Tensor) -> Image.Image:
    """M (H,W), or (1,H,W), in [0,1] -> image (RGB): from black over violet and orange to pale yellow."""
    return images.heat(error_map.detach().squeeze().float().cpu().numpy())


def heated(image: Image.Image, error_map: Tensor) -> Image.Image:
    """An image and its M (H,W), or (1,H,W) -> the image in grey where it is right, hidden by heat where it is not."""
    shares = (SHOWN * 255 * error_map.detach().squeeze().clamp(0, 1)).round().byte().cpu().numpy()
    grey = image.convert("L").convert("RGB")
    return Image.composite(heat(error_map), grey, Image.fromarray(shares))
