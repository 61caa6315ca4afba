"""A folder of a LoRA that names its base is a model: the base with the LoRA in its weights."""

import json

import pytest
import torch
from conftest import tiny_pipeline

from ldm import checkpoints
from ldm.checkpoints.adapters import base_of, name_base
from ldm.checkpoints.faults import CheckpointError
from ldm.pipeline import LatentDiffusion
from ldm.training import lora

TOLD = {"seed": 3, "num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture
def base(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def folder(base, tmp_path):
    """A LoRA of the base's U-Net and text encoder, as training writes it, that draws in its own way."""
    pytest.importorskip("peft")
    pipe = LatentDiffusion.from_pretrained(base)
    parts = {"unet": pipe.denoiser.unet, "text_encoder": pipe.text.model}
    torch.manual_seed(1)
    for part, model in parts.items():
        lora.adapt(model, part, 2)
        for _, layer in lora.adapters(model):
            torch.nn.init.normal_(layer.lora_B["default"].weight)
    lora.save(tmp_path / "lora" / lora.NAME, parts)
    scheduler = {**pipe.scheduler, "_class_name": "EulerDiscreteScheduler"}
    name_base(tmp_path / "lora", str(base), scheduler, {"num_inference_steps": 3})
    return tmp_path / "lora"


def test_it_draws_as_the_base_does_with_the_lora(base, folder):
    pipe, plain = LatentDiffusion.from_pretrained(folder), LatentDiffusion.from_pretrained(base)
    before = plain.text_to_image("a red apple", output="latent", **TOLD)
    plain.load_lora(folder)
    told = {**TOLD, "sampler": "euler"}
    expected = plain.text_to_image("a red apple", output="latent", **told)
    assert torch.equal(pipe.text_to_image("a red apple", output="latent", **told), expected)
    assert not torch.allclose(before, expected)


def test_defaults_and_scheduler_are_its_own(base, folder):
    pipe = LatentDiffusion.from_pretrained(folder)
    own = LatentDiffusion.from_pretrained(base).defaults
    assert pipe.defaults == {**own, "num_inference_steps": 3} and pipe.name == str(folder)
    assert pipe.scheduler["_class_name"] == "EulerDiscreteScheduler"


def test_every_way_to_read_a_model_reads_it(base, folder, tmp_path, ldm):
    vae, own = checkpoints.load_vae(folder), checkpoints.load_vae(base)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in vae.state_dict().items())
    checkpoints.convert(folder, tmp_path / "whole")
    merged, pipe = checkpoints.read(tmp_path / "whole"), checkpoints.read(folder)
    assert all(torch.equal(value, merged.tensors["unet"][name]) for name, value in pipe.tensors["unet"].items())
    status, out, _ = ldm("info", folder)
    assert status == 0 and "LoRA" in out and "num_inference_steps: 3" in out


def test_a_folder_that_is_no_model_is_none(base, folder):
    assert base_of(base) is None and base_of(folder / lora.NAME) is None
    (folder / "ldm.json").unlink()
    assert base_of(folder) is None


def test_what_it_names_is_looked_at(folder):
    for named, words in ((str(folder), "names the folder itself"), ("nowhere", "no model 'nowhere'")):
        (folder / "ldm.json").write_text(json.dumps({"model": named}))
        with pytest.raises((CheckpointError, FileNotFoundError), match=words):
            LatentDiffusion.from_pretrained(folder)
