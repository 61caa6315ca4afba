"""Training: losses are their formulas, runs resume exactly, what comes out loads elsewhere."""

import json

import numpy as np
import pytest
import runs
import torch
from conftest import SCHEDULER

from ldm.data.emoji import EmojiScenes
from ldm.latents import LatentSpace
from ldm.training.cache import CachedLatents, cached, encode_dataset
from ldm.training.diffusion import train_diffusion
from ldm.training.plan import Plan
from ldm.training.vae import autoencoder, latent_deviation, pixels_of, train_vae

TINY = Plan(steps=6, batch_size=4, warmup=2, save_every=2, log_every=2)


def scenes(count: int = 64) -> EmojiScenes:
    return EmojiScenes(16, seed=3, length=count)


@pytest.fixture(scope="module")
def latents() -> CachedLatents:
    torch.manual_seed(0)
    return encode_dataset(scenes(), LatentSpace(autoencoder((16, 16, 16)).eval()), 24, batch_size=8)


# ---- the autoencoder ----


def test_a_trained_vae_has_unit_latents_at_the_published_scale(tmp_path):
    vae = train_vae(tmp_path, scenes(), TINY, preset="tiny", side=16)
    data = scenes()
    deviation = latent_deviation(vae, [pixels_of([data[i] for i in range(64)])])
    assert deviation * vae.config.scaling_factor == pytest.approx(1, abs=1e-3)
    assert vae.config.scaling_factor == LatentSpace(vae).scale
    loaded = LatentSpace.from_pretrained(str(tmp_path / "vae"))
    assert torch.equal(loaded.autoencoder.quant_conv.weight, vae.quant_conv.weight)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6] and {"l1", "mse", "kl", "psnr", "learning_rate"} <= rows[0].keys()
    assert (tmp_path / "reconstructions.png").exists()


def test_training_teaches(tmp_path):
    """More than the mean picture: an autoencoder beats the best constant after a short run."""
    plan = Plan(steps=250, batch_size=8, warmup=10, learning_rate=3e-3, ema=0.9, save_every=250, log_every=50)
    data = EmojiScenes(16, seed=1, split="single", length=256)
    vae = train_vae(tmp_path, data, plan, preset="tiny", side=16)
    x = pixels_of([data[i] for i in range(64)])
    with torch.no_grad():
        error = (vae(x).sample - x).square().mean()
    assert error < 0.7 * (x - x.mean(dim=0)).square().mean()


def test_an_unknown_preset_is_named(tmp_path):
    with pytest.raises(ValueError, match="giant"):
        train_vae(tmp_path, scenes(), TINY, preset="giant")


# ---- the denoiser ----


def test_cached_latents_come_back(latents, tmp_path):
    latents.save(tmp_path / "latents.safetensors")
    loaded = CachedLatents.load(tmp_path / "latents.safetensors")
    assert torch.equal(loaded.mean, latents.mean) and loaded.captions == latents.captions and len(loaded) == 24
    data = scenes()
    assert latents.captions == [data[i][1] for i in range(24)]


def test_a_cache_of_something_else_is_refused(latents, tmp_path):
    path = tmp_path / "latents.safetensors"
    first = cached(path, {"vae": "a"}, lambda: latents)
    assert torch.equal(cached(path, {"vae": "a"}, lambda: pytest.fail("made again")).mean, first.mean)
    with pytest.raises(ValueError, match="made of"):
        cached(path, {"vae": "b"}, lambda: latents)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="latents.safetensors"):
        cached(path, {"vae": "a"}, lambda: latents)


def test_a_new_model_draws_and_diffusers_reads_it(latents, tmp_path):
    unet, text = train_diffusion(tmp_path, latents, TINY, preset="tiny", scheduler=SCHEDULER)
    with torch.no_grad():
        output = unet(torch.zeros(1, 4, 4, 4), 10, encoder_hidden_states=text("a red apple")).sample
    assert output.shape == (1, 4, 4, 4) and torch.isfinite(output).all()


# ---- resuming ----


def test_a_killed_run_goes_on_bit_by_bit(latents, tmp_path):
    train_diffusion(tmp_path / "whole", latents, TINY, preset="tiny", scheduler=SCHEDULER)

    class Killed(Exception):
        pass

    def kill(unet, text, step):
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        train_diffusion(tmp_path / "parts", latents, TINY, preset="tiny", scheduler=SCHEDULER, preview=kill)
    train_diffusion(tmp_path / "parts", latents, TINY, preset="tiny", scheduler=SCHEDULER)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    whole, parts = (runs.final(tmp_path / name, TINY.steps) for name in ("whole", "parts"))
    assert runs.differences(whole, parts) == []


def test_other_settings_are_refused_by_name(latents, tmp_path):
    train_diffusion(tmp_path, latents, TINY, preset="tiny", scheduler=SCHEDULER)
    changed = Plan(steps=6, batch_size=8, warmup=2, save_every=2, log_every=2)
    with pytest.raises(ValueError, match="batch_size 4 -> 8"):
        train_diffusion(tmp_path, latents, changed, preset="tiny", scheduler=SCHEDULER)


def test_a_loss_that_is_not_finite_stops_the_run(latents, tmp_path):
    broken = CachedLatents(latents.mean * np.nan, latents.logvar, latents.captions)
    with pytest.raises(FloatingPointError):
        train_diffusion(tmp_path, broken, TINY, preset="tiny", scheduler=SCHEDULER)


def test_a_model_goes_on_from_another(latents, tmp_path, pipeline):
    pipeline.save_pretrained(tmp_path / "first", torch.float16)
    still = Plan(steps=1, batch_size=4, learning_rate=0.0, save_every=1)
    unet, text = train_diffusion(tmp_path / "second", latents, still, scheduler=SCHEDULER, init=tmp_path / "first")
    assert text.tokenizer.vocabulary == pipeline.text.tokenizer.vocabulary
    for new, old in ((unet, pipeline.denoiser.unet), (text.model, pipeline.text.model)):
        for key, value in old.state_dict().items():
            assert torch.equal(new.state_dict()[key], value.half().float() if value.is_floating_point() else value), key
    other = Plan(steps=2, batch_size=4, save_every=1)
    with pytest.raises(ValueError, match="steps 1 -> 2"):
        train_diffusion(tmp_path / "second", latents, other, scheduler=SCHEDULER, init=tmp_path / "first")
