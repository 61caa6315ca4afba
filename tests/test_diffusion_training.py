"""Diffusion training: losses, weightings and conditions are their formulas; what is frozen stays; LoRAs load."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, tiny_pipeline
from PIL import Image
from torch import nn

from ldm.data.emoji import EmojiScenes
from ldm.denoising import Denoiser
from ldm.draws import gaussian, uniform
from ldm.images import to_images, to_pixels
from ldm.latents import LatentSpace
from ldm.lora import Fused
from ldm.noising import Diffusion, cosine, zero_terminal_snr
from ldm.pipeline import LatentDiffusion
from ldm.text import TextEncoder
from ldm.training import lora
from ldm.training.cache import CachedLatents
from ldm.training.conditions import Batch, Conditions, Doors, collate, mask_beside, picture_beside
from ldm.training.diffusion import (
    PRESETS,
    SCHEDULER,
    DiffusionObjective,
    Recipe,
    doors_of,
    new_model,
    prepare,
    reading,
    recommended,
    scheduler_config,
    text_model,
    train_diffusion,
    trained_model,
    unet,
)
from ldm.training.encoding import encode, fingerprint
from ldm.training.plan import Plan
from ldm.training.presets import widened
from ldm.training.randomness import keyed
from ldm.training.samples import samples
from ldm.training.tokenizer import train_tokenizer
from ldm.training.vae import autoencoder
from ldm.training.weighting import WEIGHTINGS, weighting

TARGETS = ["epsilon", "v_prediction", "sample"]
TINY = PRESETS["tiny"]


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [keyed(seed, 0, i) for i in range(count)]


class Answers(nn.Module):
    """A U-Net that answers what a function says, and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x, t, **told):
        self.asked.append((x, t, told))
        return self.answer(x, t)


def latents(count: int, channels: int = 2, side: int = 4, seed: int = 9, logvar: float = -60.0) -> Batch:
    mean = torch.randn(count, channels, side, side, generator=keyed(seed))
    return Batch(mean, torch.full_like(mean, logvar))


def loss_of(objective: nn.Module, batch: Batch, seed: int = 0) -> float:
    return objective(batch, generators(len(batch.mean), seed))["loss"].item()


# ---- weightings ----


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("rescaled", [False, True])
def test_min_snr_is_its_formula_from_the_final_betas(prediction, rescaled):
    """min(SNR, gamma) times the squared error of z_0, found by making an error of the output and looking at z_0."""
    betas = Diffusion().betas
    if rescaled and prediction != "epsilon":
        betas = zero_terminal_snr(betas)
    process, gamma = Diffusion(betas, prediction), 5.0
    found = weighting("min_snr", process, gamma).weight
    abar = np.cumprod(1 - betas)
    for t in [1, 2, 300, 700, 999, *([1000] if not rescaled or prediction == "epsilon" else [])]:
        z = np.random.default_rng(t).normal(size=(1, 3))
        wrong = process.recover(z, t, np.full((1, 3), 1.0)) - process.recover(z, t, np.full((1, 3), 0.0))
        snr = abar[t - 1] / (1 - abar[t - 1])
        expected = min(snr, gamma) * (wrong**2).mean()
        assert found[t - 1] == pytest.approx(expected, rel=1e-6), t


def test_min_snr_at_zero_terminal_snr_is_finite():
    betas = zero_terminal_snr(Diffusion().betas)
    for prediction in ("v_prediction", "sample"):
        weight = weighting("min_snr", Diffusion(betas, prediction), 5.0).weight
        assert np.isfinite(weight).all() and weight[-1] == pytest.approx(0, abs=1e-12)
        assert weighting("min_snr", Diffusion(prediction_type=prediction)).weight[-1] > 1e-3


