"""Two folders of pictures -> figures, each with its interval."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby, islice
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ldm import __version__
from ldm.data.folders import Folder
from ldm.data.items import Record
from ldm.evaluation.distances import Features, find_inception, frechet, frechets, kernel, kernels, missing_inception
from ldm.evaluation.images import intervals
from ldm.evaluation.images.coverage import NEAREST, covered
from ldm.evaluation.images.networks import AbsentError, Networks
from ldm.evaluation.images.pairs import judged, name_of, paired
from ldm.evaluation.speed.processes import versions
from ldm.images import to_pixels
from ldm.metadata import told
from ldm.prompts import parse
from ldm.roundtrip import psnr, ssim

INCEPTION, EMBEDDED = "inception", "emoji"  # the features by default, and where Inception's weights are not at hand
FID, OTHER, COVERAGE = ("fid", "kid"), ("frechet", "kernel"), ("precision", "recall")
PAIRED = ("psnr", "ssim", "lpips")
METRICS = (*FID, *OTHER, *COVERAGE, *PAIRED, "clip_score")
LOWER = {*FID, *OTHER, "lpips"}  # is better; of the others higher is
RANGES = {"psnr": (0, inf), "ssim": (-1, 1), "lpips": (0, inf), "clip_score": (0, 100)}  # of intervals of means
BATCH, PIXELS = 32, 2**23  # of one batch at most: 32 pictures of 512 x 512, one of 12 MP

Figure = dict[str, float | int | None]  # value: None where all pairs are equal; low, high: None without an interval


@dataclass
class Findings:
    """The figures so far. What is absent is left out with its reason, or raised where `strict`."""

    asked: Sequence[str]
    strict: bool
    seed: int
    figures: dict[str, Figure] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def wanted(self, *names: str) -> list[str]:
        return [name for name in names if name in self.asked]

    @contextmanager
    def needing(self, *names: str) -> Iterator[None]:
        """What is absent within leaves these out."""
        try:
            yield
        except AbsentError as error:
            if self.strict:
                raise
            self.left_out |= dict.fromkeys(self.wanted(*names), str(error))

    def mean(self, name: str, values: Sequence[float], **beside: int) -> None:
        """A mean over pictures; without those of infinite PSNR, which equal their pairs, if how many is said beside."""
        known = [value for value in values if value != inf]
        interval = intervals.of_mean(known, self.seed, *RANGES[name])
        self.add(name, fmean(known) if known else None, interval, len(known), **beside)

    def share(self, name: str, hits: Tensor) -> None:
        """A share of pictures, of whether each is one (N,)."""
        self.add(name, float(hits.double().mean()), intervals.of_share(int(hits.sum()), len(hits)), len(hits))

    def add(
        self, name: str, value: float | None, interval: intervals.Interval | None, count: int, **beside: int
    ) -> None:
        """A figure of `count` pictures, and other counts beside it; AbsentError for one that is no finite number."""
        if value is not None and not isfinite(value):
            raise AbsentError("the figure is no finite number; are the weights damaged?")
        low, high = interval or (None, None)
        self.figures[name] = {"value": value, "low": low, "high": high, "count": count, **beside}

    def row(self, picture: str) -> dict[str, Any]:
        """What is said of one picture."""
        return self.pictures.setdefault(picture, {"name": picture})


def evaluate_images(
    generated: str | Path,
    reference: str | Path,
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    weights: Path | None = None,
    clip: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Folders of drawn and of true pictures -> "figures", "left_out", "pictures", "settings", ready for JSON.

    A figure has its "value", "low" and "high" (95 %), and "count", how many pictures it is of; "left_out" has the
    reason of each that cannot be given; "pictures" the values of single pictures. Of pairs it has how many were
    "left_out", of two sizes or too small, whose rows in "pictures" say why; PSNR also how many are "equal", which is
    infinite: its value is the mean over the others, None where there are none. "settings" has both "folders", which
    "networks" judged, with hashes of their weights, and "versions".

    `metrics` are some of METRICS, by default all that can be given. `features` is "inception", "clip", or an
    autoencoder's embedded name, folder or file, whose latents are averaged; by default Inception where its weights are
    at hand, else EMBEDDED. `weights` is a folder with the files of Inception and LPIPS, without it torch.hub's; `clip`
    one with a CLIPModel, without it the hub's cache (weights.md names the files).

    ValueError for an unknown metric, one that was asked for and cannot be given, or where none can; for a folder
    without pictures, and a picture that cannot be read. FileNotFoundError for a folder that is not there.
    """
    networks = Networks(features or _usual(metrics, weights), weights, clip, device)
    found = Findings(_checked(metrics, networks.name), metrics is not None, seed)
    drawn, true = Folder(Path(generated)), Folder(Path(reference))
    if metrics is None and features is None and networks.name != INCEPTION:
        found.left_out |= dict.fromkeys(FID, missing_inception(weights))
    _sets(found, drawn, true, networks)
    _pairs(found, drawn, true, networks)
    _prompts(found, drawn, networks)
    if not found.figures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
        raise ValueError(f"{generated}, {reference}: no figure can be given; {reasons}")
    settings = {"generated": len(drawn), "reference": len(true), "features": networks.name, "seed": seed}
    installed = {"ldm": __version__, **versions("torch", "torchmetrics", "transformers")}
    settings |= {"folders": [str(generated), str(reference)], "networks": networks.used, "versions": installed}
    rows = list(found.pictures.values())
    return {"figures": found.figures, "left_out": found.left_out, "settings": settings, "pictures": rows}


