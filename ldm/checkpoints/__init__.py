"""Checkpoints in every layout -> parts of a pipeline, and back; nothing else knows about formats.

    source --folders, singlefile--> Contents --modules--> Parts: vae, unet, text in eval mode, float32
                                       |
                                       +--folders, singlefile--> folder, single file

    faults.py        CheckpointError: each thing that can be wrong as one line
    pickles.py       pickles -> tensors, without running what they ask for
    tensors.py       a file -> named tensors; its first bytes decide what it is
    names.py         diffusers' names <-> CompVis' names
    architecture.py  tensors -> configs; what tensors do not show comes from configs/
    prediction.py    epsilon or v: who says so
    probe.py         epsilon or v: asking the network; the scale of an autoencoder that names none
    contents.py      Contents: what every reader gives and every writer takes
    modules.py       Contents -> modules, every tensor in its place
    folders.py       diffusers' layout, hub ids
    singlefile.py    single files of Stable Diffusion 1.x, 2.x, inpainting, InstructPix2Pix; autoencoders alone
    adapters.py      LoRAs, alone or with the name of the model that they are for

The network is used only for a hub id that is not in the cache.
"""

import hashlib
import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.adapters import adapted, base_of
from ldm.checkpoints.architecture import known, sample_size
from ldm.checkpoints.contents import Contents, Decision, contents_of
from ldm.checkpoints.faults import CheckpointError, named, read_json
from ldm.checkpoints.folders import (
    DIFFUSERS,
    WEIGHTS,
    embedded,
    load_defaults,
    load_scheduler,
    load_tokenizer,
    of_pixels,
    read_folder,
    read_part,
    resolve,
    write_folder,
)
from ldm.checkpoints.modules import check_all, module_of, text_of
from ldm.checkpoints.singlefile import read_file, read_vae, write_file
from ldm.checkpoints.tensors import ENDINGS, is_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ldm.text import TextEncoder

__all__ = [
    "WEIGHTS",
    "ENDINGS",
    "CheckpointError",
    "Contents",
    "Decision",
    "Parts",
    "convert",
    "embedded",
    "fingerprint",
    "is_checkpoint",
    "load",
    "load_defaults",
    "load_scheduler",
    "load_text",
    "load_unet",
    "load_vae",
    "locate",
    "named",
    "of_pixels",
    "parts_of",
    "read",
    "read_json",
    "resolve",
    "save",
    "settled",
]


@dataclass
class Parts:
    """The parts of a model, as a pipeline takes them; `decisions` tells what was found out about it, and how."""

    vae: "nn.Module | None"  # None: a model of pixels
    unet: "nn.Module"
    text: "TextEncoder | None"
    scheduler: dict[str, Any]
    defaults: dict[str, Any]
    name: str
    hash: str
    decisions: dict[str, Decision] = field(default_factory=dict)


def load(source: str | Path, prediction_type: str | None = None) -> Parts:
    """An embedded name, a folder, a hub id, or a single file -> the parts of a model.

    `prediction_type` (epsilon, v_prediction, sample) is believed against everything that the files say. Where nothing
    says it, the network is asked (see `probe`); a network that contradicts what is said is a warning.
    Raises FileNotFoundError where there is no such model, CheckpointError where it cannot be used: one line.
    """
    parts = parts_of(read(source, prediction_type), source)
    return parts if str(source) in embedded() and prediction_type is None else settled(parts)


def parts_of(contents: Contents, source: str | Path) -> Parts:
    """What was read from a source -> its modules, as the files describe them."""
    if "unet" not in contents.tensors:
        raise CheckpointError(f"{source} is an autoencoder alone; expected a model with a U-Net")
    with named(source):
        return Parts(
            module_of(contents, "vae") if "vae" in contents.tensors else None,
            module_of(contents, "unet"),
            text_of(contents),
            contents.configs["scheduler"],
            contents.configs["defaults"],
            str(source),
            fingerprint(locate(source)),
            dict(contents.decisions),
        )


def settled(parts: Parts) -> Parts:
    """The same parts with the network asked what it emits (see `probe`).

    Where the prediction type was guessed, its answer is taken; where it was stated, an answer that contradicts is a
    warning. What it answered stands among the decisions as "outputs".
    """
    from ldm.checkpoints.probe import probe_model

    if parts.vae is None or parts.scheduler.get("_class_name") == "Bridge":  # whose outputs are its own
        return parts
    with named(parts.name):  # the first time that it runs: sizes may fit its tensors, and not each other
        verdict = probe_model(parts.vae, parts.unet, parts.text, parts.scheduler)
    if verdict is None:
        return parts
    shown, decision = verdict.prediction_type, parts.decisions["prediction type"]
    skills = ", ".join(f"{name} {skill:.2f}" for name, skill in verdict.skill.items())
    decisions = parts.decisions | {"outputs": Decision(shown or "of no clear type", f"skill of each: {skills}")}
    if not shown or shown == decision.value:
        return replace(parts, decisions=decisions)
    if not decision.sure:
        decisions["prediction type"] = Decision(shown, f"as its outputs show; the guess was {decision.value}")
        unet: Any = parts.unet
        unet.register_to_config(sample_size=sample_size(unet.config, shown))
        return replace(parts, decisions=decisions, scheduler={**parts.scheduler, "prediction_type": shown})
    warnings.warn(
        f"{parts.name}: prediction type {decision.value} ({decision.why}), but its outputs are those of {shown}: "
        f"if the pictures are wrong, load it with prediction_type={shown!r}",
        stacklevel=3,
    )
    return replace(parts, decisions=decisions)


