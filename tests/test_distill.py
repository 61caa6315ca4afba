"""Consistency distillation: boundary, grid and loss are those of the paper, and of the sampler that then draws."""

import math
import sys

import numpy as np
import pytest
import torch
from conftest import CAPTIONS
from torch import Tensor, nn

from ldm.cli import main
from ldm.denoising import Denoiser
from ldm.draws import gaussian
from ldm.latents import LatentSpace
from ldm.noising import Diffusion, zero_terminal_snr
from ldm.pipeline import LatentDiffusion
from ldm.sampling import draw, generators
from ldm.training import checkpoint
from ldm.training.cache import CachedLatents
from ldm.training.conditions import Batch, Conditions, Doors
from ldm.training.diffusion import PRESETS, SCHEDULER, unet
from ldm.training.distill import (
    STUDENT,
    Consistency,
    Distillation,
    DistillObjective,
    lcm_config,
    neighbours,
    pseudo_huber,
    scalings,
    train_distill,
)
from ldm.training.plan import Plan
from ldm.training.randomness import keyed
from ldm.training.vae import autoencoder

TARGETS = ["epsilon", "v_prediction", "sample"]


class Answers(nn.Module):
    """A U-Net that answers what a function of z_t and t = 1..T says, with one weight that counts for nothing."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.zeros(()))

    def forward(self, x, t, **told):
        return self.answer(x, t + 1, **told) + 0 * self.weight


def scheduler(grid: int = 50, T: int = 1000, prediction: str = "epsilon"):
    from diffusers import LCMScheduler

    config = lcm_config({**SCHEDULER, "num_train_timesteps": T, "prediction_type": prediction}, grid)
    return LCMScheduler.from_config(config)


# ---- the student as its sampler sees it ----


@pytest.mark.parametrize("prediction", TARGETS)
def test_at_the_first_time_the_student_says_what_it_was_shown(prediction):
    z = torch.randn(3, 2, 4, 4, generator=keyed(0))
    student = Consistency(lambda x, t: 7 * torch.ones_like(x), Diffusion(prediction_type=prediction))
    assert torch.equal(student(z, torch.ones(3, dtype=torch.long)), z)


@pytest.mark.parametrize("prediction", TARGETS)
def test_the_student_is_what_lcm_scheduler_makes_of_its_output(prediction):
    theirs, process = scheduler(prediction=prediction), Diffusion(prediction_type=prediction)
    theirs.set_timesteps(4)
    z, output = (torch.randn(1, 2, 4, 4, generator=keyed(i)) for i in range(2))
    for timestep in theirs.timesteps:
        ours = Consistency(lambda x, t: output, process)(z, timestep[None] + 1)
        denoised = theirs.step(output, timestep, z, generator=keyed(2)).denoised
        assert torch.allclose(ours, denoised, rtol=1e-4, atol=1e-5)


def test_scalings_are_the_schedulers():
    theirs = scheduler()
    for t in (1, 2, 20, 500, 1000):
        skip, out = scalings(torch.tensor([t]))
        expected = theirs.get_scalings_for_boundary_condition_discrete(t - 1)
        assert (skip.item(), out.item()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("T, grid", [(1000, 50), (1000, 40), (100, 10), (10, 5), (1000, 30)])
def test_every_time_that_lcm_scheduler_visits_was_learnt(T, grid):
    t, s = neighbours(torch.arange(grid), T, grid)
    for steps in range(1, min(grid, 8) + 1):
        theirs = scheduler(grid, T)
        theirs.set_timesteps(steps)
        assert {timestep.item() + 1 for timestep in theirs.timesteps} <= set(t.tolist())
    assert s[0] == 1 and torch.equal(s[1:], t[:-1]) and t[-1] == T // grid * grid


def test_the_loss_between_two_pictures_is_its_formula():
    a, b = torch.tensor([[[1.0, 2.0]], [[0.0, 0.5]]]), torch.zeros(2, 1, 2)
    expected = [(math.hypot(1, 0.3) + math.hypot(2, 0.3)) / 2 - 0.3, (0.3 + math.hypot(0.5, 0.3)) / 2 - 0.3]
    assert pseudo_huber(a, b, 0.3).tolist() == pytest.approx(expected)


# ---- the objective ----


class Gaussian:
    """Latents ~ N(mean, std^2): the perfect teacher, and the student that ends where its DDIM steps end."""

    def __init__(self, process: Diffusion, mean: float, std: float, grid: int):
        self.process, self.mean, self.std = process, mean, std
        a, c, deterministic = process.a, process.c, process.with_eta(0)
        times = [1, *((n + 1) * (process.T // grid) for n in range(grid))]
        self.ends = {1: (1.0, 0.0)}  # t: the slope and the shift of z_t -> z at time 1
        for s, t in zip(times, times[1:]):
            gain = a[t] * std**2 / (a[t] ** 2 * std**2 + c[t] ** 2)  # E[z_0 | z_t] = mean + gain (z_t - a mean)
            k0, kt, _ = deterministic.posterior(t, s)
            slope, shift = self.ends[s]
            self.ends[t] = slope * (k0 * gain + kt), slope * k0 * mean * (1 - gain * a[t]) + shift

    def clean(self, z: Tensor, t: Tensor) -> Tensor:
        a, c = (torch.tensor(table[t.numpy()]).reshape(-1, 1, 1, 1) for table in (self.process.a, self.process.c))
        return self.mean + a * self.std**2 / (a**2 * self.std**2 + c**2) * (z - a * self.mean)

    def end(self, z: Tensor, t: Tensor) -> Tensor:
        slope, shift = (torch.tensor([self.ends[int(i)][k] for i in t]).reshape(-1, 1, 1, 1) for k in range(2))
        return slope * z + shift

    def teacher(self) -> nn.Module:
        return Answers(lambda z, t: self.process.target(self.clean(z.double(), t), z.double(), t))

    def student(self) -> nn.Module:
        def answer(z: Tensor, t: Tensor) -> Tensor:
            skip, out = (k.reshape(-1, 1, 1, 1) for k in scalings(t))
            z_0 = (self.end(z.double(), t) - skip * z) / out.clamp_min(1e-9)
            return torch.where((t > 1).reshape(-1, 1, 1, 1), self.process.target(z_0, z.double(), t), 0.0)

        return Answers(answer)


def gaussian_batch(count: int = 32) -> Batch:
    mean = 0.7 + 1.5 * torch.randn(count, 1, 4, 4, generator=keyed(5))
    return Batch(mean, torch.full_like(mean, -60.0))


@pytest.mark.parametrize(
    "prediction, rescaled", [*((name, False) for name in TARGETS), ("v_prediction", True), ("sample", True)]
)
def test_the_exact_student_of_an_exact_teacher_has_no_loss(prediction, rescaled):
    betas = zero_terminal_snr(Diffusion().betas) if rescaled else None
    world = Gaussian(Diffusion(betas, prediction), 0.7, 1.5, 50)
    options, draws = Distillation(guidance=1.0), [keyed(0, i) for i in range(32)]
    exact = DistillObjective(world.student(), world.teacher(), world.process, Conditions(), options)
    assert exact(gaussian_batch(), draws)["loss"].item() < 1e-6
    lazy = DistillObjective(world.teacher(), world.teacher(), world.process, Conditions(), options)
    assert lazy(gaussian_batch(), [keyed(0, i) for i in range(32)])["loss"].item() > 0.01


def test_lcm_draws_from_the_exact_student_what_the_data_are():
    """One step from pure noise ends where the teacher's fifty DDIM steps end."""
    world = Gaussian(Diffusion(prediction_type="v_prediction"), 0.7, 1.5, 50)
    noise = gaussian(generators(range(64)), (1, 4, 4))
    config = lcm_config(SCHEDULER, 50)
    drawn = draw(Denoiser(world.student(), world.process), noise, None, "lcm", 1, config, generators(range(64)))
    assert torch.allclose(drawn.double(), world.end(noise.double(), torch.full((64,), 1000)), atol=1e-4)
    four = draw(Denoiser(world.student(), world.process), noise, None, "lcm", 4, config, generators(range(64)))
    assert four.mean().item() == pytest.approx(0.7, abs=0.2) and four.std().item() == pytest.approx(1.5, rel=0.1)


