"""Masks (B,1,H,W), 1 where a picture may change: from pictures, down to latents, and softened for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.images import Source, to_pixels


def to_mask(mask: Source | Sequence[Source], size: tuple[int, int]) -> Tensor:
    """Pictures, white where the picture may change -> mask (B,1,H,W) of 0 and 1 in `size` = (H, W).

    Grey counts as white from the middle on, and what is transparent as black. Arrays and tensors: bool, 8 bits, or
    floats in [0,1]. A mask of another size is stretched; one of another shape of sides, or black all over, is a
    ValueError.
    """
    x = to_pixels(mask, background="black", value_range=(0, 1) if _floats(mask) else None)
    height, width = x.shape[-2:]
    if abs(height * size[1] - width * size[0]) > max(size) * max(2, 0.02 * max(height, width)):
        raise ValueError(f"the mask is {width}x{height}, the picture {size[1]}x{size[0]}: expected the same shape")
    found = (F.interpolate(x, size, mode="area").mean(1, keepdim=True) >= 0).float()
    if not found.flatten(1).any(1).all():
        raise ValueError("the mask is black all over: expected white where the picture may change")
    return found


def to_map(error_map: Source | Sequence[Source] | Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures, white where wrong -> M (B,1,H,W) in [0,1] in `size` = (H, W); a tensor (B,1,H,W) in [0,1] as it is.

    ValueError for a tensor of another shape or range.
    """
    if not isinstance(error_map, Tensor):
        return (
            F.interpolate(to_pixels(error_map, background="black"), size, mode="area").mean(1, keepdim=True) / 2 + 0.5
        )
    if error_map.shape[1:] != (1, *size) or not 0 <= float(error_map.min()) <= float(error_map.max()) <= 1:
        raise ValueError(
            f"error_map of shape {tuple(error_map.shape)}: expected (B, 1, {size[0]}, {size[1]}) in [0, 1]"
        )
    return error_map.float()


def lowered(M: Tensor, factor: int) -> Tensor:
    """M (B,1,H,W) -> (B,1,H/f,W/f): the mean over the pixels of a latent."""
    return F.avg_pool2d(M, factor)


def _floats(mask: Any) -> bool:
    first = mask[0] if isinstance(mask, (list, tuple)) and mask else mask
    kind = getattr(first, "dtype", None)
    return kind is not None and (kind.is_floating_point if isinstance(kind, torch.dtype) else kind.kind == "f")


def touched(mask: Tensor, factor: int) -> Tensor:
    """mask (B,1,H,W) -> (B,1,H/f,W/f): a latent is free where any of its pixels is."""
    return F.max_pool2d(mask, factor)


def nearest(mask: Tensor, factor: int) -> Tensor:
    """mask (B,1,H,W) -> (B,1,H/f,W/f): each latent as its top left pixel, which is what inpainting models are told."""
    return F.interpolate(mask, scale_factor=1 / factor)


def feathered(mask: Tensor, radius: int) -> Tensor:
    """mask (B,1,H,W) -> weights: 1 in the mask, falling to 0 within `radius` pixels around it, 0 from there on."""
    if radius < 0:
        raise ValueError(f"feather {radius}: expected 0 or more pixels")
    if radius == 0:
        return mask
    # Twice the blurred mask is 1 on a straight edge and reaches 0 a radius away: the mask grows outwards alone.
    window = torch.hann_window(2 * radius + 1, periodic=False)
    kernel = window / window.sum()
    blurred = F.pad(mask, [radius] * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(blurred, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))
    return torch.maximum(mask, (2 * blurred).clamp(0, 1))


def pasted(x: Tensor, original: Tensor, weights: Tensor) -> Tensor:
    """x where the weights are 1, `original` where they are 0, to the last bit of each, and a blend between."""
    return torch.where(weights == 0, original, torch.where(weights == 1, x, weights * x + (1 - weights) * original))
