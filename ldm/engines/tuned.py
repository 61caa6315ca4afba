"""Torch, as this machine runs a U-Net fastest: in the number format and layout that a short probe found, with one
projection for queries, keys and values, and with those of the condition computed once for all steps.

    cond --once--> keys and values;   z_t, t --U-Net, its blocks compiled, all of it recorded--> output

Compiled and recorded on CUDA alone: on processors compiling takes minutes and gains nothing. A block is compiled once
for all sizes, into a cache on disk; a CUDA graph is recorded for each size. What fails there is said, and then runs
without.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from ldm.denoising import Last
from ldm.engines.kept import home
from ldm.engines.probing import Choice
from ldm.tiling import out_of_memory

log = logging.getLogger("ldm")

Call = Callable[[Mapping[str, Tensor]], Tensor]  # a U-Net's arguments by name -> output
BLOCKS = BasicTransformerBlock, ResnetBlock2D  # most of a U-Net's time, in few kinds of code
WARMING = 3  # calls before a recording, in which libraries choose their kernels
RECORDINGS = 8  # that are kept: each holds memory of its own


class Kept(nn.Module):
    """A layer of the condition alone: it is asked when the condition changes, and answers from memory meanwhile."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.answers = layer, dict[torch.Size, Tensor]()
        self.answer = torch.empty(0)

    def read(self, cond: Tensor) -> None:
        """A condition (B,L,D) -> its answer, where the last one of its shape lay: a recording looks there."""
        found = self.layer(cond)
        self.answer = self.answers.setdefault(cond.shape, found).copy_(found)

    def forward(self, cond: Tensor) -> Tensor:
        return self.answer


class TunedUNet:
    """What `Denoiser` asks of a U-Net: one of diffusers', taken over where it is, as a choice of `probing` says."""

    def __init__(self, unet: Any, choice: Choice):
        self.config, self.choice, self.engine = unet.config, choice, f"tuned, {choice}"
        self.unet = unet.requires_grad_(False).eval()
        attentions: list[Any] = [module for module in self.unet.modules() if isinstance(module, Attention)]
        for attention in attentions:
            attention.fuse_projections()
            attention.set_processor(FusedAttnProcessor2_0())
        nn.Module.to(self.unet, dtype=choice.dtype).to(memory_format=choice.layout)
        self.kept = [_keeping(attention) for attention in attentions if attention.is_cross_attention]
        self.read = Last(self._read)
        self.call: Call = self._eager
        if unet.device.type == "cuda":
            compiled(self.unet)
            self.call = Recorded(self._plain)

    @torch.no_grad()
    def __call__(
        self, z_t: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """z_t (B,C,H,W), t (B,), cond (B,L,D), label (B,) -> output (B,C,H,W), float32."""
        dtype, layout = self.choice
        cond = None if encoder_hidden_states is None else self.read(encoder_hidden_states)
        named = {"sample": z_t.to(dtype).contiguous(memory_format=layout), "timestep": t,
                 "encoder_hidden_states": cond, "class_labels": class_labels}  # fmt: skip
        given = {name: tensor for name, tensor in named.items() if tensor is not None}
        try:
            return self.call(given).float()
        except Exception as error:
            if self.call == self._eager or out_of_memory(error):
                raise
            log.warning("the U-Net cannot be compiled and recorded: %s; it runs without", " ".join(str(error).split()))
            self.call = self._eager
            return self.call(given).float()

    def _read(self, cond: Tensor) -> Tensor:
        """A condition -> the same in the network's dtype, its keys and values computed."""
        cond = cond.to(self.choice.dtype)
        for layer in self.kept:
            layer.read(cond)
        return cond

    def _eager(self, given: Mapping[str, Tensor]) -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            return self._plain(given)

    def _plain(self, given: Mapping[str, Tensor]) -> Tensor:
        return self.unet(**given, return_dict=False)[0]


class Recorded:
    """A call with tensors on a CUDA device, recorded as a graph for each kind of them: it is then a single launch."""

    def __init__(self, call: Call):
        self.call, self.graphs = call, dict[Any, Callable[..., Tensor]]()

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """A U-Net's arguments by name -> output, in memory of its own."""
        kind = tuple((name, tensor.shape, tensor.dtype) for name, tensor in given.items())
        if kind not in self.graphs:
            if len(self.graphs) == RECORDINGS:
                self.graphs.clear()
            self.graphs[kind] = self._record(given)
        return self.graphs[kind](*given.values()).clone()

    def _record(self, given: Mapping[str, Tensor]) -> Callable[..., Tensor]:
        def called(*tensors: Tensor) -> Tensor:
            return self.call(dict(zip(names, tensors, strict=True)))

        names, samples = tuple(given), tuple(tensor.clone() for tensor in given.values())
        return torch.cuda.make_graphed_callables(called, samples, WARMING)  # type: ignore[return-value]


def compiled(unet: nn.Module, backend: str = "inductor") -> None:
    """A U-Net -> its blocks compiled, each kind once for all sizes, when they are first called."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "inductor"))
    for module in unet.modules():
        if isinstance(module, BLOCKS):
            module.compile(dynamic=True, backend=backend)


def _keeping(attention: Any) -> Kept:
    """A cross-attention with keys and values in one projection -> that projection, which from now on remembers."""
    attention.to_kv = Kept(attention.to_kv)
    return attention.to_kv
