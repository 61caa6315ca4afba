"""sampling: randomness by image, grids and samplers equal to diffusers', callbacks, faults."""

import functools
import inspect

import numpy as np
import pytest
import torch
from diffusers import schedulers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from ldm.denoising import Denoiser, guided
from ldm.noising import Diffusion
from ldm.samplers import SAMPLERS, default_sampler, steps_for, steps_run, times
from ldm.sampling import Start, clipped, draw, gaussian, generators, sample

SPACINGS = ["leading", "trailing", "linspace"]
STOCHASTIC = {"ddpm", "euler_a", "dpm++2m_sde", "lcm"}
SD = {  # what Stable Diffusion 1.x ships
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Loud(torch.nn.Module):
    """A small network whose answer depends on every input: smooth, of unit gain, and far from constant in t."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(randn(11, 4, 4, 3, 3) / 6)

    def forward(self, x, t, encoder_hidden_states):
        t = torch.as_tensor(t).expand(len(x)).reshape(-1, 1, 1, 1) / 100
        about = encoder_hidden_states.mean((1, 2)).reshape(-1, 1, 1, 1)
        return torch.sin(self.mix(x) + torch.cos(t)) + 0.3 * x + about


@functools.cache
def unet():
    """A tiny U-Net, loud enough that being asked one time step off moves the result a thousand times the tolerance."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    with torch.no_grad():
        for parameter in (*network.time_embedding.parameters(), *network.conv_out.parameters()):
            parameter *= 3
    return network


noise, text, null = randn(0, 3, 4, 8, 8), randn(1, 3, 5, 16), randn(2, 3, 5, 16)


def drawn(sampler, steps=6, rows=slice(None), config=SD, network=None, callback=None, seeds=(5, 6, 7)):
    denoiser = Denoiser(network or Loud(), Diffusion.from_config(config))
    return draw(denoiser, noise[rows], text[rows], sampler, steps, config, generators(seeds[rows]), callback)


# Randomness.


def test_an_image_is_drawn_from_its_own_seed():
    together = gaussian(generators([3, 4, 5]), (4, 8, 8))
    for row, seed in enumerate([3, 4, 5]):
        assert torch.equal(together[row], gaussian(generators([seed]), (4, 8, 8))[0])
    assert together.shape == (3, 4, 8, 8) and together.dtype == torch.float32
    assert not torch.equal(together[0], together[1])


def test_a_generator_goes_on():
    random = generators([3])
    assert not torch.equal(gaussian(random, (9,)), gaussian(random, (9,)))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(7)])
def test_seeds_at_the_ends(seed):
    assert generators([seed])[0].initial_seed() == seed


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None, True])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed .*expected a whole number"):
        generators([0, seed])


# Grids.


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
def test_grids_equal_diffusers(name, spacing, offset):
    scheduler = getattr(schedulers, name)(timestep_spacing=spacing, steps_offset=offset)
    for steps in (1, 2, 3, 7, 10, 20, 30, 50, 99, 333, 500, 999):
        scheduler.set_timesteps(steps)
        grid = times(1000, steps, spacing, offset)
        assert grid[-1] == 0 and grid[:-1] == (scheduler.timesteps + 1).tolist()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("T", [1, 50, 1000])
def test_grids_fall_to_their_end_within_the_clock(spacing, offset, last, T):
    for steps in {1, min(2, T), min(7, T), T - 1 or 1, T}:
        grid = times(T, steps, spacing, offset, last)
        assert grid[-1] == last and grid[0] <= T and all(isinstance(t, int) for t in grid)
        assert all(t > s for t, s in zip(grid, grid[1:], strict=False))
        assert steps - 1 <= len(grid) - 1 <= steps


def test_grids_by_hand():
    assert times(1000, 4) == [751, 501, 251, 1, 0]
    assert times(1000, 4, offset=1, last=1) == [752, 502, 252, 2, 1]
    assert times(1000, 4, "trailing") == [1000, 750, 500, 250, 0]
    assert times(1000, 4, "linspace") == [1000, 667, 334, 1, 0]


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.0, "5", None, True])
def test_other_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps .*from 1 to 1000"):
        times(1000, steps)
    with pytest.raises(ValueError, match="steps .*from 1 to 1000"):
        drawn("euler", steps)


