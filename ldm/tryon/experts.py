"""Two experts, one for the near half of all times and one for the far: EARSB's split of a network."""

from typing import Any

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """Networks for t < `middle` and for t >= it, in the times that networks are given; called as either of them."""

    def __init__(self, near: Any, far: Any, middle: int):
        super().__init__()
        self.near, self.far, self.middle = near, far, middle

    @property
    def config(self) -> Any:
        return self.near.config

    def forward(self, x: Tensor, t: Tensor, **told: Any) -> Tensor:
        """x (B,C,H,W), t (B,) -> (B,C',H,W), each row from its own expert."""
        near = t < self.middle
        if near.all() or not near.any():
            return (self.near if near.any() else self.far)(x, t, **told).sample
        found = [
            network(x[rows], t[rows], **{name: value[rows] for name, value in told.items()}).sample
            for network, rows in ((self.near, near), (self.far, ~near))
        ]
        output = torch.empty(len(x), *found[0].shape[1:], dtype=found[0].dtype, device=x.device)
        output[near], output[~near] = found
        return output