def _usual(metrics: Sequence[str] | None, weights: Path | None) -> str:
    """The features where none were named."""
    if metrics is None:
        return INCEPTION if find_inception(weights) else EMBEDDED
    return EMBEDDED if set(OTHER) & set(metrics) else INCEPTION


def _checked(metrics: Sequence[str] | None, network: str) -> Sequence[str]:
    """What was asked for, if there is such a figure, and of this network's features."""
    own, others = (FID, OTHER) if network == INCEPTION else (OTHER, FID)
    for name in metrics or ():
        if name not in METRICS:
            raise ValueError(f"metric {name!r}: expected one of {', '.join(METRICS)}")
        if name in others:
            raise ValueError(f"metric {name!r}: of the features of {network} expected {' or '.join(own)}")
    return METRICS if metrics is None else metrics


# ---- sets ----


def _sets(found: Findings, drawn: Folder, true: Folder, networks: Networks) -> None:
    """What compares all pictures with all others, by their features."""
    distances = found.wanted(*(FID if networks.name == INCEPTION else OTHER))
    coverage = found.wanted(*COVERAGE)
    if not distances and not coverage:
        return
    with found.needing(*distances, *coverage):
        one, other = (
            features_of(source.records, networks.features, what) for source, what in ((drawn, "drawn"), (true, "true"))
        )
        with found.needing(*distances):
            _expect(2, one, other)
            _distances(found, distances, one, other)
        with found.needing(*coverage):
            _expect(NEAREST + 1, one, other)
            for name, points, by in (("precision", one, other), ("recall", other, one)):
                if name in coverage:
                    found.share(name, covered(points, by))


def _expect(least: int, one: Tensor, other: Tensor) -> None:
    if min(len(one), len(other)) < least:
        raise AbsentError(f"{len(one)} drawn and {len(other)} true pictures; expected {least} or more of each")


def _distances(found: Findings, names: Sequence[str], one: Tensor, other: Tensor) -> None:
    """Distances; their intervals where half of the drawn pictures are two or more."""
    if names and not find_spec("torchmetrics"):
        raise AbsentError("the package torchmetrics is not installed; expected the extra evaluate")
    count = len(one)
    parts = intervals.halves(count, found.seed)[: None if count >= 4 else 0]
    for name in tqdm(names, "distances", disable=None):
        if name in ("fid", "frechet"):
            bar = tqdm(frechets(one, other, parts), "halves", len(parts), leave=False, disable=None)
            value, scattered, least = max(0.0, frechet(one, other)), list(bar), 0.0  # rounding may go below
        else:
            value, scattered, least = kernel(one, other, found.seed), kernels(one, other, parts).tolist(), -inf
        interval = intervals.of_halves(value, scattered, count, least) if scattered else None
        with found.needing(name):
            found.add(name, value, interval, count)


