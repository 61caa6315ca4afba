"""Steering: away from what the error classifier would call wrong, while a bridge is crossed.

    output' = output + strength * sigma_t * grad E,   E = the mean of M of what z_0 is estimated to be

After Dhariwal and Nichol 2021, section 4; which form EARSB has is not known to us, and this is our choice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ldm.denoising import Cond, Denoiser
from ldm.noising import Time

Errors = Callable[[Tensor], Tensor]  # x (B,3,H,W) -> M (B,1,H,W), differentiable


def steered(denoiser: Denoiser, errors: Errors, strength: float) -> Denoiser:
    """A denoiser of pixels whose process is a Bridge of residuals -> one that is steered; at strength 0 itself.

    ValueError for a strength below 0, and for a bridge of another target.
    """
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength {strength}: expected 0 or more")
    if getattr(denoiser.process, "prediction_type", None) != "residual":
        raise ValueError("steering needs a bridge whose network emits residuals")
    return _Steered(denoiser, errors, strength) if strength else denoiser


class _Steered(Denoiser):
    def __init__(self, denoiser: Denoiser, errors: Errors, strength: float):
        super().__init__(denoiser.unet, denoiser.process)
        self.denoiser, self.errors, self.strength = denoiser, errors, strength

    def output(self, z_t: Tensor, t: Time | float, cond: Cond = None) -> Tensor:
        process: Any = self.process
        with torch.enable_grad():
            z_t = z_t.detach().requires_grad_()
            output = self.denoiser.output(z_t, t, cond)
            z_0 = process.recover(z_t, t, output)
            energy = self.errors(z_0.clamp(-1, 1)).flatten(1).mean(1).sum()  # each picture's own
            [slope] = torch.autograd.grad(energy, z_t)
        sigma = torch.as_tensor(process.sigma[t]).to(z_t).reshape(-1, 1, 1, 1)
        return output.detach() + self.strength * sigma * slope
