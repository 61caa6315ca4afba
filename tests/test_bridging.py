"""Bridges: the published schedule, maps of errors, both targets, and samples of a Gaussian; what every process has is
tested in test_processes.py."""

import numpy as np
import pytest
import torch

from ldm.bridging import Bridge, cross, process_of, shown, symmetric
from ldm.denoising import Condition, Denoiser
from ldm.noising import Diffusion
from ldm.samplers import times
from ldm.sampling import generators


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


class Blind(Denoiser):
    """A network of one layer, which sees z_t and t, and the clean z_T where it is shown."""

    def __init__(self, process):
        super().__init__(lambda x, t: torch.tanh(x[:, :2] * 1.3 - 0.2) * (1 + t.view(-1, 1, 1, 1) / 1000), process)


# ---- the schedule ----


@pytest.mark.parametrize(
    "beta_max, peak, total, deviation, middle",  # computed from the published rule, at T = 1000
    [(0.3, 1.865e-4, 0.1410, 0.3755, 0.1879), (1.0, 4.327e-4, 0.2469, 0.4969, 0.2487)],
)
def test_the_schedule_is_the_published_one(beta_max, peak, total, deviation, middle):
    betas = symmetric(beta_max=beta_max)
    bridge = Bridge(betas)
    assert betas[0] == pytest.approx(1e-4) and np.array_equal(betas, betas[::-1])
    assert betas.max() == pytest.approx(peak, rel=1e-3) and betas.sum() == pytest.approx(total, rel=1e-3)
    assert bridge.sigma[-1] == pytest.approx(deviation, rel=1e-3)
    assert bridge.c.max() == pytest.approx(middle, rel=1e-3) and bridge.c.argmax() == 500


@pytest.mark.parametrize("T", [2, 3, 10, 101, 1000])
def test_any_number_of_times_has_about_the_same_noise(T):
    betas = symmetric(T)
    assert len(betas) == T and np.allclose(betas, betas[::-1])
    assert betas.sum() == pytest.approx(symmetric().sum(), rel=0.35 if T < 10 else 0.1)


@pytest.mark.parametrize("told", [{"T": 1}, {"beta_max": 0.0}, {"beta_max": float("inf")}])
def test_a_schedule_that_cannot_be(told):
    with pytest.raises(ValueError, match="expected 2 or more times"):
        symmetric(**told)


def test_both_ends_are_pictures():
    bridge, (z_0, z_T, eps) = Bridge(), noise(3, 2, 4, 4)
    assert torch.equal(bridge.noise(z_0, 0, eps, z_T), z_0)
    assert torch.equal(bridge.noise(z_0, bridge.T, eps, z_T), z_T)


# ---- what is emitted ----


def test_the_residual_is_equation_12():
    bridge, (z_0, z_T, eps), t = Bridge(), noise(3, 2, 4, 4), 400
    z_t = bridge.noise(z_0, t, eps, z_T)
    total = bridge.sigma[-1] ** 2
    far = (total - bridge.sigma[t] ** 2) ** 0.5
    expanded = bridge.sigma[t] / total * (z_T - z_0) + far / total**0.5 * eps
    torch.testing.assert_close(bridge.target(z_0, z_t, t), expanded)


def test_epsilon_is_the_noise_and_needs_the_far_end():
    bridge, (z_0, z_T, eps) = Bridge(prediction_type="epsilon"), noise(3, 2, 4, 4)
    z_t = bridge.noise(z_0, 700, eps, z_T)
    torch.testing.assert_close(bridge.target(z_0, z_t, 700, z_T), eps)
    with pytest.raises(ValueError, match="beside z_T"):
        bridge.recover(z_t, 700, eps)
    with pytest.raises(ValueError, match="from 1 to 999"):
        bridge.recover(z_t, bridge.T, eps, z_T)


def test_where_the_map_is_0_epsilon_copies_and_the_residual_moves():
    """The two readings of EARSB's target: no noise to tell copies z_T as it is; a residual still knows z_0."""
    z_0, z_T = noise(2, 1, 4, 4)
    for kind, found in (("epsilon", z_T), ("residual", z_0)):
        bridge = Bridge(prediction_type=kind)
        z_t = bridge.noise(z_0, 500, torch.zeros_like(z_0), z_T)
        output = torch.zeros_like(z_0) if kind == "epsilon" else bridge.target(z_0, z_t, 500)
        z_t = z_T if kind == "epsilon" else z_t
        torch.testing.assert_close(bridge.recover(z_t, 500, output, z_T), found)


@pytest.mark.parametrize(
    "told, message",
    [
        ({"prediction_type": "v_prediction"}, "expected one of residual, epsilon"),
        ({"prediction_type": "epsilon", "ode": True}, "expected residual"),
        ({"betas": np.array([0.1])}, "two or more"),
        ({"betas": np.array([0.1, -0.1])}, "above 0"),
    ],
)
def test_a_bridge_that_cannot_be(told, message):
    with pytest.raises(ValueError, match=message):
        Bridge(**told)