@pytest.mark.parametrize("rescaled", [False, True])
def test_the_cosine_weighting_shows_noise_levels_as_often_as_the_cosine_schedule(rescaled):
    """The share of times with an SNR above any level is that of the schedule cos(pi t / 2 T), up to its ends."""
    betas = zero_terminal_snr(Diffusion().betas) if rescaled else Diffusion().betas
    process = Diffusion(betas, "v_prediction")
    density = weighting("cosine", process).density
    snr = process.snr(np.arange(1, 1001))
    assert density.sum() == pytest.approx(1) and (density > 0).all()
    whole = 1 if rescaled else 2 / math.pi * math.atan(1 / math.sqrt(snr[-1]))
    for level in (30.0, 1.0, 0.1):
        last = int((snr >= level).sum())
        share = 2 / math.pi * math.atan(1 / math.sqrt(snr[last - 1])) / whole
        assert density[:last].sum() == pytest.approx(share, abs=1e-9)


def test_the_cosine_weighting_of_the_cosine_schedule_is_uniform():
    """As a squared cosine with zero SNR at its end; with the published offset, from where that has faded."""
    abar = np.cos(np.arange(101) / 100 * np.pi / 2) ** 2
    density = weighting("cosine", Diffusion(1 - abar[1:] / abar[:-1], "sample")).density
    assert np.allclose(density, 0.01, rtol=1e-9)
    assert np.abs(weighting("cosine", Diffusion(cosine())).density[100:-1] * 1000 - 1).max() < 0.01


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_times_follow_the_density(name):
    weights = weighting(name, Diffusion(cosine(8)[:8], "v_prediction"))
    drawn = weights.times(generators(4000))
    assert drawn.min() == 1 and drawn.max() == 8
    shares = np.bincount(drawn.numpy(), minlength=9)[1:] / 4000
    assert np.abs(shares - weights.density).max() < 4 * math.sqrt(0.25 / 4000)


def test_unknown_weightings_and_senseless_recipes_are_named():
    with pytest.raises(ValueError, match="'snr'"):
        weighting("snr", Diffusion())
    with pytest.raises(ValueError, match="gamma 0"):
        weighting("min_snr", Diffusion(), 0)
    with pytest.raises(ValueError, match=r"drop 1\.5"):
        Recipe(drop=1.5)
    with pytest.raises(ValueError, match="zero terminal SNR"):
        scheduler_config("epsilon", zero_snr=True)
    with pytest.raises(ValueError, match="'eps'"):
        scheduler_config("eps")


