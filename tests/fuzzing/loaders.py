"""Every function that opens what a user gives, each with whole files that it reads: what is damaged is one of these.

Files are as small as they can be and still be of their kind, so that damage hits what is looked at.
"""

import atexit
import csv
import gzip
import io
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import CAPTIONS, SCHEDULER, tiny_pipeline
from PIL import Image, ImageCms
from safetensors.torch import load_file, save_file
from torch import nn

LENGTH = 16  # tokens


@dataclass(frozen=True)
class Loader:
    """`write` puts whole files into a folder; `read` is given that folder, and which of its files is damaged.

    `share` is how many cases it has beside the others; `stays` are files that are not damaged, `kept` what reading
    may leave in its folder.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path, Path], Any]
    share: int = 1
    stays: str = r"(?!)"
    kept: str = r"(?!)"

    def beside(self, name: str) -> bool:
        return re.search(self.stays, name) is not None

    def keeps(self, name: str) -> bool:
        return re.search(self.kept, name) is not None


LOADERS: dict[str, Loader] = {}


def loader(read: Callable[[Path, Path], Any], write: Callable[[Path], Any], **told: Any) -> None:
    """Adds one, by the name of what reads."""
    name = read.__name__.replace("_", " ")
    LOADERS[name] = Loader(name, write, read, **told)


@cache
def folder_of(name: str) -> Path:
    """The folder of a loader's whole files, made once."""
    folder = home() / name.replace(" ", "-")
    folder.mkdir()
    LOADERS[name].write(folder)
    return folder


@cache
def home() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def command(*words: object) -> None:
    """`ldm ...`, in this process; ValueError with its line where it refuses. Any other end than 0 and 2 is a fault."""
    from ldm.cli import main

    argv, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["ldm", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        if end.code == 2:
            raise ValueError(err.getvalue().removesuffix("\n")) from None
        assert not end.code, f"exit status {end.code}"
    finally:
        sys.argv = argv


def noise(*size: int, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype)


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(20, 24, 3, seed=seed))


# ---- pictures ----


def write_pictures(folder: Path) -> None:
    rgb, alpha = photo(), Image.fromarray(noise(20, 24, 4))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "plain.png")
    rgb.save(folder / "profile.png", icc_profile=profile)
    alpha.save(folder / "alpha.png")
    rgb.quantize(8).save(folder / "palette.png", transparency=3)
    Image.fromarray(noise(20, 24, dtype=np.uint16)).save(folder / "deep.png")
    rgb.save(folder / "turned.jpg", exif=turned, icc_profile=profile)
    rgb.convert("L").save(folder / "grey.jpg", progressive=True)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "lossy.webp", exif=turned)
    alpha.save(folder / "alpha.webp", lossless=True)
    alpha.save(folder / "moving.webp", save_all=True, append_images=[alpha.rotate(90)])
    rgb.save(folder / "moving.gif", save_all=True, append_images=[photo(1)])
    rgb.save(folder / "moving.png", save_all=True, append_images=[photo(1)])
    rgb.save(folder / "packed.tif", compression="tiff_lzw", exif=turned)
    Image.fromarray(noise(20, 24, dtype=np.uint16)).save(folder / "deep.tif")
    Image.fromarray(noise(20, 24).astype(np.float32) / 255).save(folder / "floats.tif")
    for suffix in ("bmp", "ppm", "ico", "tga", "pcx", "jp2", "avif", "dds", "sgi"):
        try:
            rgb.save(folder / f"plain.{suffix}")
        except (KeyError, OSError, ValueError):
            (folder / f"plain.{suffix}").unlink(missing_ok=True)  # not every build has every codec


def pictures(root: Path, damaged: Path) -> None:
    from ldm.images import load, to_pixels

    to_pixels(damaged, size=(16, 16))
    load(damaged, "black")


def write_masks(folder: Path) -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(folder / "grey.png")
    Image.fromarray(mask > 0).save(folder / "bits.png")
    Image.fromarray(np.stack([mask] * 4, -1)).save(folder / "alpha.png")
    Image.fromarray(mask).convert("RGB").save(folder / "mask.jpg")


def masks(root: Path, damaged: Path) -> None:
    from ldm.masks import to_map, to_mask

    to_mask(damaged, (16, 24))
    to_map(damaged, (16, 24))