@pytest.mark.parametrize("bridge", [Bridge(symmetric(10)), Bridge(ode=True), Bridge(prediction_type="epsilon")])
def test_a_config_gives_the_same_bridge_back(bridge):
    again = process_of(bridge.config())
    assert type(again) is Bridge and again.config() == bridge.config()
    assert all(np.array_equal(getattr(again, name), getattr(bridge, name)) for name in "abc")


def test_any_other_config_is_a_diffusion():
    assert type(process_of({"beta_schedule": "linear"})) is Diffusion


# ---- crossing ----


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_map_of_1_is_i2sb_bit_for_bit(steps):
    z_T, seeds = noise(3, 2, 8, 8), [0, 1, 2]
    plain = cross(Blind(Bridge()), z_T, None, steps, generators(seeds))
    mapped = cross(Blind(Bridge()), z_T, None, steps, generators(seeds), torch.ones(3, 1, 8, 8))
    assert torch.equal(plain, mapped)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_map_of_0_is_the_ode_bit_for_bit(steps):
    z_T, seeds = noise(3, 2, 8, 8), [0, 1, 2]
    plain = cross(Blind(Bridge(ode=True)), z_T, None, steps, generators(seeds))
    mapped = cross(Blind(Bridge()), z_T, None, steps, generators(seeds), torch.zeros(3, 1, 8, 8))
    assert torch.equal(plain, mapped)
    others = cross(Blind(Bridge()), z_T, None, steps, generators([7, 8, 9]), torch.zeros(3, 1, 8, 8))
    assert torch.equal(mapped, others)


def test_noise_goes_where_the_map_is():
    """A network that works pixel by pixel: where the map is 0, other seeds change nothing."""
    z_T, M = noise(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)
    M[..., :4] = 1.0
    one, other = (cross(Blind(Bridge()), z_T, None, 5, generators([seed]), M) for seed in (0, 1))
    assert torch.equal(one[..., 4:], other[..., 4:]) and not torch.isclose(one[..., :4], other[..., :4]).any()


@pytest.mark.parametrize("kind", ["residual", "epsilon"])
def test_steps_are_evaluations(kind):
    asked = []
    denoiser = Denoiser(lambda x, t: asked.append(t[0].item()) or torch.zeros_like(x), Bridge(prediction_type=kind))
    cross(denoiser, noise(1, 2, 4, 4), None, 7, generators([0]))
    assert len(asked) == 7 and asked[0] == denoiser.process.highest - 1 and asked == sorted(asked, reverse=True)


def test_a_picture_does_not_depend_on_its_neighbours():
    z_T = noise(3, 2, 4, 4)
    together = cross(Blind(Bridge()), z_T, None, 5, generators([4, 5, 6]))
    alone = cross(Blind(Bridge()), z_T[1:2], None, 5, generators([5]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("M", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [3, 20])
def test_samples_of_a_gaussian_follow_the_recursion(steps, M):
    """z_0 ~ N(mean, variance) and the closed-form E[z_0 | z_t]: mean and variance of the samples, exactly."""
    bridge, mean, variance, far, count = Bridge(), 0.7, 0.04, -0.4, 50_000

    def gain(t):
        around = bridge.a[t] ** 2 * variance + (M * bridge.c[t]) ** 2
        return bridge.a[t] * variance / around if around else 0.0

    class Exact(Denoiser):
        def output(self, z_t, t, cond=None):
            z_0 = mean + gain(t) * (z_t - bridge.a[t] * mean - bridge.b[t] * far)
            return bridge.target(z_0, z_t, t)

    z_T = torch.full((1, 1, 1, count), far, dtype=torch.float64)
    drawn = cross(Exact(lambda x, t: x, bridge), z_T, None, steps, generators([1]), M)
    m, v, grid = far, 0.0, times(bridge.T, steps, "trailing")
    for t, s in zip(grid, grid[1:], strict=False):
        k0, kt, std = bridge.posterior(t, s)
        m = k0 * (mean + gain(t) * (m - bridge.a[t] * mean - bridge.b[t] * far)) + kt * m
        v = (k0 * gain(t) + kt) ** 2 * v + (M * std) ** 2
    assert drawn.mean().item() == pytest.approx(m, abs=5 * (v / count) ** 0.5 + 1e-9)
    assert drawn.var().item() == pytest.approx(v, rel=5 * (2 / count) ** 0.5, abs=1e-12)


def test_what_is_shown_stands_in_the_order_that_was_named():
    z_T, M, given = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4), torch.full((2, 2, 4, 4), 2.0)
    found = shown(["error_map", "z_T", "given"], z_T, M, given)
    assert torch.equal(found, torch.cat([M, z_T, given], 1)) and shown([], z_T, M) is None
    assert Condition(concat=found).concat.shape == (2, 6, 4, 4)
