"""A denoiser of codes with no or few places, z (B,C,1,1) or so: a U-Net has nothing there to look around at."""

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from ldm.checkpoints.modules import REGISTERED


class VectorDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """z_t (B,C,h,w), times (B,), and what it is told -> output (B,C,h,w); called as diffusers' U-Nets are.

    Residual layers over all numbers of a code, each shifted and scaled by what is known of the time, the class and the
    words (their mean), as in adaLN (Peebles and Xie 2023). `sample_size` is h = w.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 20,
        out_channels: int = 20,
        sample_size: int = 1,
        width: int = 256,
        layers: int = 3,
        num_class_embeds: int | None = None,
        cross_attention_dim: int | None = None,
    ):
        super().__init__()
        places = sample_size**2
        self.first, self.last = nn.Linear(in_channels * places, width), nn.Linear(width, out_channels * places)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_class_embeds, width) if num_class_embeds else None
        self.words = nn.Linear(cross_attention_dim, width) if cross_attention_dim else None
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        known = self.time(_waves(timestep, self.config["width"]).to(sample))
        if self.label is not None and class_labels is not None:
            known = known + self.label(class_labels)
        if self.words is not None and encoder_hidden_states is not None:
            known = known + self.words(encoder_hidden_states.mean(1))
        hidden = self.first(sample.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, known)
        return self.last(self.norm(hidden)).unflatten(1, (-1, *sample.shape[2:]))


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, known: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(known).chunk(3, dim=1)
        return hidden + gate * self.inner(self.norm(hidden) * (1 + scale) + shift)


def _waves(t: Tensor, width: int) -> Tensor:
    """Times (B,) -> sines and cosines (B,width) of periods 2 pi to 2 pi 10^4 (Vaswani et al. 2017)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


REGISTERED["VectorDenoiser"] = VectorDenoiser.from_config
