"""How good is an autoencoder? On pictures that it has not seen: errors, nats, codes used, and how its samples look.

error        mean squared error of a pixel in [0,1]
nats         -log p(y | z) and, of the variational ones, the KL, the ELBO, and the bound of log p(y) of many samples
foresight    of TD-VAE: the error of frames to come, beside that of the last one seen
perplexity   of a codebook's entries, each level
distance     between samples and pictures: Frechet's, of a small classifier's features
"""

import warnings
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.autoencoders import TDVAE, VAE, Autoencoder, Batch, SequentialVAE
from ldm.autoencoders.base import Model, batches
from ldm.autoencoders.quantized import Quantizing
from ldm.evaluation.distances import Features, frechet

BATCH = 100
TURNED = 1000


@torch.no_grad()
def evaluate_autoencoder(
    model: Model, data: Any, prior: Any = None, features: Features | None = None, samples: int = 100, seed: int = 0
) -> dict[str, float]:
    """A model and data that it has not seen -> figures, means over the data.

    "error", the mean squared error of a pixel in [0,1]; the model's own losses by name, in nats; "elbo" and
    "log_likelihood" of variational ones; "foresight_error" of TD-VAE beside "stillness_error"; perplexities of
    codebooks; "distance" of samples, Frechet's; and the "count". `data.batch(indices)` gives (y, labels).

    `samples` is how many the log-likelihood's bound takes of each picture. With a prior and features the distance
    compares as many drawn pictures as there are.
    """
    rows: list[dict[str, float]] = []
    codes: list[Any] = []
    for batch in batches(data, BATCH):
        generators = [Generator().manual_seed(seed + len(rows) + i) for i in range(len(batch.y))]
        rows += _rows(model, batch, generators, samples)
        if isinstance(model, Quantizing):
            codes.append(model.codes(batch.y))
    found = {name: fmean(row[name] for row in rows) for name in rows[0]} | {"count": float(len(rows))}
    if isinstance(model, Quantizing):
        used = model.used([torch.cat(level) for level in zip(*codes, strict=True)])
        found |= {name: float(value) for name, value in used.items()}
    if prior is not None and features is not None and isinstance(model, Autoencoder) and len(data) > 1:
        true = features(data.batch(range(len(data)))[0])
        drawn = model.to_y(prior.pictures(model, len(data), Generator().manual_seed(seed))).clamp(0, 1)
        found["distance"] = frechet(features(drawn), true)
    return found


def _rows(model: Model, batch: Batch, generators: list[Generator], samples: int) -> list[dict[str, float]]:
    """The figures of each picture, or sequence."""
    parts = {name: part for name, part in model.losses(batch, generators).items() if "perplexity" not in name}
    if isinstance(model, Autoencoder | SequentialVAE):
        parts["error"] = (model.reconstruct(*batch) - batch.y).square().flatten(1).mean(1)
    if isinstance(model, TDVAE):
        parts |= _foresight(model, batch.y)
    if isinstance(model, VAE | SequentialVAE):
        parts["elbo"] = -parts["reconstruction"] - parts["kl"]
        parts["log_likelihood"] = model.log_likelihood(batch, generators, samples)
    return [{name: float(part[i]) for name, part in parts.items()} for i in range(len(batch.y))]


def _foresight(model: TDVAE, y: Tensor) -> dict[str, Tensor]:
    """Frames y (B,T,channels,H,W), the first third of which are seen -> squared errors about the others (B,).

    Of what is foreseen, frame by frame, and of the last frame that was seen, as if it stayed.
    """
    seen = third(y.shape[1])
    foreseen, coming = model.rollout(y[:, :seen], [1] * (y.shape[1] - seen)), y[:, seen:]
    guesses = {"foresight_error": foreseen, "stillness_error": y[:, seen - 1 : seen]}
    return {name: (guess - coming).square().flatten(1).mean(1) for name, guess in guesses.items()}


def third(length: int) -> int:
    """Frames of a sequence -> how many of them a model of sequences is shown, when it is to foresee the others."""
    return max(1, length // 3)


def classifier_features(data: Any, seed: int = 0) -> Features:
    """The hidden layer of a small network that was taught the data's classes (scikit-learn's, 64 units).

    Where they have none, or one, it was taught by how many quarters each of the first `TURNED` pictures was turned
    (Gidaris et al. 2018).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    y, labels = data.batch(range(len(data)))
    if labels is None or len(labels.unique()) < 2:
        y = torch.cat([torch.rot90(y[:TURNED], quarters, (2, 3)) for quarters in range(4)])
        labels = torch.arange(4).repeat_interleave(len(y) // 4)
    network = MLPClassifier((64,), random_state=seed, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # features need no last digit
        network.fit(_flat(y), labels.numpy())
    return lambda y: torch.from_numpy(np.maximum(_flat(y) @ network.coefs_[0] + network.intercepts_[0], 0))


def _flat(y: Tensor) -> np.ndarray:
    return y.flatten(1).numpy()
