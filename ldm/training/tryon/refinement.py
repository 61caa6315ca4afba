"""What a bridge learns from: photographs, what was drawn in their place, and maps of what is wrong with that."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.bridging import shown
from ldm.data.tryon.boxes import Box
from ldm.training.randomness import keyed

Maps = Callable[[int, Generator], Tensor]  # number of a pair, its generator -> M (1,H,W) in [0,1]
CELLS = (4, 3)  # a random map is this grid, enlarged


class Repairs:
    """Pairs (photograph, drawn) as bytes (N,3,H,W), conditions (N,C',H,W) and maps -> items of a bridge between pixels.

    `told` names what the network is shown, as in `bridging.shown`; `labels` (N,) are its flags.
    """

    def __init__(
        self,
        photographs: Tensor,
        drawn: Tensor,
        given: Tensor,
        maps: Maps,
        told: Sequence[str],
        labels: Tensor,
        identity: Any,
    ):
        self.photographs, self.drawn, self.given, self.maps = photographs, drawn, given, maps
        self.told, self.labels, self._identity = tuple(told), labels, identity

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        return self.draw(index, keyed(0, index))

    def draw(self, index: int, generator: Generator) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        """Item `index`. Not mirrored: letters and poses have a left and a right."""
        x, far = (part[index].float() / 127.5 - 1 for part in (self.photographs, self.drawn))
        M, given = self.maps(index, generator), self.given[index]
        extras: dict[str, Any] = {"far": far, "error_map": M, "label": int(self.labels[index])}
        told = shown(self.told, far[None], M[None], given[None])
        return x, torch.full((1, 1, 1), -torch.inf), "", extras if told is None else extras | {"beside": told[0]}

    def identity(self) -> Any:
        content = hashlib.sha256(self.drawn.numpy().tobytes() + self.given.numpy().tobytes()).hexdigest()[:16]
        return ["repairs", list(self.told), content, self._identity]


def everywhere(size: tuple[int, int]) -> Maps:
    """M = 1: plain I2SB."""
    return lambda index, generator: torch.ones(1, *size)


def at_random(size: tuple[int, int]) -> Maps:
    """Smooth maps that know nothing of the picture."""
    return lambda index, generator: random_map(size, generator)


def random_map(size: tuple[int, int], generator: Generator) -> Tensor:
    """(1,H,W) in [0,1]: uniform numbers on a coarse grid, enlarged."""
    cells = torch.rand(1, 1, *CELLS, generator=generator)
    return F.interpolate(cells, size, mode="bilinear", align_corners=True)[0]


def known(maps: Tensor) -> Maps:
    """Maps (N,1,H,W), one for each pair."""
    return lambda index, generator: maps[index]


def difference_boxes(x: Tensor, drawn: Tensor, least: float = 0.25, area: int = 6) -> list[Box]:
    """A photograph and what was drawn in its place (3,H,W) in [-1,1] -> boxes (left, top, right, bottom) around where
    they differ by more than `least`, smoothed over 3 x 3 pixels, in patches of `area` pixels or more.

    So a person's boxes are stood in for where the truth is known.
    """
    from scipy import ndimage

    differs = ndimage.uniform_filter((x - drawn).abs().mean(0).numpy(), 3) > least
    patches, _ = ndimage.label(differs)
    places = [place for i, place in enumerate(ndimage.find_objects(patches), 1) if (patches[place] == i).sum() >= area]
    return [(across.start, down.start, across.stop, down.stop) for down, across in places]
