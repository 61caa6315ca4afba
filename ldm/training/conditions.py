"""What a network is told beside z_t, in training: words, a class, a picture; and how it learns to do without.

items --collate--> Batch --Conditions, some rows dropped--> Condition
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldm import masks
from ldm.denoising import Condition
from ldm.latents import LatentSpace
from ldm.text import TextEncoder, Tokenizer


@dataclass(frozen=True)
class Doors:
    """Which of the three doors into a U-Net are open; `Condition` has the tensors that pass through them."""

    text: bool = True  # cross-attention to a text encoder
    classes: int = 0  # an embedding for each of that many classes, and one for none of them
    beside: int = 0  # channels of a picture, a mask or a layout, concatenated to z_t

    @property
    def null_label(self) -> int | None:
        """The label that stands for no class: the one after the last."""
        return self.classes or None

    def __str__(self) -> str:
        told = {"words": self.text, f"{self.classes} classes": self.classes, f"{self.beside} channels": self.beside}
        return " and ".join(name for name, there in told.items() if there) or "nothing"


BY_WORDS = Doors()


class Batch(NamedTuple):
    """B posteriors over z_0 (B,C,h,w), and what the pictures are of. None: that door is not used."""

    mean: Tensor
    logvar: Tensor
    ids: Tensor | None = None  # (B,L), of the caption
    states: Tensor | None = None  # (B,L,D), the caption as the text encoder reads it, where that was done before
    labels: Tensor | None = None  # (B,)
    beside: Tensor | None = None  # (B,C',h,w)
    far: Tensor | None = None  # z_T (B,C,h,w), of a bridge
    error_map: Tensor | None = None  # (B,1,h,w), by which its noise is multiplied


def collate(doors: Doors, tokenizer: Tokenizer | None, items: Sequence[tuple[Any, ...]]) -> Batch:
    """Items (mean, logvar, caption or label[, extras]) -> Batch, of what the doors let in.

    `extras` may hold "label", "beside" (C',h,w) and "states" (L,D), which stand for the caption where there is no
    tokenizer; and "far" (C,h,w) and "error_map" (1,h,w), which are passed on wherever they are. ValueError for an item
    that lacks what is needed.
    """
    means, logvars, words, *rest = zip(*items, strict=True)
    extras = rest[0] if rest else [{}] * len(items)
    ids = states = labels = beside = None
    if doors.text and tokenizer is not None:
        ids = torch.tensor(tokenizer([str(word) for word in words]))
    elif doors.text:
        states = _stack(extras, "states")
    if doors.classes:
        labels = _labels([extra.get("label", word) for extra, word in zip(extras, words, strict=True)], doors.classes)
    if doors.beside:
        beside = _stack(extras, "beside")
    ends = {name: _stack(extras, name) for name in ("far", "error_map") if name in extras[0]}
    return Batch(torch.stack(means), torch.stack(logvars), ids, states, labels, beside, **ends)


def _stack(extras: Sequence[Mapping[str, Any]], name: str) -> Tensor:
    if any(name not in extra for extra in extras):
        raise ValueError(f"the data hold no {name!r}, which this model is to be told")
    return torch.stack([extra[name] for extra in extras])


def _labels(found: list[Any], classes: int) -> Tensor:
    for label in found:
        if not isinstance(label, int) or not 0 <= label < classes:
            raise ValueError(f"label {label!r}: expected a class from 0 to {classes - 1}")
    return torch.tensor(found)


class Conditions(nn.Module):
    """Batch -> Condition, in which dropped rows have the null: the empty prompt, the label for none, a blank picture.

    `text` is any module whose answer to ids (B,L) has a `last_hidden_state`; it learns unless its parameters are
    frozen. `null` (1,L) are the empty prompt's ids. A model without a `null_label` is always told the class.
    """

    def __init__(self, text: nn.Module | None = None, null: Tensor | None = None, null_label: int | None = None):
        super().__init__()
        self.text, self.null_label = text, null_label
        self.null_ids: Tensor | None
        self.register_buffer("null_ids", null)

    @classmethod
    def of(cls, doors: Doors, text: TextEncoder | None) -> "Conditions":
        """Those of a model with these doors, and of its text encoder if it has one."""
        if text is None:
            return cls(null_label=doors.null_label)
        return cls(text.model, torch.tensor(text.tokenizer("")), doors.null_label)

    def forward(self, batch: Batch, dropped: Tensor, blank: Tensor) -> Condition:
        """`dropped` (B,) bool: rows without words and class; `blank` (B,) bool: rows without a picture beside."""
        label, beside = batch.labels, batch.beside
        if label is not None and self.null_label is not None:
            label = _exchanged(dropped, label, torch.full_like(label, self.null_label))
        if beside is not None:
            beside = _exchanged(blank, beside.float(), torch.zeros_like(beside, dtype=torch.float32))
        return Condition(self._read(batch, dropped), beside, label)

    def null(self) -> Condition:
        """Neither words nor a class, in one row; the picture beside is left open."""
        text = self.text(self.null_ids).last_hidden_state if self.text is not None else None
        label = None if self.null_label is None else torch.tensor([self.null_label])
        return Condition(text, label=label)

    def _read(self, batch: Batch, dropped: Tensor) -> Tensor | None:
        if self.text is None or (batch.ids is None and batch.states is None):
            return None
        if batch.states is not None:
            null = self.text(self.null_ids).last_hidden_state
            return _exchanged(dropped, batch.states.to(null.dtype), null)
        assert batch.ids is not None and self.null_ids is not None
        return self.text(_exchanged(dropped, batch.ids, self.null_ids)).last_hidden_state


def _exchanged(rows: Tensor, values: Tensor, null: Tensor) -> Tensor:
    """Values (B,...), with the null in the rows (B,) that are true."""
    return torch.where(rows.to(values.device).reshape(-1, *[1] * (values.ndim - 1)), null, values)


# ---- a picture beside ----


@torch.no_grad()
def picture_beside(space: LatentSpace, x: Tensor) -> Tensor:
    """x (B,3,H,W), a picture or a layout -> what stands beside z_t (B,C,h,w), as `LatentDiffusion.instruct` shows it.

    Posterior means without the scale, as InstructPix2Pix was trained (Brooks et al. 2023).
    """
    return space.unscaled(space.from_pixels(x))


@torch.no_grad()
def mask_beside(space: LatentSpace, x: Tensor, hole: Tensor) -> Tensor:
    """x (B,3,H,W), hole (B,1,H,W), 1 where to draw -> (B,1+C,h,w), as `LatentDiffusion.inpaint` shows it."""
    rest = space.from_pixels(x * (hole < 0.5))
    return torch.cat([masks.nearest(hole, space.factor).to(rest), rest], dim=1)
