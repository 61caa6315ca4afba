"""Denoising: one question, given z_t at time t, what is z_0?

A `Denoiser` asks a network: `output(z_t, t, cond)` is what the network emits, and calling the denoiser turns that into
z_0 by the process's own `recover`. Guidance is wrapped around `output` and is a denoiser again.

Shapes: z (B,C,H,W); t a number or (B,); text (B,L,D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ldm.noising import Process, Time


@dataclass(frozen=True, eq=False)
class Condition:
    """What the picture is to be, by the three doors into a U-Net. None: that door is not used."""

    text: Tensor | None = None  # (B,L,D), cross-attention
    concat: Tensor | None = None  # (B,C',H,W), more channels beside z_t
    label: Tensor | None = None  # (B,), class embedding


Cond = Condition | Tensor | None  # a bare tensor is text


def condition(cond: Cond) -> Condition:
    """A condition, a bare text tensor, or nothing -> Condition."""
    return cond if isinstance(cond, Condition) else Condition(text=cond)


def stacked(*conditions: Cond) -> Condition:
    """n conditions of B rows -> one of n B. What one leaves open it shares with the last; one row serves all B."""
    *others, last = map(condition, conditions)

    def joined(door: str) -> Tensor | None:
        whole = getattr(last, door)
        parts = [part if (part := getattr(other, door)) is not None else whole for other in others]
        return None if whole is None else torch.cat([*(part.to(whole).expand_as(whole) for part in parts), whole])

    return Condition(*(joined(door.name) for door in fields(Condition)))


class Last:
    """A function of conditions that remembers its last answer: from step to step a picture's conditions are the same.

    So is the answer, as an object, by which an engine knows that it has read it. Where gradients are wanted, or a
    tensor was changed in place, the function is asked again.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function, self.asked, self.answer = function, list[tuple[Any, int]](), None

    def __call__(self, *conditions: Cond) -> Any:
        tensors = [getattr(condition(cond), door.name) for cond in conditions for door in fields(Condition)]
        asked = [(tensor, 0 if tensor is None or tensor.is_inference() else tensor._version) for tensor in tensors]
        same = len(asked) == len(self.asked) and all(
            a is b and m == n for (a, m), (b, n) in zip(asked, self.asked, strict=True)
        )
        if torch.is_grad_enabled() or not same:
            self.asked, self.answer = asked, self.function(*conditions)
        return self.answer


class Denoiser:
    """A network and the process that it was trained on: (z_t, t, cond) -> z_0.

    `unet(x, t (B,), ...)` is any callable that returns a tensor or an object with `.sample`. It is given only the
    conditions that are present, as `encoder_hidden_states` and `class_labels`, the names that diffusers' U-Nets use.
    """

    def __init__(self, unet: Callable[..., Any], process: Process):
        self.unet, self.process = unet, process

    def output(self, z_t: Tensor, t: Time | float, cond: Cond = None) -> Tensor:
        """z_t (B,C,H,W), t in 1..T, cond -> what the network emits (B,C,H,W), in float32 (float64 stays).

        The network works in its own dtype, on its own device, and is given t - 1: published checkpoints embed 0..999.
        """
        cond, home = condition(cond), self._home(z_t)
        x = torch.cat([part.to(home) for part in (z_t, cond.concat) if part is not None], dim=1)
        t = torch.as_tensor(t - 1, device=home.device).expand(len(x))
        output = self.unet(x, t, **_entering(cond, home))
        output = output if isinstance(output, Tensor) else output.sample
        return output.to(z_t.device, torch.promote_types(z_t.dtype, torch.float32))

    def __call__(self, z_t: Tensor, t: Time, cond: Cond = None) -> Tensor:
        """z_t (B,C,H,W), t in 1..T, cond -> z_0 (B,C,H,W), in float32 (float64 stays)."""
        return self.process.recover(z_t, t, self.output(z_t, t, cond))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Denoiser:
        """Moves the network, where it is one that can be moved; returns this denoiser."""
        if isinstance(self.unet, torch.nn.Module):
            torch.nn.Module.to(self.unet, device=device, dtype=dtype)  # diffusers' own warns of any dtype
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is; the CPU for a plain function."""
        return self._home(torch.empty(0)).device

    @property
    def sample_size(self) -> int:
        """Height and width of the latents that a diffusers U-Net was trained on."""
        return self.unet.config.sample_size  # type: ignore[attr-defined]

    def _home(self, z_t: Tensor) -> Tensor:
        """A tensor of the network's dtype and device; z_t itself if the network is a plain function."""
        parameters = self.unet.parameters() if isinstance(self.unet, torch.nn.Module) else iter(())
        return next((p for p in parameters if p.is_floating_point()), z_t)


