"""Single files in CompVis' naming, as Stable Diffusion was published and as A1111 keeps them <-> Contents.

Only local files are looked at: what one does not hold comes from `configs/`, from beside it, or from the hub's cache. A
file that was written here carries its configs and its tokenizer in its metadata, and needs nothing else.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.checkpoints import prediction
from ldm.checkpoints.architecture import described, family_of, known, sample_size, text_config, unet_config, vae_config
from ldm.checkpoints.contents import Contents, Decision, file_name, normal
from ldm.checkpoints.faults import CheckpointError, named, some, writing
from ldm.checkpoints.modules import frame
from ldm.checkpoints.names import CLIP, UNET, VAE, Place, give, take, text_places, unet_places, vae_places
from ldm.checkpoints.tensors import File, read_tensors
from ldm.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from ldm.text import Tokenizer

# What published files hold beside the parts: the schedule, averaged weights, the training's losses, a tower's end.
ASIDE = re.compile(
    r"model_ema\..*|(first_stage_model\.)?loss\..*|(first_stage_model\.)?model_ema\..*|betas|alphas_.*|sqrt_.*|log_one_.*"
    r"|posterior_.*|logvar|lvlb_weights|scale_factor|v_pred|ztsnr|embedding_manager\..*"
    r"|cond_stage_model\..*(position_ids|attn_mask|logit_scale|text_projection(\.weight)?)"
)
METADATA = "ldm"  # the key of what is written here into a file's metadata
VAE_PREFIXES = (VAE, "vae.", "")


def read_file(path: Path, prediction_type: str | None = None) -> Contents:
    """A single file -> Contents: a whole model, or an autoencoder alone."""
    file = read_tensors(path)
    if not any(name.startswith(UNET) for name in file.tensors):
        return _vae_alone(file)
    with _lacking(path):
        return _model(_with_text_model(file), prediction_type)


def read_vae(path: Path) -> Contents:
    """The autoencoder of a single file, whatever else is in it."""
    file = read_tensors(path)
    if not any(name.startswith(UNET) for name in file.tensors):
        return _vae_alone(file)
    with _lacking(path):
        return _vae(file, family_of(file.tensors, file.path))[0]


def _model(file: File, prediction_type: str | None) -> Contents:
    family, told = family_of(file.tensors, file.path), _told(file)
    contents, used = _vae(file, family)
    configs = contents.configs
    configs["unet"] = told.get("unet") or unet_config(file.tensors, family)
    configs["text_encoder"] = told.get("text_encoder") or text_config(file.tensors, family)
    for part in ("unet", "text_encoder"):
        contents.where[part] = f"{file.path} ({part})"
        places = _places(part, configs, frame(contents, part).state_dict())
        contents.tensors[part] = _taken(file, places, contents.where[part])
        used |= {place.name for place in places.values()}
    decision = _prediction(file, prediction_type, told, family, configs["unet"]["in_channels"])
    if "unet" not in told:
        configs["unet"]["sample_size"] = sample_size(configs["unet"], decision.value)
    configs["scheduler"] = _scheduler(file, told, family, configs["unet"], decision)
    configs["defaults"] = told.get("defaults", {})
    contents.tokenizer = _carried(file, told) or find_tokenizer(
        file.path, family, configs["text_encoder"]["vocab_size"]
    )
    contents.where["tokenizer"] = (
        f"{file.path} carries no tokenizer: put CLIP's vocab.json and merges.txt (those of "
        f"{known(family)['tokenizers'][0][0]}) beside it, or into {file.path.parent / 'tokenizer'}"
    )
    contents.decisions |= {"architecture": Decision(described(configs["unet"])), "prediction type": decision}
    contents.decisions |= _aside(file, used, configs["text_encoder"]["num_hidden_layers"])
    return contents


@contextmanager
def _lacking(path: Path) -> Iterator[None]:
    """A KeyError of the functions that read sizes from tensors -> a line that names what is missing."""
    with named(path):
        try:
            yield
        except KeyError as error:
            raise CheckpointError(f"{path} lacks tensors: {error.args[0]}") from None


def _with_text_model(file: File) -> File:
    """Early files name the text encoder's tensors without text_model.; then with it, as the others."""
    start = CLIP.removesuffix("text_model.")
    tensors = {
        CLIP + name.removeprefix(start) if name.startswith(start) and not name.startswith(CLIP) else name: tensor
        for name, tensor in file.tensors.items()
    }
    return replace(file, tensors=tensors)


