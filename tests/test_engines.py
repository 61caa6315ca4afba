"""Engines: the same picture whichever draws, what is kept survives damage, and nothing needs torch that need not."""

import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ldm.engines import kept
from ldm.engines.noise import gaussian
from ldm.pipeline import LatentDiffusion

pytest.importorskip("openvino")
PROMPTS = ["a red apple on a blue background", "three green pears"]


@pytest.fixture(scope="module")
def own(folder, tmp_path_factory):
    """A copy of the tiny model whose networks are its own, with DDIM as its sampler and a scheduler that says so."""
    path = tmp_path_factory.mktemp("own") / "tiny"
    shutil.copytree(folder, path)
    return path


@pytest.fixture(scope="module")
def swift(own):
    from ldm.engines.swift import SwiftDiffusion

    return SwiftDiffusion(own, partial(LatentDiffusion.from_pretrained, own))


@pytest.fixture(scope="module")
def whole(own):
    return LatentDiffusion.from_pretrained(own)


class Whole:
    """In place of the whole pipeline: says that it was asked."""

    def text_to_image(self, *prompt, **settings):
        raise LookupError


def levels(a, b):
    return max(np.abs(np.asarray(x).astype(int) - np.asarray(y)).max() for x, y in zip(a, b, strict=True))


# ---- noise ----


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 4, 4), (3, 5, 7), (1, 1, 17)])
def test_noise_is_that_of_torch(seed, shape):
    expected = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_allclose(gaussian([seed], shape)[0], expected, atol=5e-7)


def test_few_numbers_which_torch_draws_in_another_way_are_refused():
    with pytest.raises(ValueError, match="expected 16 or more"):
        gaussian([0], (3, 5, 1))


# ---- what is kept ----


def test_what_is_kept_comes_back_and_what_is_damaged_does_not(tmp_path, caplog):
    path = tmp_path / "new" / "file"
    assert kept.kept(path) is None and not kept.whole(path)
    kept.keep(path, b"something")
    assert kept.kept(path) == b"something" and kept.whole(path)
    for content in (b"somethinG", b"some", b"something more", b""):
        path.write_bytes(content)
        assert kept.kept(path) is None and not kept.whole(path)
    assert "damaged" in caplog.text
    (tmp_path / "new" / "file.crc32").unlink()
    assert kept.kept(path) is None


def test_what_cannot_be_kept_is_no_error(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"in the way")
    kept.keep(tmp_path / "file" / "below", b"something")
    assert "not kept" in caplog.text and (tmp_path / "file").read_bytes() == b"in the way"


# ---- the same pictures ----


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"negative_prompt": "green", "guidance_scale": 3.0, "num_inference_steps": 7},
        {"guidance_scale": 1.0, "num_inference_steps": 5, "num_images_per_prompt": 2, "seed": 5},
        {"guidance_interval": (0.2, 0.7), "num_inference_steps": 6, "seed": [9, 2**40]},
        {"height": 48, "width": 24, "num_inference_steps": 4, "sampler": "ddim"},
        {"num_inference_steps": 1, "prompt_weights": False},
    ],
)
def test_without_torch_the_pictures_are_the_same(swift, whole, asked, monkeypatch):
    expected = whole.text_to_image(PROMPTS, **asked)
    monkeypatch.setattr(swift, "whole", Whole)
    found = swift.text_to_image(PROMPTS, **asked)
    assert levels(found, expected) <= 1
    for a, b in zip(found, expected, strict=True):
        assert a.info["ldm"] == b.info["ldm"] and a.info["parameters"] == b.info["parameters"]


@pytest.mark.parametrize(
    "asked",
    [
        {"sampler": "euler"},
        {"clip_skip": 1},
        {"guidance_rescale": 0.5},
        {"output": "latent"},
        {"prompt": "a (red:1.3) apple"},
        {"prompt": "apple " * 40},
        {"height": 30},
        {"guidance_scale": float("nan")},
        {"guidance_interval": (0.7, 0.2)},
    ],
)
def test_what_it_cannot_draw_the_whole_pipeline_is_asked_for(swift, asked, monkeypatch):
    monkeypatch.setattr(swift, "whole", Whole)
    with pytest.raises(LookupError):
        swift.text_to_image(**{"prompt": "an apple", "num_inference_steps": 2} | asked)


