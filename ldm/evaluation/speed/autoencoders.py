"""The autoencoder family beside pythae: the same networks, data and batches; whose training is faster, whose loss less.

Both start from the same weights and run the same epochs of Adam at a constant rate, in turn. A short run and a long one
are timed, so that what is done once, at the beginning and at the end, cancels. What comes out is judged by one and the
same formula, ours, on pictures that neither has seen.
"""

import contextlib
import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ldm.autoencoders import AE, VAE, VQVAE, Autoencoder, BetaVAE, Shape
from ldm.data.tensors import numbers
from ldm.evaluation.autoencoders import evaluate_autoencoder
from ldm.evaluation.speed.processes import machine, versions
from ldm.training.autoencoder import train_autoencoder
from ldm.training.plan import Plan

RATE = 1e-3
SHORT = 2  # epochs
SQUARES = math.sqrt(0.5)  # of a Gaussian whose nats are the plain sum of squares, which pythae minimises
FEW = 64  # entries of the codebook

KINDS: dict[str, Callable[[Shape], Autoencoder]] = {  # as pythae has them
    "ae": lambda shape: AE(shape, "gaussian", SQUARES),
    "vae": lambda shape: VAE(shape),
    "beta": lambda shape: BetaVAE(shape, beta=4.0),
    "vq": lambda shape: VQVAE(shape, "gaussian", SQUARES, entries=FEW),
}


def compare_autoencoders(
    side: int = 28,
    widths: tuple[int, ...] = (400,),
    code: int = 20,
    epochs: int = 200,
    batch_size: int = 100,
    rounds: int = 3,
    kinds: tuple[str, ...] = tuple(KINDS),
) -> dict[str, Any]:
    """scikit-learn's digits of `side` x `side` -> what json can write: images per second, ratios, and losses.

    Ours and pythae's learn in turn, from the same weights, in the same batches. ModuleNotFoundError without pythae or
    scikit-learn.
    """
    shape = Shape((side, side), 1, code, "dense", widths)
    learnt, unseen = (numbers("digits", split, side) for split in ("train", "test"))
    turns = tqdm([(kind, i) for kind in kinds for i in range(rounds)], "turns", disable=None)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for kind, turn in turns:
        found[kind].append(one_turn(kind, shape, learnt, unseen, epochs, batch_size, seed=turn))
    return {
        "what": "training of autoencoders beside pythae's, the same networks, data and batches, images per second",
        "kinds": {kind: _summary(rows) for kind, rows in found.items()},
        "settings": {"side": side, "widths": list(widths), "code": code, "epochs": epochs, "batch_size": batch_size},
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "versions": versions("torch", "pythae"),
    }


def one_turn(
    kind: str, shape: Shape, learnt: Any, unseen: Any, epochs: int, batch_size: int, seed: int
) -> dict[str, Any]:
    """Both programs' images per second, and what each result loses of unseen pictures."""
    torch.manual_seed(seed)
    start = KINDS[kind](shape)
    runs = {"ldm": partial(own_training, seed=seed), "pythae": partial(peer_training, seed=seed)}
    row: dict[str, Any] = {}
    for name, run in runs.items():
        run(copy.deepcopy(start), learnt, 1, batch_size)  # what is imported, and kept, the first time
        _, short = _timed(run, copy.deepcopy(start), learnt, SHORT, batch_size)
        model, long = _timed(run, copy.deepcopy(start), learnt, epochs, batch_size)
        figures = evaluate_autoencoder(model, unseen, samples=1)
        row[name] = {
            "images_per_second": (epochs - SHORT) * len(learnt) / (long - short),
            "error": figures["error"],
            "loss": figures["reconstruction"] + model.weights.get("kl", 1.0) * figures.get("kl", 0.0),
        }
    row["ratio"] = row["ldm"]["images_per_second"] / row["pythae"]["images_per_second"]
    return row


def own_training(model: Autoencoder, data: Any, epochs: int, batch_size: int, seed: int) -> Autoencoder:
    """Our loop, without an average and without clipping, as pythae has neither."""
    steps = epochs * len(data) // batch_size
    plain = Plan(steps, batch_size, RATE, warmup=0, weight_decay=0.0, clip=math.inf, ema=0.0, schedule="constant")
    plan = replace(plain, seed=seed, save_every=10**9, log_every=100, tensorboard=False)
    with TemporaryDirectory() as folder:
        return train_autoencoder(model, Path(folder), data, plan)  # type: ignore[return-value]


def peer_training(model: Autoencoder, data: Any, epochs: int, batch_size: int, seed: int) -> Autoencoder:
    """pythae's trainer on its own class around our networks -> our class with what these learnt."""
    with _quiet(), TemporaryDirectory() as folder:
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        y, labels = data.batch(range(len(data)))
        theirs = peer(model)
        plan = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, per_device_train_batch_size=batch_size, learning_rate=RATE, seed=seed,
            no_cuda=True,
        )  # fmt: skip
        BaseTrainer(theirs, BaseDataset(y, labels), training_config=plan).train()
    if isinstance(model, VQVAE):
        model.books[0].vectors.copy_(theirs.quantizer.embeddings)
    return model


def peer(model: Autoencoder) -> Any:
    """pythae's class of the same kind, around the very networks of ours."""
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.encoder

        def forward(self, x: torch.Tensor) -> Any:
            found = self.network(x)
            if not isinstance(model, VAE):  # of a flat code its codebook would quantise each number alone
                return ModelOutput(embedding=found if isinstance(model, VQVAE) else found.flatten(1))
            mean, logvar = found.flatten(1).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.decoder

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=model.pixels.mean(self.network(z.flatten(1)[:, :, None, None])))

    sizes = {"input_dim": (model.shape.channels, *model.shape.size), "latent_dim": model.shape.code}
    if isinstance(model, BetaVAE):
        config = models.BetaVAEConfig(**sizes, reconstruction_loss="bce", beta=model.beta)
        return models.BetaVAE(config, Encoder(), Decoder())
    if isinstance(model, VAE):
        return models.VAE(models.VAEConfig(**sizes, reconstruction_loss="bce"), Encoder(), Decoder())
    if isinstance(model, VQVAE):
        told = {"num_embeddings": model.entries, "decay": model.decay, "use_ema": True}
        told["commitment_loss_factor"] = model.commitment * model.shape.code  # there of a mean, here of a sum
        theirs = models.VQVAE(models.VQVAEConfig(**sizes, **told), Encoder(), Decoder())
        theirs.quantizer.embeddings.copy_(model.books[0].vectors)
        return theirs
    return models.AE(models.AEConfig(**sizes), Encoder(), Decoder())


def _timed(run: Callable[..., Autoencoder], model: nn.Module, *told: Any) -> tuple[Autoencoder, float]:
    began = time.perf_counter()
    trained = run(model, *told)
    return trained.eval(), time.perf_counter() - began


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and every turn."""
    found: dict[str, Any] = {
        name: {figure: median(row[name][figure] for row in rows) for figure in rows[0][name]}
        for name in ("ldm", "pythae")
    }
    return {**found, "ratio": {"median": median(row["ratio"] for row in rows), "turns": [row["ratio"] for row in rows]}}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without pythae's bars and notes."""
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(logging.NOTSET)