def _taken(file: File, places: Mapping[str, Place], where: str) -> "dict[str, Tensor]":
    """The tensors of a part, in the names used here. CheckpointError lists those that are not in the file."""
    missing = {place.name for place in places.values()} - file.tensors.keys()
    if missing:
        raise CheckpointError(f"{where} lacks {len(missing)} of {len(places)} tensors: {some(missing)}")
    return {name: take(file.tensors, place) for name, place in places.items()}


def _places(part: str, configs: Mapping[str, Any], names: Collection[str], prefix: str = VAE) -> dict[str, Place]:
    """The names of a part's tensors -> where a single file keeps them."""
    if part == "vae":
        return vae_places(names, len(configs["vae"]["block_out_channels"]), prefix)
    if part == "unet":
        return unet_places(names, configs["unet"].get("layers_per_block", 2))
    return text_places(names, open_clip=bool(configs["unet"].get("use_linear_projection")))


def _aside(file: File, used: Collection[str], layers: int = 0) -> dict[str, Decision]:
    """What of a file is not used, in words. CheckpointError if that is anything but what published files have."""
    last = re.compile(rf"cond_stage_model\.model\.transformer\.resblocks\.{layers}\..*")
    rest = file.tensors.keys() - set(used)
    strange = {name for name in rest if not ASIDE.fullmatch(name) and not last.fullmatch(name)}
    if strange:
        raise CheckpointError(f"{file.path} holds {len(strange)} tensors that have no place here: {some(strange)}")
    skipped = [f"foreign objects, not run: {some(set(file.skipped))}"] if file.skipped else []
    kinds = [f"{len(rest)} tensors: {', '.join(sorted({name.split('.')[0] for name in rest}))}"] if rest else []
    return {"left aside": Decision("; ".join(kinds + skipped))} if kinds or skipped else {}


# ---- the autoencoder ----


def _vae_alone(file: File) -> Contents:
    with _lacking(file.path):
        contents, used = _vae(file, None)
    contents.decisions["layout"] = Decision(f"{contents.decisions['layout'].value}, the autoencoder alone")
    contents.decisions |= _aside(file, used)
    return contents


def _vae(file: File, family: str | None) -> tuple[Contents, set[str]]:
    """The autoencoder of a single file -> Contents of that part, and the names in the file that it is made of.

    Its config names a scale only if the file does, or its `family`: an autoencoder alone may be of any.
    """
    prefix = next((p for p in VAE_PREFIXES if f"{p}encoder.conv_in.weight" in file.tensors), None)
    if prefix is None:
        family_of(file.tensors, file.path)  # which knows what else it may be
        raise CheckpointError(f"{file.path} holds no autoencoder: {VAE}encoder.conv_in.weight is missing")
    diffusers = any(name.startswith(f"{prefix}encoder.down_blocks.") for name in file.tensors)
    tensors = normal("vae", file.tensors) if diffusers else file.tensors
    config = _told(file).get("vae") or vae_config(tensors, prefix, diffusers)
    scale = _scale(file, config, family)
    contents = Contents({}, {"vae": {**config, "scaling_factor": scale.value}}, where={"vae": f"{file.path} (vae)"})
    contents.decisions = {
        "layout": Decision(f"one file, {'diffusers' if diffusers else 'CompVis'}' names"),
        "scale": scale,
    }
    names = frame(contents, "vae").state_dict()
    places = {n: Place(prefix + n) for n in names} if diffusers else _places("vae", contents.configs, names, prefix)
    contents.tensors["vae"] = _taken(replace(file, tensors=tensors), places, contents.where["vae"])
    return contents, {place.name for place in places.values()} | (file.tensors.keys() - tensors.keys())


def _scale(file: File, config: Mapping[str, Any], family: str | None) -> Decision:
    """The scale that a file names, else its family's; None where the file is of no family that shows."""
    if config.get("scaling_factor") is not None:
        return Decision(config["scaling_factor"], "the file's metadata")
    beside = prediction.options(file.path)
    with named(f"scale_factor of {file.path}"):
        if "scale_factor" in file.tensors:
            return Decision(float(file.tensors["scale_factor"]), "the file's key scale_factor")
        if "scale_factor" in beside:
            return Decision(float(beside["scale_factor"]), file_name(file.path.with_suffix(".yaml")))
    if family is None:
        return Decision(None, "the file names none", sure=False)
    return Decision(known(family)["vae"]["scaling_factor"], f"that of {known(family)['name']}")