@pytest.mark.parametrize("asked", [{"num_inference_steps": 0}, {"seed": -1}, {"seed": [1, 2]}, {"prompt": []}])
def test_what_is_out_of_range_is_an_error_in_every_engine(swift, asked):
    with pytest.raises(ValueError):
        swift.text_to_image(**{"prompt": "an apple"} | asked)


def test_a_callback_is_told_of_every_step(swift):
    told = []
    swift.text_to_image(PROMPTS, num_inference_steps=3, callback=lambda step, total, t, z_0: told.append((step, total)))
    assert told == [(step, 6) for step in range(1, 7)]


def test_a_network_in_a_u_nets_place_is_prepared_again_where_it_was_damaged_meanwhile(own, whole):
    fast = LatentDiffusion.from_pretrained(own, engine="openvino")
    path = fast.denoiser.unet.network.path
    for file in (path, path.with_suffix(".bin"), *path.parent.glob(f"{path.stem}-*.blob")):
        file.write_bytes(file.read_bytes()[:-10])
    asked = {"num_inference_steps": 2, "height": 96}
    assert levels(fast.text_to_image(PROMPTS, **asked), whole.text_to_image(PROMPTS, **asked)) <= 1


def test_a_network_in_a_u_nets_place_draws_by_every_sampler(own, whole):
    fast = LatentDiffusion.from_pretrained(own, engine="openvino")
    for sampler in ("ddim", "heun", "dpm++2m_karras", "euler_a"):
        asked = {"sampler": sampler, "num_inference_steps": 4, "guidance_scale": 2.0, "seed": 3}
        assert levels(fast.text_to_image(PROMPTS, **asked), whole.text_to_image(PROMPTS, **asked)) <= 1
    with pytest.raises(ValueError, match="torch or tuned or openvino"):
        LatentDiffusion.from_pretrained(own, engine="tensorrt")


# ---- eight bits ----


@pytest.fixture(scope="module")
def eight(own):
    pytest.importorskip("nncf")
    return LatentDiffusion.from_pretrained(own, engine="openvino-int8")


def test_eight_bits_are_near_and_not_the_same(eight, swift, own):
    from ldm.engines.quantizing import PROMPTS as CALIBRATION
    from ldm.engines.quantizing import STEPS, trajectories

    calls = trajectories(swift.unet, LatentDiffusion.from_pretrained(own))
    assert len(calls) == len(CALIBRATION) * STEPS and len({float(t[0]) for _, t, _ in calls}) == STEPS
    exact = np.stack([swift.unet(*call) for call in calls[::7]])
    found = np.stack([eight.denoiser.unet.network(*call) for call in calls[::7]])
    assert (
        0 < np.linalg.norm(found - exact) < 0.2 * np.linalg.norm(exact)
    )  # a loud random network; the shipped one 0.03


def test_eight_bits_are_made_once_and_again_where_they_are_damaged(eight, own, ldm, tmp_path, caplog):
    asked = ["generate", PROMPTS[0], "-m", own, "--engine", "openvino-int8", "--steps", 2, "-o", tmp_path / "a.png"]
    path = eight.denoiser.unet.network.path
    for once in (True, False):
        status, _, err = ldm(*asked)
        assert status == 0, err
        assert ("measuring" in caplog.text) != once
        for blob in path.parent.glob("*.blob"):
            blob.unlink()
        damage(path.with_suffix(".bin"), "cut")
    from ldm.metadata import read

    assert read(tmp_path / "a.png")["ldm"]["engine"] == "openvino-int8"


# ---- damage ----


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else b"\0"
    path.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b"", "no text": b"\xfd\xff"}[how])


@pytest.mark.parametrize(  # a sample: `fuzzing` draws more of it
    "file, how",
    [("*.blob", "cut"), ("*.blob", "flip"), ("*.blob", "empty"), ("*.bin", "flip"), ("*.xml", "cut"),
     ("model.json", "empty"), ("*.crc32", "flip"), ("*.crc32", "no text")],
)  # fmt: skip
def test_damage_to_what_is_kept_changes_no_picture(swift, own, file, how):
    from ldm.engines.swift import SwiftDiffusion

    def drawn():
        fresh = SwiftDiffusion(own, partial(LatentDiffusion.from_pretrained, own))
        return fresh.text_to_image(PROMPTS[0], num_inference_steps=2)

    expected = drawn()
    paths = list(swift.unet.path.parent.glob(file))
    if file in ("*.bin", "*.xml"):  # which are read only where nothing is compiled
        for path in swift.unet.path.parent.glob("*.blob"):
            path.unlink()
    assert paths
    for path in paths:
        damage(path, how)
    assert levels(drawn(), expected) <= 1