TEXT = (
    'a "red" apple: on a table, <lora:x:1>\nsecond line\nNegative prompt: blurred\nSteps: 20, Sampler: DPM++ 2M, '
    'Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: 0123456789, Clip skip: 2, Note: "a, b"'
)


def write_told(folder: Path) -> None:
    from ldm.metadata import attach, save

    told = {"prompt": "a red apple", "seed": 7, "width": 24, "height": 20, "sampler": "ddim", "deep": {"a": [1, 2.5]}}
    for suffix in ("png", "jpg", "webp"):
        save(attach(photo(), told), folder / f"ours.{suffix}")
        picture = photo()
        picture.info["parameters"] = TEXT
        save(picture, folder / f"theirs.{suffix}")


def what_made_a_picture(root: Path, damaged: Path) -> None:
    from ldm import metadata

    json.dumps(metadata.told(damaged))


def ldm_info_of_a_picture(root: Path, damaged: Path) -> None:
    command("info", damaged)


loader(pictures, write_pictures, share=6)
loader(masks, write_masks)
loader(what_made_a_picture, write_told, share=2)
loader(ldm_info_of_a_picture, write_told)


# ---- weights ----


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


# ---- what is added to a model ----


@cache
def networks() -> tuple[Any, Any]:
    from dataclasses import replace

    from ldm.training.diffusion import PRESETS, text_model, unet
    from ldm.training.tokenizer import train_tokenizer

    torch.manual_seed(0)
    size = replace(PRESETS["tiny"], text_layers=2)
    return unet(size, side=8).eval(), text_model(size, train_tokenizer(CAPTIONS, size=600, length=LENGTH)).eval()


def write_loras(folder: Path) -> None:
    import test_lora

    for style in ("kohya", "diffusers", "processors"):
        found = test_lora.tensors(networks(), style, alpha=None if style == "diffusers" else 3.0)
        config = {"unet.lora_alpha": 3, "unet.alpha_pattern": {"attn1": 2}, "text_encoder.lora_alpha": 3}
        told = {"lora_adapter_metadata": json.dumps(config)} if style == "diffusers" else None
        save_file(found, folder / f"{style}.safetensors", told)
    (folder / "peft").mkdir()
    torch.save(test_lora.tensors(networks(), "peft", alpha=None), folder / "peft" / "adapter_model.bin")
    config = {"lora_alpha": 3, "r": 2, "use_rslora": True, "alpha_pattern": {"to_q": 1.5}}
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))


def loras(root: Path, damaged: Path) -> None:
    from ldm.lora import Fused

    fused = Fused(*networks())
    try:
        fused.load(damaged.parent if damaged.parent.name == "peft" else damaged)
    finally:
        fused.unload()


def write_lora_model(folder: Path) -> None:
    import test_lora

    from ldm.checkpoints.adapters import name_base

    pipeline().save_pretrained(folder / "model")
    (folder / "lora").mkdir()
    unet: Any = pipeline().denoiser.unet
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = test_lora.factors(unet.get_submodule(name), 0)
    keys = test_lora.spell("diffusers", "unet", name)
    save_file(dict(zip(keys, (down, up), strict=True)), folder / "lora" / "pytorch_lora_weights.safetensors")
    name_base(folder / "lora", str(folder / "model"), SCHEDULER, {"num_inference_steps": 4})


def models_made_of_a_lora(root: Path, damaged: Path) -> None:
    from ldm.pipeline import LatentDiffusion

    LatentDiffusion.from_pretrained(root / "lora")


def write_embeddings(folder: Path) -> None:
    import test_inversion

    for layout in test_inversion.LAYOUTS:
        place = folder / layout.replace(" ", "-")
        place.mkdir()
        test_inversion.as_written(layout, place)


def embeddings(root: Path, damaged: Path) -> None:
    from copy import deepcopy

    from ldm import inversion
    from ldm.text import TextEncoder, Tokenizer

    text = pipeline().text
    own = text.tokenizer
    tokenizer = Tokenizer(own.vocabulary, own.merges, own.length, own.pad_token)
    inversion.load(TextEncoder(deepcopy(text.model), tokenizer), damaged)


