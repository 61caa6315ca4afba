"""noising: the schedules, equality with diffusers' DDPMScheduler, arrays of every kind, faults."""

import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from ldm.noising import Diffusion, betas_from_config, cosine, linear, scaled_linear, zero_terminal_snr

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
CONFIGS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "fewer": {"beta_schedule": "linear", "num_train_timesteps": 50},
    "trained": {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    "zero_snr": {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
}


def pictures(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Schedules.


def test_schedules_are_float64_and_of_length_T():
    for schedule in (linear, scaled_linear, cosine):
        for T in (10, 1000):
            betas = schedule(T)
            assert betas.dtype == np.float64 and betas.shape == (T,)
    assert (linear()[0], linear()[-1]) == pytest.approx((1e-4, 0.02))
    assert (scaled_linear()[0], scaled_linear()[-1]) == pytest.approx((0.00085, 0.012))


@pytest.mark.parametrize("name", CONFIGS)
def test_betas_equal_diffusers(name):
    prediction = "v_prediction" if name == "zero_snr" else "epsilon"
    theirs = DDPMScheduler(**CONFIGS[name], prediction_type=prediction)
    ours = Diffusion.from_config({**CONFIGS[name], "prediction_type": prediction})
    np.testing.assert_allclose(ours.betas, theirs.betas, rtol=3e-4, atol=1e-6)
    np.testing.assert_allclose(ours.a[1:] ** 2, theirs.alphas_cumprod, atol=1e-6)
    assert ours.T == len(theirs.betas) and ours.prediction_type == prediction


def test_a_config_that_says_nothing_has_diffusers_defaults():
    np.testing.assert_allclose(Diffusion.from_config({}).betas, DDPMScheduler().betas, atol=1e-7)


def test_zero_terminal_snr_moves_only_the_end():
    betas = zero_terminal_snr(scaled_linear())
    process = Diffusion(betas, "v_prediction")
    assert process.a[-1] == 0 and process.c[-1] == 1
    assert process.a[1] == pytest.approx(Diffusion().a[1], rel=1e-12)
    np.testing.assert_allclose(zero_terminal_snr(betas), betas, atol=1e-12)


def test_snr():
    process = Diffusion()
    assert process.snr(10) == pytest.approx((process.a[10] / process.c[10]) ** 2)
    assert process.snr(torch.tensor([1, 1000])).shape == (2,)
    assert np.all(np.diff(process.snr(np.arange(1, 1001))) < 0)


# Equality with diffusers' DDPMScheduler; its timestep i is our time i + 1. It keeps its tables in float32, where
# 1 - abar has few digits left near t = 1: so once as it is, and once with its own formulas on float64 tables.


def scheduler(name, prediction, exact):
    theirs = DDPMScheduler(**CONFIGS[name], prediction_type=prediction, clip_sample=False)
    ours = Diffusion.from_config({**CONFIGS[name], "prediction_type": prediction})
    if exact:
        theirs.alphas_cumprod = torch.cumprod(1 - torch.tensor(ours.betas), dim=0)
    return theirs, ours


ACCURACY = pytest.mark.parametrize(
    "dtype, tolerance, exact", [(torch.float64, 1e-9, True), (torch.float32, 2e-3, False)], ids=["float64", "as it is"]
)


@pytest.mark.parametrize("name", CONFIGS)
@ACCURACY
def test_noise_and_velocity_equal_diffusers(name, dtype, tolerance, exact):
    theirs, ours = scheduler(name, "v_prediction", exact)
    z_0, eps = pictures(0, 3, 4, 5, 6).to(dtype), pictures(1, 3, 4, 5, 6).to(dtype)
    timesteps = torch.tensor([0, ours.T // 2, ours.T - 1])
    z_t = ours.noise(z_0, timesteps + 1, eps)
    torch.testing.assert_close(z_t, theirs.add_noise(z_0, eps, timesteps), atol=tolerance, rtol=0)
    velocity = ours.target(z_0, z_t, timesteps + 1)
    torch.testing.assert_close(velocity, theirs.get_velocity(z_0, eps, timesteps), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name, prediction", sorted({*product(CONFIGS, PREDICTIONS)} - {("zero_snr", "epsilon")}))
@pytest.mark.parametrize("stride", [1, 10])
@ACCURACY
def test_step_equals_diffusers(name, prediction, stride, dtype, tolerance, exact):
    theirs, ours = scheduler(name, prediction, exact)
    theirs.set_timesteps(max(1, ours.T // stride))
    z_t, output = pictures(0, 1, 4, 5, 6).to(dtype), pictures(1, 1, 4, 5, 6).to(dtype)
    eps = torch.randn(z_t.shape, dtype=dtype, generator=torch.Generator().manual_seed(7))
    for timestep in theirs.timesteps[:: max(1, len(theirs.timesteps) // 9)].tolist() + theirs.timesteps[-2:].tolist():
        t, s = timestep + 1, int(theirs.previous_timestep(timestep)) + 1
        expected = theirs.step(output, timestep, z_t, generator=torch.Generator().manual_seed(7)).prev_sample
        z_s = ours.step(z_t, ours.recover(z_t, t, output), t, s, eps)
        torch.testing.assert_close(z_s, expected, atol=tolerance, rtol=tolerance)
        if s:
            variance = theirs._get_variance(timestep).item()
            assert ours.posterior(t, s)[2] ** 2 == pytest.approx(variance, rel=10 * tolerance)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_epsilon_and_sample_targets(prediction):
    process = Diffusion(prediction_type=prediction)
    z_0, eps = pictures(0, 2, 3).double(), pictures(1, 2, 3).double()
    expected = {"epsilon": eps, "sample": z_0, "v_prediction": process.a[300] * eps - process.c[300] * z_0}
    output = process.target(z_0, process.noise(z_0, 300, eps), 300)
    torch.testing.assert_close(output, expected[prediction], atol=1e-13, rtol=0)


# Arrays of every kind.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_dtypes(dtype):
    process, z = Diffusion(), pictures(0, 2, 4, 3, 3).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    for t in (7, torch.tensor([7, 7])):
        z_t = process.noise(z, t, z)
        assert z_t.dtype == dtype and z_t.shape == z.shape
        assert process.target(z, z_t, t).dtype == wide
        assert process.recover(z_t, t, z).dtype == wide
        assert process.step(z_t, z, t, 3 if isinstance(t, int) else t - 4, z).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_dtypes(dtype):
    process, z = Diffusion(), pictures(0, 2, 4, 3, 3).numpy().astype(dtype)
    for t in (7, np.int64(7), np.array([7, 7])):
        z_t = process.noise(z, t, z)
        assert isinstance(z_t, np.ndarray) and z_t.dtype == dtype and z_t.shape == z.shape
        assert process.target(z, z_t, t).dtype == np.promote_types(dtype, np.float32)
        assert process.recover(z_t, t, z).dtype == np.promote_types(dtype, np.float32)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 4, 5, 6), (3, 2, 2, 2, 2)])
def test_any_rank_and_each_row_at_its_own_time(shape):
    process, z_0, eps = Diffusion(), pictures(0, *shape).double(), pictures(1, *shape).double()
    times = [1, 500, 1000]
    together = process.noise(z_0, torch.tensor(times), eps)
    for row, t in enumerate(times):
        torch.testing.assert_close(together[row], process.noise(z_0[row : row + 1], t, eps[row : row + 1])[0])
    torch.testing.assert_close(process.noise(z_0, times, eps), together)


def test_gradients_pass_through():
    z_0 = pictures(0, 2, 3).requires_grad_()
    process = Diffusion()
    process.recover(process.noise(z_0, torch.tensor([5, 9]), z_0.detach()), 5, z_0).sum().backward()
    assert z_0.grad is not None and z_0.grad.abs().sum() > 0


def test_one_time_is_a_plain_number():
    for number in Diffusion().posterior(500, 400):
        assert isinstance(number, float)
    assert Diffusion().posterior(np.array([500, 9]), np.array([400, 8]))[0].shape == (2,)


@pytest.mark.parametrize("stride", [1, 10, 500])
def test_without_eta_the_posterior_has_no_noise_at_all(stride):
    """Not a rounding error's worth: a deterministic sampler must leave the generators alone."""
    for betas in (linear(), scaled_linear(), cosine()):
        s = np.arange(1001 - stride)
        assert np.all(Diffusion(betas, eta=0.0).posterior(s + stride, s)[2] == 0)
        assert np.all(Diffusion(betas, eta=0.1).posterior(s[1:] + stride, s[1:])[2] > 0)


def test_the_module_loads_without_torch():
    code = "import sys, ldm.noising; assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Faults.


def test_epsilon_is_refused_at_zero_snr():
    with pytest.raises(ValueError, match="zero terminal SNR"):
        Diffusion(zero_terminal_snr(linear()), "epsilon")
    with pytest.raises(ValueError, match="zero terminal SNR"):
        Diffusion.from_config({"rescale_betas_zero_snr": True})


@pytest.mark.parametrize("t", [0, -1, 1001, 2.5, True, np.array([3, 0]), torch.tensor([0.5])])
def test_times_without_an_answer_are_refused(t):
    process, z = Diffusion(), np.zeros((2, 3))
    with pytest.raises(ValueError, match="from 1 to 1000"):
        process.target(z, z, t)
    with pytest.raises(ValueError, match="from 1 to 1000"):
        process.recover(z, t, z)


def test_noise_is_refused_outside_the_clock():
    for t in (-1, 1001):
        with pytest.raises(ValueError, match="from 0 to 1000"):
            Diffusion().noise(np.zeros(3), t, np.zeros(3))


@pytest.mark.parametrize("t, s", [(5, 5), (5, 6), (np.array([9, 5]), np.array([8, 6]))])
def test_a_step_goes_down(t, s):
    with pytest.raises(ValueError, match="down in time"):
        Diffusion().posterior(t, s)


@pytest.mark.parametrize("betas", [[], [0.1, 0], [0.1, 1.1], [1, 0.1], [[0.1]], [0.1, float("nan")]])
def test_betas_that_are_none_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        Diffusion(betas)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="'noise'.*v_prediction"):
        Diffusion(prediction_type="noise")
    with pytest.raises(ValueError, match="'sigmoid'.*scaled_linear"):
        betas_from_config({"beta_schedule": "sigmoid"})
    with pytest.raises(ValueError, match="eta 1.5"):
        Diffusion(eta=1.5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_process_is_known_again_by_its_config(prediction):
    process = Diffusion(cosine(50), prediction)
    again = Diffusion.from_config(json.loads(json.dumps(process.config())))
    assert np.array_equal(again.betas, process.betas) and again.prediction_type == prediction
