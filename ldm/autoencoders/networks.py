"""Encoders and decoders of a shape: fully connected, or convolutional.

    y (B,channels,H,W) --encoder--> (B,F,h,w), F numbers for each place of the code
    z (B,code,h,w)     --decoder--> (B,channels,H,W)

The code is one vector where h = w = 1, else a map.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

KINDS = ("dense", "conv")


@dataclass(frozen=True)
class Shape:
    """Sizes: those of a picture, of its code, and of the layers between.

    `size` is (H, W). `widths` are the hidden layers of a dense network from the picture inwards, or the levels of a
    convolutional one, each half as large as the one before. Its code is a map, or one `vector` as a dense network's.
    ValueError for what does not go together.

    >>> Shape((32, 32), channels=3, code=16, network="conv", widths=(48, 96)).places
    (8, 8)
    """

    size: tuple[int, int] = (28, 28)
    channels: int = 1  # 1 is grey, 3 are colours
    code: int = 20
    network: str = "dense"
    widths: tuple[int, ...] = (400,)
    vector: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.network not in KINDS:
            raise ValueError(f"network {self.network!r}: expected one of {', '.join(KINDS)}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels {self.channels}: expected 1, grey, or 3, colours")
        for name, numbers in (("size", self.size), ("code", (self.code,)), ("widths", self.widths)):
            if min(numbers, default=1) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if any(side % self._reduction for side in self.size):
            raise ValueError(f"size {self.size}: expected multiples of {self._reduction}, by which the levels reduce")

    @property
    def _reduction(self) -> int:
        return 2 ** len(self.widths) if self.network == "conv" else 1

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): the last level of a convolutional network."""
        height, width = self.size
        return height // self._reduction, width // self._reduction

    @property
    def places(self) -> tuple[int, int]:
        """(h, w) of the code."""
        return (1, 1) if self.network == "dense" or self.vector else self.grid

    @property
    def factor(self) -> int:
        """f: pixels to a place of the code along the longer side."""
        return max(self.size) // max(self.places)


def encoder(shape: Shape, features: int, beside: int = 0) -> nn.Sequential:
    """y (B,channels+beside,H,W) -> (B,features,h,w); `beside` are more channels, such as those of a condition."""
    channels = shape.channels + beside
    if shape.network == "dense":
        layers = mlp(channels * math.prod(shape.size), *shape.widths, features)
        return nn.Sequential(nn.Flatten(), *layers, nn.Unflatten(1, (features, 1, 1)))
    levels = [layer for pair in pairwise((channels, *shape.widths)) for layer in (nn.Conv2d(*pair, 4, 2, 1), nn.SiLU())]
    last = shape.widths[-1] if shape.widths else channels
    if not shape.vector:
        return nn.Sequential(*levels, nn.Conv2d(last, features, 1))
    whole = nn.Linear(last * math.prod(shape.grid), features)
    return nn.Sequential(*levels, nn.Flatten(), whole, nn.Unflatten(1, (features, 1, 1)))


def decoder(shape: Shape, beside: int = 0) -> nn.Sequential:
    """z (B,code+beside,h,w) -> (B,channels,H,W), before whatever makes them pixels."""
    code = shape.code + beside
    if shape.network == "dense":
        layers = mlp(code, *reversed(shape.widths), shape.channels * math.prod(shape.size))
        return nn.Sequential(nn.Flatten(), *layers, nn.Unflatten(1, (shape.channels, *shape.size)))
    last = shape.widths[-1] if shape.widths else shape.channels
    first: list[nn.Module] = [nn.Conv2d(code, last, 1)]
    if shape.vector:
        first = [nn.Flatten(), nn.Linear(code, last * math.prod(shape.grid)), nn.Unflatten(1, (last, *shape.grid))]
    outwards = pairwise((*reversed(shape.widths), shape.channels))
    levels = [layer for pair in outwards for layer in (nn.SiLU(), nn.ConvTranspose2d(*pair, 4, 2, 1))]
    return nn.Sequential(*first, *levels)


def mlp(*widths: int) -> list[nn.Module]:
    """Linear layers from width to width, ReLU between them."""
    layers: list[nn.Module] = [layer for pair in pairwise(widths) for layer in (nn.ReLU(), nn.Linear(*pair))]
    return layers[1:]
