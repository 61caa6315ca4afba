"""The properties that every process has. A new process joins by a line in PROCESSES; nothing here asks which one it is.

Numbers are float64, so that what holds exactly is seen to hold exactly.
"""

import numpy as np
import pytest
import torch

from ldm.bridging import Bridge, symmetric
from ldm.noising import Diffusion, cosine, linear, scaled_linear, zero_terminal_snr
from ldm.samplers import times
from ldm.sampling import generators, sample

SCHEDULES = {"linear": linear(), "scaled_linear": scaled_linear(), "cosine": cosine()}
ZERO_SNR = {f"zero_snr_{name}": zero_terminal_snr(SCHEDULES[name]) for name in ("linear", "scaled_linear")}
PROCESSES = {
    **{f"epsilon-{name}": Diffusion(betas, "epsilon") for name, betas in SCHEDULES.items()},
    **{f"v-{name}": Diffusion(betas, "v_prediction") for name, betas in {**SCHEDULES, **ZERO_SNR}.items()},
    **{f"sample-{name}": Diffusion(betas, "sample") for name, betas in {**SCHEDULES, **ZERO_SNR}.items()},
    "ddim": Diffusion(eta=0.0),
    "ddim-half": Diffusion(eta=0.5),
    "ddim-zero_snr": Diffusion(ZERO_SNR["zero_snr_scaled_linear"], "v_prediction", eta=0.0),
    "bridge": Bridge(),
    "bridge-wide": Bridge(symmetric(beta_max=1.0)),
    "bridge-epsilon": Bridge(prediction_type="epsilon"),
    "bridge-ode": Bridge(symmetric(beta_max=1.0), ode=True),
}
MAPS = {"0": 0.0, "1": 1.0, "random": "random", "one pixel": "one pixel"}
STRIDES = [1, 10, 500]

every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
every_array = pytest.mark.parametrize("array", [torch.tensor, np.array], ids=["torch", "numpy"])


def draws(array, *shape, seed=0):
    """Three independent N(0, I) arrays: z_0, eps and the far end z_T."""
    return [array(x) for x in np.random.default_rng(seed).standard_normal((3, *shape))]


def close(a, b, atol):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


# 1. What the network should emit gives z_0 back.