def test_the_teacher_is_guided_from_the_null_to_the_condition():
    """z_s, and so the aim, is that of null + scale (cond - null); the student itself is asked once, unguided."""
    process, told = Diffusion(prediction_type="sample"), []

    def answer(z: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        told.append(class_labels.tolist())
        return class_labels.float().reshape(-1, 1, 1, 1).expand_as(z)

    conditions = Conditions(null_label=9)
    batch = gaussian_batch(2)._replace(labels=torch.tensor([1, 2]))
    objective = DistillObjective(Answers(answer), Answers(answer), process, conditions, Distillation(guidance=3.0))
    found = objective(batch, [keyed(0, i) for i in range(2)])["loss"].item()
    assert told == [[9, 9, 1, 2], [1, 2], [1, 2]]
    draws = [keyed(0, i) for i in range(2)]
    gaussian(draws, (1, 4, 4))
    eps = gaussian(draws, (1, 4, 4)).double().numpy()
    expected = []
    for i, label in enumerate((1, 2)):
        n = torch.randint(0, 50, (1,), generator=draws[i]).item()
        t, s = 20 * (n + 1), max(1, 20 * n)
        z_t = process.noise(batch.mean[i].double().numpy(), t, eps[i])
        z_0 = 9 + 3 * (label - 9)
        z_s = process.a[s] * z_0 + process.c[s] * (z_t - process.a[t] * z_0) / process.c[t]  # DDIM, Song et al. 2021
        (skip_t, out_t), (skip_s, out_s) = ([k.item() for k in scalings(torch.tensor([at]))] for at in (t, s))
        difference = skip_t * z_t + out_t * label - skip_s * z_s - out_s * label
        expected.append((np.sqrt(difference**2 + 1e-6) - 1e-3).mean())
    assert found == pytest.approx(np.mean(expected), rel=1e-3)


def test_only_the_student_learns_and_the_target_follows_it_once_a_step():
    torch.manual_seed(0)
    process = Diffusion(prediction_type="v_prediction")
    student, teacher = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

    class Asked(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x, t):
            return self.network(x)

    objective = DistillObjective(Asked(student), Asked(teacher), process, Conditions(), Distillation(1.0, decay=0.75))
    learning = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert learning == {"unet.network.weight", "unet.network.bias"} and objective.averaged == ("unet",)
    draws = [keyed(0, i) for i in range(4)]
    objective(gaussian_batch(4), draws)["loss"].backward()
    assert student.weight.grad.abs().sum() > 0 and teacher.weight.grad is None
    old = student.weight.detach().clone()
    with torch.no_grad():
        student.weight += 1
    for _ in range(2):  # two parts of one step
        objective.step = 1
        objective(gaussian_batch(4), draws)
        assert torch.allclose(objective.target.network.weight, old + 0.25)


def test_a_samples_loss_does_not_depend_on_its_company():
    world = Gaussian(Diffusion(), 0.7, 1.5, 50)
    objective = DistillObjective(world.teacher(), world.teacher(), world.process, Conditions(), Distillation(1.0))
    whole = gaussian_batch(4)
    alone = [
        objective(Batch(whole.mean[i : i + 1], whole.logvar[i : i + 1]), [keyed(0, i)])["loss"].item() for i in range(4)
    ]
    found = objective(whole, [keyed(0, i) for i in range(4)])["loss"].item()
    assert len(set(alone)) == 4 and found == pytest.approx(np.mean(alone), rel=1e-5)


# ---- the whole ----


def test_an_impossible_grid_is_named():
    with pytest.raises(ValueError, match="grid 501: expected 1 to 500"):
        DistillObjective(nn.Identity(), nn.Identity(), Diffusion(), Conditions(), Distillation(grid=501))
    with pytest.raises(ValueError, match=r"decay 1\.5"):
        Distillation(decay=1.5)
    with pytest.raises(ValueError, match=r"huber 0"):
        Distillation(huber=0)


def test_a_model_that_is_told_nothing_is_distilled_without_guidance(tmp_path):
    network = unet(PRESETS["tiny"], 4, 4, Doors(text=False))
    space = LatentSpace(autoencoder((16, 16)))
    pipe = LatentDiffusion(space, Denoiser(network, Diffusion.from_config(SCHEDULER)), None, SCHEDULER)
    pipe.save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="guidance 5.0: expected 1"):
        train_distill(tmp_path / "run", latents(), PLAN, tmp_path / "teacher")
    student, text = train_distill(tmp_path / "run", latents(), PLAN, tmp_path / "teacher", Distillation(1.0))
    assert text is None and student.config.in_channels == 4


