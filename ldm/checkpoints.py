"""Folders and hub ids -> parts of a pipeline, and back; nothing else knows about formats.

    source --resolve--> folder --load_vae, load_unet, load_text--> modules in eval mode, float32
                               --load_scheduler, load_defaults--> plain dictionaries

A folder is diffusers' layout (model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/). The network is
used only for a hub id that is not in the cache.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.files import write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ldm.text import TextEncoder

WEIGHTS = Path(__file__).parent / "weights"
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
# What is fetched of a hub repository: the parts, or a lone autoencoder; not the single files beside them, many GB each.
PATTERNS = [f"{part}/*.{ending}" for part in PARTS for ending in ("json", "txt", "safetensors")]
PATTERNS += ["model_index.json", "ldm.json", "config.json", "diffusion_pytorch_model*.safetensors"]
UNWANTED = ["*non_ema*"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what was expected."""


def embedded() -> list[str]:
    """Names of the models that the package carries."""
    return sorted(path.name for path in WEIGHTS.glob("*") if path.is_dir())


def resolve(source: str | Path, subfolder: str | None = None) -> Path:
    """An embedded name, a folder, or a hub id -> the folder on disk.

    Raises FileNotFoundError where there is none: it names what was looked for and where.
    """
    source = str(source)
    if source in embedded():  # a folder of that name here is ./emoji
        folder = WEIGHTS / source
    elif os.path.isdir(source):
        folder = Path(source)
    elif os.path.exists(source):
        raise CheckpointError(f"{source} is a file; expected a folder in diffusers' layout")
    elif re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) and not Path(source).parent.is_dir():  # else a path, mistyped
        folder = _from_hub(source)
    else:
        known = ", ".join(embedded()) or "none"
        raise FileNotFoundError(f"no model {source!r}: neither a folder, a hub id (owner/name), nor embedded ({known})")
    return folder / subfolder if subfolder else folder


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(repository, local_files_only=True))
        if (cached / "unet").is_dir() or (cached / "config.json").exists():
            return cached
    except OSError:  # not in the cache
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=PATTERNS, ignore_patterns=UNWANTED))
    except Exception as error:  # the hub's client raises many kinds; each means the same here
        reason = str(error).strip().splitlines()[0][:200]
        raise FileNotFoundError(
            f"{repository} is neither a folder here nor in the hub's cache, and could not be fetched ({reason})"
        ) from None


def load_vae(source: str | Path, subfolder: str | None = None) -> "nn.Module":
    """An AutoencoderKL from a pipeline's folder, or from the VAE's own."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = resolve(source, subfolder)
    return _module(AutoencoderKL, folder / "vae" if (folder / "vae").is_dir() else folder, DIFFUSERS)


def load_unet(folder: Path) -> "nn.Module":
    """The U-Net of a pipeline's folder: UNet2DConditionModel, or UNet2DModel where the config says so."""
    config = read_json(folder / "unet" / "config.json")
    if config.get("_class_name") == "UNet2DModel":
        from diffusers.models.unets.unet_2d import UNet2DModel

        return _module(UNet2DModel, folder / "unet", DIFFUSERS)
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _module(UNet2DConditionModel, folder / "unet", DIFFUSERS)


def load_text(folder: Path) -> "TextEncoder | None":
    """The CLIP text encoder and tokenizer of a pipeline's folder; None for a model without text."""
    if not (folder / "text_encoder").is_dir():
        return None
    from transformers import CLIPTextModel

    from ldm.text import TextEncoder, Tokenizer

    model: Any = _module(CLIPTextModel, folder / "text_encoder", TRANSFORMERS)
    with named(folder / "tokenizer"):
        tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
    entries = model.config.vocab_size
    if max(tokenizer.vocabulary.values()) >= entries:
        raise CheckpointError(
            f"{folder / 'tokenizer'} has ids up to {max(tokenizer.vocabulary.values())}; the encoder knows {entries}"
        )
    tokenizer.length = min(tokenizer.length, model.config.max_position_embeddings)
    return TextEncoder(model, tokenizer)