# ---- the loss ----


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("prediction", TARGETS)
def test_the_loss_is_its_formula(name, prediction):
    """Everything again by hand, in numpy: draws, z_t, target, weights."""
    process = Diffusion(prediction_type=prediction)
    network = Answers(lambda x, t: 0.3 * x)
    objective = DiffusionObjective(network, process, Conditions(), Recipe(weighting=name, gamma=2.0, offset_noise=0.1))
    batch = latents(5, logvar=-1.0)
    found = objective(batch, generators(5))
    draws = generators(5)
    posterior, eps = gaussian(draws, (2, 4, 4)), gaussian(draws, (2, 4, 4))
    places = uniform(draws).double().numpy()
    uniform(draws), uniform(draws)
    eps = eps + 0.1 * gaussian(draws, (2, 1, 1))
    abar, table = np.cumprod(1 - process.betas), weighting(name, process, 2.0)
    losses, plain = [], []
    for i in range(5):
        z_0 = (batch.mean[i] + math.exp(-0.5) * posterior[i]).double().numpy()
        noise = eps[i].double().numpy()
        t = int((np.cumsum(table.density) <= places[i]).sum()) + 1
        a, c = math.sqrt(abar[t - 1]), math.sqrt(1 - abar[t - 1])
        z_t = a * z_0 + c * noise
        target = {"epsilon": noise, "v_prediction": a * noise - c * z_0, "sample": z_0}[prediction]
        plain.append(((0.3 * z_t - target) ** 2).mean())
        losses.append(plain[-1] * table.weight[t - 1])
        assert network.asked[0][1][i] == t - 1
    assert found["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["mse"].item() == pytest.approx(np.mean(plain), rel=1e-4) and not found["mse"].requires_grad


@pytest.mark.parametrize("prediction", TARGETS)
def test_the_loss_is_zero_for_a_network_that_is_right(prediction):
    process, batch = Diffusion(prediction_type=prediction), latents(6)
    right = Answers(lambda z_t, t: process.target(batch.mean, z_t, t + 1))
    assert loss_of(DiffusionObjective(right, process, Conditions()), batch) < 1e-7
    assert loss_of(DiffusionObjective(Answers(lambda z_t, t: 0 * z_t), process, Conditions()), batch) > 0.1


def test_offset_noise_moves_each_channel_as_a_whole():
    process, batch = Diffusion(prediction_type="v_prediction"), latents(8)
    seen = []
    for strength in (0.0, 0.5):
        network = Answers(lambda x, t: x)
        objective = DiffusionObjective(network, process, Conditions(), Recipe(offset_noise=strength))
        objective(batch, generators(8))
        seen.append(network.asked[0])
    (plain, t, _), (moved, same, _) = seen
    assert torch.equal(t, same)
    moves = (moved - plain) / torch.as_tensor(process.c[t + 1], dtype=torch.float32).reshape(-1, 1, 1, 1)
    assert torch.allclose(moves, moves[..., :1, :1].expand_as(moves), atol=1e-5)
    draws = generators(8)
    for shape in ((2, 4, 4), (2, 4, 4)):
        gaussian(draws, shape)
    for _ in range(3):
        uniform(draws)
    assert torch.allclose(moves[..., 0, 0], 0.5 * gaussian(draws, (2,)), atol=1e-5)


def test_a_samples_loss_does_not_depend_on_its_company():
    torch.manual_seed(0)
    doors = Doors(text=False, classes=3, beside=2)
    network = unet(TINY, 4, 2, doors).eval()
    objective = DiffusionObjective(network, Diffusion(), Conditions(null_label=3), Recipe(drop=0.5, drop_beside=0.5))
    whole = latents(4)._replace(labels=torch.tensor([0, 1, 2, 0]), beside=torch.randn(4, 2, 4, 4))
    alone = []
    for i in range(4):
        one = Batch(*(None if part is None else part[i : i + 1] for part in whole))
        alone.append(objective(one, generators(4)[i : i + 1])["loss"].item())
    assert len(set(alone)) == 4
    assert loss_of(objective, whole) == pytest.approx(np.mean(alone), rel=1e-5)


# ---- conditions ----


class Reads(nn.Module):
    """A text encoder whose state is the id itself."""

    def forward(self, ids):
        return type("Output", (), {"last_hidden_state": ids[..., None].float()})


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_dropped_rows_have_exactly_the_null_and_the_others_exactly_their_own(drop):
    count, null = 600, torch.tensor([[7, 8, 9]])
    network = Answers(lambda x, t: x[:, :2])
    conditions = Conditions(Reads(), null, null_label=5)
    objective = DiffusionObjective(network, Diffusion(), conditions, Recipe(drop=drop, drop_beside=0.5))
    batch = latents(count)._replace(
        ids=torch.arange(3 * count).reshape(count, 3) + 10,
        labels=torch.arange(count) % 5,
        beside=torch.ones(count, 1, 4, 4),
    )
    objective(batch, generators(count))
    x, _, told = network.asked[0]
    words, labels, beside = told["encoder_hidden_states"][..., 0], told["class_labels"], x[:, 2:]
    without = labels == 5
    assert torch.equal(words[without], null.float().expand(int(without.sum()), 3))
    assert torch.equal(words[~without], batch.ids[~without].float())
    assert torch.equal(labels[~without], batch.labels[~without])
    assert abs(without.double().mean() - drop) <= 4 * math.sqrt(drop * (1 - drop) / count)
    blank = beside.flatten(1).sum(1) == 0
    assert torch.equal(beside[~blank], batch.beside[~blank]) and 0.4 < blank.double().mean() < 0.6
    assert drop in (0, 1) or (blank != without).any()


def test_text_states_that_were_read_before_are_dropped_for_the_null_too():
    conditions = Conditions(Reads(), torch.tensor([[7, 8]]))
    batch = latents(2)._replace(states=torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]], dtype=torch.float16))
    cond = conditions(batch, torch.tensor([True, False]), torch.tensor([False, False]))
    assert cond.text.squeeze(-1).tolist() == [[7, 8], [3, 4]]
    assert conditions.null().text.squeeze(-1).tolist() == [[7, 8]] and conditions.null().label is None