def read(source: str | Path, prediction_type: str | None = None) -> Contents:
    """A source as `load` takes it -> its tensors and configs, as they are on disk.

    What `ldm info` shows and `ldm convert` writes. Raises as `load` does.
    """
    path = locate(source)
    with named(path):
        if base := base_of(path):
            return adapted(read(base, prediction_type), path)
        return read_file(path, prediction_type) if path.is_file() else read_folder(path, prediction_type)


def convert(
    source: str | Path,
    out: Path,
    dtype: "torch.dtype | None" = None,
    prediction_type: str | None = None,
    vae: str | Path | None = None,
) -> dict[str, Decision]:
    """Writes a model in the layout that `out` asks for: a single file if it ends in .safetensors, else a folder.

    Every tensor that a pipeline uses is kept bit by bit, in the dtype that it has on disk unless `dtype` is given; with
    the autoencoder of `vae` in place of its own. Returns what was decided. Raises as `load` does, and ValueError for an
    `out` that cannot be written and a `vae` that does not fit.
    """
    contents = read(source, prediction_type)
    if vae is not None:
        contents = contents.with_vae(read(vae))
    check_all(contents)
    decision = contents.decisions.get("prediction type")
    if decision is not None and not decision.sure:  # a guess must not be written down as a fact
        parts = settled(parts_of(contents, source))
        contents.decisions, contents.configs["scheduler"] = parts.decisions, parts.scheduler
        contents.configs["unet"]["sample_size"] = parts.unet.config["sample_size"]  # type: ignore[index]
    if "vae" in contents.tensors and not contents.decisions["scale"].sure:
        scale = contents.configs["vae"]["scaling_factor"] = load_vae(vae or source).config["scaling_factor"]  # type: ignore[index]
        contents.decisions["scale"] = Decision(scale, "measured, see the warning")
    write = write_file if out.suffix == ".safetensors" else write_folder
    write(contents.cast(dtype), out)
    return contents.decisions


def save(
    folder: str | Path,
    vae: Any,
    unet: "nn.Module",
    text: "TextEncoder | None",
    scheduler: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    dtype: "torch.dtype | None" = None,
    vae_entries: dict[str, Any] | None = None,
) -> None:
    """Writes the parts of a model in diffusers' layout, as `write_folder` does; without weights, a VAE is not written.

    `dtype` of the weights on disk (None: as they are); `vae_entries` name the scale in the VAE's config. The folder
    appears whole or not at all. CheckpointError where it cannot be written, ValueError where it holds something that is
    no model.
    """
    write_folder(contents_of(vae, unet, text, scheduler, defaults, vae_entries).cast(dtype), folder)


# ---- one part ----


def load_vae(source: str | Path, subfolder: str | None = None, scale: Any = None) -> "nn.Module":
    """An AutoencoderKL from a pipeline's folder, the VAE's own, a hub id, or a file of either.

    A file of an autoencoder alone may be of any family, and mostly names no scale. Then the caller's `scale` is taken
    to be known and the config's scaling_factor stays None; without one it is measured, and a warning says so.
    Raises as `load` does.
    """
    path = locate(source, subfolder)
    with named(path):
        if base := base_of(path):
            return load_vae(base, scale=scale)
        if path.is_file():
            contents = read_vae(path)
        else:
            contents = read_part(path / "vae" if (path / "vae").is_dir() else path, "vae")
        vae = module_of(contents, "vae")
        if scale is None and not contents.decisions["scale"].sure:
            vae.register_to_config(scaling_factor=_measured_scale(vae, path))
        return vae


def load_unet(folder: Path) -> "nn.Module":
    """The U-Net of a pipeline's folder: UNet2DConditionModel, or UNet2DModel where the config says so."""
    return module_of(read_part(folder / "unet", "unet"), "unet")


def load_text(folder: Path) -> "TextEncoder | None":
    """The CLIP text encoder and tokenizer of a pipeline's folder; None for a model without text."""
    if not (folder / "text_encoder").is_dir():
        return None
    with named(folder):
        contents = read_part(folder / "text_encoder", "text_encoder")
        contents.tokenizer = load_tokenizer(folder)
        return text_of(contents)


def _measured_scale(vae: "nn.Module", path: Path) -> float:
    """The published scale that fits the latents of made pictures, else the one that gives them unit variance."""
    from ldm.checkpoints.probe import raw_deviation

    deviation = raw_deviation(vae)
    scales = known("scales")
    whose = min(scales, key=lambda name: abs(math.log(scales[name] * deviation)))
    fits = abs(math.log(scales[whose] * deviation)) < math.log(1.5)
    scale = scales[whose] if fits else 1 / deviation
    others = " or ".join(f"{value} ({name})" for name, value in scales.items())
    warnings.warn(
        f"{path} names no scale: its latents of made pictures have standard deviation {deviation:.3g}, so {scale:.5g} "
        f"is used{f', that of {whose}' if fits else ''}; if you know better, give scale=: {others}",
        stacklevel=4,
    )
    return scale


# ---- which files ----


def fingerprint(path: Path) -> str:
    """Ten hexadecimal digits to tell checkpoints apart by: sizes, first and last MiB of every weights file.

    A file that differs from another in its middle alone has the same digits: reading gigabytes would take seconds.
    """
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}".encode())
        with open(file, "rb") as content:
            digest.update(content.read(1 << 20))
            content.seek(max(0, size - (1 << 20)))
            digest.update(content.read())
    return digest.hexdigest()[:10]


def locate(source: str | Path, subfolder: str | None = None) -> Path:
    """The folder or the single file that is meant; the folder of a file that has its config beside it."""
    path = Path(source)
    if str(source) in embedded() or not path.is_file():
        return resolve(source, subfolder)
    own = path.name.startswith(DIFFUSERS) and (path.parent / "config.json").exists()
    return path.parent if own else path
