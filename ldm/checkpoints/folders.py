"""Folders in diffusers' layout and hub ids <-> Contents.

The network is used only for a hub id that is not in the cache.
"""

import os
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints import prediction
from ldm.checkpoints.architecture import described, known
from ldm.checkpoints.contents import PREFIX, Contents, Decision, normal
from ldm.checkpoints.faults import CheckpointError, named, read_json, reason, writing
from ldm.checkpoints.tensors import read_tensors
from ldm.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from ldm.text import Tokenizer

WEIGHTS = Path(__file__).parent.parent / "weights"
MODULES = ("vae", "unet", "text_encoder")
PARTS = (*MODULES, "tokenizer", "scheduler")
# What is fetched of a hub repository: the parts, or a lone autoencoder; not the single files beside them, many GB each.
PATTERNS = [f"{part}/*.{ending}" for part in PARTS for ending in ("json", "txt", "safetensors")]
PATTERNS += ["model_index.json", "ldm.json", "config.json", "diffusion_pytorch_model*.safetensors"]
UNWANTED = ["*non_ema*"]
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # what each library calls its weights
PIPELINES = {4: "StableDiffusionPipeline", 8: "StableDiffusionInstructPix2PixPipeline",
             9: "StableDiffusionInpaintPipeline"}  # fmt: skip


def embedded() -> list[str]:
    """Names of the models that the package carries.

    >>> embedded()
    ['emoji', 'emoji-lcm']
    """
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
    """The cached folder of a hub repository; what it lacks, after an interrupted download for instance, is fetched."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    for name in ("model_index.json", "config.json"):
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str) and not _lacking(Path(found).parent):
            return Path(found).parent
    try:
        fetched = Path(snapshot_download(repository, allow_patterns=PATTERNS, ignore_patterns=UNWANTED))
    except Exception as error:  # the hub's client raises many kinds; each means the same here
        raise FileNotFoundError(
            f"{repository} is neither a folder here nor whole in the hub's cache, "
            f"and could not be fetched ({reason(error).partition('. ')[0]})"  # the rest is advice for its own callers
        ) from None
    if lacking := _lacking(fetched):  # without a network the client hands out what it has
        raise FileNotFoundError(f"{repository}: {fetched} lacks {', '.join(lacking)}, which could not be fetched")
    return fetched


def _lacking(folder: Path) -> list[str]:
    """The parts that a folder's model_index.json names and that are not whole; without one it is an autoencoder's."""
    if not _named(folder):
        return [] if _is_whole(folder, "vae") else ["model_index.json, or an autoencoder's config.json and weights"]
    return [part for part in _named(folder) if not _is_whole(folder / part, part)]


def _named(folder: Path) -> list[str]:
    """The parts that a folder's model_index.json names, of those that are used here; none without one."""
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").exists() else {}
    return [part for part in PARTS if index.get(part) not in (None, [None, None])]


def _is_whole(folder: Path, part: str) -> bool:
    """Whether the files of a part are there, every shard of its weights among them."""

    def has(*names: str) -> bool:
        return all((folder / name).exists() for name in names)

    if part == "tokenizer":
        return has("vocab.json", "merges.txt") or has("tokenizer.json")
    if part == "scheduler":
        return has("scheduler_config.json")
    weights = _weights_file(folder, part)
    return has("config.json") and weights is not None and all(shard.exists() for shard in _shards(weights))


# ---- reading ----


def read_folder(folder: Path, prediction_type: str | None = None) -> Contents:
    """A pipeline's folder, or a lone autoencoder's -> Contents."""
    if not (folder / "unet").is_dir() and (folder / "config.json").exists():
        return read_part(folder, "vae")
    parts = ["unet"] if of_pixels(folder) else ["vae", "unet"]
    if (folder / "text_encoder").is_dir() or "text_encoder" in _named(folder):
        parts.append("text_encoder")
    found = [read_part(folder / part, part) for part in parts]
    scheduler = load_scheduler(folder)
    decision = prediction.asked(prediction_type) or prediction.configured(scheduler)
    contents = Contents(
        {part: own.tensors[part] for part, own in zip(parts, found, strict=True)},
        {part: own.configs[part] for part, own in zip(parts, found, strict=True)},
        load_tokenizer(folder) if "text_encoder" in parts else None,
        {part: str(folder / part) for part in parts},
    )
    contents.configs |= {
        "scheduler": {**scheduler, "prediction_type": decision.value},
        "defaults": load_defaults(folder),
    }
    contents.decisions = {
        "layout": Decision("folder"),
        "architecture": Decision(described(contents.configs["unet"])),
        "prediction type": decision,
    }
    contents.decisions |= {"scale": found[0].decisions["scale"]} if "vae" in parts else {}
    return contents


def of_pixels(folder: Path) -> bool:
    """Whether a pipeline's index names a U-Net and no autoencoder: a diffusion model of pixels."""
    index = folder / "model_index.json"
    named_there = read_json(index) if index.exists() else {"vae": None}
    return "unet" in named_there and "vae" not in named_there


