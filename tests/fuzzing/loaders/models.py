"""Models, whole and in parts, in every layout."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_pipeline
from safetensors.torch import load_file, save_file

from fuzzing.loaders.loader import command, loader


@cache
def pipeline() -> Any:
    return tiny_pipeline()


def write_model(folder: Path) -> None:
    pipeline().save_pretrained(folder / "model")


def model_folders(root: Path, damaged: Path) -> None:
    from ldm.pipeline import LatentDiffusion

    LatentDiffusion.from_pretrained(root / "model")


def ldm_info_of_a_folder(root: Path, damaged: Path) -> None:
    command("info", root / "model")


def ldm_convert(root: Path, damaged: Path) -> None:
    command("convert", root / "model", root.parent / "out" / "model.safetensors")
    shutil.rmtree(root.parent / "out")  # which a refusal must not have begun


def write_single_files(folder: Path) -> None:
    import test_singlefile
    from test_pickles import lightning

    state = test_singlefile.published("1.x", dtype=torch.float16)
    test_singlefile.write(state, folder / "model.safetensors")
    torch.save(lightning(state), folder / "lightning.ckpt")
    torch.save({"state_dict": state}, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    vae = {key: value for key, value in state.items() if key.startswith("first_stage_model.")}
    save_file({key.removeprefix("first_stage_model."): value for key, value in vae.items()}, folder / "vae.safetensors")


def single_files(root: Path, damaged: Path) -> None:
    from ldm.latents import LatentSpace
    from ldm.pipeline import LatentDiffusion

    if damaged.name == "vae.safetensors":
        LatentSpace.from_pretrained(damaged)
    elif damaged.suffix in (".ckpt", ".safetensors"):
        LatentDiffusion.from_pretrained(damaged)
    else:
        LatentDiffusion.from_pretrained(root / "model.safetensors")


def ldm_info_of_a_file(root: Path, damaged: Path) -> None:
    command("info", damaged if damaged.suffix in (".ckpt", ".safetensors") else root / "model.safetensors")


def write_written_file(folder: Path) -> None:
    from ldm import checkpoints

    pipeline().save_pretrained(folder / "model")
    checkpoints.convert(folder / "model", folder / "model.safetensors", prediction_type="epsilon")
    shutil.rmtree(folder / "model")


def written_files(root: Path, damaged: Path) -> None:
    from ldm.pipeline import LatentDiffusion

    LatentDiffusion.from_pretrained(damaged)


def write_autoencoder(folder: Path) -> None:
    """Its weights in two shards."""
    vae = pipeline().latents.autoencoder
    vae.save_pretrained(folder / "vae")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    names = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for part in sorted(set(names.values())):
        save_file({name: tensors[name] for name in names if names[name] == part}, weights.with_name(part))
    weights.unlink()
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def autoencoders_in_shards(root: Path, damaged: Path) -> None:
    from ldm.latents import LatentSpace

    LatentSpace.from_pretrained(root / "vae").decode(torch.zeros(1, 4, 2, 2))


def write_family(folder: Path) -> None:
    from ldm.autoencoders import VQVAE, ConditionalVAE, Shape
    from ldm.autoencoders.priors import CodePrior

    torch.manual_seed(0)
    shape = Shape((8, 8), 1, 4, "conv", (8, 8))
    VQVAE(shape, entries=8).save_pretrained(folder / "vq")
    CodePrior([(2, 2)], 8, 16, 1).save_pretrained(folder / "vq")
    ConditionalVAE(Shape((8, 8), 1, 4, "dense", (16,))).save_pretrained(folder / "vae")


def autoencoders(root: Path, damaged: Path) -> None:
    from ldm.autoencoders.base import Model
    from ldm.autoencoders.priors import prior_of
    from ldm.latents import LatentSpace

    folder: Any = damaged.parent
    model: Any = Model.from_pretrained(folder)
    prior_of(model, folder)
    LatentSpace.from_pretrained(folder)


def write_classifier(folder: Path) -> None:
    from ldm.tryon.classifier import ErrorClassifier

    torch.manual_seed(0)
    ErrorClassifier((4, 8)).save_pretrained(folder / "errors")


def error_classifiers(root: Path, damaged: Path) -> None:
    from ldm.tryon.classifier import ErrorClassifier

    ErrorClassifier.from_pretrained(root / "errors")


def write_matcher(folder: Path) -> None:
    from ldm.tryon.matching import Matcher

    torch.manual_seed(0)
    Matcher().save(folder / "matcher.safetensors")


def matchers(root: Path, damaged: Path) -> None:
    from ldm.tryon.matching import Matcher

    Matcher.load(damaged)


loader(model_folders, write_model, share=4)
loader(ldm_info_of_a_folder, write_model)
loader(ldm_convert, write_model)
loader(single_files, write_single_files, share=3)
loader(ldm_info_of_a_file, write_single_files)
loader(written_files, write_written_file)
loader(autoencoders_in_shards, write_autoencoder)
loader(autoencoders, write_family, share=2)
loader(error_classifiers, write_classifier)
loader(matchers, write_matcher)