# ---- what is decided about a model ----


def _prediction(file: File, asked: str | None, told: Mapping[str, Any], family: str, channels: int) -> Decision:
    return (
        prediction.asked(asked)
        or prediction.stated(file, told.get("scheduler"))
        or prediction.guessed(file, family, channels)
    )


def _scheduler(file: File, told: Mapping[str, Any], family: str, unet: Mapping[str, Any], decision: Decision) -> Any:
    scheduler = told.get("scheduler") or known(family)["scheduler"]
    if unet["in_channels"] == 8 and "scheduler" not in told:
        scheduler = {**scheduler, "_class_name": "EulerAncestralDiscreteScheduler"}  # as InstructPix2Pix was published
    if "ztsnr" in file.tensors:
        scheduler = {**scheduler, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return {**scheduler, "prediction_type": decision.value}


def _told(file: File) -> dict[str, Any]:
    """What a file that was written here says of itself: a config for each part, and the tokenizer."""
    with named(f"{file.path}'s metadata"):
        told = json.loads(file.metadata.get(METADATA, "{}"))
    if not isinstance(told, dict) or not all(isinstance(own, dict) for own in told.values()):
        raise CheckpointError(f"{file.path}'s metadata hold no JSON objects under {METADATA!r}")
    return told


def _carried(file: File, told: Mapping[str, Any]) -> "Tokenizer | None":
    from ldm.text import Tokenizer

    if "tokenizer" not in told:
        return None
    with named(f"{file.path}'s metadata"):
        own = told["tokenizer"]
        return Tokenizer(own["vocabulary"], [(a, b) for a, b in own["merges"]], own["length"], own["pad"])


def find_tokenizer(path: Path, family: str, entries: int) -> "Tokenizer | None":
    """CLIP's tokenizer: beside a file, in tokenizer/ beside it, or in the hub's cache; nothing is fetched.

    One with another number of entries than the text encoder is not its own, and is passed over.
    """
    from ldm.text import Tokenizer

    for folder in (path.parent, path.parent / "tokenizer", *_cached(family)):
        if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            with named(folder):
                tokenizer = Tokenizer.from_pretrained(folder)
                pad = known(family)["pad_token"]
                tokenizer = Tokenizer(tokenizer.vocabulary, tokenizer.merges, tokenizer.length, pad)
            if 1 + max(tokenizer.vocabulary.values()) == entries:
                return tokenizer
    return None


def _cached(family: str) -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache

    for repository, folder in known(family)["tokenizers"]:
        found = try_to_load_from_cache(repository, f"{folder}/vocab.json" if folder else "vocab.json")
        if isinstance(found, str):
            yield Path(found).parent


# ---- writing ----


def write_file(contents: Contents, path: Path) -> None:
    """Writes a single .safetensors in CompVis' naming, whole or not at all; its metadata say what tensors do not show.

    CheckpointError for a network that has no such names, and for a full disk.
    """
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a name that ends in .safetensors")
    tensors: dict[str, Tensor] = {}
    alone = list(contents.tensors) == ["vae"]
    if not alone and "text_encoder" not in contents.tensors:
        raise CheckpointError(f"{path}: a model without a text encoder has no form as a single file")
    for part, own in contents.tensors.items():
        places = _places(part, contents.configs, own, "" if alone else VAE)
        for name, tensor in own.items():
            give(tensors, places[name], tensor)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path), replacing(path) as file:
        save_file(tensors, file.name, metadata=_metadata(contents))


def _metadata(contents: Contents) -> dict[str, str]:
    """What A1111 and others read (modelspec), and all that is needed to load the file here."""
    told: dict[str, Any] = dict(contents.configs)
    if contents.tokenizer is not None:
        own = contents.tokenizer
        told["tokenizer"] = {"vocabulary": own.vocabulary, "merges": own.merges, "length": own.length}
        told["tokenizer"]["pad"] = own.pad_token
    metadata = {"format": "pt", METADATA: json.dumps(told, default=str)}
    if "unet" not in contents.configs:
        return metadata
    linear = contents.configs["unet"].get("use_linear_projection")
    word = contents.configs["scheduler"]["prediction_type"]
    return metadata | {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"stable-diffusion-v{2 if linear else 1}",
        "modelspec.prediction_type": "v" if word == "v_prediction" else word,
        "modelspec.implementation": "https://github.com/CompVis/stable-diffusion",
    }
