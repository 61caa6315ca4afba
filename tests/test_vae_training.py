"""Training autoencoders: the objective is its formula, nobody learns what he should not, the scale fits at the end."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_losses import vgg_in_small
from torch.nn.parallel import DistributedDataParallel

from ldm.data.emoji import EmojiScenes
from ldm.data.items import Record
from ldm.latents import SCALE, LatentSpace
from ldm.training import losses, perceptual
from ldm.training.held_out import kept_apart
from ldm.training.perceptual import LPIPS
from ldm.training.plan import Plan
from ldm.training.randomness import keyed
from ldm.training.vae import (
    PRESETS,
    Recipe,
    VAEObjective,
    autoencoder,
    fold,
    latent_deviation,
    pixels_of,
    rescale,
    roundtrip_figures,
    train_vae,
)

TINY = Plan(steps=4, batch_size=4, warmup=2, save_every=4, log_every=2, tensorboard=False)
ADVERSARIAL = Recipe(kl=1e-3, adversarial=0.5, discriminator="tiny")


def scenes(count: int = 64) -> EmojiScenes:
    return EmojiScenes(16, seed=3, length=count)


def tiny(seed: int = 0):
    """A tiny autoencoder in float64 whose posterior is neither narrow nor N(0, I)."""
    torch.manual_seed(seed)
    return autoencoder((16, 16, 16)).double()


def pictures(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=keyed(seed), dtype=torch.float64) * 2 - 1


def generators(count: int = 4) -> list[torch.Generator]:
    return [keyed(1, 0, i) for i in range(count)]


def objective_of(recipe: Recipe, sees: LPIPS | None = None) -> VAEObjective:
    torch.manual_seed(0)
    return VAEObjective(tiny(), recipe, sees).double()


def gradients(objective: VAEObjective, x: torch.Tensor) -> dict[str, torch.Tensor]:
    objective.zero_grad(set_to_none=True)
    objective(x, generators(len(x)))["loss"].backward()
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


# ---- the objective ----


def test_the_loss_is_its_formula():
    objective, x = objective_of(Recipe(l1=0.7, mse=1.3, kl=0.1)), pictures()
    parts = objective(x, generators())
    posterior = objective.vae.encode(x).latent_dist
    eps = torch.stack([torch.randn(posterior.mean.shape[1:], generator=g) for g in generators()]).double()
    difference = objective.vae.decode(posterior.mean + posterior.std * eps).sample - x
    each = difference.square().flatten(1).mean(1)
    expected = {
        "l1": difference.abs().mean(),
        "mse": difference.square().mean(),
        "kl": posterior.kl().mean() / posterior.mean[0].numel(),
        "psnr": (10 * torch.log10(4 / each)).mean(),
        "noise": posterior.std.mean(),
    }
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-9), name
    total = 0.7 * expected["l1"] + 1.3 * expected["mse"] + 0.1 * expected["kl"]
    assert parts["loss"].item() == pytest.approx(total.item(), rel=1e-12)
    assert parts.keys() == {"loss", *expected}


def test_the_kl_weight_multiplies_kl():
    x = pictures()
    one, two = (objective_of(Recipe(kl=weight))(x, generators()) for weight in (0.5, 2.0))
    assert one["kl"] == two["kl"] > 0
    assert (two["loss"] - one["loss"]).item() == pytest.approx(1.5 * one["kl"].item(), rel=1e-9)


def test_a_larger_kl_weight_leaves_more_noise_in_the_latents():
    """From a narrow posterior, by its last layer alone, so that a few steps tell."""
    shares = []
    for weight in (0.0, 1.0):
        objective, x = objective_of(Recipe(kl=weight)), pictures()
        objective.vae.quant_conv.bias.data[4:] -= 4
        optimizer = torch.optim.Adam(objective.vae.quant_conv.parameters(), 0.1)
        for _ in range(25):
            optimizer.zero_grad()
            objective(x, generators())["loss"].backward()
            optimizer.step()
        mean, logvar = objective.posterior(x)
        shares.append((logvar.exp().mean() / (mean.var() + logvar.exp().mean())).item())
    assert shares[1] > 3 * shares[0]


def test_only_the_loss_carries_a_gradient():
    parts = objective_of(replace(ADVERSARIAL, equivariance=0.1))(pictures(), generators())
    assert [name for name, part in parts.items() if part.requires_grad] == ["loss"]


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(equivariance=0.5), replace(ADVERSARIAL, adaptive=False)])
def test_a_samples_share_depends_on_no_other_sample(recipe):
    """The mean over a batch is the mean of what each picture gives by itself, posterior noise and all."""
    objective, x = objective_of(recipe), pictures()
    together = objective(x, generators())
    alone = [objective(x[i : i + 1], generators()[i : i + 1]) for i in range(len(x))]
    for name, value in together.items():
        mean = torch.stack([parts[name] for parts in alone]).mean()
        assert value.item() == pytest.approx(mean.item(), rel=1e-9), name


def test_the_perceptual_term_is_weighed_and_cannot_be_left_out_silently():
    backbone, linear = vgg_in_small()
    sees, x = LPIPS(backbone | linear), pictures()
    without = objective_of(Recipe())(x, generators())
    parts = objective_of(Recipe(perceptual=0.3), sees)(x, generators())
    assert (parts["loss"] - without["loss"]).item() == pytest.approx(0.3 * parts["perceptual"].item(), rel=1e-9)
    with pytest.raises(ValueError, match="0.3 needs LPIPS"):
        VAEObjective(tiny(), Recipe(perceptual=0.3))


# ---- the discriminator ----


def test_before_its_start_the_discriminator_is_absent():
    x, late = pictures(), objective_of(replace(ADVERSARIAL, start=10))
    late.step = 9
    plain = objective_of(Recipe(kl=1e-3))
    assert {name: value.item() for name, value in late(x, generators()).items()} == {
        name: value.item() for name, value in plain(x, generators()).items()
    }
    found, expected = gradients(late, x), gradients(plain, x)
    assert all(torch.equal(found.pop(name), gradient) for name, gradient in expected.items())
    assert all(name.startswith("discriminator.") and not gradient.any() for name, gradient in found.items())
    late.step = 10
    assert {"adversarial", "discriminator", "adaptive_weight"} < late(x, generators()).keys()
    assert gradients(late, x)["discriminator.layers.0.weight"].any()


def test_before_its_start_the_discriminator_stays_as_it_is():
    objective = objective_of(replace(ADVERSARIAL, start=10))
    before = {name: value.clone() for name, value in objective.discriminator.state_dict().items()}
    optimizer = torch.optim.AdamW(objective.groups(), 0.1, weight_decay=0.1)
    for _ in range(3):
        objective(pictures(), generators())["loss"].backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in objective.discriminator.state_dict().items())


def test_the_adversarial_parts_are_their_formulas():
    objective, x = objective_of(ADVERSARIAL), pictures()
    parts, plain = objective(x, generators()), objective_of(Recipe(kl=1e-3))(x, generators())
    mean, logvar = objective.posterior(x)
    eps = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators()]).double()
    y = objective.decode(mean + (logvar / 2).exp() * eps)
    real, fake = objective.discriminator(x), objective.discriminator(y)
    last = objective.vae.decoder.conv_out.weight
    reconstruction = (y - x).abs().mean() + (y - x).square().mean()
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, fake.mean())]
    weight = norms[0] / (norms[1] + 1e-6)
    hinge = 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())
    assert parts["adversarial"].item() == pytest.approx(-fake.mean().item(), rel=1e-9)
    assert parts["adaptive_weight"].item() == pytest.approx(weight.item(), rel=1e-9)
    assert parts["discriminator"].item() == pytest.approx(hinge.item(), rel=1e-9)
    added = 0.5 * weight * -fake.mean() + hinge
    assert (parts["loss"] - plain["loss"]).item() == pytest.approx(added.item(), rel=1e-9)


def test_neither_learns_from_the_others_loss():
    """The autoencoder's gradient has nothing of the discriminator's own loss, nor the other way round."""
    objective, x = objective_of(replace(ADVERSARIAL, adaptive=False)), pictures()
    found = gradients(objective, x)
    mean, logvar = objective.posterior(x)
    eps = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators()]).double()
    y = objective.decode(mean + (logvar / 2).exp() * eps)
    kl = losses.kl(mean, logvar).mean()
    fooling = -objective.discriminator(y).mean()
    hinge = losses.hinge(objective.discriminator(x), objective.discriminator(y.detach())).mean()
    total = (y - x).abs().mean() + (y - x).square().mean() + 1e-3 * kl + 0.5 * fooling
    for module, loss in (("vae", total), ("discriminator", hinge)):
        names, own = zip(*getattr(objective, module).named_parameters())
        for name, expected in zip(names, torch.autograd.grad(loss, own, retain_graph=True)):
            torch.testing.assert_close(found[f"{module}.{name}"], expected, rtol=1e-7, atol=1e-12)


def test_without_gradients_there_is_nothing_to_weigh():
    with torch.no_grad():
        assert objective_of(ADVERSARIAL)(pictures(), generators())["adaptive_weight"] == 1


def test_the_discriminator_has_its_own_rate():
    groups = objective_of(replace(ADVERSARIAL, discriminator_rate=0.25)).groups()
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 0.25]
    objective = objective_of(ADVERSARIAL)
    grouped = [p for group in objective.groups() for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in objective.parameters()}


def in_a_process(rank: int, folder: str) -> None:
    """Three of four pictures in one process, the fourth in the other, each loss weighed as the loop does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    own = slice(0, 3) if rank == 0 else slice(3, 4)
    objective = objective_of(ADVERSARIAL)
    model = DistributedDataParallel(objective)
    parts = model(pictures()[own], generators()[own])
    (parts["loss"] * len(pictures()[own]) / 4 * 2).backward()
    found = {name: p.grad for name, p in objective.named_parameters()}
    torch.save((parts["adaptive_weight"], found), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_several_processes_have_one_adaptive_weight_and_the_gradient_of_the_whole_batch(tmp_path):
    torch.multiprocessing.start_processes(in_a_process, (str(tmp_path),), nprocs=2, start_method="spawn")
    objective = objective_of(ADVERSARIAL)
    weight = objective(pictures(), generators())["adaptive_weight"]
    expected = gradients(objective, pictures())
    for rank in range(2):
        own_weight, found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(own_weight, weight, rtol=1e-9, atol=0)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-12)


