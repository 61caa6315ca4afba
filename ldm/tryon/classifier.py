"""Where is a generated picture wrong? x (B,3,H,W) and the garment that it should show -> M (B,1,H,W) in [0,1].

The weakly supervised classifier of EARSB (error-aware refinement with a Schroedinger bridge, arXiv 2501.04666): two
encoders, cross-attention, a sigmoid. Its sizes are not known to us; those here are our choice.

    x        --encoder-->  h (B,D,h,w), a token for each place      --+
    garment  --encoder-->  g (B,D,h',w'), and a token for nothing   --+--cross-attention-->  h  -->  logits (B,1,h,w)

What is said of a place depends on the pixels about it and on the garment, on nothing else of the picture: there is no
norm and no attention over the picture, so that an error in one corner does not heat another. Where a place lies decides
only where it looks in the garment.
"""

import copy
import inspect
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints import CheckpointError, named, read_json
from ldm.checkpoints.modules import empty, filled
from ldm.checkpoints.tensors import read_tensors
from ldm.files import write_json, write_tensors
from ldm.images import crop, pad

PRESETS = {  # widths of the levels of both encoders; f is 2 for each level after the first
    "tiny": (8, 16),  # f2; for tests
    "small": (32, 64, 128),  # f4, 0.8 M parameters; a place sees 12 x 12 pixels
    "base": (32, 64, 128, 192),  # f8, 2.5 M; 24 x 24
}
WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers names them
OCTAVES = 5  # of the waves that tell where a place is: the shortest is a sixteenth of the picture
DOUBT = -2.0  # the first logit of every place: few are wrong


class ErrorClassifier(nn.Module):
    """Pictures, each beside its garment -> how wrong each place is.

    `widths` are the levels of both encoders, each but the first half as large as the one before: f = 2^(levels - 1).
    Without `garments` it has no encoder for them, and judges a picture by itself: a round trip of an autoencoder, say.
    ValueError for widths and heads that do not go together.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), heads: int = 4, layers: int = 1, garments: bool = True):
        super().__init__()
        if not widths or min(widths) < 1 or min(heads, layers) < 1 or widths[-1] % heads:
            raise ValueError(
                f"widths {tuple(widths)}, heads {heads}, layers {layers}: expected 1 or more, and the last width a "
                "multiple of the heads"
            )
        self.widths, self.heads, self.layers, self.garments = tuple(widths), heads, layers, garments
        self.factor = 2 ** (len(widths) - 1)
        width = widths[-1]
        self.picture = _encoder(self.widths)
        self.garment = copy.deepcopy(self.picture) if garments else None  # at first like finds like
        self.nothing = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.places = nn.Linear(4 * OCTAVES, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm, self.verdict = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.constant_(self.verdict.bias, DOUBT)

    def forward(self, x: Tensor, garment: Tensor | None = None) -> Tensor:
        """x (B,3,H,W), garment (B,3,H',W') in [-1,1] or None -> logits (B,1,H/f,W/f), rounded up.

        Without a garment every place looks at a learnt token alone. ValueError where the classifier knows no garments.
        """
        seen = self.picture(pad(x, self.factor)[0])
        tokens, where = _tokens(seen), self.places(waves(*seen.shape[-2:]).to(seen))
        other, elsewhere = self._garment_tokens(garment, len(x))
        for block in self.blocks:
            tokens = block(tokens, where, other, elsewhere)
        return self.verdict(self.norm(tokens)).transpose(1, 2).unflatten(2, seen.shape[-2:])

    def error_map(self, x: Tensor, garment: Tensor | None = None) -> Tensor:
        """x (B,3,H,W), garment (B,3,H',W') in [-1,1] or None -> M (B,1,H,W) in [0,1], 1 where x is wrong."""
        found = torch.sigmoid(self(x, garment))
        return crop(F.interpolate(found, scale_factor=self.factor, mode="bilinear"), (x.shape[-2], x.shape[-1]))

    def _garment_tokens(self, garment: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """What there is to look at (B,1+L,D), and where it lies (1,1+L,D); the first is nothing, and nowhere."""
        if garment is None and self.garment is not None:
            raise ValueError("no garment is given: this classifier judges pictures beside their garments")
        nothing, nowhere = self.nothing.expand(batch, -1, -1), torch.zeros_like(self.nothing)
        if garment is None:
            return nothing, nowhere
        if self.garment is None:
            raise ValueError("a garment is given: expected none, as this classifier judges pictures by themselves")
        seen = self.garment(pad(garment, self.factor)[0])
        places = self.places(waves(*seen.shape[-2:]).to(seen))
        return torch.cat([nothing.to(seen), _tokens(seen)], 1), torch.cat([nowhere.to(seen), places], 1)

    @property
    def config(self) -> dict[str, Any]:
        """What it was made by, in JSON."""
        told = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {"_class_name": type(self).__name__, **told, "widths": list(self.widths)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """What `config` gave -> a new classifier; entries that the constructor does not take are left out."""
        known = inspect.signature(cls).parameters
        return cls(**{name: value for name, value in config.items() if name in known})

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and safetensors, named as diffusers names them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", self.config)
        write_tensors(folder / WEIGHTS, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """What `save_pretrained` wrote, in eval mode; CheckpointError for what is another class, or does not fit."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: no config.json there; expected a folder of an {cls.__name__}")
        config = read_json(folder / "config.json")
        if config.get("_class_name") != cls.__name__:
            raise CheckpointError(f"{folder} holds a {config.get('_class_name')}; expected an {cls.__name__}")
        with named(folder / "config.json"), empty(config):
            model = cls.from_config(config)
        return filled(model, read_tensors(folder / WEIGHTS).tensors, str(folder))


class _Block(nn.Module):
    """Cross-attention, then two layers that compare each token with what it has found."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.likeness, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        nn.init.orthogonal_(self.likeness.weight)
        self.comparison = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, where: Tensor, other: Tensor, elsewhere: Tensor) -> Tensor:
        """Tokens (B,L,D) and where they lie (1,L,D), those that they look at and where these lie -> (B,L,D)."""
        own, offered = self.norms[0](tokens), self.norms[1](other)
        asked, known, told = self.likeness(own + where), self.likeness(offered + elsewhere), self.value(offered)
        heads = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (asked, known, told))
        found = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return tokens + self.comparison(torch.cat([own, found], 2))


def _encoder(widths: tuple[int, ...]) -> nn.Sequential:
    """x (B,3,H,W) -> (B,D,H/f,W/f); a place sees 3, 6, 12 or 24 pixels along a side, of 1 to 4 levels."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1), nn.SiLU()]
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.SiLU(), nn.Conv2d(after, after, 1), nn.SiLU()]
    return nn.Sequential(*layers)


def _tokens(seen: Tensor) -> Tensor:
    """(B,D,h,w) -> (B,L,D), row by row."""
    return seen.flatten(2).transpose(1, 2)


def waves(height: int, width: int) -> Tensor:
    """Places of a grid -> (1,L,4 OCTAVES), row by row: sines and cosines of where each centre lies from top and left.

    By shares of the sides, so that a picture and a garment of another size are measured alike.
    """
    rates = torch.pi * 2.0 ** torch.arange(OCTAVES)
    down, across = ((torch.arange(side) + 0.5) / side for side in (height, width))
    angles = torch.cartesian_prod(down, across)[:, :, None] * rates  # (L,2,OCTAVES)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)[None]