def test_unknown_spacings_are_named():
    with pytest.raises(ValueError, match="'karras'.*linspace"):
        times(1000, 5, "karras")


# Ours against diffusers'.


def walked(scheduler, steps, generator, eta=None, network=None):
    """The plain loop of any diffusers pipeline."""
    network, z = network or Loud(), noise
    extra = {"eta": eta, "use_clipped_model_output": True} if eta is not None else {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generator
    scheduler.set_timesteps(steps)
    z = z * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(z, t), t, text)
            output = output if isinstance(output, torch.Tensor) else output.sample
            z = scheduler.step(output, t, z, **extra).prev_sample
    return z


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps, spacing", [(20, "leading"), (7, "leading"), (10, "trailing")])
def test_our_ddim_equals_diffusers(prediction, to_one, eta, steps, spacing):
    config = {**SD, "set_alpha_to_one": to_one, "prediction_type": prediction, "timestep_spacing": spacing}
    expected = walked(schedulers.DDIMScheduler.from_config(config), steps, generators([5, 6, 7]), eta)
    denoiser = Denoiser(Loud(), Diffusion.from_config(config))
    grid = times(1000, steps, spacing, 1, 0 if to_one else 1)
    found = sample(denoiser, denoiser.process.with_eta(eta), noise, text, grid, generators([5, 6, 7]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    if eta == 0:
        assert torch.equal(drawn("ddim", steps, config=config), found)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps, spacing", [(20, "leading"), (7, "trailing"), (10, "linspace")])
def test_our_ddpm_equals_diffusers(prediction, clip, steps, spacing):
    config = {**SD, "_class_name": "DDPMScheduler", "prediction_type": prediction, "timestep_spacing": spacing}
    config = {**config, "clip_sample": clip, "clip_sample_range": 0.8}
    expected = walked(schedulers.DDPMScheduler.from_config(config), steps, generators([5, 6, 7]))
    torch.testing.assert_close(drawn("ddpm", steps, config=config), expected, atol=1e-4, rtol=0)
    assert not clip or expected.abs().max() <= 0.8


@pytest.mark.parametrize("sampler, name", [("ddim", "DDIMScheduler"), ("ddpm", "DDPMScheduler")])
def test_ours_at_zero_terminal_snr(sampler, name):
    config = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler = getattr(schedulers, name).from_config(config)
    expected = walked(scheduler, 10, generators([5, 6, 7]), 0.0 if sampler == "ddim" else None)
    torch.testing.assert_close(drawn(sampler, 10, config=config), expected, atol=1e-4, rtol=0)


def test_the_same_on_a_real_unet():
    network = unet()
    for name, sampler, eta in [("DDIMScheduler", "ddim", 0.0), ("DDPMScheduler", "ddpm", None)]:
        scheduler = getattr(schedulers, name).from_config(SD)
        expected = walked(scheduler, 10, generators([5, 6, 7]), eta, network)
        torch.testing.assert_close(drawn(sampler, 10, network=network), expected, atol=1e-4, rtol=0)


# All of them.


def pipeline_of_diffusers(sampler, config, network):
    chosen = SAMPLERS[sampler]
    scheduler = getattr(schedulers, chosen.scheduler).from_config({**config, **chosen.settings})
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipeline = StableDiffusionPipeline(unet=network, scheduler=scheduler, requires_safety_checker=False, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@every_sampler
@pytest.mark.parametrize("prediction, scale", [("epsilon", 4.0), ("v_prediction", 1.0)])
def test_every_sampler_equals_the_pipeline_of_diffusers(sampler, prediction, scale):
    network, config = unet(), {**SD, "prediction_type": prediction}
    expected = pipeline_of_diffusers(sampler, config, network)(
        prompt_embeds=text,
        negative_prompt_embeds=null,
        height=64,
        width=64,
        latents=noise,
        num_inference_steps=10,
        guidance_scale=scale,
        generator=generators([5, 6, 7]),
        output_type="latent",
    ).images
    denoiser = guided(Denoiser(network, Diffusion.from_config(config)), null, scale)
    found = draw(denoiser, noise, text, sampler, 10, config, generators([5, 6, 7]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@every_sampler
def test_what_a_config_asks_of_diffusers_is_done(sampler):
    config = {**SD, "use_karras_sigmas": True, "timestep_spacing": "trailing"}
    chosen = SAMPLERS[sampler]
    scheduler = getattr(schedulers, chosen.scheduler).from_config({**config, **chosen.settings})
    expected = walked(scheduler, 5, generators([5, 6, 7]), 0.0 if sampler == "ddim" else None)
    torch.testing.assert_close(drawn(sampler, 5, config=config), expected, atol=1e-4, rtol=0)


def test_fractional_times_reach_the_network_as_they_are():
    asked = []

    def network(x, t, encoder_hidden_states):
        asked.append(t[0].item())
        return x

    config = {**SD, "use_karras_sigmas": True}
    drawn("euler", 5, config=config, network=network)
    scheduler = schedulers.EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(5)
    assert asked == scheduler.timesteps.tolist() and any(t % 1 for t in asked)


@every_sampler
def test_a_picture_does_not_depend_on_its_neighbours(sampler):
    config = {**SD, "prediction_type": "v_prediction"}
    together = drawn(sampler, config=config)
    for row in range(3):
        alone = drawn(sampler, rows=slice(row, row + 1), config=config)
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
    assert torch.equal(drawn(sampler, config=config), together), "nor on what was drawn before"


@every_sampler
def test_the_noise_of_an_image_is_the_same_to_the_last_bit(sampler):
    """With a network that works number by number, nothing is left that could differ but the noise."""

    def halve(x, t, encoder_hidden_states):
        return x * 0.5

    together = drawn(sampler, network=halve)
    for row in range(3):
        assert torch.equal(drawn(sampler, rows=slice(row, row + 1), network=halve)[0], together[row])


@every_sampler
def test_only_the_stochastic_ones_draw_noise(sampler):
    random = generators([5, 6, 7])
    before = [generator.get_state() for generator in random]
    denoiser = Denoiser(Loud(), Diffusion.from_config(SD))
    draw(denoiser, noise, text, sampler, 4, SD, random)
    moved = [not torch.equal(a, b.get_state()) for a, b in zip(before, random, strict=True)]
    assert moved == [sampler in STOCHASTIC] * 3
    assert torch.equal(drawn(sampler, seeds=(50, 60, 70)), drawn(sampler)) is (sampler not in STOCHASTIC)


@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30])
def test_any_number_of_steps_with_any_spacing(sampler, steps):
    """Whoever knows z_0 arrives near it: what is left after 30 steps is the noise of the last time."""
    prediction, z_0 = SAMPLERS[sampler].predictions[-1], randn(9, 3, 4, 8, 8)
    for spacing in SPACINGS:
        config = {**SD, "prediction_type": prediction, "timestep_spacing": spacing}
        process = Diffusion.from_config(config)

        def network(x, t, encoder_hidden_states, process=process):
            a, c = (np.interp(t[0].item() + 1, np.arange(1001), table) for table in (process.a, process.c))
            return z_0 if prediction == "sample" else (a * x - z_0) / c

        found = draw(Denoiser(network, process), noise, text, sampler, steps, config, generators([5, 6, 7]))
        assert torch.isfinite(found).all()
        assert steps < 30 or (found - z_0).abs().mean() < 0.05


# Clipping.


def test_clipping_as_a_pixel_pipeline_does_it():
    denoise = clipped(lambda z_t, t, cond: z_t * 9, 0.5)
    assert denoise(noise, 1, None).abs().max() == 0.5
    config = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "clip_sample": True}
    assert drawn("ddpm", 5, config=config).abs().max() <= 1
    assert drawn("ddpm", 5, config={**config, "clip_sample": False}).abs().max() > 1


# Callbacks.


@every_sampler
def test_a_callback_sees_every_step_and_an_estimate_of_z_0(sampler):
    seen = []
    found = drawn(sampler, 8, callback=lambda *told: seen.append(told))
    assert torch.equal(found, drawn(sampler, 8)), "looking changes nothing"
    steps, totals, ts, estimates = zip(*seen, strict=True)
    assert list(steps) == list(range(1, len(seen) + 1)) and set(totals) == {len(seen)}
    assert len(seen) == {"pndm": 9, "heun": 15}.get(sampler, 8)
    assert max(ts) == ts[0] <= 1000 and min(ts) == ts[-1] >= 1
    assert all(z_0.shape == noise.shape and torch.isfinite(z_0).all() for z_0 in estimates)


@every_sampler
def test_the_estimate_is_what_the_denoiser_thinks(sampler):
    """A network that says eps = x at t leaves (1 - c_t) / a_t of x as z_0; between whole times the nearest serves."""
    process, seen, shown = Diffusion.from_config(SD), [], []

    def network(x, t, encoder_hidden_states):
        shown.append(x)
        return x

    drawn(sampler, 4, network=network, callback=lambda step, total, t, z_0: seen.append((t, z_0)))
    for (t, z_0), x in zip(seen, shown, strict=True):
        t = round(t)
        torch.testing.assert_close(z_0, (1 - process.c[t]) / process.a[t] * x, atol=1e-4, rtol=1e-4)


@every_sampler
def test_false_stops_and_the_estimate_is_the_result(sampler):
    seen = []

    def callback(step, total, t, z_0):
        seen.append(z_0)
        return step < 3

    found = drawn(sampler, 8, callback=callback)
    assert len(seen) == 3 and found is seen[-1]


@every_sampler
def test_an_exception_leaves_nothing_behind(sampler):
    def callback(step, total, t, z_0):
        if step == 2:
            raise KeyboardInterrupt

    before = drawn(sampler)
    with pytest.raises(KeyboardInterrupt):
        drawn(sampler, callback=callback)
    assert torch.equal(drawn(sampler), before)


def test_no_graph_is_kept():
    assert not drawn("ddim").requires_grad and not drawn("euler").requires_grad


# Which sampler a checkpoint means.


@every_sampler
def test_a_sampler_is_recognised_by_its_config(sampler):
    chosen = SAMPLERS[sampler]
    scheduler = getattr(schedulers, chosen.scheduler).from_config({**SD, **chosen.settings})
    assert default_sampler(dict(scheduler.config) | {"_class_name": type(scheduler).__name__}) == sampler


def test_published_configs_are_recognised():
    assert default_sampler(SD) == "pndm"
    assert default_sampler({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}) == "ddim"
    dpm = {"_class_name": "DPMSolverMultistepScheduler"}
    assert default_sampler(dpm) == "dpm++2m"
    assert default_sampler({**dpm, "use_karras_sigmas": True}) == "dpm++2m_karras"


@pytest.mark.parametrize("config", [{}, {"_class_name": "KDPM2DiscreteScheduler"}])
def test_a_scheduler_without_a_sampler_is_named(config):
    with pytest.raises(ValueError, match=f"{config.get('_class_name')}.*ddim"):
        default_sampler(config)


# Faults.


def test_unknown_samplers_are_named():
    with pytest.raises(ValueError, match=r"'plms'.*dpm\+\+2m_karras.*lcm"):
        drawn("plms")


@pytest.mark.parametrize("option", [{"thresholding": True}, {"variance_type": "learned_range"}])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_what_ours_would_not_do_is_refused(sampler, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        drawn(sampler, config={**SD, **option})


def test_another_variance_matters_only_where_noise_is_added():
    config = {**SD, "variance_type": "fixed_large"}
    with pytest.raises(ValueError, match="'fixed_large'"):
        drawn("ddpm", config=config)
    assert torch.equal(drawn("ddim", config=config), drawn("ddim"))


def test_steps_that_a_scheduler_cannot_take_are_named():
    with pytest.raises(ValueError, match="LCMScheduler cannot take 60 steps"):
        drawn("lcm", 60)
    with pytest.raises(ValueError, match="PNDMScheduler cannot take 3 steps"):
        drawn("pndm", 3, config={**SD, "skip_prk_steps": False})
    with pytest.raises(ValueError, match="PNDMScheduler would begin 1000 steps"):
        drawn("pndm", 1000)


@pytest.mark.parametrize("sampler", ["pndm", "euler_a"])
def test_a_prediction_that_a_scheduler_does_not_know_is_refused(sampler):
    with pytest.raises(ValueError, match=f"{sampler}.*expected a network for epsilon or v_prediction, not sample"):
        drawn(sampler, config={**SD, "prediction_type": "sample"})


def test_a_scheduler_on_another_noise_schedule_is_refused():
    config = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(ValueError, match="PNDMScheduler does not follow"):
        drawn("pndm", config=config)
    assert torch.isfinite(drawn("euler", config=config)).all()
    denoiser = Denoiser(Loud(), Diffusion())
    with pytest.raises(ValueError, match="EulerDiscreteScheduler does not follow"):
        draw(denoiser, noise, text, "euler", 5, {"beta_schedule": "linear"}, generators([5, 6, 7]))


def test_a_process_that_is_no_diffusion_is_refused():
    denoiser = Denoiser(Loud(), object())
    with pytest.raises(ValueError, match="needs a Diffusion.*object"):
        draw(denoiser, noise, text, "ddim", 5, SD, generators([5, 6, 7]))


# Beginning at a picture.

CLEAN = randn(21, 2, 4, 8, 8)
HALF = torch.cat([torch.ones(2, 1, 8, 4), torch.zeros(2, 1, 8, 4)], dim=3)


class Knowing:
    """A network that knows what the picture is: it emits exactly the eps that z_t holds above z_0."""

    def __init__(self, z_0):
        self.a, self.c, self.z_0 = Diffusion.from_config(SD).a, Diffusion.from_config(SD).c, z_0

    def __call__(self, x, t):
        t = float(t[0]) + 1
        a = np.interp(t, range(1001), self.a)
        return (x - a * self.z_0) / np.sqrt(1 - a * a)


def begun(sampler, start, steps=10, network=None, config=SD):
    denoiser = Denoiser(network or Loud(), Diffusion.from_config(config))
    cond = None if network else randn(3, 2, 5, 8)
    return draw(denoiser, randn(4, 2, 4, 8, 8), cond, sampler, steps, config, generators([1, 2]), start=start)


@every_sampler
def test_a_start_that_walks_every_step_begins_in_pure_noise(sampler):
    plain = begun(sampler, None)
    assert torch.equal(begun(sampler, Start(CLEAN, 10)), plain)
    assert not torch.equal(begun(sampler, Start(CLEAN, 9)), plain)


@every_sampler
def test_a_start_that_walks_no_step_is_the_picture_itself(sampler):
    assert torch.equal(begun(sampler, Start(CLEAN, 0)), CLEAN)


@every_sampler
@pytest.mark.parametrize("run", [1, 2, 5, 10])
def test_what_is_held_comes_back_to_the_last_bit_and_the_rest_is_drawn(sampler, run):
    z = begun(sampler, Start(CLEAN, run, HALF))
    assert torch.equal(z[..., 4:], CLEAN[..., 4:])
    assert (z[..., :4] - CLEAN[..., :4]).abs().max() > 0.01


@every_sampler
@pytest.mark.parametrize("run", [1, 2, 5, 9])
def test_a_network_that_knows_the_picture_brings_it_back(sampler, run):
    config = {**SD, "set_alpha_to_one": True}
    z = begun(sampler, Start(CLEAN, run), network=Knowing(CLEAN), config=config)
    assert (z - CLEAN).std() < 0.05


@pytest.mark.parametrize("as_diffusers, left", [(False, 0.03), (True, 0.138)])
def test_pndm_ends_without_noise_unless_it_is_to_be_as_diffusers(as_diffusers, left):
    start, eps = Start(CLEAN, 10, as_diffusers=as_diffusers), randn(4, 2, 4, 8, 8)
    z = begun("pndm", start, steps=20, network=lambda x, t: eps)  # it knows the noise
    assert (z - CLEAN).std().item() == pytest.approx(left, abs=0.001)


@every_sampler
def test_fewer_steps_stay_nearer_to_the_picture(sampler):
    far = [(begun(sampler, Start(CLEAN, run)) - CLEAN).square().mean() for run in (2, 5, 9)]
    assert far == sorted(far)


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.29, 0.5, 0.57, 0.6, 0.99, 1.0])
@pytest.mark.parametrize("run", [1, 7, 20, 50])
def test_the_steps_for_a_run_are_the_fewest_that_walk_it(strength, run):
    steps = steps_for(run, strength)
    assert steps_run(steps, strength) == run
    assert steps == run or steps_run(steps - 1, strength) < run or run == 1


@pytest.mark.parametrize(
    "steps, strength, run", [(50, 0.0, 0), (50, 0.001, 1), (10, 0.3, 3), (50, 0.58, 29), (7, 1, 7)]
)
def test_strength_is_the_share_of_the_steps(steps, strength, run):
    assert steps_run(steps, strength) == run


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_other_strengths_are_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        steps_run(50, strength)