# ---- the scale ----


def test_folding_scales_the_posterior_and_changes_no_picture():
    vae, x = tiny().eval(), pictures(2)
    with torch.no_grad():
        before, picture = vae.encode(x).latent_dist, vae.decode(vae.encode(x).latent_dist.mean).sample
        fold(vae, 2.5)
        after = vae.encode(x).latent_dist
        assert torch.allclose(after.mean, 2.5 * before.mean) and torch.allclose(after.std, 2.5 * before.std)
        assert torch.allclose(vae.decode(after.mean).sample, picture)


@pytest.mark.parametrize("scale", ["fold", "measured"])
def test_rescaled_latents_have_unit_variance_and_pictures_stay(scale):
    vae, x = tiny().eval(), pictures(8)
    vae.register_to_config(scaling_factor=0.13, shift_factor=0.5)
    picture = vae(x).sample
    rescale(vae, scale, [x])
    space = LatentSpace(vae)
    samples = torch.stack([space.from_pixels(x, torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert samples.std().item() == pytest.approx(1, abs=0.02)  # of 25,600 numbers
    assert (space.scale == SCALE) == (scale == "fold") and space.shift == 0
    torch.testing.assert_close(vae(x).sample, picture)


@pytest.mark.parametrize("scale", ["fold", "measured"])
def test_a_trained_vae_has_unit_latents_at_its_configs_scale(tmp_path, scale):
    vae = train_vae(tmp_path, scenes(70), TINY, "tiny", 16, scale=scale, held_out=scenes(5))
    data = scenes(70)
    deviation = latent_deviation(vae, [pixels_of([data[i] for i in range(70)])])
    assert deviation * vae.config.scaling_factor == pytest.approx(1, abs=1e-6)
    loaded = LatentSpace.from_pretrained(str(tmp_path / "vae"))
    assert loaded.scale == vae.config.scaling_factor and (loaded.scale == SCALE) == (scale == "fold")
    assert torch.equal(loaded.autoencoder.quant_conv.weight, vae.quant_conv.weight)
    figures = json.loads((tmp_path / "roundtrip.json").read_text())
    assert figures["count"] == 5 and figures["scale"] == loaded.scale
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"l1", "mse", "kl", "psnr", "noise", "learning_rate"} <= rows[0].keys()
    assert Image.open(tmp_path / "reconstructions.png").height > 2 * 16


def test_the_figures_are_those_of_the_round_trip_of_each_picture():
    torch.manual_seed(0)
    vae, data = autoencoder((16, 16, 16)).eval(), scenes(5)
    found = roundtrip_figures(vae, [pixels_of([data[i] for i in part]) for part in (range(3), range(3, 5))])
    checks = [LatentSpace(vae).roundtrip(data[i][0]) for i in range(5)]
    assert found["psnr"] == pytest.approx(np.mean([check.psnr for check in checks]), rel=1e-4)
    assert found["ssim"] == pytest.approx(np.mean([check.ssim for check in checks]), rel=1e-3)
    assert found["count"] == 5


# ---- a pretrained autoencoder ----


def test_decoder_only_leaves_the_encoder_and_the_scale_as_they_are(tmp_path):
    torch.manual_seed(4)
    before = autoencoder((16, 16, 16))
    before.register_to_config(scaling_factor=0.7)
    before.save_pretrained(tmp_path / "first")
    recipe = replace(ADVERSARIAL, decoder_only=True)
    vae = train_vae(tmp_path / "second", scenes(), TINY, "tiny", 16, recipe, init=tmp_path / "first")
    moved = []
    for name, value in LatentSpace.from_pretrained(str(tmp_path / "second" / "vae")).autoencoder.state_dict().items():
        if not torch.equal(value, before.state_dict()[name]):
            moved.append(name)
        assert torch.equal(value, vae.state_dict()[name])
    assert moved and all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    assert vae.config.scaling_factor == 0.7


def test_one_that_is_grown_reduces_by_twice_the_factor(tmp_path):
    autoencoder((16, 16)).save_pretrained(tmp_path / "first")
    vae = train_vae(tmp_path / "second", scenes(), TINY, side=16, init=tmp_path / "first", grow=True)
    assert LatentSpace(vae).factor == 4 and vae.config.sample_size == 16


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match="giant"):
        train_vae(tmp_path, scenes(), TINY, preset="giant")
    with pytest.raises(ValueError, match="scale 'unit'"):
        train_vae(tmp_path, scenes(), TINY, "tiny", 16, scale="unit")
    with pytest.raises(ValueError, match="expected init"):
        train_vae(tmp_path, scenes(), TINY, "tiny", 16, Recipe(decoder_only=True))
    with pytest.raises(ValueError, match="expected keep or measured"):
        train_vae(tmp_path, scenes(), TINY, "tiny", 16, Recipe(decoder_only=True), init=tmp_path, scale="fold")
    for told in ({}, {"init": tmp_path, "recipe": Recipe(decoder_only=True)}):
        with pytest.raises(ValueError, match="grow: expected init"):
            train_vae(tmp_path, scenes(), TINY, "tiny", 16, grow=True, **told)
    with pytest.raises(ValueError, match="side 18: expected a multiple of 4"):
        train_vae(tmp_path, scenes(), TINY, "tiny", 18)
    with pytest.raises(ValueError, match="side 8.*from 16 on"):
        train_vae(tmp_path, scenes(), TINY, "tiny", 8, Recipe(adversarial=1.0))
    with pytest.raises(ValueError, match=r"kl -1: expected 0 or more"):
        Recipe(kl=-1)
    with pytest.raises(ValueError, match="'huge'"):
        Recipe(discriminator="huge")


def test_the_model_for_128_pixels_is_of_its_size():
    vae = autoencoder(**PRESETS["base"])
    assert LatentSpace(vae).factor == 8 and vae.config.latent_channels == 4
    assert 2 * sum(p.numel() for p in vae.parameters()) < 10 * 10**6


# ---- teaching, held-out pictures, the command ----


class Numbers:
    """A source of records that are named by their numbers."""

    classes: list[str] = []

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), Image.new("RGB", (4, 4)))

    def identity(self) -> dict:
        return {"kind": "numbers"}