def read_part(folder: Path, part: str) -> Contents:
    """The folder of one module -> Contents of that part alone."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json")
    tensors = normal(part, _weights(folder, part))
    contents = Contents({part: tensors}, {part: read_json(folder / "config.json")}, where={part: str(folder)})
    if part == "vae":
        named_there = "scaling_factor" in contents.configs[part]
        why = "config.json" if named_there else "diffusers' default, config.json names none"
        default = known("sd1")["vae"]["scaling_factor"]
        scale = Decision(contents.configs[part].setdefault("scaling_factor", default), why)
        contents.decisions = {"layout": Decision("folder of the autoencoder alone"), "scale": scale}
    return contents


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer of a pipeline's folder; FileNotFoundError without one, CheckpointError for a damaged one."""
    from ldm.text import Tokenizer

    with named(folder / "tokenizer"):
        return Tokenizer.from_pretrained(folder / "tokenizer")


def load_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's config: how noise was added in training, and which sampler is the model's own."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def load_defaults(folder: Path) -> dict[str, Any]:
    """Steps and guidance that a model made here recommends; empty for others."""
    return read_json(folder / "ldm.json") if (folder / "ldm.json").exists() else {}


def _weights(folder: Path, part: str) -> "dict[str, Tensor]":
    """The tensors in a module's folder, all shards together."""
    found = _weights_file(folder, part)
    if found is None:
        whole, pickled = _stems(part)
        raise FileNotFoundError(
            f"{folder} holds no weights: expected {whole}.safetensors, sharded or .fp16, or {pickled}.bin"
        )
    shards = _shards(found)
    missing = [shard.name for shard in shards if not shard.exists()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(shards)} shards, {missing[0]} the first")
    return {name: tensor for shard in shards for name, tensor in read_tensors(shard).tensors.items()}


def _weights_file(folder: Path, part: str) -> Path | None:
    """A module's file of weights: safetensors, whole or an index of shards, else in half precision, else pickled."""
    stem, pickled = _stems(part)
    names = (f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}.fp16.safetensors",
             f"{stem}.safetensors.index.fp16.json", f"{pickled}.bin")  # fmt: skip
    return next((folder / name for name in names if (folder / name).exists()), None)


def _stems(part: str) -> tuple[str, str]:
    """What the part's library calls its weights, as safetensors and pickled."""
    return (TRANSFORMERS, "pytorch_model") if part == "text_encoder" else (DIFFUSERS, DIFFUSERS)


def _shards(weights: Path) -> list[Path]:
    """A file of weights -> itself; an index of shards -> the files that it names."""
    if weights.suffix != ".json":
        return [weights]
    names = read_json(weights).get("weight_map")
    files: list[Any] = list(names.values()) if isinstance(names, dict) and names else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in files):  # a path could lead anywhere
        raise CheckpointError(f"{weights} holds no weight_map of tensors to files beside it")
    return [weights.parent / name for name in sorted(set(files))]


# ---- writing ----


def write_folder(contents: Contents, folder: str | Path) -> None:
    """Writes diffusers' layout, which its StableDiffusionPipeline loads; text keys as in the published checkpoints.

    A model that stands there is replaced, and only when all is written; a folder that holds anything else is a
    ValueError, a full disk a CheckpointError, and nothing half-written is left by either.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_model(folder))):
        raise ValueError(f"{folder} holds something that is no model; expected a new or an empty folder")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(contents, partial)
            partial.chmod(0o755)
            _replace(folder, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").exists() or (folder / f"{DIFFUSERS}.safetensors").exists()


def _replace(folder: Path, partial: Path) -> None:
    """Puts the written folder in the place of the old one, which comes back if that fails."""
    old = partial.with_name(f"{partial.name}-old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(partial, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(contents: Contents, folder: Path) -> None:
    if list(contents.tensors) == ["vae"]:
        return _write_module(contents, "vae", folder)
    for part in contents.tensors:
        (folder / part).mkdir()
        _write_module(contents, part, folder / part)
    if contents.tokenizer is not None:
        contents.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", contents.configs["scheduler"])
    write_json(folder / "model_index.json", _index(contents))
    if contents.configs.get("defaults"):
        write_json(folder / "ldm.json", contents.configs["defaults"])


def _write_module(contents: Contents, part: str, folder: Path) -> None:
    """Writes a part's weights and its config."""
    from safetensors.torch import save_file

    stem, prefix = (TRANSFORMERS, PREFIX) if part == "text_encoder" else (DIFFUSERS, "")
    tensors = {f"{prefix}{name}": tensor.cpu().contiguous() for name, tensor in contents.tensors[part].items()}
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", contents.configs[part])


def _index(contents: Contents) -> dict[str, Any]:
    unet = contents.configs["unet"]
    parts: dict[str, Any] = {
        "_diffusers_version": version("diffusers"),  # its inpainting pipeline does not load without
        "unet": _library(unet.get("_class_name", "UNet2DConditionModel"), "UNet"),
        "scheduler": ["diffusers", contents.configs["scheduler"]["_class_name"]],
    }
    if "vae" not in contents.tensors:
        pixels = "DDIMPipeline" if unet.get("_class_name") == "UNet2DModel" else None
        return ({"_class_name": pixels} if pixels and "text_encoder" not in contents.tensors else {}) | parts
    parts |= {"vae": _library(contents.configs["vae"].get("_class_name", "AutoencoderKL"), "AutoencoderKL")}
    if "text_encoder" not in contents.tensors:  # diffusers has no pipeline of just these parts
        return parts
    parts |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    parts |= {"safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None]}
    pipeline = PIPELINES.get(unet.get("in_channels", 4), PIPELINES[4])
    return {"_class_name": pipeline, "requires_safety_checker": False, **parts}


def _library(name: str, theirs: str) -> list[str]:
    """A class, as a model_index.json names it: with the library that has it."""
    return ["diffusers" if name.startswith(theirs) else "ldm", name]