@every_process
@every_array
def test_recover_is_the_inverse_of_target(process, array):
    z_0, eps, z_T = draws(array, 5, 4, 3, 3)
    each = array([1, 2, process.T // 2, process.highest - 1, process.highest])
    for t in (1, process.T // 2, process.highest, each):
        z_t = process.noise(z_0, t, eps, z_T)
        close(process.recover(z_t, t, process.target(z_0, z_t, t, z_T), z_T), z_0, atol=1e-7)


@every_process
def test_recover_is_the_inverse_of_target_in_float32(process):
    z_0, eps, z_T = (x.float() for x in draws(torch.tensor, 2, 4, 3, 3))
    for t in (1, process.T // 10, process.T // 2):
        z_t = process.noise(z_0, t, eps, z_T)
        close(process.recover(z_t, t, process.target(z_0, z_t, t, z_T), z_T), z_0, atol=1e-4)


# 2. A step taken from the marginal at t lands on the marginal at s.


@every_process
@pytest.mark.parametrize("stride", STRIDES)
def test_a_step_keeps_the_marginal(process, stride):
    s = np.arange(process.T + 1 - stride)
    t = s + stride
    k0, kt, std = process.posterior(t, s)
    close(k0 + kt * process.a[t], process.a[s], atol=1e-15)
    close(kt * process.b[t], process.b[s], atol=1e-15)
    close(kt**2 * process.c[t] ** 2 + std**2, process.c[s] ** 2, atol=1e-12)
    assert np.all(kt >= 0) and np.all(std >= 0)


@every_process
@every_array
@pytest.mark.parametrize("stride", STRIDES)
def test_step_is_the_posterior_in_arrays(process, array, stride):
    z_0, eps, z_T = draws(array, 3, 4, 2, 2)
    fresh = draws(array, 3, 4, 2, 2, seed=1)[1]
    s = [0, (process.T - stride) // 2, process.T - stride]
    t = [time + stride for time in s]
    z_t = process.noise(z_0, array(t), eps, z_T)
    z_s = process.step(z_t, z_0, array(t), array(s), fresh)
    for row in range(3):
        k0, kt, std = process.posterior(t[row], s[row])
        close(z_s[row], k0 * z_0[row] + kt * z_t[row] + std * fresh[row], atol=1e-14)
        one = slice(row, row + 1)
        close(z_s[one], process.step(z_t[one], z_0[one], t[row], s[row], fresh[one]), atol=1e-14)


@every_process
def test_samples_keep_the_marginal(process):
    """Noise at t, then a step down to s, has the mean and the deviation of noise at s."""
    count, z_0, z_T = 200_000, 1.5, -0.5
    rng = np.random.default_rng(0)
    t, s = process.T, process.T // 3
    start = process.noise(np.full(count, z_0), t, rng.standard_normal(count), np.full(count, z_T))
    end = process.step(start, np.full(count, z_0), t, s, rng.standard_normal(count))
    assert end.mean() == pytest.approx(process.a[s] * z_0 + process.b[s] * z_T, abs=0.015)
    assert end.std() == pytest.approx(process.c[s], abs=0.015)


def error_map(name, size, seed=0):
    """M (1,H,W) of 0, of 1, random, or of one pixel that is wrong."""
    if isinstance(name, float):
        return np.full((1, *size), name)
    if name == "random":
        return np.random.default_rng(seed).uniform(size=(1, *size))
    found = np.zeros((1, *size))
    found[0, 1, 2] = 1.0
    return found


@every_process
@pytest.mark.parametrize("name", MAPS.values(), ids=MAPS)
def test_with_an_error_map_every_pixel_is_a_process_of_its_own_variance(process, name):
    """Noise times M, at t and in the step from there: at s the mean is the same, the variance M^2 times as large."""
    count, (z_0, z_T), M = 100_000, (1.5, -0.5), error_map(name, (2, 3))
    rng, whole = np.random.default_rng(1), np.ones((count, 1, 2, 3))
    t, s = 3 * process.T // 4, process.T // 3
    z_t = process.noise(z_0 * whole, t, M * rng.standard_normal(whole.shape), z_T * whole)
    z_s = process.step(z_t, z_0 * whole, t, s, M * rng.standard_normal(whole.shape))
    for time, z in ((t, z_t), (s, z_s)):
        close(z.mean(0), np.full_like(M, process.a[time] * z_0 + process.b[time] * z_T), atol=0.02)
        close(z.var(0), process.c[time] ** 2 * M**2, atol=0.02 * process.c[time] ** 2 + 1e-12)


# 3. The ends.


@every_process
@every_array
def test_ends(process, array):
    z_0, eps, z_T = draws(array, 2, 4, 3, 3)
    close(process.noise(z_0, 0, eps, z_T), z_0, atol=0)
    z_t = process.noise(z_0, 3, eps, z_T)
    close(process.step(z_t, z_0, 3, 0, eps), z_0, atol=0)
    assert process.posterior(process.T, 0)[2] == 0


@every_process
def test_what_is_left_of_z_0_falls_from_all_to_little(process):
    assert (process.a[0], process.b[0], process.c[0]) == (1, 0, 0)
    assert len(process.a) == len(process.b) == len(process.c) == process.T + 1
    assert np.all(np.diff(process.a) < 0) and process.a[-1] < 0.1


# 4. With an oracle that knows z_0, our loop finds it in any number of steps.


@every_process
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_the_oracle_is_found(process, steps, spacing):
    z_0, _, z_T = draws(torch.tensor, 2, 4, 3, 3)

    def network(z_t, t, cond):
        return process.recover(z_t, t, process.target(z_0, z_t, t, z_T), z_T)

    found = sample(network, process, z_T, None, times(process.highest, steps, spacing), generators([0, 1]))
    close(found, z_0, atol=1e-6)


# 5. With the closed-form denoiser of a Gaussian, the samples' mean and variance follow an exact linear recursion.


def gain(process, t, variance):
    """E[z_0 | z_t] = mean + gain (z_t - a mean) for z_0 ~ N(mean, variance) and z_t = a z_0 + c eps."""
    return process.a[t] * variance / (process.a[t] ** 2 * variance + process.c[t] ** 2)


def recursion(process, grid, mean, variance):
    """What the sampler makes of N(0, 1): the mean and variance of its samples, exactly."""
    m, v = 0.0, 1.0
    for t, s in zip(grid, grid[1:], strict=False):
        k0, kt, std = process.posterior(t, s)
        g = gain(process, t, variance)
        m = k0 * (mean + g * (m - process.a[t] * mean)) + kt * m
        v = (k0 * g + kt) ** 2 * v + std**2
    return m, v


@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name, betas", {**SCHEDULES, **ZERO_SNR}.items(), ids={**SCHEDULES, **ZERO_SNR})
@pytest.mark.parametrize("steps", [3, 20])
def test_samples_of_a_gaussian_follow_the_recursion(name, betas, eta, steps):
    process, mean, variance, count = Diffusion(betas, "v_prediction", eta), 0.7, 0.25, 50_000
    grid = times(process.T, steps, "trailing")

    def network(z_t, t, cond):
        return mean + gain(process, t, variance) * (z_t - process.a[t] * mean)

    noise = torch.randn(1, count, generator=torch.Generator().manual_seed(0)).double()
    drawn = sample(network, process, noise, None, grid, generators([1]))
    m, v = recursion(process, grid, mean, variance)
    assert drawn.mean().item() == pytest.approx(m, abs=5 * (v / count) ** 0.5)
    assert drawn.var().item() == pytest.approx(v, rel=5 * (2 / count) ** 0.5)


@pytest.mark.parametrize("steps, kept", [(1000, 0.992), (100, 0.940), (10, 0.646)])
def test_few_posterior_steps_lose_variance(steps, kept):
    """DDPM on unit-variance data, Stable Diffusion's schedule: the known price of few steps."""
    process = Diffusion(scaled_linear())
    assert recursion(process, times(1000, steps), 0.0, 1.0)[1] == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize("steps", [1000, 100, 10])
def test_ddim_steps_turn(steps):
    """On unit-variance data (a_t, c_t) is a point on the circle, and a noiseless step keeps the cosine of its angle."""
    process, grid = Diffusion(scaled_linear(), eta=0.0), times(1000, steps)
    angles = np.arctan2(process.c[grid], process.a[grid])
    assert recursion(process, grid, 0.0, 1.0)[1] == pytest.approx(np.prod(np.cos(np.diff(angles)) ** 2), rel=1e-9)
