"""Latents computed once: posterior moments, sampled freshly each time they are used.

In memory and one file: CachedLatents, `encode_dataset`. On disk, by content: LatentCache reads what `encoding` wrote.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.checkpoints import named, read_json
from ldm.data.items import digest
from ldm.files import write_tensors
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.training.shards import Shards

LATENTS, STATES = "latents", "text"  # the kinds of shards


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

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        return self.made_by

    def save(self, path: Path) -> None:
        metadata = {"captions": json.dumps(self.captions, ensure_ascii=False), "made_by": json.dumps(self.made_by)}
        write_tensors(path, {"mean": self.mean, "logvar": self.logvar}, metadata)

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


# ---- on disk, by content ----


class LatentCache(Dataset):
    """What `encode` wrote into a folder: items (mean, logvar, caption, extras).

    mean and logvar (C,h,w) are those of scaled latents, float16. `extras` holds what there is of "label", a number,
    "beside" (C',h,w) and "states" (L,D), float16. `draw` takes one of the views that were encoded, the picture's mirror
    image among them if it was; `cache[i]` takes the first. FileNotFoundError where there is no cache, ValueError where
    it is not whole.
    """

    def __init__(self, folder: str | Path):
        shares = _shares(Path(folder))
        self.made_by: dict[str, Any] = shares[0]["made_by"]
        self.classes: list[str] = shares[0]["classes"]
        self.rows = sorted((row for share in shares for row in share["items"]), key=lambda row: row["index"])
        self.captions: list[str] = [row["caption"] for row in self.rows]
        self.latents, self.states = Shards(Path(folder), LATENTS), Shards(Path(folder), STATES)
        for row in self.rows:
            said = [row["states"]] if row["states"] else []
            if any(key not in self.latents for key in row["keys"]) or any(key not in self.states for key in said):
                raise ValueError(f"{folder}: the latents of {row['name']} are not there; run the same ldm encode again")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        return self._item(index, 0)

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        """Item `index` in a view that the generator decides."""
        view = torch.randint(len(self.rows[index]["keys"]), (1,), generator=generator)
        return self._item(index, int(view))

    def _item(self, index: int, view: int) -> tuple[Tensor, Tensor, str, dict[str, Any]]:
        row = self.rows[index]
        extras: dict[str, Any] = self.latents[row["keys"][view]]
        if not {"mean", "logvar"} <= extras.keys():
            raise ValueError(f"{self.latents.places[row['keys'][view]]}: no mean and logvar of {row['name']}")
        mean, logvar = extras.pop("mean"), extras.pop("logvar")
        if row["label"] is not None:
            extras["label"] = row["label"]
        if row["states"]:
            extras |= self.states[row["states"]]
        return mean, logvar, row["caption"], extras

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        """(W, H) in pixels of each item, for those of one size to share batches; None where all have one."""
        found = [(row["size"][0], row["size"][1]) for row in self.rows]
        return found if len(set(found)) > 1 else None

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON: the pictures' content, what encoded them, and what is said of them."""
        said = [(row["keys"], row["caption"], row["label"], row["states"]) for row in self.rows]
        return {"kind": "latents", "pictures": len(self), "content": digest(said), "made_by": self.made_by}


def index_path(folder: Path, process: int, processes: int) -> Path:
    """Where a process of several lists what it encoded."""
    return folder / f"index-{process:05d}-of-{processes:05d}.json"


ROW: dict[str, Any] = {
    "index": int, "name": str, "keys": list, "caption": str, "label": int | None, "states": str | None, "size": list,
}  # fmt: skip


def index_of(path: Path) -> dict[str, Any]:
    """What a process listed: "made_by", "classes" and "items". ValueError for a file that is no such list."""
    share = read_json(path)
    items = share.get("items")
    listed = isinstance(items, list) and all(isinstance(row, dict) and _is_row(row) for row in items)
    if not listed or not isinstance(share.get("made_by"), dict) or not isinstance(share.get("classes"), list):
        raise ValueError(f"{path}: not the list of a latent cache; remove it, and run the same ldm encode again")
    return share


def _is_row(row: dict[str, Any]) -> bool:
    """Whether it says of an item all that is asked of it."""
    if not all(name in row and isinstance(row[name], kind) for name, kind in ROW.items()):
        return False
    texts, numbers = all(isinstance(key, str) for key in row["keys"]), all(isinstance(n, int) for n in row["size"])
    return texts and numbers and len(row["keys"]) > 0 and len(row["size"]) == 2


def _shares(folder: Path) -> list[dict[str, Any]]:
    """What every process listed. ValueError where one is missing, or they encoded different things."""
    found = sorted(folder.glob("index-*-of-*.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no latent cache there; ldm encode makes one")
    processes = int(found[0].stem[-5:]) if found[0].stem[-5:].isdecimal() else 0
    expected = {index_path(folder, i, processes) for i in range(processes)}
    if set(found) != expected:
        raise ValueError(f"{folder}: {len(found)} of {len(expected)} shares are there; run the same ldm encode again")
    shares = [index_of(path) for path in found]
    if any(share["made_by"] != shares[0]["made_by"] for share in shares):
        raise ValueError(f"{folder}: its shares were made of different things; run the same ldm encode again")
    return shares
