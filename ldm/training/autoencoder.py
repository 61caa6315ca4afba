"""Training any of `ldm.autoencoders`: y in [0,1] -> its losses by name, the average of its weights, its scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ldm.autoencoders import Autoencoder, Batch
from ldm.autoencoders.base import Model
from ldm.autoencoders.variational import VAE
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

    The scale that gives its codes unit variance is measured on the data. The run's state, log and pictures lie in `out`
    too; the same call goes on from there.
    """
    settings = {"kind": "autoencoder", "model": model.config}
    average: Any = fit(AutoencoderObjective(model), data, plan, out, settings=settings, preview=preview)
    trained = average.model
    if isinstance(trained, Autoencoder):
        trained.scaling_factor = 1 / code_deviation(trained, data)
    if processes.here().is_main_process:
        trained = trained.cpu()
        trained.save_pretrained(out / "autoencoder")
    return trained


@torch.no_grad()
def code_deviation(model: Autoencoder, data: Any, count: int = MEASURED) -> float:
    """The standard deviation of codes of the first `count` pictures: of means, and of the posterior about them."""
    codes, variances = [], []
    device = next(model.parameters()).device
    for start in range(0, min(count, len(data)), 256):
        y = data.batch(range(start, min(start + 256, count, len(data))))[0].to(device)
        found = model.posterior(Batch(y)) if isinstance(model, VAE) else None
        codes.append((found.mean if found else model.code(y)).flatten().double())
        variances.append(found.logvar.exp().double().mean() if found else torch.zeros((), device=device))
    return float((torch.cat(codes).var() + torch.stack(variances).mean()).sqrt())