def features_of(source: Iterable[Record], features: Features, what: str) -> Tensor:
    """Pictures of any sizes -> their features (N,D), under a progress bar. AbsentError for any that are not finite."""
    pixels = (to_pixels(record.picture) for record in tqdm(source, what, unit="picture", disable=None))
    found = torch.cat([features(x) for x in batched(pixels)])
    if not found.isfinite().all():
        raise AbsentError("the network's features are no finite numbers; are its weights damaged?")
    return found


def batched(pictures: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each (1,3,H,W) -> (B,3,H,W): neighbours of one size together, at most BATCH and PIXELS, but at least one."""
    for shape, same in groupby(pictures, lambda x: x.shape):
        count = max(1, min(BATCH, PIXELS // (shape[-2] * shape[-1])))
        while block := list(islice(same, count)):
            yield torch.cat(block) if len(block) > 1 else block[0]


# ---- pictures one by one ----


def _pairs(found: Findings, drawn: Folder, true: Folder, networks: Networks) -> None:
    """What compares a drawn picture with the true one of its name."""
    for name in found.wanted(*PAIRED):
        with found.needing(name):
            pairs = paired(drawn, true)
            judge = {"psnr": psnr, "ssim": ssim}.get(name) or networks.lpips
            outcome = judged(tqdm(pairs, name, unit="pair", disable=None), judge)
            values, equal = outcome.values, [picture for picture, value in outcome.values.items() if value == inf]
            counts = {"left_out": len(outcome.left_out)} | ({"equal": len(equal)} if name == "psnr" else {})
            found.mean(name, list(values.values()), **counts)
            for picture, value in values.items():
                found.row(picture)[name] = None if value == inf else value
            for picture in equal:
                found.row(picture)["equal"] = True
            for picture, reason in outcome.left_out.items():
                found.row(picture).setdefault("left_out", {})[name] = reason


def _prompts(found: Findings, drawn: Folder, networks: Networks) -> None:
    """What compares a drawn picture with its words."""
    for name in found.wanted("clip_score"):
        with found.needing(name):
            clip = networks.clip
            asked = [
                (record, prompt_of(record)) for record in tqdm(drawn.records, "prompts", unit="picture", disable=None)
            ]
            asked = [(record, prompt) for record, prompt in asked if prompt]
            if not asked:
                raise AbsentError("no drawn picture carries its prompt, and there are no captions")
            records, prompts = zip(*asked)
            scores = clip.scores(features_of(records, clip.images, name), prompts).tolist()
            found.mean(name, scores)
            for record, score in zip(records, scores):
                found.row(name_of(record, drawn))[name] = score


def prompt_of(record: Record) -> str:
    """What a picture was drawn from by its metadata, without weights, or its caption; "" where neither is there."""
    parameters = told(record.picture)
    prompt = parameters.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return record.caption
    if parameters.get("prompt_weights") is False:
        return prompt
    return " ".join("".join(fragment.text for fragment in section) for section in parse(prompt))


# ---- in words ----

BESIDE = {"equal": "equal", "left_out": "left out"}  # counts that stand beside a figure's own


def table(result: dict[str, Any]) -> str:
    """The figures of `evaluate_images`, in Markdown."""
    rows = [("figure", "value", "95 %", "pictures", "better")]
    for name, figure in result["figures"].items():
        value, low, high = ("" if figure[k] is None else f"{figure[k]:.4g}" for k in ("value", "low", "high"))
        between = f"{low} to {high}" if low else ""
        beside = [f"{figure[what]} {words}" for what, words in BESIDE.items() if figure.get(what)]
        count = ", ".join([str(figure["count"]), *beside])
        rows.append((name, value or "all equal", between, count, "lower" if name in LOWER else "higher"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])
