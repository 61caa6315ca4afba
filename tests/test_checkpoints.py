"""Checkpoints: what is saved loads again here and in diffusers; what is damaged is one line that names it."""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm import checkpoints
from ldm.checkpoints import CheckpointError
from ldm.checkpoints.probe import Verdict, _skill, probe, probe_model
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.text import TextEncoder
from ldm.training.diffusion import PRESETS, text_model, unet
from ldm.training.tokenizer import train_tokenizer
from ldm.training.vae import autoencoder

TOKENIZER = train_tokenizer(["a red apple"], size=520, length=8)


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
    with pytest.raises(CheckpointError, match="copy cannot be written.*No space left"):
        pipeline.save_pretrained(copy)
    assert checkpoints.fingerprint(copy) == before and [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_disk_that_fills_up_leaves_the_old_model_and_nothing_else(copy, tmp_path):
    """A real limit, reached while the weights are written."""
    code = (
        "import resource, sys\nfrom ldm import checkpoints\n"
        "parts = checkpoints.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: checkpoints.save(sys.argv[1], parts.vae, parts.unet, parts.text, parts.scheduler)\n"
        "except checkpoints.CheckpointError as error: assert 'cannot be written' in str(error)\n"
        "else: raise SystemExit('it was written')"
    )
    before = checkpoints.fingerprint(copy)
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True)
    assert checkpoints.fingerprint(copy) == before and [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_pickled_weights_load(pipeline, copy):
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        path = next((copy / part).glob("*.safetensors"))
        torch.save(load_file(path), copy / part / f"{stem}.bin")
        path.unlink()
    before, after = tensors(pipeline), tensors(LatentDiffusion.from_pretrained(copy))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_early_names_of_the_attention_are_read(tmp_path):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8)
    vae.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for new, name in old.items():
        weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    assert any(".proj_attn." in key for key in weights)
    save_file(weights, path, metadata={"format": "pt"})
    expected = vae.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in checkpoints.load_vae(tmp_path).state_dict().items())


def test_loading_twice_gives_weights_that_do_not_touch_each_other_or_the_file(folder):
    one, two = checkpoints.load(folder), checkpoints.load(folder)
    before = checkpoints.fingerprint(folder)
    with torch.no_grad():
        for parameter in one.unet.parameters():
            parameter += 1
    assert not any(torch.equal(a, b) for a, b in zip(one.unet.parameters(), two.unet.parameters()))
    assert checkpoints.fingerprint(folder) == before and all(p.requires_grad for p in one.unet.parameters())


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


def add_tensor(path):
    save_file(load_file(path) | {"stranger.weight": torch.ones(1)}, path, metadata={"format": "pt"})


def flip_number(path):
    weights = load_file(path)
    weights[sorted(weights)[0]].view(torch.int32).flatten()[0] = 0x7F800000
    save_file(weights, path, metadata={"format": "pt"})


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_header, flip_number, drop_tensor, add_tensor, empty])
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
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"block_out_channels": [8, 24]}))
    with pytest.raises(CheckpointError, match=r"unet: .* has the shape \(.*16.*\), its config asks for \(.*24.*\)"):
        LatentDiffusion.from_pretrained(copy)


