"""How far apart are two sets of pictures? Distances between their features, by torchmetrics; no weights are fetched.

    pictures --network--> features (N,D);   (N,D), (M,D) --frechet, kernel--> distance

Of Inception's features the first is FID, the second KID. Of another network's they are neither: say which it was.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.training.perceptual import hub

Features = Callable[[Tensor], Tensor]  # x (B,3,H,W) in [-1,1] -> (B,D)
INCEPTION = "inception-2015-12-05.pt"  # as its publisher names it: TorchScript, which clean-fid and StyleGAN use too
SUBSET = 1000  # features that a kernel distance takes at once, where there are as many
BATCH = 32


class Given(nn.Module):
    """What torchmetrics takes for a network, where features are known already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet(one: Tensor, other: Tensor) -> float:
    """Features (N,D), (M,D), two or more each -> the squared distance of the normal distributions that fit them.

    |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))  (Heusel et al. 2017). ValueError for fewer.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_measured(FrechetInceptionDistance(Given(one.shape[1])), one, other))


def kernel(one: Tensor, other: Tensor, seed: int = 0) -> float:
    """Features (N,D), (M,D), two or more each -> their squared maximum mean discrepancy under a cubic kernel.

    k(a, b) = (a b / D + 1)^3, without bias for few features (Binkowski et al. 2018): the mean over 100 random subsets
    of SUBSET, or of the smaller set's size. ValueError for fewer.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*save all extracted features")
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(Given(one.shape[1]), subset_size=min(SUBSET, len(one), len(other)))
        return float(_measured(metric, one, other)[0])


def _measured(metric: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    """torchmetrics computes in the features' precision, which is too coarse for equal sets in float32."""
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} pictures: a distance between sets expects two or more in each")
    metric.update(other.double(), real=True)  # type: ignore[operator]
    metric.update(one.double(), real=False)  # type: ignore[operator]
    return metric.compute()  # type: ignore[operator]


def find_inception(folder: Path | None = None) -> Path | None:
    """Inception's weights in a folder, by default where torch.hub keeps weights; None where they are not."""
    path = (folder or hub()) / INCEPTION
    return path if path.is_file() else None


def load_inception(folder: Path | None = None) -> Features:
    """x (B,3,H,W) in [-1,1], any size -> Inception's features (B,2048), those of FID.

    FileNotFoundError says what to put where, ValueError that the file is another one.
    """
    path = find_inception(folder)
    if path is None:
        raise FileNotFoundError(f"Inception's weights are not at hand; put {INCEPTION} into {folder or hub()}")
    try:
        network = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{path}: expected TorchScript as NVIDIA publishes it: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte()
        return torch.cat([network(part, return_features=True).float() for part in pixels.split(BATCH)])

    return features
