"""GroupNorm's moments of a whole picture that is seen in tiles.

GroupNorm divides by moments over all places of a picture: tiles with moments of their own differ in tone. Exact moments
of the whole take one pass over all tiles for each norm in turn, as each needs those before it to be right. Two cheap
views come close to that, to 46 dB and more on the embedded model where tiles by themselves reach 23:

    sketch   a picture small enough to be run whole: its norms are in harmony, but not quite those of the picture
    tiles    one pass, with the sketch's moments: how far each norm is off by itself, all norms before it being alike
    sketch   again, each norm corrected where it stands, which carries what that changes on to the norms that follow
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Run: TypeAlias = "Callable[[Any, Tensor], Tensor]"  # autoencoder, x (1,C,h,w) -> result (1,...,h',w') in float32
Windows: TypeAlias = "tuple[Tensor, Tensor]"  # weights along rows and along columns, (h) and (w), in any unit
Moments: TypeAlias = "tuple[Tensor, Tensor]"  # mean and variance, (B,G) each
Witness: TypeAlias = "tuple[float, list[list[float]], list[list[float]]]"  # a tile's mass, and its moments as numbers
ALIKE = torch.ones(1), torch.ones(1)


def norms(autoencoder: Any) -> list[nn.GroupNorm]:
    """The GroupNorms of an autoencoder; none where it is no module."""
    modules = autoencoder.modules() if isinstance(autoencoder, nn.Module) else ()
    return [module for module in modules if isinstance(module, nn.GroupNorm)]


class Sharing(nn.Module):
    """An autoencoder whose GroupNorms all use the moments of one picture, whatever tile of it they see.

    It is a copy of the modules, not of the weights: the autoencoder is left as it is, and may be in use elsewhere
    meanwhile. One Sharing serves one picture, in one thread.
    """

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        found, self.view = norms(autoencoder), View()
        self.norms = [SharedNorm(norm, self.view) for norm in found]
        kept: dict[int, Any] = {id(t): t for t in (*autoencoder.parameters(), *autoencoder.buffers())}
        kept |= {id(norm): shared for norm, shared in zip(found, self.norms)}
        self.autoencoder: Any = copy.deepcopy(autoencoder, kept)

    def encode(self, x: Tensor) -> Any:
        self._begin()
        return self.autoencoder.encode(x)

    def decode(self, raw: Tensor) -> Any:
        self._begin()
        return self.autoencoder.decode(raw)

    def learn(self, run: Run, sketch: Tensor, tiles: Iterable[tuple[Tensor, Windows]]) -> None:
        """Finds the moments of a picture by a sketch of it and by its tiles, whose windows are 1 in all, everywhere."""
        whole = torch.ones(sketch.shape[-2]), torch.ones(sketch.shape[-1])
        self._look("sketch", whole)
        run(self, sketch)
        for index, (tile, windows) in enumerate(tiles):
            self._look("tile", windows, index)
            run(self, tile)
        for norm in self.norms:
            norm.correct()
        self._look("sketch", whole)
        run(self, sketch)
        self._look("result", whole)

    def _look(self, at: str, windows: Windows, tile: int = 0) -> None:
        self.view.at, self.view.windows, self.view.tile = at, windows, tile

    def _begin(self) -> None:
        """A run, maybe of what was run before, in another precision."""
        for norm in self.norms:
            norm.calls = 0


@dataclass
class View:
    """What is being run; all norms see it."""

    at: str = "sketch"  # then "tile", to learn from, and "result"
    windows: Windows = ALIKE
    tile: int = 0


class SharedNorm(nn.GroupNorm):
    """A GroupNorm whose moments are found beforehand, apart for each of its calls if a run has several."""

    def __init__(self, norm: nn.GroupNorm, view: View):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, affine=False)
        self.weight, self.bias = norm.weight, norm.bias
        self.view, self.calls = view, 0
        self.shared: dict[int, Moments] = {}
        self.sketch: dict[int, Moments] = {}
        self.tiles: dict[int, dict[int, Witness]] = {}  # by call and tile
        self.lacks: dict[int, Moments] = {}  # of the sketch: its mean, in deviations; its variance, as a factor

    def forward(self, x: Tensor) -> Tensor:
        call, self.calls = self.calls, self.calls + 1
        if self.view.at == "sketch":
            self.sketch[call] = moments(x, self.num_groups, self.view.windows)
            self.shared[call] = self._corrected(*self.sketch[call], *self.lacks.get(call, (0.0, 1.0)))
        elif self.view.at == "tile":
            self.tiles.setdefault(call, {})[self.view.tile] = witness(x, self.num_groups, self.view.windows)
        return self._normalised(x, *self.shared[call])

    def correct(self) -> None:
        """From the moments of the tiles: what those of the sketch lack."""
        for call, found in self.tiles.items():
            mean, variance = self.sketch[call]
            whole, spread = (values.to(mean) for values in pooled(found.values()))
            seen = variance + self.eps
            self.lacks[call] = (whole - mean) / seen.sqrt(), (spread + self.eps) / seen

    def _corrected(self, mean: Tensor, variance: Tensor, shift: Any, factor: Any) -> Moments:
        seen = variance + self.eps
        return mean + shift * seen.sqrt(), (seen * factor - self.eps).clamp_min(0)

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Wu and He 2018, equations 1 and 6, as one factor and one term for each channel, in float32."""
        each = self.num_channels // self.num_groups
        factor, mean = (v.repeat_interleave(each, dim=1) for v in ((variance + self.eps).rsqrt(), mean))
        factor = factor if self.weight is None else factor * self.weight.float()
        term = -mean * factor if self.bias is None else self.bias.float() - mean * factor
        shape = (*factor.shape, *[1] * (x.ndim - 2))
        return torch.addcmul(term.view(shape), x.float(), factor.view(shape)).to(x.dtype)