PLAN = Plan(steps=4, batch_size=4, warmup=1, save_every=2, log_every=1, tensorboard=False)


def latents() -> CachedLatents:
    mean = torch.randn(8, 4, 4, 4, generator=keyed(1)).half()
    return CachedLatents(mean, torch.full_like(mean, -10.0), (CAPTIONS * 2)[:8])


@pytest.mark.parametrize("told", [Distillation(), Distillation(lora=2)], ids=["weights", "adapters"])
def test_a_killed_distillation_goes_on_bit_by_bit(folder, tmp_path, told):
    """The target too, which no gradient reaches."""

    def kill(network, text, step):
        raise InterruptedError

    train_distill(tmp_path / "whole", latents(), PLAN, folder, told)
    with pytest.raises(InterruptedError):
        train_distill(tmp_path / "parts", latents(), PLAN, folder, told, kill)
    train_distill(tmp_path / "parts", latents(), PLAN, folder, told)
    whole, parts = (
        checkpoint.read(tmp_path / name / "checkpoint-00000004.safetensors").tensors for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and any(name.startswith("model/target.") for name in whole)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert not any("teacher" in name for name in whole)


def test_a_distilled_model_draws_in_four_steps_by_default(folder, tmp_path, capsys):
    told = ["--teacher", folder, "--guidance", 2, "--samples", 6, "--side", 16, "--steps", 2, "--batch-size", 2]
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["train", "distill", *told, "-o", tmp_path / "run", "--no-tensorboard"]
        patch.setattr(sys, "argv", ["ldm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out.strip()) == (0, str(tmp_path / "run" / "model")), err
    loaded = LatentDiffusion.from_pretrained(tmp_path / "run" / "model")
    told = loaded.text_to_image("a red apple")[0].info["ldm"]
    assert (told["sampler"], told["num_inference_steps"], told["guidance_scale"]) == ("lcm", 4, 1.0)
    assert loaded.defaults == STUDENT


def test_adapters_draw_what_the_student_draws(folder, tmp_path):
    pytest.importorskip("peft")
    student, _ = train_distill(tmp_path / "run", latents(), PLAN, folder, Distillation(2.0, lora=4))
    pipe = LatentDiffusion.from_pretrained(folder)
    told = {"sampler": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0, "output": "latent"}
    before = pipe.text_to_image("a red apple", **told)
    pipe.load_lora(tmp_path / "run" / "lora")
    found = pipe.text_to_image("a red apple", **told)
    pipe.unload_lora()
    pipe.denoiser.unet = student
    torch.testing.assert_close(found, pipe.text_to_image("a red apple", **told), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-3)


def test_adapters_from_the_command_line(folder, tmp_path, ldm):
    pytest.importorskip("peft")
    told = ["--teacher", folder, "--lora", 2, "--samples", 6, "--side", 16, "--steps", 2, "--batch-size", 2]
    status, out, err = ldm("train", "distill", *told, "-o", tmp_path / "run", "--no-tensorboard")
    assert (status, out.strip()) == (0, str(tmp_path / "run" / "lora")), err
    assert not (tmp_path / "run" / "model").exists()
    told_by = LatentDiffusion.from_pretrained(tmp_path / "run" / "lora").text_to_image("a red apple")[0].info["ldm"]
    assert (told_by["sampler"], told_by["num_inference_steps"], told_by["guidance_scale"]) == ("lcm", 4, 1.0)
    assert ldm("train", "distill", *told[:-4], "--lora", -1, "-o", tmp_path / "other")[0] == 2