def load_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's config: how noise was added in training, and which sampler is the model's own."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def load_defaults(folder: Path) -> dict[str, Any]:
    """Steps and guidance that a model made here recommends; empty for others."""
    return read_json(folder / "ldm.json") if (folder / "ldm.json").exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError names the file where it is missing or no JSON."""
    with named(path):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def fingerprint(folder: Path) -> str:
    """Ten hexadecimal digits to tell checkpoints apart by: sizes, first and last MiB of every weights file.

    A file that differs from another in its middle alone has the same digits: reading gigabytes would take seconds.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}".encode())
        with open(path, "rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:10]


DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # what each library calls its weights


def _module(kind: type, folder: Path, stem: str) -> "nn.Module":
    """A diffusers or transformers module from its folder, in float32; every tensor must be there."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json")
    variant = None
    if not any((folder / f"{stem}{end}").exists() for end in (".safetensors", ".safetensors.index.json")):
        if not list(folder.glob(f"{stem}*.fp16*")):
            raise FileNotFoundError(f"{folder} holds no weights: expected {stem}.safetensors, sharded or .fp16")
        variant = "fp16"
    with named(folder), _quiet():
        module, report = kind.from_pretrained(  # type: ignore[attr-defined]
            str(folder), variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} tensors that its config asks for, {missing[0]} the first")
    return module.float().eval()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises into one line that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"missing: {error.filename}" if error.filename else str(error).splitlines()[0]
        ) from None
    except Exception as error:  # readers of damaged files raise nearly every kind
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise CheckpointError(f"{path} cannot be read: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' progress bars and advice while a model loads."""
    import logging

    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()


def save(
    folder: str | Path,
    vae: "nn.Module",
    unet: "nn.Module",
    text: "TextEncoder | None",
    scheduler: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    dtype: "torch.dtype | None" = None,
    vae_entries: dict[str, Any] | None = None,
) -> None:
    """Writes diffusers' layout, which its StableDiffusionPipeline loads; text keys as in the published checkpoints.

    `dtype` of the weights on disk (None: as they are); `vae_entries` name the scale in the VAE's config. A model that
    stands there is replaced, and only when all is written; a folder that holds anything else is a ValueError.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / "model_index.json").exists():
        raise ValueError(f"{folder} holds something that is no model; expected a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    old = partial.with_name(f"{partial.name}-old")
    try:
        _save_module(vae, partial / "vae", DIFFUSERS, dtype, vae_entries)
        _save_module(unet, partial / "unet", DIFFUSERS, dtype)
        if text is not None:
            _save_module(text.model, partial / "text_encoder", TRANSFORMERS, dtype, prefix="text_model.")
            text.tokenizer.save_pretrained(partial / "tokenizer")
        (partial / "scheduler").mkdir()
        write_json(partial / "scheduler" / "scheduler_config.json", scheduler)
        write_json(partial / "model_index.json", _index(unet, text, scheduler))
        if defaults:
            write_json(partial / "ldm.json", defaults)
        partial.chmod(0o755)
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(partial, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save_module(
    module: Any,
    folder: Path,
    stem: str,
    dtype: "torch.dtype | None",
    entries: dict[str, Any] | None = None,
    prefix: str = "",
) -> None:
    """Writes a module's weights, their names behind `prefix`, and its config, in which `entries` win."""
    from safetensors.torch import save_file

    tensors = {
        f"{prefix}{key.removeprefix(prefix)}": value.detach().cpu().to(dtype or value.dtype).contiguous()
        for key, value in module.state_dict().items()
        if value.is_floating_point()
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    if prefix:  # transformers would compute in the dtype of the file, diffusers in float32: the two must agree
        identity = {"architectures": [type(module).__name__], "torch_dtype": "float32"}
    else:
        identity = {"_class_name": type(module).__name__}
    drop = ("_name_or_path", "dtype", "torch_dtype", "_use_default_values")
    write_json(folder / "config.json", {k: v for k, v in config.items() if k not in drop} | identity | (entries or {}))


def _index(unet: "nn.Module", text: "TextEncoder | None", scheduler: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", type(unet).__name__],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    if text is None:  # diffusers has no pipeline of just these parts
        return parts
    parts |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    parts |= {"safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None]}
    return {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts}