def test_other_weights_have_networks_of_their_own(own, swift, tmp_path):
    from ldm.engines.preparing import folder_of

    other = tmp_path / "other"
    shutil.copytree(own, other)
    assert folder_of(other) == folder_of(own) == swift.unet.path.parent
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    damage(weights, "flip")
    assert folder_of(other) != folder_of(own)


# ---- commands ----


def test_the_command_draws_by_either_engine(ldm, own, whole, tmp_path):
    asked = ["generate", PROMPTS[0], "-m", own, "--steps", 3, "-o"]
    for engine in ("torch", "openvino"):
        status, out, err = ldm(*asked, tmp_path / f"{engine}.png", "--engine", engine)
        assert status == 0, err
    from PIL import Image

    assert levels(*([Image.open(tmp_path / f"{engine}.png")] for engine in ("torch", "openvino"))) <= 1
    status, _, err = ldm(*asked, tmp_path / "no.png", "--engine", "cuda")
    assert status == 2 and "auto, torch, tuned, openvino" in err
    status, _, err = ldm(*asked, tmp_path / "no.png", "--engine", "openvino", "--lora", "some.safetensors")
    assert status == 2 and "--engine openvino draws" in err and not (tmp_path / "no.png").exists()


def test_guidance_in_a_part_of_all_times_by_the_command(ldm, own, tmp_path):
    from ldm.metadata import read

    asked = ["generate", PROMPTS[0], "-m", own, "--engine", "openvino", "--steps", 3, "-o", tmp_path / "a.png"]
    status, _, err = ldm(*asked, "--interval", "0.2-0.8")
    assert status == 0 and read(tmp_path / "a.png")["ldm"]["guidance_interval"] == [0.2, 0.8], err
    for wrong in ("0.8-0.2", "half", "0-2", "0.1"):
        status, _, err = ldm(*asked, "--interval", wrong)
        assert status == 2 and "expected two shares" in err


def test_where_nothing_can_be_kept_torch_draws(ldm, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LDM_CACHE", str(tmp_path / "file" / "cache"))
    asked = ["generate", "a red apple", "--steps", 1, "--device", "cpu", "-o", tmp_path / "a.png"]
    status, _, err = ldm(*asked)
    assert status == 0 and (tmp_path / "a.png").exists(), err
    status, _, err = ldm(*asked, "--engine", "openvino")
    assert status == 2 and "cannot be made" in err


COLD = """
import socket, sys
def refuse(*a, **k): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
sys.argv = ["ldm", *sys.argv[1:]]
from ldm.cli import main
try:
    main()
except SystemExit as stop:
    loaded = [name for name in ("torch", "diffusers", "transformers", "openvino_telemetry") if sys.modules.get(name)]
    assert stop.code == 0 and not loaded, (stop.code, loaded)
"""


def test_a_cold_command_loads_no_torch_and_asks_no_network(swift, own, tmp_path):
    """A telemetry of OpenVINO's would be asked as the process ends."""
    asked = ["generate", PROMPTS[0], "-m", own, "--engine", "openvino", "--steps", 2, "-o", tmp_path / "a.png"]
    found = subprocess.run([sys.executable, "-c", COLD, *map(str, asked)], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(tmp_path / "a.png") and not found.stderr


def test_a_model_that_takes_more_than_words_is_refused(ldm, tmp_path):
    from conftest import tiny_pipeline

    tiny_pipeline(in_channels=9).save_pretrained(tmp_path / "model")
    asked = ["generate", "an apple", "-m", tmp_path / "model", "--engine", "openvino", "-o", tmp_path / "a.png"]
    status, _, err = ldm(*asked)
    assert status == 2 and "takes words, and nothing else" in err.replace("take ", "takes ")
