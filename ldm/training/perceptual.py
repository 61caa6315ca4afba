"""LPIPS (Zhang et al. 2018): how different two pictures look, by the features of a VGG16 that has seen photographs.

Its weights are two files of others, and are never fetched: the convolutions are torchvision's VGG16, the weights of the
features those of the package lpips. `find_lpips` looks where torch.hub, lpips and torchmetrics keep them.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.tensors import ENDINGS, read_tensors
from ldm.training.losses import per_sample, precise

BLOCKS = (
    (0, 2),
    (5, 7),
    (10, 12, 14),
    (17, 19, 21),
    (24, 26, 28),
)  # convolutions in torchvision's list
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of photographs, in [-1,1]
SMALLEST = 16  # pixels of a side: the features are halved four times
BACKBONE, LINEAR = "vgg16-397923af.pth", "vgg.pth"  # as their publishers name them
EXPECTED = f"{BACKBONE} (torchvision's VGG16) and {LINEAR} (weights/v0.1/{LINEAR} of the package lpips)"


class LPIPS(nn.Module):
    """Two x (B,3,H,W) in [-1,1], sides of 16 or more -> (B,): 0 for equal pictures. No weight of it is ever trained.

    `tensors` are named as torchvision, lpips or a whole saved LPIPS names them. ValueError for those that are missing.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        known = dict(_named(tensors))
        _refuse_gaps(known)
        for name, tensor in {**known, "mean": torch.tensor(MEAN), "deviation": torch.tensor(DEVIATION)}.items():
            self.register_buffer(name, tensor.float(), persistent=False)  # no checkpoint is to carry it

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        weights = dict(self.named_buffers())
        pairs = zip(self.features(y), self.features(x), strict=True)
        differences = [(weights[f"linear{k}"] * (a - b).square()).sum(1) for k, (a, b) in enumerate(pairs)]
        return torch.stack([per_sample(difference) for difference in differences]).sum(0)

    def features(self, x: Tensor) -> list[Tensor]:
        """x (B,3,H,W) in [-1,1] -> five features (B,C,h,w), each place of them of length 1."""
        weights = dict(self.named_buffers())
        h = (x - weights["mean"].view(3, 1, 1)) / weights["deviation"].view(3, 1, 1)
        taken = []
        for k, block in enumerate(BLOCKS):
            h = F.max_pool2d(h, 2) if k else h
            for i in block:
                h = F.relu(F.conv2d(h, weights[f"weight{i}"], weights[f"bias{i}"], padding=1))
            taken.append(_unit(precise(h)))
        return taken


def find_lpips(path: Path | None = None) -> list[Path]:
    """The files of LPIPS's weights: `path`, the files in it if it is a folder; without it those on this machine.

    [] where they are not at hand; FileNotFoundError for a `path` that is not there. Nothing is fetched.
    """
    if path is None:
        found = [next((place for place in places if place.is_file()), None) for places in (_backbones(), _linears())]
        return [place for place in found if place] if all(found) else []
    if not path.exists():
        raise FileNotFoundError(f"LPIPS: there is no {path}; expected {EXPECTED}")
    if path.is_file():
        return [path]
    named = [path / BACKBONE, path / LINEAR]
    if all(map(Path.is_file, named)):
        return named
    # Inception's weights lie in the same folder
    return sorted(file for file in path.iterdir() if file.suffix in ENDINGS and not file.name.startswith("inception-"))


def load_lpips(path: Path | None = None) -> LPIPS:
    """LPIPS from a file or folder, or from the weights on this machine; FileNotFoundError says what to put where."""
    files = find_lpips(path)
    if not files:
        where = path or f"{hub()}, or in a folder to name"
        raise FileNotFoundError(f"LPIPS's weights are not at hand; put {EXPECTED} into {where}")
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).tensors.items()}
    try:
        return LPIPS(tensors)
    except ValueError as error:
        raise ValueError(f"{path or files[0].parent}: {error}") from None


def hub() -> Path:
    """Where torch.hub, and torchvision with it, keep what they have fetched."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _backbones() -> Iterator[Path]:
    yield hub() / BACKBONE


def _linears() -> Iterator[Path]:
    for package, inside in (("lpips", "weights/v0.1"), ("torchmetrics", "functional/image/lpips_models")):
        spec = find_spec(package)
        if spec and spec.origin:
            yield Path(spec.origin).parent / inside / LINEAR
    yield hub() / LINEAR


def _named(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """features.5.weight, net.slice2.5.weight -> weight5; lin1.model.1.weight -> linear1; others are left out."""
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"(?:net\.)?(?:features|slice\d)\.(\d+)\.(weight|bias)", name):
            yield found[2] + found[1], tensor
        elif found := re.fullmatch(r"lin(\d)\.model\.1\.weight", name):
            yield f"linear{found[1]}", tensor


def _refuse_gaps(known: dict[str, Tensor]) -> None:
    wanted = [f"{part}{i}" for block in BLOCKS for i in block for part in ("weight", "bias")]
    missing = [name for name in [*wanted, *(f"linear{k}" for k in range(len(BLOCKS)))] if name not in known]
    if missing:
        raise ValueError(f"LPIPS lacks {len(missing)} tensors, {missing[0]} among them; expected {EXPECTED}")
    for k, block in enumerate(BLOCKS):
        found, wide = tuple(known[f"linear{k}"].shape), (1, len(known[f"bias{block[-1]}"]), 1, 1)
        if found != wide:
            raise ValueError(f"LPIPS: the linear weights of level {k} are {found}, VGG16 has {wide}")


def _unit(h: Tensor) -> Tensor:
    # vector_norm, as the root of a sum has no gradient where every feature is 0
    return h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10)