def moments(x: Tensor, groups: int, windows: Windows) -> Moments:
    """x (B,C,...,h,w), or (B,C,h w) as attention has it -> mean and variance of each group (B,G), weighted by place."""
    height, width = _plane(x, len(windows[0]), len(windows[1]))
    rows, columns = (_resized(window, size).to(x.device) for window, size in zip(windows, (height, width)))
    values = x.float().reshape(len(x), groups, -1, height, width)
    with torch.autocast(x.device.type, enabled=False):  # which would take these products in half precision
        mean = (values @ columns @ rows).mean(-1)
        variance = ((values - mean[..., None, None, None]).square_() @ columns @ rows).mean(-1)
    return mean, variance


def _plane(x: Tensor, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of x; where both are one side, those in the ratio of height to width."""
    if x.ndim > 3:
        return x.shape[-2], x.shape[-1]
    places = x.shape[-1] if x.ndim == 3 else 1
    rows = max(1, round(math.sqrt(places * height / width)))
    return (rows, places // rows) if places % rows == 0 else (1, places)


def _resized(window: Tensor, size: int) -> Tensor:
    """A window -> `size` weights that are 1 in all."""
    weights = F.adaptive_avg_pool1d(window[None], size)[0]
    return weights / weights.sum()


def witness(x: Tensor, groups: int, windows: Windows) -> Witness:
    """What a tile tells of the whole: as numbers, for small tensors that stay would split the memory that tiles use."""
    mean, variance = moments(x, groups, windows)
    return float(windows[0].sum() * windows[1].sum()), mean.tolist(), variance.tolist()


def pooled(witnesses: Iterable[Witness]) -> Moments:
    """What the tiles tell -> the moments of the whole, in double precision."""
    mass, mean, variance = (torch.tensor(values).double() for values in zip(*witnesses))
    weights = (mass / mass.sum()).view(-1, 1, 1)
    whole = (weights * mean).sum(0)
    return whole, (weights * (variance + (mean - whole).square())).sum(0)