def test_a_missing_shard_is_named(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    names = {key: f"{'ab'[i % 2]}.safetensors" for i, key in enumerate(sorted(weights))}
    save_file({key: weights[key] for key in names if names[key] == "a.safetensors"}, copy / "unet" / "a.safetensors")
    path.unlink()
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(FileNotFoundError, match="unet lacks 1 of 2 shards, b.safetensors the first"):
        LatentDiffusion.from_pretrained(copy)
    elsewhere = {"a": "../vae/diffusion_pytorch_model.safetensors"}
    for names in (["a.safetensors"], {}, None, {"a": ["a.safetensors"]}, {"a": 5}, elsewhere, {"a": "/a.safetensors"}):
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(CheckpointError, match="weight_map"):
            LatentDiffusion.from_pretrained(copy)


def test_a_config_that_is_no_json_is_refused(copy):
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json"):
        LatentDiffusion.from_pretrained(copy)


def told(path, **changes):
    """A JSON file with other entries."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "part, changes, said",
    [
        ("unet", {"layers_per_block": 10**9}, "layers_per_block 1000000000 in its config: expected at most 1,000,000"),
        ("unet", {"layers_per_block": 3000}, "more than 5,000 tensors"),
        ("text_encoder", {"max_position_embeddings": 10**12}, "expected at most 1,000,000"),
        ("text_encoder", {"num_hidden_layers": 10**6}, "more than 5,000 tensors"),
        ("vae", {"block_out_channels": "wide"}, "vae"),
        ("unet", {"in_channels": [4]}, "tiny|copy"),
        ("unet", {"block_out_channels": 3}, "tiny|copy"),
        ("vae", {"scaling_factor": "0.2"}, "scaling_factor 0.2 in its config: expected finite numbers"),
        ("vae", {"scaling_factor": float("nan")}, "scaling_factor nan"),
        ("vae", {"latents_mean": [0.0, None]}, "latents_mean"),
        (
            "vae",
            {"latents_mean": [0.0] * 3},
            "latents_mean of 3 numbers in its config for 4 channels",
        ),
        ("vae", {"_class_name": True}, "vae cannot be read: True: expected one of AutoencoderKL"),
        ("scheduler", {"num_train_timesteps": 10**12}, "num_train_timesteps 1000000000000: expected 1 to 100,000"),
        ("scheduler", {"beta_start": "low"}, "scheduler_config.json|copy"),
        ("scheduler", {"beta_schedule": {}}, "beta_schedule"),
    ],
)
def test_a_config_is_believed_in_nothing_that_costs_time_or_memory(copy, part, changes, said):
    """Each took hours or gigabytes, or ended in a traceback."""
    told(copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **changes)
    with pytest.raises(ValueError, match=said) as error:
        LatentDiffusion.from_pretrained(copy)
    assert "\n" not in str(error.value)


def test_a_config_whose_sizes_fit_the_tensors_but_not_each_other_is_refused(copy):
    told(copy / "unet" / "config.json", center_input_sample="x", addition_embed_type="text")
    with pytest.raises(CheckpointError):
        LatentDiffusion.from_pretrained(copy)


def test_info_of_a_config_with_other_kinds_of_values_is_one_line(ldm, copy):
    told(copy / "vae" / "config.json", block_out_channels=7)
    status, out, err = ldm("info", copy, "--no-probe")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "copy" in err


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


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The tiny pipeline as nobody/nothing in a hub's cache of its own; the network is shut."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--nobody--nothing"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return shutil.copytree(folder, repository / "snapshots" / ("0" * 40))


def test_a_whole_copy_in_the_cache_is_not_asked_for_again(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it was asked for"))
    (hub / "tokenizer" / "merges.txt").unlink()
    (hub / "tokenizer" / "vocab.json").rename(hub / "tokenizer" / "tokenizer.json")  # either will do
    index = json.loads((hub / "model_index.json").read_text())
    (hub / "model_index.json").write_text(json.dumps(index | {"safety_checker": ["stable_diffusion", "Checker"]}))
    assert checkpoints.resolve("nobody/nothing") == hub
    for path in hub.iterdir():
        shutil.rmtree(path) if path.is_dir() and path.name != "vae" else None
    (hub / "model_index.json").unlink()
    shutil.copytree(hub / "vae", hub, dirs_exist_ok=True)  # an autoencoder alone
    assert checkpoints.resolve("nobody/nothing") == hub


LOST = ["vae", "unet/config.json", "text_encoder/model.safetensors", "tokenizer/merges.txt", "scheduler",
        "model_index.json", "vae/b.safetensors"]  # fmt: skip


@pytest.mark.parametrize("lost", LOST)
def test_an_interrupted_download_is_completed_or_refused(hub, folder, lost, monkeypatch):
    if lost == "vae/b.safetensors":
        (hub / "vae" / "diffusion_pytorch_model.safetensors").rename(hub / "vae" / "a.safetensors")
        index = {"weight_map": {"one": "a.safetensors", "two": "b.safetensors"}}
        (hub / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    else:
        shutil.rmtree(hub / lost) if (hub / lost).is_dir() else (hub / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"nobody/nothing: .* lacks {lost.split('/')[0]}.* fetched") as error:
        checkpoints.resolve("nobody/nothing")
    assert "\n" not in str(error.value)

    def fetch(repository, allow_patterns, ignore_patterns):
        return shutil.copytree(folder, hub, dirs_exist_ok=True)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert checkpoints.resolve("nobody/nothing") == hub and (hub / "vae" / "config.json").exists()
    assert checkpoints.load("nobody/nothing").text


# ---- what a network emits: asking it ----


def schedule():
    return Diffusion.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})


def smooth(batch=2, side=16) -> torch.Tensor:
    """Latents that are smooth, as pictures are, of unit variance."""
    coarse = torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    z = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (z - z.mean()) / z.std()


def filtered(z_t: torch.Tensor, a: float) -> torch.Tensor:
    """z_t -> the mean of z_0 given z_t, for Gaussian latents of smooth()'s spectrum: Wiener's filter."""
    power = torch.fft.fft2(smooth(256)).abs().square().mean(dim=(0, 1)) / 16**2
    return torch.fft.ifft2(torch.fft.fft2(z_t) * a * power / (a**2 * power + 1 - a**2)).real


def emitting(prediction_type, estimate):
    """A network that emits what `prediction_type` calls for, by its own estimate (z_t, a) -> z_0."""
    process = schedule()

    def output(z_t, t):
        z_0 = estimate(z_t, float(process.a[t]))
        eps = (z_t - float(process.a[t]) * z_0) / float(process.c[t])
        v = float(process.a[t]) * eps - float(process.c[t]) * z_0
        return {"epsilon": eps, "v_prediction": v, "sample": z_0}[prediction_type]

    return output


ESTIMATES = {
    "perfect": lambda z_t, a: smooth(),
    "filtering": filtered,
    "timid": lambda z_t, a: 0.8 * smooth(),
}


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_probe_tells_what_a_denoiser_emits(name, prediction_type):
    verdict = probe(emitting(prediction_type, ESTIMATES[name]), schedule(), smooth())
    assert verdict.prediction_type == prediction_type
    assert name != "perfect" or verdict.skill[prediction_type] == pytest.approx(1, abs=1e-5)


def test_the_skills_of_the_wrong_types_are_the_derived_ones():
    """A perfect epsilon network has the v skill 2a - 1, a perfect v network the epsilon skill 1 - 2(1 - a)/a^2."""
    process, z_0 = schedule(), smooth(64, 16)
    for t in (300, 500, 700):
        a = float(process.a[t])
        eps = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0))
        eps -= (
            (eps * z_0).sum() / z_0.square().sum() * z_0
        )  # as the algebra has them: of unit length and at right angles
        eps /= eps.square().mean().sqrt()
        z_t = process.noise(z_0, t, eps)
        v = a * eps - float(process.c[t]) * z_0
        assert _skill(eps, v, z_t) == pytest.approx(2 * a - 1, abs=2e-3)
        assert _skill(v, eps, z_t) == pytest.approx(1 - 2 * (1 - a) / a**2, abs=2e-2)


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0, -1.0, 3.0])
def test_what_hands_its_input_on_has_no_type(gain):
    verdict = probe(lambda z_t, t: gain * z_t, schedule(), smooth())
    assert verdict.prediction_type is None and max(verdict.skill.values()) < 0.05


def test_random_weights_raise_no_alarm(pipeline):
    vae, unet, text = pipeline.latents.autoencoder, pipeline.denoiser.unet, pipeline.text
    assert probe_model(vae, unet, text, pipeline.scheduler).prediction_type is None
    for seed in range(6):
        torch.manual_seed(seed)
        layer = torch.nn.Conv2d(4, 4, 3, padding=1)
        with torch.no_grad():
            assert probe(lambda z_t, t: layer(z_t), schedule(), smooth()).prediction_type is None  # noqa: B023


def test_the_embedded_model_emits_what_its_config_says_and_a_wrong_word_is_a_warning(tmp_path):
    parts = checkpoints.settled(checkpoints.load("emoji"))
    assert parts.decisions["outputs"].value == "v_prediction" == parts.scheduler["prediction_type"]
    folder = shutil.copytree(checkpoints.resolve("emoji"), tmp_path / "emoji")
    with pytest.warns(UserWarning, match="prediction type epsilon .as asked., but its outputs are those of v_pred"):
        parts = checkpoints.load(folder, "epsilon")
    assert parts.scheduler["prediction_type"] == "epsilon"  # the caller is believed
    with warnings.catch_warnings(action="error"):
        checkpoints.load(folder)


def test_a_guess_gives_way_to_what_the_network_shows(pipeline, folder, monkeypatch):
    from ldm.checkpoints import Decision

    parts = checkpoints.load(folder)
    guess = replace(parts, decisions={"prediction type": Decision("epsilon", "a guess", sure=False)})
    monkeypatch.setattr("ldm.checkpoints.probe.probe_model", lambda *parts: Verdict("v_prediction", {"epsilon": -6.0}))
    with warnings.catch_warnings(action="error"):
        settled = checkpoints.settled(guess)
    assert settled.scheduler["prediction_type"] == "v_prediction" == settled.decisions["prediction type"].value
    assert parts.scheduler["prediction_type"] == "epsilon"


@pytest.mark.parametrize("channels", [8, 9])
def test_the_probe_asks_networks_with_more_channels(channels):
    vae = autoencoder((16, 16, 16)).eval()
    network = unet(PRESETS["tiny"], side=8, channels=4)
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel.from_config({**network.config, "in_channels": channels}).eval()
    text = TextEncoder(text_model(PRESETS["tiny"], TOKENIZER).eval(), TOKENIZER)
    assert probe_model(vae, network, text, {}).prediction_type is None
