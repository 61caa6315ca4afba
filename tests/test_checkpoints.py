"""Checkpoints: what is saved loads again here and in diffusers; what is damaged is one line that names it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm import checkpoints
from ldm.checkpoints import CheckpointError
from ldm.pipeline import LatentDiffusion


@pytest.fixture
def copy(folder, tmp_path):
    """The tiny pipeline's folder, to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def tensors(pipeline) -> dict[str, torch.Tensor]:
    parts = {"vae": pipeline.latents.autoencoder, "unet": pipeline.denoiser.unet, "text": pipeline.text.model}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def test_saved_and_loaded_is_the_same(pipeline, folder):
    before, after = tensors(pipeline), tensors(LatentDiffusion.from_pretrained(folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_text_keys_are_the_published_ones_and_both_load(copy):
    path = copy / "text_encoder" / "model.safetensors"
    published = load_file(path)
    assert all(key.startswith("text_model.") for key in published)
    plain = {key.removeprefix("text_model."): value for key, value in published.items()}
    expected = checkpoints.load_text(copy)(["a red apple"])
    save_file(plain, path, metadata={"format": "pt"})
    assert torch.equal(checkpoints.load_text(copy)(["a red apple"]), expected)


def test_half_precision_variant_and_shards_load(pipeline, copy):
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(unet)
    unet.unlink()
    keys = sorted(weights)
    shards = {"a": keys[::2], "b": keys[1::2]}
    for name, own in shards.items():
        save_file({key: weights[key] for key in own}, unet.with_name(f"{name}.safetensors"), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: f"{name}.safetensors" for name, own in shards.items() for key in own}}
    unet.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    vae = copy / "vae" / "diffusion_pytorch_model.safetensors"
    halves = {key: value.half() for key, value in load_file(vae).items()}
    vae.unlink()
    save_file(
        halves,
        vae.with_suffix(".fp16.safetensors").with_name("diffusion_pytorch_model.fp16.safetensors"),
        metadata={"format": "pt"},
    )
    loaded = LatentDiffusion.from_pretrained(copy)
    assert all(torch.equal(value, weights[key]) for key, value in loaded.denoiser.unet.state_dict().items())
    assert next(loaded.latents.autoencoder.parameters()).dtype == torch.float32
    assert (
        loaded.latents.autoencoder.quant_conv.weight - pipeline.latents.autoencoder.quant_conv.weight
    ).abs().max() < 1e-3


def test_diffusers_loads_the_folder(folder):
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert pipe.safety_checker is None and pipe.vae.config.scaling_factor == 0.18215


def test_saving_over_a_model_replaces_it_whole(pipeline, copy):
    (copy / "stray.txt").write_text("x")
    pipeline.save_pretrained(copy, torch.float16)
    assert not (copy / "stray.txt").exists()
    assert load_file(copy / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"].dtype == torch.float16
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_saving_over_anything_else_is_refused(pipeline, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="no model"):
        pipeline.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_scale_given_by_hand_is_kept(pipeline, tmp_path):
    from ldm.latents import LatentSpace

    space = LatentSpace(pipeline.latents.autoencoder, scale=0.44, shift=0.1)
    LatentDiffusion(space, pipeline.denoiser, pipeline.text, pipeline.scheduler).save_pretrained(tmp_path / "model")
    loaded = LatentDiffusion.from_pretrained(tmp_path / "model").latents
    assert (loaded.scale, loaded.shift) == (0.44, 0.1)


def test_a_failed_save_leaves_the_old_model_and_nothing_else(pipeline, copy, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    before = checkpoints.fingerprint(copy)
    with pytest.raises(OSError):
        pipeline.save_pretrained(copy)
    assert checkpoints.fingerprint(copy) == before and [path.name for path in copy.parent.iterdir()] == ["copy"]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_header(path):
    data = bytearray(path.read_bytes())
    data[10] ^= 0xFF
    path.write_bytes(bytes(data))


def drop_tensor(path):
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_header, drop_tensor, empty])
@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_damaged_weights_are_refused_by_name(copy, part, damage):
    damage(next((copy / part).glob("*.safetensors")))
    with pytest.raises(CheckpointError, match=part) as error:
        LatentDiffusion.from_pretrained(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_missing_files_are_refused_by_name(copy, part):
    for path in (copy / part).iterdir():
        path.unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match=part) as error:
        LatentDiffusion.from_pretrained(copy)
    assert "\n" not in str(error.value)


def test_a_config_that_contradicts_the_tensors_is_refused(copy):
    path = copy / "unet" / "config.json"
    path.write_text(path.read_text().replace("16", "24"))
    with pytest.raises(CheckpointError, match="unet"):
        LatentDiffusion.from_pretrained(copy)


def test_a_config_that_is_no_json_is_refused(copy):
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json"):
        LatentDiffusion.from_pretrained(copy)


def test_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="emoji"):
        checkpoints.resolve("nothing")
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoints.resolve(path)


def test_a_fingerprint_tells_weights_apart(copy):
    before = checkpoints.fingerprint(copy)
    assert before == checkpoints.fingerprint(copy)
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["quant_conv.bias"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    assert checkpoints.fingerprint(copy) != before


def test_a_local_folder_opens_no_socket(folder):
    code = f"import offline; offline.block(); import ldm; ldm.LatentDiffusion.from_pretrained({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="tests")


def test_a_hub_id_without_a_network_is_one_line(monkeypatch, tmp_path):
    code = (
        "import offline; offline.block()\nfrom ldm import checkpoints\n"
        "try: checkpoints.resolve('nobody/nothing')\n"
        "except FileNotFoundError as error: assert 'nobody/nothing' in str(error) and '\\n' not in str(error)\n"
        "else: raise SystemExit('it was found')"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=True, cwd="tests")