@pytest.mark.parametrize(("total", "count"), [(10, 3), (7, 1), (8, 4), (1000, 64)])
def test_held_out_pictures_are_in_no_training_and_spread_over_the_data(total, count):
    learnt, kept = kept_apart(Numbers(total), count)
    names = [[int(part[i].name) for i in range(len(part))] for part in (learnt, kept)]
    assert sorted(names[0] + names[1]) == list(range(total)) and len(kept) == count
    assert np.diff(names[1]).max(initial=0) <= math.ceil(total / count)
    assert learnt.identity() != kept.identity()


def test_too_many_held_out_pictures_are_refused():
    with pytest.raises(ValueError, match="expected 1 to 5, of 10"):
        kept_apart(Numbers(10), 6)


SHORT = ["--preset", "tiny", "--side", "16", "--steps", "2", "--batch-size", "2", "--save-every", "2"]


def test_the_command_trains_on_a_folder(tmp_path, ldm):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    arguments = [
        "--data",
        str(tmp_path / "photos"),
        "--crop",
        "random",
        "--flip",
        "--held-out",
        "3",
        "--scale",
        "measured",
    ]
    arguments += ["--adversarial-weight", "0.5", "--discriminator", "tiny", "--equivariance-weight", "0.1"]
    code, out, err = ldm("train", "vae", "--out", str(tmp_path / "run"), *SHORT, *arguments)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "run" / "vae"), err
    figures = json.loads((tmp_path / "run" / "roundtrip.json").read_text())
    assert figures["count"] == 3 and f"{figures['psnr']:.2f} dB" in err
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["recipe"]["perceptual"] == 0 and settings["recipe"]["equivariance"] == 0.1
    assert settings["data"]["count"] == 9
    assert LatentSpace.from_pretrained(str(tmp_path / "run" / "vae")).scale == figures["scale"] != SCALE


def test_the_command_says_that_there_is_no_perceptual_loss_and_refuses_one_that_is_not_at_hand(
    tmp_path, ldm, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    code, _, err = ldm("train", "vae", "--out", str(tmp_path / "run"), *SHORT, "--held-out", "2")
    assert code == 0 and "LPIPS is not at hand" in err
    code, _, err = ldm("train", "vae", "--out", str(tmp_path / "b"), *SHORT, "--perceptual-weight", "1")
    assert code == 2 and "vgg16-397923af.pth" in err and len(err.splitlines()) == 1
    assert not Path(tmp_path / "b").exists()
    code, _, err = ldm("train", "vae", "--out", str(tmp_path / "b"), *SHORT, "--kl-weight", "-1")
    assert code == 2 and "kl -1.0: expected 0 or more" in err
