"""Training the error classifier: twins (real, generated, garment, a few boxes) -> M, 1 where a picture is wrong.

Weak labels, as EARSB has them (arXiv 2501.04666): somewhere in a generated picture something is wrong, in a real one
nothing is; so the map's maximum is to be high, or low. A share of the generated pictures has boxes, in which the map is
to be high and around which low. The exact form of the losses is not known to us; this one is our choice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ldm.images import grid, pad, to_images
from ldm.training import processes
from ldm.training.loop import fit
from ldm.training.losses import precise
from ldm.training.plan import Plan
from ldm.training.records import Preview
from ldm.training.twins import Sample, Twins, collate
from ldm.tryon.classifier import PRESETS, ErrorClassifier
from ldm.tryon.heat import heated

SHOWN = 8  # pictures of a preview


def anywhere(logits: Tensor, flawed: Tensor, top: float = 0.0) -> Tensor:
    """Logits (B,1,h,w), whether anything is wrong (B,) in {0, 1} -> (B,): -log of the maximum of M, or of 1 - it.

    In place of the maximum the mean of the logits of the highest places, `top` of all: so that more of an error is
    found than what betrays it most.
    """
    places = logits.flatten(1)
    highest = places.topk(max(1, round(top * places.shape[1])), 1).values.mean(1)
    return F.binary_cross_entropy_with_logits(highest, flawed, reduction="none")


def boxed(logits: Tensor, shares: Tensor) -> Tensor:
    """Logits (B,1,h,w), the share of each place that lies in a box -> (B,).

    -mean of log M inside - mean of log (1 - M) outside, so that a small box counts as much as all around it.
    """
    inside, outside = shares * F.softplus(-logits), (1 - shares) * F.softplus(logits)
    return _mean_over(inside, shares) + _mean_over(outside, 1 - shares)


def _mean_over(weighted: Tensor, weights: Tensor) -> Tensor:
    """Sums (B,) over sums of weights; 0 where there is no weight."""
    return weighted.flatten(1).sum(1) / weights.flatten(1).sum(1).clamp_min(1e-6)


class ErrorObjective(nn.Module):
    """B samples -> the loss and its parts, each a mean over the samples.

    generated    the maximum of M is high on generated pictures; low on those that were checked and have no error
    real         times `real`: it is low on real ones
    box          times `box`: M is high in boxes and low around them, on the pictures that have them
    found, false_alarms    shares of generated and of real pictures whose maximum is above 0.5

    On generated pictures the maximum is the mean of the highest places, `top` of all.
    """

    averaged = ("classifier",)

    def __init__(self, classifier: ErrorClassifier, real: float = 1.0, box: float = 1.0, top: float = 0.0):
        super().__init__()
        if min(real, box) < 0 or not 0 <= top <= 1:
            raise ValueError(
                f"real {real}, box {box}, top {top}: expected weights of 0 or more, and a share from 0 to 1"
            )
        self.classifier: Any = classifier
        self.weights = {"generated": 1.0, "real": real, "box": box}
        self.top = top

    def forward(self, batch: Sample, generators: Sequence[Generator]) -> dict[str, Tensor]:
        shown = [(batch.generated, batch.garment), (batch.real, batch.garment)]
        shown += [] if batch.marked is None else [(batch.marked.generated, batch.marked.garment)]
        x, garments = (list(parts) for parts in zip(*shown, strict=True))
        told = None if batch.garment is None else torch.cat(garments)
        generated, real, *marked = precise(self.classifier(torch.cat(x), told)).chunk(len(shown))
        parts = {
            "generated": anywhere(generated, batch.flawed, self.top),
            "real": anywhere(real, torch.zeros_like(batch.flawed)),
        }
        if batch.marked is not None:
            parts["box"] = boxed(marked[0], self._shares(batch.marked.covered))
        loss = torch.stack([self.weights[name] * part.mean() for name, part in parts.items()]).sum()
        tops = {"found": generated, "false_alarms": real}
        parts |= {name: (logits.flatten(1).amax(1) > 0).float() for name, logits in tops.items()}
        return {"loss": loss, **{name: part.detach().mean() for name, part in parts.items()}}

    def _shares(self, covered: Tensor) -> Tensor:
        """(B,1,H,W) -> (B,1,H/f,W/f): of each place of the map the share that lies in a box."""
        factor = self.classifier.factor
        return F.avg_pool2d(pad(covered, factor)[0], factor)


def train_error_classifier(
    out: Path,
    data: Twins,
    plan: Plan,
    widths: tuple[int, ...] = PRESETS["small"],
    real: float = 1.0,
    box: float = 1.0,
    top: float = 0.0,
) -> ErrorClassifier:
    """Twins -> a classifier in `out`/classifier, the average over the training; the same call goes on from a stop.

    `widths` are its levels; `real`, `box` and `top` are those of the losses. Beside it lie the log and maps.png,
    generated pictures over their maps. It knows garments if the twins have any. ValueError for weights below 0 and for
    a `top` outside of 0..1. After EARSB (arXiv 2501.04666); the form of the losses is ours.
    """
    torch.manual_seed(plan.seed)
    classifier = ErrorClassifier(widths, garments=data.garments is not None)
    settings = {"kind": "error-classifier", "classifier": classifier.config, "real": real, "box": box, "top": top}
    objective = ErrorObjective(classifier, real, box, top)
    average: Any = fit(objective, data, plan, out, collate, settings, maps(out, data))
    trained = average.classifier.cpu().to(memory_format=torch.contiguous_format)
    if processes.here().is_main_process:
        trained.save_pretrained(out / "classifier")
    return trained


def maps(out: Path, data: Twins) -> Preview:
    """A folder and twins -> a preview for the loop: the first few as they were generated, over their maps, maps.png."""
    first = collate([data[i] for i in range(min(SHOWN, len(data)))])
    shown, path = to_images(first.generated), out / "maps.png"

    @torch.no_grad()
    def preview(average: Any, step: int) -> Path:
        device = next(average.classifier.parameters()).device
        garment = None if first.garment is None else first.garment.to(device)
        found = average.classifier.error_map(first.generated.to(device), garment).cpu()
        hot = [heated(image, one) for image, one in zip(shown, found, strict=True)]
        grid(shown + hot, columns=len(shown)).save(path)
        return path

    return preview