def write_tokenizers(folder: Path) -> None:
    own = pipeline().text.tokenizer
    own.save_pretrained(folder / "two" / "tokenizer")
    (folder / "one" / "tokenizer").mkdir(parents=True)
    model = {"type": "BPE", "vocab": own.vocabulary, "merges": [list(merge) for merge in own.merges]}
    (folder / "one" / "tokenizer" / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))


def tokenizers(root: Path, damaged: Path) -> None:
    from ldm.checkpoints.folders import load_tokenizer

    load_tokenizer(damaged.parent.parent)("a red apple, nothing else")


loader(loras, write_loras, share=2)
loader(models_made_of_a_lora, write_lora_model, stays="^model/")
loader(embeddings, write_embeddings, share=2)
loader(tokenizers, write_tokenizers, share=2)


# ---- data ----


def write_pictures_with_metadata(folder: Path) -> None:
    for kind in ("jsonl", "csv"):
        place = folder / kind
        place.mkdir()
        rows: list[dict[str, Any]] = []
        for i in range(3):
            photo(i).save(place / f"{i}.png")
            photo(i + 3).save(place / f"c{i}.png")
            rows.append({"file_name": f"{i}.png", "text": f"picture {i}", "label": i, "condition": f"c{i}.png"})
        if kind == "jsonl":
            (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
            continue
        with open(place / "metadata.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "texts").mkdir()
    for i in range(3):
        photo(i).save(folder / "texts" / f"{i}.png")
        (folder / "texts" / f"{i}.txt").write_text(f"picture {i}")


def folders_of_pictures(root: Path, damaged: Path) -> None:
    _items(damaged.parent)


def _items(source: Path) -> None:
    from ldm import data

    found: Any = data.open(source, side=8, skip=0)
    json.dumps(found.identity())
    for i in range(len(found)):
        json.dumps([found[i].caption, found[i].label])


def write_tars(folder: Path) -> None:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i in range(2):
            buffer = io.BytesIO()
            photo(i).save(buffer, "PNG")
            said = {"png": buffer.getvalue(), "json": json.dumps({"text": f"picture {i}", "label": i}).encode()}
            said = said if i else {"png": said["png"], "txt": b"picture 0", "cls": b"1"}
            for ending, content in said.items():
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def tar_shards(root: Path, damaged: Path) -> None:
    _items(damaged)


def write_tars_with_index(folder: Path) -> None:
    from ldm.data.tars import Tars

    write_tars(folder)
    Tars([folder / "a.tar"])


def indices_of_tar_shards(root: Path, damaged: Path) -> None:
    _items(root / "a.tar")


def write_digits(folder: Path) -> None:
    pixels, labels = noise(4, 8, 8), np.arange(4, dtype=np.uint8)
    (folder / "packed").mkdir()
    (folder / "plain").mkdir()
    for name, values in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
        (folder / "plain" / name).write_bytes(head + values.tobytes())
        (folder / "packed" / f"{name}.gz").write_bytes(gzip.compress(head + values.tobytes()))
    (folder / "plain" / "classes.txt").write_text("a\nb\nc\nd")


def digits(root: Path, damaged: Path) -> None:
    _items(damaged.parent)


def write_sets_for_tryon(folder: Path) -> None:
    import test_tryon_data

    test_tryon_data.viton(folder / "hd", names=test_tryon_data.NAMES[:2])
    test_tryon_data.dresscode(folder / "code", ("upper_body",))
    (folder / "hd" / "synthetic.json").write_text(json.dumps({"train": ["00000_00.jpg"]}))
    shutil.rmtree(folder / "hd" / "test")


def sets_for_tryon(root: Path, damaged: Path) -> None:
    from ldm.data.tryon import TryOn

    place = root / damaged.relative_to(root).parts[0]
    looks = TryOn(place, "train", size=(16, 12), skip=0)
    for i in range(len(looks)):
        looks[i]


def write_boxes(folder: Path) -> None:
    (folder / "boxes.json").write_text(json.dumps({"a.jpg": [[1, 2, 3.5, 4]], "b.jpg": [], "c.jpg": [[0, 0, 9, 9]]}))


def boxes_around_errors(root: Path, damaged: Path) -> None:
    from ldm.data.tryon import boxes

    boxes.read(damaged)


def write_prompts(folder: Path) -> None:
    (folder / "a.txt").write_text("# a note\na red apple --seed 7 --size 96x64\n\nan owl --steps=4 --negative 'a b'\n")
    rows = [{"prompt": "a red apple", "seed": 7, "name": "apple"}, {"prompt": "an owl", "count": 2, "guidance": 3.5}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "a.csv").write_text('prompt,seed,steps\n"a red, apple",7,4\nan owl,,5\n')


def files_of_prompts(root: Path, damaged: Path) -> None:
    from ldm import batch

    jobs = batch.read(damaged, root, {"guidance_scale": 3.0})
    [job.key for job in jobs]


loader(folders_of_pictures, write_pictures_with_metadata, share=2)
loader(tar_shards, write_tars, kept=r"\.tar\.index\.json$")
loader(indices_of_tar_shards, write_tars_with_index, stays=r"\.tar$", kept=r"\.tar\.index\.json$")
loader(digits, write_digits)
loader(sets_for_tryon, write_sets_for_tryon, share=2)
loader(boxes_around_errors, write_boxes)
loader(files_of_prompts, write_prompts, share=2)


# ---- what training keeps ----


def write_cache(folder: Path) -> None:
    from ldm import data
    from ldm.training.cache import CachedLatents
    from ldm.training.encoding import encode

    (folder / "data").mkdir()
    write_pictures_with_metadata(folder / "data")

    source: Any = data.open(folder / "data" / "jsonl", side=16, flip=True)
    encode(source, pipeline().latents, folder / "cache")
    shutil.rmtree(folder / "data")
    values = torch.randn(2, 4, 2, 2).half()
    CachedLatents(values, values.clone(), ["a", "b"], {"data": "x"}).save(folder / "latents.safetensors")


def latent_caches(root: Path, damaged: Path) -> None:
    from ldm.training.cache import CachedLatents, LatentCache

    if damaged.name == "latents.safetensors":
        found: Any = CachedLatents.load(damaged)
    else:
        found = LatentCache(root / "cache")
        json.dumps([found.identity(), found.sizes])
    for i in range(len(found)):
        found[i]


class Line(nn.Module):
    """The least that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


@cache
def state() -> Any:
    from ldm.training.plan import Plan
    from ldm.training.state import State

    found = State(Line(), Plan(steps=4), torch.device("cpu"))
    found.objective.weight.sum().backward()
    found.optimizer.step()
    return found


def write_checkpoints(folder: Path) -> None:
    from ldm.training import checkpoint

    for step in (1, 2):
        facts = {**state().facts(), "step": step, "seen": [1, 2]}
        found = checkpoint.Checkpoint(state().tensors(), facts, {"data": {"side": 8}, "steps": 4})
        checkpoint.save(folder, found, keep=2)
    (folder / "log.jsonl").write_text("".join(json.dumps({"step": i, "loss": 1 / i}) + "\n" for i in (1, 2)))


def training_checkpoints(root: Path, damaged: Path) -> None:
    from ldm.training import checkpoint, log

    if damaged.suffix == ".jsonl":
        log._cut(damaged, 1)
        return
    found = checkpoint.read(damaged)
    state().restore(found.tensors, found.facts)
    checkpoint.resumable(root, {"data": {"side": 8}, "steps": 4})


def write_kept(folder: Path) -> None:
    from ldm.engines.kept import keep

    keep(folder / "about.json", json.dumps({"channels": 4}).encode())


def kept_files(root: Path, damaged: Path) -> None:
    from ldm.engines.kept import kept, whole

    path = root / "about.json"
    if (content := kept(path)) is not None:
        json.loads(content)
    whole(path)


loader(latent_caches, write_cache, share=2)
loader(training_checkpoints, write_checkpoints, share=2)
loader(kept_files, write_kept)


# ---- reports ----


def write_reports(folder: Path) -> None:
    source = Path(__file__).parent.parent.parent / "benchmarks"
    for name in ("speed-start.json", "speed-drawing.json"):
        found = json.loads((source / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({key: found[key] for key in ("what", "rows", "imports") if key in found}))


def ldm_bench_report(root: Path, damaged: Path) -> None:
    command("bench", "report", damaged)


loader(ldm_bench_report, write_reports)
