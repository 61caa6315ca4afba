"""What try-on models are told of a person and a garment, as tensors.

looks --given--> Given;   Given, the garment as it is worn --beside, a latent space--> what stands beside z_t
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldm import masks
from ldm.data.tryon import Look
from ldm.images import to_pixels
from ldm.latents import LatentSpace


class Given(NamedTuple):
    """B persons without what they wear, and a garment for each; pixels in [-1,1], the mask in [0,1].

    Of `person` no network sees anything: what lies outside the mask is pasted back.
    """

    garment: Tensor  # (B,3,H,W)
    agnostic: Tensor  # (B,3,H,W)
    mask: Tensor  # (B,1,H,W), 1 where it is to be drawn anew
    pose: Tensor  # (B,3,H,W)
    person: Tensor  # (B,3,H,W)

    @property
    def guide(self) -> Tensor:
        """(B,7,H,W): where a garment is to go."""
        return torch.cat([self.agnostic, self.mask, self.pose], dim=1)

    def pasted(self, x: Tensor) -> Tensor:
        """x (B,3,H,W) -> x in the mask, the person's own pixels elsewhere."""
        return self.mask * x + (1 - self.mask) * self.person

    def rows(self, rows: slice) -> "Given":
        """Some of the B."""
        return Given(*(part[rows] for part in self))


def given(looks: Sequence[Look]) -> Given:
    """Looks of one size -> Given."""
    garment, agnostic, pose, person = (
        to_pixels([getattr(look, name) for look in looks]) for name in ("garment", "agnostic", "pose", "person")
    )
    mask = (to_pixels([look.agnostic_mask.convert("RGB") for look in looks])[:, :1] + 1) / 2
    return Given(garment, agnostic, mask, pose, person)


def beside(space: LatentSpace, told: Given, worn: Tensor) -> Tensor:
    """Given, and the garment as it is worn (B,3,H,W) -> (B,3 C + 1,H/f,W/f), in a latent space or, identity, pixels."""
    pictures = [space.from_pixels(x).cpu() for x in (told.agnostic, told.pose, worn)]
    return torch.cat([*pictures, masks.lowered(told.mask, space.factor)], dim=1)