def test_collate_lets_in_what_the_doors_let_in():
    tokenizer = train_tokenizer(CAPTIONS, size=600, length=16)
    mean, logvar = torch.zeros(2, 4, 4), torch.ones(2, 4, 4)
    items = [(mean, logvar, caption, {"label": i, "beside": mean + i}) for i, caption in enumerate(CAPTIONS[:2])]
    batch = collate(Doors(), tokenizer, items)
    assert batch.ids.tolist() == tokenizer(CAPTIONS[:2]) and batch.labels is None and batch.beside is None
    batch = collate(Doors(text=False, classes=2, beside=2), None, items)
    assert batch.ids is None and batch.labels.tolist() == [0, 1] and batch.beside[1].mean() == 1
    assert collate(Doors(text=False, classes=4), None, [(mean, logvar, 3)]).labels.tolist() == [3]
    assert collate(Doors(text=False), None, [(mean, logvar, "words")])[2:] == (None,) * 6
    ends = collate(Doors(text=False), None, [(mean, logvar, "", {"far": mean + 2, "error_map": mean[:1]})] * 2)
    assert ends.far.mean() == 2 and ends.far.shape == (2, *mean.shape) and ends.error_map.shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match="label 4"):
        collate(Doors(text=False, classes=4), None, [(mean, logvar, 4)])
    with pytest.raises(ValueError, match="'beside'"):
        collate(Doors(text=False, beside=2), None, [(mean, logvar, "")])


@pytest.mark.parametrize("kind", ["picture", "mask"])
def test_what_stands_beside_is_what_the_pipeline_shows(kind, monkeypatch):
    """Training shows an editing and an inpainting model the channels that drawing will show it."""
    pipe = tiny_pipeline(in_channels={"picture": 8, "mask": 9}[kind])
    network, seen = pipe.denoiser.unet, []
    plain = network.forward
    monkeypatch.setattr(network, "forward", lambda x, *rest, **told: (seen.append(x), plain(x, *rest, **told))[1])
    told = {"num_inference_steps": 1, "guidance_scale": 1.0}
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 8:24, :16] = 1
    picture = to_images(torch.rand(1, 3, 32, 32, generator=keyed(3)) * 2 - 1)[0]
    x = to_pixels(picture)
    if kind == "picture":
        pipe.instruct("a cat", picture, image_guidance_scale=1.0, **told)
        expected = picture_beside(pipe.latents, x)
    else:
        pipe.inpaint("a cat", picture, Image.fromarray((hole[0, 0].numpy() * 255).astype("uint8")), **told)
        expected = mask_beside(pipe.latents, x, hole)
    assert torch.allclose(seen[0][:, 4:], expected, atol=1e-5)


