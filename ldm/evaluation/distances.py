"""How far apart are two sets of pictures? Distances between their features, by torchmetrics; no weights are fetched.

    pictures --network--> features (N,D);   (N,D), (M,D) --frechet, kernel--> distance

Of Inception's features the first is FID, the second KID. Of another network's they are neither: say which it was.
`frechets` and `kernels` are those of many parts of one set, for what torchmetrics would take hours.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.checkpoints.faults import reason
from ldm.training.perceptual import hub

Features = Callable[[Tensor], Tensor]  # x (B,3,H,W) in [-1,1] -> (B,D)
INCEPTION = "inception-2015-12-05.pt"  # as its publisher names it: TorchScript, which clean-fid and StyleGAN use too
SUBSET = 1000  # features that a kernel distance takes at once, where there are as many
BATCH = 32
BLOCK = 1024  # features whose products with all others are held at once


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
        size = min(SUBSET, len(one), len(other))
        subsets = 1 if size == len(one) == len(other) else 100  # where they would all be the same, one is enough
        metric = KernelInceptionDistance(Given(one.shape[1]), subsets=subsets, subset_size=size)
        return float(_measured(metric, one, other)[0])


def frechets(one: Tensor, other: Tensor, parts: Tensor) -> Iterator[float]:
    """Features (N,D), (M,D); parts (R,N) of bool, two or more features each -> R times `frechet(one[part], other)`.

    tr (C_1 C_2)^(1/2) is the sum of the singular values of X R, C_1 = X' X and C_2 = R R': those of a small matrix.
    """
    one, other = one.double(), other.double()
    root = _root(other)
    projected, mean, spread = one @ root, other.mean(0), other.var(0).sum()
    for part in parts:
        known, x = one[part], projected[part]
        x = (x - x.mean(0)) / (len(x) - 1) ** 0.5
        squares = torch.linalg.eigvalsh(x.T @ x if len(x) > x.shape[1] else x @ x.T)
        shift = (known.mean(0) - mean).square().sum()
        yield float(shift + known.var(0).sum() + spread - 2 * squares.clamp_min(0).sqrt().sum())


def _root(features: Tensor) -> Tensor:
    """Features (M,D) -> R (D,r), whose R R' is their covariance; r is M or D, whichever is less."""
    x = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    if len(x) <= x.shape[1]:
        return x.T
    values, vectors = torch.linalg.eigh(x.T @ x)
    return vectors * values.clamp_min(0).sqrt()


def kernels(one: Tensor, other: Tensor, parts: Tensor) -> Tensor:
    """Features (N,D), (M,D); parts (R,N) of bool, two or more features each -> (R,) kernel(one[part], other).

    Of all features at once, where `kernel` is a mean over subsets of them.
    """
    one, other, w = one.double(), other.double(), parts.double()
    across = torch.cat([_cubic(block, other).mean(1) for block in one.split(BLOCK)])
    return _within(one, w) - 2 * (w @ across) / w.sum(1) + _within(other, torch.ones(1, len(other)).double())


def _within(features: Tensor, w: Tensor) -> Tensor:
    """Features (N,D); w (R,N) of 0 and 1 -> (R,) mean of k over all pairs of different features that w takes."""
    total, count = torch.zeros(len(w)).double(), w.sum(1)
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        k = _cubic(features[rows], features)
        k[:, rows].fill_diagonal_(0)
        total += ((w[:, rows] @ k) * w).sum(1)
    return total / (count * (count - 1))


def _cubic(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3


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


def missing_inception(folder: Path | None = None) -> str:
    """What to put where."""
    return f"Inception's weights are not at hand; put {INCEPTION} into {folder or hub()}"


def load_inception(folder: Path | None = None, device: str = "cpu") -> Features:
    """x (B,3,H,W) in [-1,1], any size -> Inception's features (B,2048) on the CPU, those of FID.

    FileNotFoundError says what to put where, ValueError that the file is another one.
    """
    path = find_inception(folder)
    if path is None:
        raise FileNotFoundError(missing_inception(folder))
    try:
        network = torch.jit.load(path, map_location="cpu").eval().to(device)
        network(torch.zeros(1, 3, 16, 16, dtype=torch.uint8, device=device), return_features=True)  # another one fails
    except Exception as error:  # a damaged archive raises more than RuntimeError
        raise ValueError(f"{path}: expected TorchScript as NVIDIA publishes it: {reason(error)}") from None

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte().to(device)
        return torch.cat([network(part, return_features=True).float().cpu() for part in pixels.split(BATCH)])

    return features
