"""Does an error map say where a picture is wrong? M (1,H,W) in [0,1] against true boxes.

precision, recall    of pixels, where M is at least 0.5
average_precision    the same whatever the threshold; `chance` is that of a map that knows nothing: the share of pixels
                     that lie in boxes
boxes_found          share of the boxes in which M reaches 0.5 somewhere
false_alarms         share of real pictures in which it does; alarmed: the share of their pixels
"""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.training.twins import Twins, collate, together
from ldm.tryon.classifier import ErrorClassifier

THRESHOLD = 0.5
BATCH = 32


def evaluate_error_maps(classifier: ErrorClassifier, data: Twins, threshold: float = THRESHOLD) -> dict[str, float]:
    """A classifier, and twins that it has not seen, some with boxes -> figures of its maps, and how many there were.

    "precision" and "recall" of pixels where M is at least `threshold`, "average_precision" whatever that is, "chance"
    of a map that knows nothing; "boxes_found", the share of the boxes that it reaches; "false_alarms", the share of
    real pictures in which it does, and "alarmed", that of their pixels. Needs scikit-learn. ValueError where no picture
    has a box.
    """
    generated, real = judged(classifier, data)
    found = located([generated[i] for i in data.boxes], list(data.boxes.values()), threshold)
    return found | alarms(real, threshold) | {"count": float(len(data)), "checked": float(len(data.boxes))}


@torch.no_grad()
def judged(classifier: ErrorClassifier, data: Twins) -> tuple[list[Tensor], list[Tensor]]:
    """Twins -> the maps (1,H,W) of what was generated, and of the real pictures."""
    device = next(classifier.parameters()).device
    generated: list[Tensor] = []
    real: list[Tensor] = []
    for start in tqdm(range(0, len(data), BATCH), desc="judging", disable=None, delay=2):
        batch = collate([data[i] for i in range(start, min(start + BATCH, len(data)))])
        garment = None if batch.garment is None else batch.garment.to(device)
        generated += classifier.error_map(batch.generated.to(device), garment).cpu()
        real += classifier.error_map(batch.real.to(device), garment).cpu()
    return generated, real


def located(maps: Sequence[Tensor], boxes: Sequence[Tensor], threshold: float = THRESHOLD) -> dict[str, float]:
    """Maps (1,H,W), and each picture's boxes (K,H,W) one by one -> how well the maps say where they are.

    A pixel is wrong if at least half of it lies in a box. Needs scikit-learn. ValueError where no pixel is.
    """
    from sklearn.metrics import average_precision_score, precision_score, recall_score

    truth = torch.cat([together(own).flatten() >= 0.5 for own in boxes] or [torch.zeros(0)]).numpy()
    if not truth.any():
        raise ValueError(f"{len(boxes)} pictures, no pixel of them in a box: expected some, to compare the maps with")
    shown = torch.cat([found.flatten() for found in maps]).numpy()
    pairs = [(found[0], box) for found, own in zip(maps, boxes, strict=True) for box in own]
    return {
        "precision": float(precision_score(truth, shown >= threshold, zero_division=0.0)),
        "recall": float(recall_score(truth, shown >= threshold)),
        "average_precision": float(average_precision_score(truth, shown)),
        "chance": float(truth.mean()),
        "boxes_found": fmean(float(found[box > 0].max() >= threshold) for found, box in pairs),
    }


def alarms(maps: Sequence[Tensor], threshold: float = THRESHOLD) -> dict[str, float]:
    """Maps (1,H,W) of pictures without error -> how often they say that there is one."""
    hot = [found >= threshold for found in maps]
    return {
        "false_alarms": fmean(float(found.any()) for found in hot),
        "alarmed": fmean(float(found.float().mean()) for found in hot),
    }
