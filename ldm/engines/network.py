"""A prepared network in a torch U-Net's place: tensors in, tensor out, run by OpenVINO."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class NetworkUNet:
    """What `Denoiser` asks of a U-Net: a call with `encoder_hidden_states`, and a config.

    `engine` is what a picture's metadata say of it, where its pictures are others than torch's.
    """

    def __init__(self, network: Callable[..., np.ndarray], config: Any, engine: str = ""):
        self.network, self.config, self.engine = network, config, engine

    def __call__(self, z_t: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """z_t (B,C,H,W), t (B,), cond (B,L,D) -> output (B,C,H,W), float32."""
        arrays = (part.float().contiguous().numpy() for part in (z_t, t, encoder_hidden_states))
        return torch.from_numpy(self.network(*arrays).copy())
