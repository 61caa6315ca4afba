"""Training: losses are their formulas, runs resume exactly, what comes out loads elsewhere."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import SCHEDULER

from ldm.data.emoji import EmojiScenes
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.training import checkpoint
from ldm.training.cache import CachedLatents, cached, encode_dataset
from ldm.training.diffusion import DiffusionObjective, train_diffusion
from ldm.training.loop import Order, Plan, keyed_generator, update_ema
from ldm.training.vae import VAEObjective, autoencoder, fold, latent_deviation, pixels_of, train_vae

TINY = Plan(steps=6, batch_size=4, warmup=2, save_every=2, log_every=2)


def scenes(count: int = 64) -> EmojiScenes:
    return EmojiScenes(16, seed=3, length=count)


@pytest.fixture(scope="module")
def latents() -> CachedLatents:
    torch.manual_seed(0)
    return encode_dataset(scenes(), LatentSpace(autoencoder((16, 16, 16)).eval()), 24, batch_size=8)


# ---- the plan ----


def test_learning_rate_rises_and_ends_at_zero():
    plan = Plan(steps=100, warmup=10, learning_rate=2.0)
    rates = [plan.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0, abs=1e-12)


def test_every_epoch_sees_every_sample_once_and_restarts_do_not_matter():
    plan = Plan(steps=10, batch_size=3, seed=5)
    whole = list(Order(10, plan, 0))
    assert list(Order(10, plan, 4)) == whole[4:]
    seen = [i for batch in whole for i in batch]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10)) and seen[:10] != seen[10:20]


def test_keyed_generators_depend_on_their_key_alone():
    draws = {
        key: torch.randn(1, generator=keyed_generator(*key)).item() for key in [(0, 1), (1, 0), (0, -1, 1), (0, 2)]
    }
    assert len(set(draws.values())) == 4
    assert draws[0, 1] == torch.randn(1, generator=keyed_generator(0, 1)).item()


def test_ema_is_its_formula():
    torch.manual_seed(0)
    average, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * average.weight + 0.1 * model.weight
    update_ema(average, model, 0.9)
    assert torch.allclose(average.weight, expected)


# ---- the autoencoder ----


def test_vae_loss_is_its_formula():
    torch.manual_seed(0)
    vae = autoencoder((16, 16, 16))
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    parts = VAEObjective(vae, kl_weight=0.1)(x, keyed_generator(1))
    posterior = vae.encode(x).latent_dist
    assert parts["kl"].item() == pytest.approx(posterior.kl().mean().item() / posterior.mean[0].numel(), rel=1e-5)
    eps = torch.randn(posterior.mean.shape, generator=keyed_generator(1))
    difference = vae.decode(posterior.mean + posterior.std * eps).sample - x
    assert parts["l1"].item() == pytest.approx(difference.abs().mean().item(), rel=1e-5)
    assert parts["mse"].item() == pytest.approx(difference.square().mean().item(), rel=1e-5)
    assert parts["loss"].item() == pytest.approx((parts["l1"] + parts["mse"] + 0.1 * parts["kl"]).item(), rel=1e-6)


def test_folding_scales_the_posterior_and_changes_no_picture():
    torch.manual_seed(0)
    vae = autoencoder((16, 16, 16)).double().eval()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        before, picture = vae.encode(x).latent_dist, vae.decode(vae.encode(x).latent_dist.mean).sample
        fold(vae, 2.5)
        after = vae.encode(x).latent_dist
        assert torch.allclose(after.mean, 2.5 * before.mean) and torch.allclose(after.std, 2.5 * before.std)
        assert torch.allclose(vae.decode(after.mean).sample, picture)


def test_a_trained_vae_has_unit_latents_at_the_published_scale(tmp_path):
    vae = train_vae(tmp_path, scenes(), TINY, preset="tiny", side=16)
    data = scenes()
    deviation = latent_deviation(vae, [pixels_of([data[i] for i in range(64)])])
    assert deviation * vae.config.scaling_factor == pytest.approx(1, abs=1e-3)
    assert vae.config.scaling_factor == LatentSpace(vae).scale
    loaded = LatentSpace.from_pretrained(str(tmp_path / "vae"))
    assert torch.equal(loaded.autoencoder.quant_conv.weight, vae.quant_conv.weight)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6] and {"l1", "mse", "kl", "psnr", "learning_rate"} <= rows[0].keys()
    assert (tmp_path / "reconstructions.png").exists()


def test_training_teaches(tmp_path):
    """More than the mean picture: an autoencoder beats the best constant after a short run."""
    plan = Plan(steps=150, batch_size=8, warmup=10, learning_rate=3e-3, ema=0.9, save_every=150, log_every=50)
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


class Perfect(torch.nn.Module):
    """A U-Net that knows the answer to its question."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, z_t, t, encoder_hidden_states):
        return type("Output", (), {"sample": self.answer(z_t, t)})


class NoText(torch.nn.Module):
    def forward(self, ids):
        return type("Output", (), {"last_hidden_state": ids[..., None].float()})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_zero_for_a_network_that_is_right(prediction):
    process = Diffusion(prediction_type=prediction)
    mean = torch.full((5, 4, 2, 2), 0.5)
    batch = (mean, torch.full_like(mean, -60.0), torch.ones(5, 3, dtype=torch.long))
    unet = Perfect(lambda z_t, t: process.target(mean, z_t, t + 1))
    loss = DiffusionObjective(unet, process, NoText(), torch.zeros(1, 3, dtype=torch.long))(batch, keyed_generator(0))[
        "loss"
    ]
    assert loss < 1e-9
    wrong = DiffusionObjective(Perfect(lambda z_t, t: 0 * z_t), process, NoText(), torch.zeros(1, 3, dtype=torch.long))
    assert wrong(batch, keyed_generator(0))["loss"] > 0.1


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_captions_are_dropped_as_often_as_asked(drop):
    seen = []

    class Listener(NoText):
        def forward(self, ids):
            seen.append(ids)
            return super().forward(ids)

    null, ids = torch.zeros(1, 3, dtype=torch.long), torch.ones(2000, 3, dtype=torch.long)
    objective = DiffusionObjective(Perfect(lambda z_t, t: z_t), Diffusion(), Listener(), null, drop)
    objective((torch.zeros(2000, 1, 1, 1), torch.zeros(2000, 1, 1, 1), ids), keyed_generator(0))
    share = (seen[0][:, 0] == 0).double().mean().item()
    assert abs(share - drop) <= 4 * math.sqrt(drop * (1 - drop) / 2000)


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


def final(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint.safetensors")


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
    whole, parts = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_other_settings_are_refused_by_name(latents, tmp_path):
    train_diffusion(tmp_path, latents, TINY, preset="tiny", scheduler=SCHEDULER)
    changed = Plan(steps=6, batch_size=8, warmup=2, save_every=2, log_every=2)
    with pytest.raises(ValueError, match="batch_size 4 -> 8"):
        train_diffusion(tmp_path, latents, changed, preset="tiny", scheduler=SCHEDULER)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is no training checkpoint"):
        checkpoint.load(path, {}, {})


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
