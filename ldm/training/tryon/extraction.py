"""H2G: garments taken off photographs of people, and those that came out well kept as synthetic pairs.

Three filters, for what EARSB asks of a good pair (a clean background, seen from the front, faithful); how they are
measured, and the thresholds, are our choice:

    outline    where the garment ends is certain
    width      the garment is broad, a third of its way down: a person seen from the side is narrow
    unlike     put on again, the garment looks as it did
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm.training.tryon.looks import Looks, as_bytes
from ldm.training.tryon.warping import Undressing
from ldm.tryon.warping import warp

BATCH = 64
OUTLINE, WIDTH, UNLIKE = 0.05, 0.2, 0.25


class Extracted(NamedTuple):
    """Garments taken off N persons (N,3,H,W) in [-1,1], their masks (N,1,H,W), and the three figures of each (N,)."""

    garment: Tensor
    mask: Tensor
    outline: Tensor  # mean of cover times 1 - cover
    width: Tensor  # as a share of the picture's height
    unlike: Tensor  # mean absolute difference to the photograph when it is put on again

    @property
    def passed(self) -> dict[str, Tensor]:
        """Which of them each filter lets through, (N,) bool."""
        return {"outline": self.outline <= OUTLINE, "width": self.width >= WIDTH, "unlike": self.unlike <= UNLIKE}

    @property
    def good(self) -> Tensor:
        """(N,) bool."""
        return torch.stack(list(self.passed.values())).all(0)

    def report(self) -> dict[str, Any]:
        """How many photographs there were, how many pairs are kept, and how many each filter refused; in JSON."""
        refused = {name: int((~passed).sum()) for name, passed in self.passed.items()}
        medians = {name: float(getattr(self, name).median()) for name in self.passed}
        return {"photographs": len(self.good), "kept": int(self.good.sum()), "refused": refused, "medians": medians}


@torch.no_grad()
def extract(looks: Looks, undress: Any, dress: Any) -> Extracted:
    """Looks, of which only the persons count, and the two networks -> garments as a shop would show them."""
    moves, found = Undressing(looks), []
    for start in range(0, len(looks), BATCH):
        rows = slice(start, start + BATCH)
        move = moves.batch(rows)
        taken = warp(undress, move.source, move.guide)
        garment = taken.on(1.0)
        told = looks.given(rows)
        again = warp(dress, garment, told.guide)
        worn = looks.pixels("worn", rows)
        unlike = (worn * (again.image - looks.pixels("person", rows)).abs()).flatten(1).sum(1)
        found.append(
            Extracted(
                garment,
                (taken.cover > 0.5).float(),
                (taken.cover * (1 - taken.cover)).flatten(1).mean(1),
                _width(worn),
                unlike / (3 * worn.flatten(1).sum(1) + 1),
            )
        )
    return Extracted(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _width(worn: Tensor) -> Tensor:
    """Where garments are worn (N,1,H,W) -> how wide each is a third of its way down, as a share of the height (N,)."""
    rows = worn[:, 0].amax(2)  # (N,H)
    height = worn.shape[2]
    top = rows.argmax(1)
    third = (top + (rows.sum(1) / 3).long()).clamp(max=height - 1)
    return worn[torch.arange(len(worn)), 0, third].sum(1) / height


def synthetic(looks: Looks, found: Extracted) -> Looks:
    """Looks of which only the persons were known -> those whose garments came out well, with these."""
    rows = found.good.nonzero().flatten()
    parts = {name: part[rows] for name, part in looks.parts.items()}
    parts["garment"] = as_bytes(found.garment[rows])
    parts["garment_mask"] = (found.mask[rows] * 255).byte()
    names = [looks.names[row] for row in rows.tolist()]
    return Looks(parts, names, ["synthetic", looks.identity(), rows.tolist()], torch.ones(len(names), dtype=torch.long))
