"""Interpolating: from one point to another by the great circle between them (slerp, Shoemake 1985).

Gaussian noise lies near a sphere: on a straight line its norm would sink, by 1/sqrt(2) in the middle, and a network
would be shown what it never saw.
"""

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, share: float, axes: int = 1) -> Tensor:
    """a, b of one shape -> the point a `share` in 0..1 of the way from a to b; the ends to the last bit.

    The last `axes` axes make one vector. Vectors that (nearly) point the same or the opposite way, or are zero, have no
    circle to follow and are mixed by a straight line.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    if share in (0, 1):
        return a if share == 0 else b
    dims = tuple(range(-axes, 0))
    norms = [torch.linalg.vector_norm(v, dim=dims, keepdim=True) for v in (a.double(), b.double())]
    unit = [v / norm.clamp_min(1e-12) for v, norm in zip((a, b), norms, strict=True)]
    angle = (unit[0] * unit[1]).sum(dims, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    circle = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    turning = (sine > 1e-4) & (norms[0] * norms[1] > 0)
    return torch.where(turning, circle, (1 - share) * a.double() + share * b.double()).to(a.dtype)


def path(a: Tensor, b: Tensor, frames: int, axes: int = 1) -> Tensor:
    """a, b (1,...) -> (frames,...), evenly spaced from a to b, both included; one frame is a."""
    if frames < 1:
        raise ValueError(f"frames {frames}: expected 1 or more")
    return torch.cat([slerp(a, b, frame / max(1, frames - 1), axes) for frame in range(frames)])
