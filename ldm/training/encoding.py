"""Pictures -> a latent cache: encoded once, and again only where something changed.

    record --content, VAE, size, crop, flip--> key;  key not there yet --encode--> mean, logvar in a shard
    caption --text encoder--> hidden states, the same way, where it is frozen

Shards are written whole as the work goes on, so whatever was stopped goes on from there; the index that names every
item comes last. Several processes each take their share, and what they write lies side by side.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from ldm import images
from ldm.data.items import Item, Record
from ldm.data.pictures import Pictures, Size, Unreadable, View, item_of
from ldm.files import replacing
from ldm.latents import LatentSpace, NonFiniteError
from ldm.text import TextEncoder
from ldm.training.cache import LATENTS, STATES, index_of, index_path
from ldm.training.conditions import mask_beside, picture_beside
from ldm.training.randomness import keyed
from ldm.training.shards import Shards

AHEAD = 64  # pictures that are read before they are encoded
DECODER = ("decoder.", "post_quant_conv.")  # parts of an autoencoder that latents do not depend on

REDUCED = {"quarter": 4, "eighth": 8}  # the picture itself, with so much smaller sides, in place of a second picture

# (space, x, the condition's pixels) -> what stands beside z_t
BESIDE: dict[str, Callable[[LatentSpace, Tensor, Tensor], Tensor]] = {
    "picture": lambda space, x, condition: picture_beside(space, condition),
    "mask": lambda space, x, condition: mask_beside(space, x, (condition[:, :1] > 0).to(x)),  # white: where to draw
}
BESIDE |= dict.fromkeys(REDUCED, BESIDE["picture"])


@dataclass
class Report:
    """How many pictures were encoded for the first time, found encoded, encoded again because something changed (the
    picture, the autoencoder, how it is cropped), and could not be read: name and reason."""

    new: int = 0
    reused: int = 0
    stale: int = 0
    bad: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.new} new, {self.reused} reused, {self.stale} stale and encoded again, {len(self.bad)} bad"


class Drawn:
    """Any dataset of (picture, caption) as a source of records."""

    def __init__(self, data: Any):
        self.data, self.classes = data, list[str](getattr(data, "classes", []))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Record:
        item = self.data[index]
        label, condition = getattr(item, "label", None), getattr(item, "condition", None)
        return Record(f"item {index}", item[0], item[1], label, condition)

    def identity(self) -> dict[str, Any]:
        return self.data.identity() if hasattr(self.data, "identity") else {"pictures": len(self.data)}


class Wanted(NamedTuple):
    """A picture of the dataset: its row in the index, and the views of it that are not in the cache yet."""

    row: dict[str, Any]
    views: dict[str, Item]


def encode(
    data: Any,
    space: LatentSpace,
    out: Path,
    text: TextEncoder | None = None,
    beside: str = "picture",
    crops: int = 1,
    batch_size: int = 16,
    process: int = 0,
    processes: int = 1,
) -> Report:
    """Pictures -> their moments in `space` in the cache `out`, which `LatentCache` reads.

    `data` are `Pictures`, or any dataset of (picture, caption) as it stands. Mirror images are encoded too where
    `data.flip`, and `crops` places of each where `data.crop` is random. `text` encodes the captions. A picture's
    condition is encoded as `beside` says: "picture", or "mask", which is white where the model is to draw; "quarter"
    and "eighth" are the picture itself at low resolution, whatever condition it has.
    Process `process` of `processes` takes each `processes`-th picture. The cache of one process is swept of shards that
    nothing needs any more.

    Raises ValueError for more bad pictures than `data` passes over, for one whose latents are not finite, by name, and
    where no picture is left; what was encoded until then is kept.
    """
    if beside not in BESIDE:
        raise ValueError(f"beside {beside!r}: expected one of {', '.join(BESIDE)}")
    out.mkdir(parents=True, exist_ok=True)
    pictures = data if isinstance(data, Pictures) else Pictures(Drawn(data))
    work = Work(pictures, space, out, beside, crops, batch_size)
    rows = work.encoded(range(process, len(pictures), processes), show=process == 0)
    if not rows and process < len(pictures):
        raise ValueError(f"no picture can be read: {next(iter(work.report.bad.values()))}")
    reader = fingerprint(text.model, {"vocabulary": text.tokenizer.vocabulary}) if text else None
    states = _said(rows, text, reader, out, batch_size)
    made_by = {"space": work.space_hash, "text": reader, "crops": crops, "beside": beside, "data": pictures.identity()}
    index = {"made_by": made_by, "classes": pictures.classes, "items": rows, "bad": work.report.bad}
    with replacing(index_path(out, process, processes)) as file:
        file.write(json.dumps(index, ensure_ascii=False).encode())
    _remove_others(out, processes)
    if processes == 1:
        work.shards.sweep([key for row in rows for key in row["keys"]])
        states.sweep([row["states"] for row in rows if row["states"]])
    return work.report


class Work:
    """One encoding of pictures into a folder."""

    def __init__(self, pictures: Pictures, space: LatentSpace, out: Path, beside: str, crops: int, batch_size: int):
        self.pictures, self.space, self.beside, self.crops = pictures, space, beside, crops
        self.batch_size, self.space_hash = batch_size, fingerprint(space.autoencoder, space.entries())
        self.shards, self.known, self.report = Shards(out, LATENTS), _known(out), Report()
        self.waiting: dict[Any, dict[str, tuple[str, Item]]] = defaultdict(dict)  # by shape: key -> name, item

    def encoded(self, indices: Sequence[int], show: bool) -> list[dict[str, Any]]:
        """The rows of the pictures at `indices` that can be read, all their views in the shards."""
        rows, unreadable = [], Unreadable(self.pictures.unreadable.limit)
        self.report.bad = unreadable.found
        bar = tqdm(total=len(indices), desc="encoding", unit="picture", disable=None if show else True)
        try:
            with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                for start in range(0, len(indices), AHEAD):
                    for wanted in pool.map(self.wanted, indices[start : start + AHEAD]):
                        if isinstance(wanted, Wanted):
                            rows.append(wanted.row)
                            self._take(wanted)
                        else:
                            unreadable.add(*wanted)
                        bar.update()
                for group in self.waiting.values():
                    self._encode(group)
        finally:
            self.shards.write()
        return rows

    def wanted(self, index: int) -> Wanted | tuple[str, Exception]:
        """Picture `index` as it is wanted; its name and what is wrong where it cannot be read."""
        name = f"picture {index}"
        try:
            record = self.pictures.source[index]
            name = record.name
            record = record.in_memory()
            content, size = record.content(), self.pictures.size(index) or images.load(record.picture).size
            views = {self._key(record, content, size, view): view for view in self._views(content)}
            missing = {key: self._item(record, size, view) for key, view in views.items() if key not in self.shards}
        except (ValueError, OSError) as error:
            return name, error
        row = {"index": index, "name": name, "keys": list(views), "caption": record.caption, "label": record.label}
        return Wanted({**row, "size": size, "states": None}, missing)

    def _views(self, content: str) -> list[View]:
        """The views of a picture that are kept: its crops, each mirrored too if mirror images are drawn."""
        places = [(0.5, 0.5)]
        if self.pictures.crop == "random":
            drawn = (self.pictures.view(keyed(0, content, i)) for i in range(self.crops))
            places = [(view.x, view.y) for view in drawn]
        return [View(x, y, flip) for x, y in places for flip in ((False, True) if self.pictures.flip else (False,))]

    def _item(self, record: Record, size: Size, view: View) -> Item:
        """What is encoded of a record; its condition is its own, or itself at low resolution."""
        item = item_of(record, size, view)
        if self.beside not in REDUCED:
            return item
        return Item(*item, item.label, low_resolution(item.picture, REDUCED[self.beside]))

    def _key(self, record: Record, content: str, size: Size, view: View) -> str:
        """32 hexadecimal digits of all that the latents of a view depend on."""
        beside = self.beside if record.condition is not None or self.beside in REDUCED else None
        made_of = (content, self.space_hash, size, view.x, view.y, view.flip, beside)
        return hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]

    def _take(self, wanted: Wanted) -> None:
        """Counts a picture, and encodes as soon as there is a batch of one shape."""
        name, keys = wanted.row["name"], wanted.row["keys"]
        changed = not set(self.known.get(name, keys)) <= set(keys)
        kind = "reused" if not wanted.views else "stale" if changed else "new"
        setattr(self.report, kind, getattr(self.report, kind) + 1)
        for key, item in wanted.views.items():
            group = self.waiting[item.picture.size, item.condition is None]
            if key not in self.shards:  # another picture may be the same
                group[key] = name, item
            if len(group) == self.batch_size:
                self._encode(group)

    def _encode(self, group: dict[str, tuple[str, Item]]) -> None:
        """Views of one shape -> their moments in the shards; ValueError that names a picture with NaN."""
        if not group:
            return
        names, items = zip(*group.values(), strict=True)
        x = images.to_pixels([item.picture for item in items])
        try:
            with torch.no_grad():
                mean, logvar = self.space.posterior(x)
                found = {"mean": mean, "logvar": logvar}
                if items[0].condition is not None:
                    condition = images.to_pixels([item.condition for item in items])
                    found["beside"] = BESIDE[self.beside](self.space, x, condition)
        except NonFiniteError as error:
            raise ValueError(f"{names[error.index]}: its latents are NaN or infinite, in float32 too") from None
        kept = {kind: values.half().cpu() for kind, values in found.items()}
        for i, (key, name) in enumerate(zip(list(group), names, strict=True)):
            tensors = {kind: values[i].clone() for kind, values in kept.items()}
            if not all(values.isfinite().all() for values in tensors.values()):
                raise ValueError(f"{name}: its latents are larger than float16 holds; is the scale right?")
            self.shards.add(key, tensors)
        group.clear()


def low_resolution(picture: Image.Image, times: int) -> Image.Image:
    """image -> itself of sides so many times smaller, enlarged as `LatentDiffusion.instruct` enlarges small ones."""
    width, height = picture.size
    small = picture.resize((max(1, width // times), max(1, height // times)), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.LANCZOS)


def fingerprint(model: Any, settings: dict[str, Any] | None = None) -> str:
    """16 hexadecimal digits of a model: class, diffusers config and every weight, but those of a decoder."""
    config = getattr(model, "config", None)
    said = {key: value for key, value in config.items() if key[:1] != "_"} if isinstance(config, Mapping) else {}
    named = json.dumps([type(model).__name__, said, settings], sort_keys=True, default=str)
    digest = hashlib.sha256(named.encode())
    weights = model.state_dict() if isinstance(model, nn.Module) else {}
    for name in sorted(weights):
        if not name.startswith(DECODER):
            value = weights[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _said(
    rows: list[dict[str, Any]], text: TextEncoder | None, reader: str | None, out: Path, batch_size: int
) -> Shards:
    """Writes the hidden states of every caption, and into every row which are its own; without an encoder, none."""
    shards = Shards(out, STATES)
    if text is None:
        return shards
    captions: dict[str, str] = {}
    for row in rows:
        row["states"] = hashlib.sha256(repr((reader, row["caption"])).encode()).hexdigest()[:32]
        captions[row["states"]] = row["caption"]
    missing = [key for key in captions if key not in shards]
    device = next(text.model.parameters()).device
    for start in tqdm(range(0, len(missing), batch_size), desc="captions", disable=None, delay=2):
        keys = missing[start : start + batch_size]
        ids = torch.tensor(text.tokenizer([captions[key] for key in keys]), device=device)
        with torch.no_grad():
            states = text.encode(ids).half().cpu()
        for key, value in zip(keys, states, strict=True):
            shards.add(key, {"states": value.clone()})
    shards.write()
    return shards


def _remove_others(out: Path, processes: int) -> None:
    """Removes what another number of processes listed."""
    for other in set(out.glob("index-*-of-*.json")) - {index_path(out, i, processes) for i in range(processes)}:
        other.unlink(missing_ok=True)


def _known(out: Path) -> dict[str, list[str]]:
    """The keys of every picture that an earlier run listed, by name."""
    rows = [row for path in out.glob("index-*-of-*.json") for row in index_of(path)["items"]]
    return {row["name"]: row["keys"] for row in rows}