def _entering(cond: Condition, home: Tensor) -> dict[str, Tensor]:
    """Condition -> the keyword arguments of a U-Net call, only those that are present."""
    entries: dict[str, Tensor] = {}
    if cond.text is not None:
        entries["encoder_hidden_states"] = cond.text.to(home)
    if cond.label is not None:
        entries["class_labels"] = cond.label.to(home.device)
    return entries


def guided(
    denoiser: Denoiser,
    null: Cond,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
    image_scale: float = 1.0,
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022): output = null + scale (cond - null), in one call of 2B.

    Only where t / T lies in `interval` (Kynkäänniemi et al. 2024). `rescale` in 0..1 pulls each image's standard
    deviation back towards that of the unguided output (Lin et al. 2023, section 3.4). `image_scale` other than 1
    guides by the concatenated picture too, blank + scale (cond - null) + image_scale (null - blank), where blank has
    neither words nor picture (Brooks et al. 2023, eq. 3): a call of 3B. Both scales 1 is no guidance and costs
    nothing; 0 is the null condition alone. ValueError for anything out of range.
    """
    low, high = interval
    for name, number in {"guidance": scale, "image guidance": image_scale}.items():
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} scale {number}: expected a finite number, 0 or more")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance interval {interval}: expected two fractions of time, 0 <= low <= high <= 1")
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance rescale {rescale}: expected a number from 0 to 1")
    return denoiser if scale == image_scale == 1 else _Guided(denoiser, null, scale, interval, rescale, image_scale)


class _Guided(Denoiser):
    def __init__(
        self,
        denoiser: Denoiser,
        null: Cond,
        scale: float,
        interval: tuple[float, float],
        rescale: float,
        image_scale: float,
    ):
        super().__init__(denoiser.unet, denoiser.process)
        self.denoiser, self.null, self.scale, self.interval, self.rescale = denoiser, null, scale, interval, rescale
        self.image_scale, self.stacked = image_scale, Last(stacked)

    def output(self, z_t: Tensor, t: Time | float, cond: Cond = None) -> Tensor:
        inside = self._inside(t)
        if not inside.any():
            return self.denoiser.output(z_t, t, cond)
        asked = [*self._blank(cond), self.null, cond]
        times = torch.cat([t] * len(asked)) if isinstance(t, Tensor) and t.ndim else t
        answer = self.denoiser.output(torch.cat([z_t] * len(asked)), times, self.stacked(*asked))
        *blank, null, plain = answer.chunk(len(asked))
        output = null + self.scale * (plain - null)
        if blank:
            output = output + (self.image_scale - 1) * (null - blank[0])
        output = _rescaled(output, plain, self.rescale)
        return torch.where(inside.to(z_t.device).reshape(-1, *[1] * (z_t.ndim - 1)), output, plain)

    def _blank(self, cond: Cond) -> list[Condition]:
        """Neither words nor picture, where the picture is guided by too."""
        concat = condition(cond).concat
        if self.image_scale == 1 or concat is None:
            return []
        return [replace(condition(self.null), concat=torch.zeros_like(concat))]

    def _inside(self, t: Time | float) -> Tensor:
        low, high = self.interval
        fraction = torch.as_tensor(t).cpu().double() / self.process.T
        return (low <= fraction) & (fraction <= high)


def _rescaled(output: Tensor, plain: Tensor, share: float) -> Tensor:
    """Guided and unguided output -> guided, a `share` of the way to the unguided standard deviation, image by image."""
    axes = tuple(range(1, output.ndim))
    ratio = plain.std(dim=axes, keepdim=True) / output.std(dim=axes, keepdim=True)
    return output * (share * ratio + (1 - share)) if share else output
