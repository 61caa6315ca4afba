"""How good is an autoencoder? On pictures that it has not seen: errors, nats, codes used, and how its samples look.

error        mean squared error of a pixel in [0,1]
nats         -log p(y | z) and, of the variational ones, the KL, the ELBO, and the bound of log p(y) of many samples
perplexity   of a codebook's entries, each level
distance     between samples and pictures: Frechet's, of a small classifier's features  (Heusel et al. 2017)
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.autoencoders import VAE, VQVAE, VQVAE2, Autoencoder, Batch, SequentialVAE
from ldm.autoencoders.base import Model
from ldm.autoencoders.quantized import perplexity

BATCH = 100
Features = Callable[[Tensor], np.ndarray]  # y (B,channels,H,W) -> (B,D)


@torch.no_grad()
def evaluate_autoencoder(
    model: Model, data: Any, prior: Any = None, features: Features | None = None, samples: int = 100, seed: int = 0
) -> dict[str, float]:
    """A model and data that it has not seen -> figures, means over the data.

    `samples` is how many the log-likelihood's bound takes of each picture. With a prior and features the distance
    compares as many drawn pictures as there are.
    """
    rows: list[dict[str, float]] = []
    codes: list[Any] = []
    for start in range(0, len(data), BATCH):
        indices = range(start, min(start + BATCH, len(data)))
        batch = Batch(*data.batch(indices))
        rows += _rows(model, batch, [Generator().manual_seed(seed + i) for i in indices], samples)
        if isinstance(model, VQVAE | VQVAE2):
            codes.append(model.codes(batch.y))
    found = {name: fmean(row[name] for row in rows) for name in rows[0]} | {"count": float(len(rows))}
    if isinstance(model, VQVAE | VQVAE2):
        found |= _perplexities(model, codes)
    if prior is not None and features is not None and isinstance(model, Autoencoder):
        true = features(data.batch(range(len(data)))[0])
        drawn = model.to_y(prior.pictures(model, len(data), Generator().manual_seed(seed))).clamp(0, 1)
        found["distance"] = frechet(features(drawn), true)
    return found


def _rows(model: Model, batch: Batch, generators: list[Generator], samples: int) -> list[dict[str, float]]:
    """The figures of each picture, or sequence."""
    parts = {name: part for name, part in model.losses(batch, generators).items() if "perplexity" not in name}
    if isinstance(model, Autoencoder | SequentialVAE):
        parts["error"] = (model.reconstruct(batch.y) - batch.y).square().flatten(1).mean(1)
    if isinstance(model, VAE):
        parts["elbo"] = -parts["reconstruction"] - parts["kl"]
        parts["log_likelihood"] = model.log_likelihood(batch, generators, samples)
    return [{name: float(part[i]) for name, part in parts.items()} for i in range(len(batch.y))]


def _perplexities(model: VQVAE | VQVAE2, codes: list[Any]) -> dict[str, float]:
    if isinstance(model, VQVAE):
        return {"perplexity": float(perplexity(torch.cat(codes), model.entries))}
    levels = zip(("top_perplexity", "perplexity"), zip(*codes, strict=True), strict=True)
    return {name: float(perplexity(torch.cat(level), model.entries)) for name, level in levels}


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Features (N,D) and (M,D) -> the squared distance of the normal distributions that fit them.

    |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), by the eigenvalues of C_1 C_2 (Dowson and Landau 1982).
    """
    (mean, covariance), (other_mean, other_covariance) = (
        (features.mean(0), np.cov(features, rowvar=False)) for features in (one.astype(float), other.astype(float))
    )
    roots = np.sqrt(np.linalg.eigvals(covariance @ other_covariance).real.clip(0)).sum()
    return float(np.square(mean - other_mean).sum() + np.trace(covariance + other_covariance) - 2 * roots)


def classifier_features(data: Any, seed: int = 0) -> Features:
    """Data with classes -> the hidden layer of a small network that was taught them (scikit-learn's, 64 units)."""
    from sklearn.neural_network import MLPClassifier

    y, labels = data.batch(range(len(data)))
    if labels is None:
        raise ValueError("the data have no classes: no classifier can be taught them")
    network = MLPClassifier((64,), random_state=seed, max_iter=300).fit(_flat(y), labels.numpy())
    return lambda y: np.maximum(_flat(y) @ network.coefs_[0] + network.intercepts_[0], 0)


def _flat(y: Tensor) -> np.ndarray:
    return y.flatten(1).numpy()
