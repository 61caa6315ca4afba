"""Training any of `ldm.autoencoders`: y in [0,1] -> its losses by name, the average of its weights, its scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ldm.autoencoders import Autoencoder, Batch
from ldm.autoencoders.base import Model, batches
from ldm.autoencoders.variational import VAE, Normal
from ldm.training import processes
from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.records import Preview

MEASURED = 4096  # pictures whose codes the scale is measured on


class AutoencoderObjective(nn.Module):
    """Batches (y, labels), a generator for each sample -> the loss and its parts, each a mean over the samples."""

    averaged = ("model",)

    def __init__(self, model: Model):
        super().__init__()
        self.model: Any = model

    def forward(self, batch: tuple[Tensor, Tensor | None], generators: Sequence[Generator]) -> dict[str, Tensor]:
        parts = self.model.losses(Batch(*batch), generators)
        return {"loss": self.model.loss(parts).mean(), **{name: part.detach().mean() for name, part in parts.items()}}


def train_autoencoder(model: Model, out: Path, data: Any, plan: Plan, preview: Preview | None = None) -> Model:
    """A new model, and data whose `batch(indices)` gives (y, labels) -> the model trained, in `out`/autoencoder.

    Mean and deviation of its codes are measured on the data, so that in its latent space they are 0 and 1. The run's
    state, log and pictures lie in `out` too; the same call goes on from there. ValueError for several processes, and
    for accumulation, where what is learnt depends on whole batches.
    """
    if not model.splits and processes.here().num_processes * plan.accumulation > 1:
        raise ValueError(f"{type(model).__name__} learns from whole batches: expected one process, and no accumulation")
    settings = {"kind": "autoencoder", "model": model.config}
    average: Any = fit(AutoencoderObjective(model), data, plan, out, settings=settings, preview=preview)
    trained = average.model
    if isinstance(trained, Autoencoder):
        mean, deviation = code_moments(trained, data)
        trained.latents_mean, trained.latents_std = mean.tolist(), deviation.tolist()
    if processes.here().is_main_process:
        trained = trained.cpu()
        trained.save_pretrained(out / "autoencoder")
    return trained


@torch.no_grad()
def code_moments(model: Autoencoder, data: Any, count: int = MEASURED) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of the codes of the first `count` pictures, the posterior's noise among it."""
    codes, variances = [], []
    device = next(model.parameters()).device
    for y, _ in batches(data, count=count):
        y = y.to(device)
        q = model.posterior(Batch(y)) if isinstance(model, VAE) else Normal(code := model.code(y), code - torch.inf)
        codes.append(q.mean.double())
        variances.append(q.logvar.double().exp())
    mean, noise = (torch.cat(found).movedim(1, 0).flatten(1) for found in (codes, variances))
    return mean.mean(1), (mean.var(1, correction=0) + noise.mean(1)).sqrt().clamp_min(1e-6)
