"""An autoencoder's two parts as functions of it, run in its own dtype, or in float32 where that overflows.

encoding   autoencoder, x (B,3,H,W) -> mean and log-variance of raw latents (B,2,C,h,w)
decoding   autoencoder, raw latents (B,C,h,w) -> x (B,3,H,W)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

LOGVAR_FLOOR = -30.0  # diffusers' own; a deterministic encoder has it everywhere

Part: TypeAlias = "Callable[[Any, Tensor], Tensor]"  # `encoding` or `decoding`


class NonFiniteError(ValueError):
    """NaN or infinite values where a picture or latents should be, in float32 too; `index` is that of the image."""

    def __init__(self, name: str, side: str, index: int):
        super().__init__(f"{name}: {side} gives NaN or infinite values, in float32 too")
        self.side, self.index = side, index


def encoding(autoencoder: Any, x: Tensor) -> Tensor:
    """autoencoder, x (B,3,H,W) -> mean and log-variance of raw latents (B,2,C,h,w)."""
    found = autoencoder.encode(x)
    if hasattr(found, "latent_dist"):
        return torch.stack([found.latent_dist.mean, found.latent_dist.logvar], dim=1)
    raw = found if isinstance(found, Tensor) else getattr(found, "latents", None)
    raw = found.latent if raw is None else raw  # diffusers' deterministic ones say either
    return torch.stack([raw, torch.full_like(raw, LOGVAR_FLOOR)], dim=1)


def decoding(autoencoder: Any, raw: Tensor) -> Tensor:
    """autoencoder, raw latents (B,C,h,w) -> x (B,3,H,W)."""
    found = autoencoder.decode(raw)
    return found if isinstance(found, Tensor) else found.sample


# ---- how a part is run ----


def plain(autoencoder: Any, part: Part, x: Tensor) -> Tensor:
    """x -> the part's result in float32, computed in the autoencoder's own dtype and where it is."""
    return part(autoencoder, x.to(home(autoencoder, x))).float()


def precise(autoencoder: Any, part: Part, x: Tensor) -> Tensor:
    """x -> the part's result, computed in float32 and finite, else NonFiniteError; the autoencoder is left as it is."""
    x = x.to(home(autoencoder, x).device, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        result = _in_float32(autoencoder, part, x).float()
    for index in lost(result):
        raise NonFiniteError(f"image {index}", part.__name__, index)
    return result


def lost(result: Tensor) -> list[int]:
    """Indices of the images with NaN or infinite values."""
    return (~result.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()


def home(autoencoder: Any, x: Tensor) -> Tensor:
    """A tensor of the autoencoder's dtype and device; x itself, in float32, where it has no parameters."""
    parameters = autoencoder.parameters() if isinstance(autoencoder, nn.Module) else iter(())
    return next((p for p in parameters if p.is_floating_point()), x.float())


@contextmanager
def numbered(indices: Sequence[int]) -> Iterator[None]:
    """Lets a NonFiniteError name the image by its index among all, where only those at `indices` are run."""
    try:
        yield
    except NonFiniteError as error:
        index = indices[error.index]
        raise NonFiniteError(f"image {index}", error.side, index) from None


class _Call(nn.Module):
    """A part as a module's forward, which is what `functional_call` can run with other weights."""

    def __init__(self, autoencoder: nn.Module, part: Part):
        super().__init__()
        self.autoencoder, self.part = autoencoder, part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.autoencoder, x)


def _in_float32(autoencoder: Any, part: Part, x: Tensor) -> Tensor:
    if not isinstance(autoencoder, nn.Module):
        return part(autoencoder, x)
    call = _Call(autoencoder, part)
    weights = {**dict(call.named_parameters()), **dict(call.named_buffers())}
    return functional_call(call, {name: w.float() for name, w in weights.items() if w.is_floating_point()}, (x,))
