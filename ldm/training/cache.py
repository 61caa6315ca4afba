"""Latents computed once: pictures -> posterior moments on disk, sampled freshly each time they are used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.checkpoints import named
from ldm.files import replacing
from ldm.images import to_pixels
from ldm.latents import LatentSpace


class CachedLatents(Dataset):
    """(mean, logvar) of scaled latents, each (N,C,h,w) in float16, and a caption for each.

    `made_by` says of what: a cache that was made of something else is not to be used.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, captions: list[str], made_by: dict[str, Any] | None = None):
        self.mean, self.logvar, self.captions, self.made_by = mean, logvar, captions, made_by or {}

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, str]:
        return self.mean[i], self.logvar[i], self.captions[i]

    def save(self, path: Path) -> None:
        metadata = {"captions": json.dumps(self.captions, ensure_ascii=False), "made_by": json.dumps(self.made_by)}
        with replacing(path) as file:
            file.write(serialised({"mean": self.mean, "logvar": self.logvar}, metadata))

    @classmethod
    def load(cls, path: Path) -> "CachedLatents":
        with named(path), safe_open(path, "pt") as file:
            captions, made_by = (json.loads(file.metadata()[key]) for key in ("captions", "made_by"))
            return cls(file.get_tensor("mean"), file.get_tensor("logvar"), captions, made_by)


def cached(path: Path, made_by: dict[str, Any], encode: Callable[[], CachedLatents]) -> CachedLatents:
    """The cache at `path`, made by `encode` where there is none; ValueError if that one was made of something else."""
    if not path.exists():
        fresh = encode()
        CachedLatents(fresh.mean, fresh.logvar, fresh.captions, made_by).save(path)
    found = CachedLatents.load(path)
    if found.made_by != made_by:
        raise ValueError(f"{path} was made of {found.made_by}, not of {made_by}; remove it or take another folder")
    return found


def encode_dataset(data, space: LatentSpace, count: int, batch_size: int = 64) -> CachedLatents:
    """The first `count` of `data[i]` = (picture, caption) -> their moments in `space`."""
    means: list[Tensor] = []
    logvars: list[Tensor] = []
    captions: list[str] = []
    for start in tqdm(range(0, count, batch_size), desc="encoding", disable=None):
        pictures, texts = zip(*[data[i] for i in range(start, min(start + batch_size, count))], strict=True)
        with torch.no_grad():
            mean, logvar = space.posterior(to_pixels(list(pictures)))
        means.append(mean.half().cpu())
        logvars.append(logvar.half().cpu())
        captions += texts
    return CachedLatents(torch.cat(means), torch.cat(logvars), captions)