def taught(objective: nn.Module, batch: Batch, steps: int = 50) -> float:
    """A short training on one batch -> the loss afterwards, over other times and noises."""
    optimizer = torch.optim.AdamW(objective.parameters(), 5e-3)
    for step in range(steps):
        objective(batch, generators(len(batch.mean), step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return float(np.mean([loss_of(objective, batch, 1000 + seed) for seed in range(4)]))


def test_a_class_and_a_picture_beside_teach_what_cannot_be_guessed():
    """Pictures are one of four levels at random: at high noise only the condition says which."""
    torch.manual_seed(0)
    process = Diffusion(cosine(10), "sample")
    labels = torch.arange(16) % 4
    mean = (labels.float() - 1.5).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    batch = Batch(mean, torch.full_like(mean, -60.0))
    told = {
        Doors(text=False): batch,
        Doors(text=False, classes=4): batch._replace(labels=labels),
        Doors(text=False, beside=1): batch._replace(beside=mean),
    }
    losses = {}
    for doors, given in told.items():
        torch.manual_seed(1)
        network = unet(TINY, 4, 1, doors)
        losses[doors] = taught(DiffusionObjective(network, process, Conditions(null_label=doors.null_label)), given)
    alone, by_class, by_picture = losses.values()
    assert by_class < 0.7 * alone and by_picture < 0.7 * alone, losses


def test_pixels_are_latents_of_the_identity():
    space, x = LatentSpace.identity(), torch.rand(2, 3, 8, 8) * 2 - 1
    mean, logvar = space.posterior(x)
    network = unet(TINY, 8, space.channels, Doors(text=False))
    loss = DiffusionObjective(network, Diffusion(), Conditions())(Batch(mean, logvar), generators(2))["loss"]
    assert torch.equal(mean, x) and loss.isfinite()
    assert torch.equal(picture_beside(space, x), x)


# ---- which weights change ----


def worded(layers: int = 1) -> tuple[nn.Module, TextEncoder]:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, size=600, length=16)
    return unet(TINY, 4, 2), TextEncoder(text_model(replace(TINY, text_layers=layers), tokenizer), tokenizer)


def steps_of(network: nn.Module, text: TextEncoder, recipe: Recipe, steps: int = 3) -> DiffusionObjective:
    prepare(network, text, recipe)
    null = torch.tensor(text.tokenizer(""))
    objective = DiffusionObjective(network, Diffusion(), Conditions(text.model, null), recipe)
    batch = latents(3)._replace(ids=torch.tensor(text.tokenizer(CAPTIONS[:3])))
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 1e-2)
    for step in range(steps):
        objective(batch, generators(3, step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return objective


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_frozen_text_encoder_stays_to_the_bit_and_a_trained_one_does_not():
    for trained in (False, True):
        network, text = worded()
        before = state(text.model), state(network)
        objective = steps_of(network, text, Recipe(train_text=trained))
        assert objective.averaged == (["unet", "conditions"] if trained else ["unet"])
        after = state(text.model), state(network)
        same = [all(torch.equal(old[name], new[name]) for name in old) for old, new in zip(before, after)]
        assert same == [not trained, False]


@pytest.mark.parametrize("trained", [False, True])
def test_adapters_learn_and_the_weights_beside_them_stay_to_the_bit(trained):
    pytest.importorskip("peft")
    network, text = worded()
    plain = state(network) | state(text.model)
    steps_of(network, text, Recipe(lora=2, train_text=trained))
    now = {name.replace(".base_layer", ""): tensor for name, tensor in (state(network) | state(text.model)).items()}
    assert all(torch.equal(now[name], tensor) for name, tensor in plain.items())
    assert now.keys() - plain.keys() == {name for name in now if ".lora_" in name}
    assert sum(p.requires_grad for p in network.parameters()) == 2 * len(list(lora.adapters(network))) > 0
    assert bool(list(lora.adapters(text.model))) == trained
    assert all(layer.lora_B["default"].weight.abs().max() > 0 for _, layer in lora.adapters(network))


@torch.no_grad()
def answers(network: nn.Module, text: TextEncoder) -> torch.Tensor:
    z, t = torch.randn(2, 2, 4, 4, generator=keyed(1)), torch.tensor([3, 800])
    return Denoiser(network, Diffusion()).output(z, t, text(CAPTIONS[:2]))


def test_a_lora_of_ours_gives_the_same_here_in_diffusers_and_merged(tmp_path):
    pytest.importorskip("peft")
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    network, text = worded(layers=2)
    steps_of(network, text, Recipe(lora=2))
    network.eval(), text.model.eval()
    expected, path = answers(network, text), tmp_path / "lora" / lora.NAME
    lora.save(path, {"unet": network, "text_encoder": text.model})

    ours = worded(layers=2)
    unchanged = answers(*(part.eval() if isinstance(part, nn.Module) else part for part in ours))
    assert not torch.allclose(unchanged, expected, atol=1e-3)
    Fused(ours[0], ours[1].model).load(path)
    assert torch.allclose(answers(*ours), expected, atol=1e-5)

    other, other_text = worded(layers=2)
    theirs = StableDiffusionPipeline(
        vae=autoencoder((16, 16, 16)), text_encoder=other_text.model.eval(), tokenizer=None, unet=other.eval(),
        scheduler=DDIMScheduler.from_config(SCHEDULER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    theirs.load_lora_weights(tmp_path / "lora")
    assert torch.allclose(answers(theirs.unet, TextEncoder(theirs.text_encoder, text.tokenizer)), expected, atol=1e-5)

    lora.merge(network)
    lora.merge(text.model)
    assert torch.allclose(answers(network, text), expected, atol=1e-5)
    assert network.state_dict().keys() == worded()[0].state_dict().keys()


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="rank 0"):
        lora.adapt(nn.Linear(2, 2), "unet", 0)


# ---- models ----


def test_a_widened_network_begins_as_it_was():
    network, text = worded()
    network.eval()
    z, t, cond = torch.randn(2, 2, 4, 4), torch.tensor([3, 800]), text(CAPTIONS[:2])
    with torch.no_grad():
        before = network(z, t, cond).sample
        after = widened(network, 3)(torch.cat([z, torch.randn(2, 3, 4, 4)], 1), t, cond).sample
    assert torch.allclose(before, after, atol=1e-6) and doors_of(network.config, True) == Doors(beside=3)
    assert type(network).from_config(network.config).conv_in.weight.shape == network.conv_in.weight.shape


def test_a_model_to_go_on_from_keeps_its_doors_or_is_widened(folder):
    network, text = trained_model(folder)
    assert doors_of(network.config, text is not None) == Doors() and network.training
    widened, _ = trained_model(folder, Doors(beside=5))
    assert doors_of(widened.config, True) == Doors(beside=5)
    with pytest.raises(ValueError, match="is told words; expected a model that is told words and 3 classes"):
        trained_model(folder, Doors(classes=3))


def test_recommended_defaults_say_what_drawing_needs():
    plain = recommended(Doors(), Recipe(), SCHEDULER)
    assert plain == {"num_inference_steps": 20, "guidance_scale": 5.0}
    classes = recommended(Doors(text=False, classes=10), Recipe(offset_noise=0.1), scheduler_config(zero_snr=True))
    assert classes["null_label"] == 10 and classes["offset_noise"] == 0.1 and classes["guidance_rescale"] == 0.7
    assert recommended(Doors(text=False), Recipe(), SCHEDULER)["guidance_scale"] == 1.0
    assert recommended(Doors(), Recipe(drop=0), SCHEDULER)["guidance_scale"] == 1.0
    assert recommended(Doors(beside=4), Recipe(), SCHEDULER)["image_guidance_scale"] == 1.0
    assert recommended(Doors(beside=4), Recipe(drop_beside=0.1), SCHEDULER)["image_guidance_scale"] == 1.5


def test_zero_terminal_snr_is_drawn_from_its_end():
    config = scheduler_config(zero_snr=True)
    process = Diffusion.from_config(config)
    assert process.a[-1] == pytest.approx(0, abs=1e-12) and config["timestep_spacing"] == "trailing"


# ---- the whole ----


class Cache(CachedLatents):
    """Latents with a class, a picture beside and the caption's states."""

    def __init__(self, count: int = 8, reader: str | None = None):
        mean = torch.randn(count, 4, 4, 4, generator=keyed(2)).half()
        super().__init__(mean, torch.full_like(mean, -8.0), (CAPTIONS * count)[:count], {"text": reader})
        self.classes = ["one", "two", "three"]

    def __getitem__(self, i):
        extras = {"label": i % 3, "beside": self.mean[i], "states": torch.full((16, 16), float(i)).half()}
        return (*super().__getitem__(i), extras)


SHORT = Plan(steps=4, batch_size=4, warmup=1, save_every=2, log_every=1, tensorboard=False)


@pytest.mark.parametrize(
    "doors", [Doors(), Doors(text=False), Doors(text=False, classes=3), Doors(classes=3, beside=4)], ids=str
)
def test_every_door_trains_and_draws(doors, tmp_path):
    seen = []

    def preview(network, text, step):
        given = SCHEDULER, {"num_inference_steps": 2, "guidance_scale": 2.0}
        seen.append(samples(space, network, text, [data[0], data[1]], *given))

    data, space = Cache(), LatentSpace(autoencoder((16, 16)).eval())
    network, text = train_diffusion(tmp_path, data, SHORT, "tiny", preview=preview, doors=doors)
    assert doors_of(network.config, text is not None) == doors and (text is not None) == doors.text
    assert [len(pictures) for pictures in seen] == [2, 2] and seen[0][0].size == (8, 8)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(lora=2), Recipe(lora=2, train_text=False)], ids=str)
def test_a_killed_run_goes_on_bit_by_bit(recipe, folder, tmp_path):
    if recipe.lora:
        pytest.importorskip("peft")

    def kill(network, text, step):
        raise InterruptedError

    def go(name, preview=None):
        return train_diffusion(tmp_path / name, Cache(), SHORT, init=folder, recipe=recipe, preview=preview)

    whole = go("whole")
    with pytest.raises(InterruptedError):
        go("parts", kill)
    parts = go("parts")
    for one, other in zip((whole[0], whole[1].model), (parts[0], parts[1].model)):
        one, other = state(one), state(other)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole" / "lora" / lora.NAME).exists() == bool(recipe.lora)


def test_a_run_with_another_recipe_is_refused_by_name(folder, tmp_path):
    train_diffusion(tmp_path, Cache(), SHORT, "tiny")
    with pytest.raises(ValueError, match="gamma"):
        train_diffusion(tmp_path, Cache(), SHORT, "tiny", recipe=Recipe(gamma=4.0))
    with pytest.raises(ValueError, match="lora 2: expected init"):
        train_diffusion(tmp_path, Cache(), SHORT, "tiny", recipe=Recipe(lora=2))


def test_states_are_taken_from_a_cache_only_where_this_frozen_encoder_made_them():
    _, text = worded()
    own = fingerprint(text.model, {"vocabulary": text.tokenizer.vocabulary})
    assert reading(Cache(reader=own), text, learns=False) is None
    assert reading(Cache(reader=own), text, learns=True) is text.tokenizer
    assert reading(Cache(reader="another"), text, learns=False) is text.tokenizer
    assert reading(Cache(), None, learns=False) is None
    items = [Cache(reader=own)[i] for i in range(2)]
    assert collate(Doors(), None, items).states[1].unique().tolist() == [1]


def test_long_captions_of_other_data_are_not_cut():
    data = Cache()
    data.captions = ["a very " + "long and winding " * 8 + "caption"] * 8
    _, text = new_model(TINY, data)
    assert 24 < text.tokenizer.length <= 77 and text.tokenizer(data.captions[:1])[0][-1] == text.tokenizer.end


# ---- the command line ----


TOLD = ["--steps", 2, "--batch-size", 2, "--save-every", 2, "--preset", "tiny", "--no-tensorboard"]


def test_a_model_of_classes_from_the_command_line(folder, tmp_path, ldm):
    digits = pytest.importorskip("sklearn") and ["--data", "digits", "--samples", 12, "--side", 16]
    told = ["--vae", folder, "--condition", "class", "--zero-snr", "--weighting", "cosine", *digits, *TOLD]
    status, out, err = ldm("train", "diffusion", "-o", tmp_path / "run", *told)
    assert (status, out.strip()) == (0, str(tmp_path / "run" / "model")), err
    pipe = LatentDiffusion.from_pretrained(tmp_path / "run" / "model")
    assert pipe.defaults["null_label"] == 10 and pipe.process.a[-1] == pytest.approx(0, abs=1e-9)
    assert len(pipe.class_to_image([0, 9], num_inference_steps=2, guidance_scale=2.0)) == 2
    assert (tmp_path / "run" / "samples-2.png").exists()


@pytest.mark.parametrize("source", ["digits", "emoji"])
def test_a_model_shown_low_resolution_from_the_command_line(folder, tmp_path, ldm, source):
    pytest.importorskip("sklearn")
    told = ["--vae", folder, "--condition", "none", "--beside", "quarter", "--data", source, "--samples", 12]
    status, _, err = ldm("train", "diffusion", "-o", tmp_path / "run", "--side", 16, *told, *TOLD)
    assert status == 0, err
    pipe = LatentDiffusion.from_pretrained(tmp_path / "run" / "model")
    assert pipe.text is None and pipe.channels_beside == pipe.latents.channels
    small = Image.new("RGB", (4, 4), "red")
    assert pipe.instruct("", small, height=16, width=16, num_inference_steps=2)[0].size == (16, 16)


def test_a_lora_from_the_command_line(folder, tmp_path, ldm):
    pytest.importorskip("peft")
    told = ["--init", folder, "--lora", 2, "--freeze-text", "--samples", 6, "--side", 16, *TOLD]
    status, out, err = ldm("train", "diffusion", "-o", tmp_path / "run", *told)
    assert (status, out.strip()) == (0, str(tmp_path / "run" / "lora")), err
    LatentDiffusion.from_pretrained(folder).load_lora(tmp_path / "run" / "lora")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    "told, words",
    [
        (["--condition", "class"], "--condition class: the data have no classes"),
        (["--condition", "smell"], "--condition 'smell'"),
        (["--beside", "mask"], "--beside mask: the data hold no second picture"),
        (["--weighting", "snr"], "weighting 'snr'"),
        (["--prediction", "epsilon", "--zero-snr"], "does not go with zero terminal SNR"),
        (["--lora", 4], "--lora 4: expected --init"),
        (["--drop", 2], "drop 2.0"),
        (["--samples", 0], "--samples 0"),
        (["--crop", "left"], "--crop 'left'"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_one_line(folder, tmp_path, ldm, told, words):
    always = ["--vae", folder, "--samples", 2, "--side", 16, *TOLD]
    status, _, err = ldm("train", "diffusion", "-o", tmp_path / "run", *always, *told)
    assert status == 2 and words in err and err.strip().count("\n") == 0 and "Traceback" not in err


def test_a_cache_of_another_autoencoder_is_refused(folder, tmp_path, ldm):
    space = LatentSpace(autoencoder((16, 16)).eval())
    encode(EmojiScenes(16, seed=3, length=4), space, tmp_path / "cache")
    told = ["--data", tmp_path / "cache", "--vae", folder, *TOLD]
    status, _, err = ldm("train", "diffusion", "-o", tmp_path / "run", *told)
    assert status == 2 and "another autoencoder" in err
    space.save_pretrained(tmp_path / "vae")
    status, _, err = ldm("train", "diffusion", "-o", tmp_path / "run", *told[:2], "--vae", tmp_path / "vae", *TOLD)
    assert status == 0, err
