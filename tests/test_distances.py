"""Distances between sets of pictures: known answers, and Inception's weights found or named."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ldm.evaluation.distances import INCEPTION, find_inception, frechet, kernel, load_inception


class Stub(nn.Module):
    """What Inception's TorchScript takes and gives: bytes (B,3,H,W) -> (B,D)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(48, 6)

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.dtype == torch.uint8 and return_features
        return self.layer(F.adaptive_avg_pool2d(img.float() / 255, 4).flatten(1))


@pytest.fixture
def weights(tmp_path):
    torch.jit.script(Stub()).save(str(tmp_path / INCEPTION))
    return tmp_path


def features(count, shift=0.0, seed=0):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def test_frechet_of_normal_distributions_is_known():
    """Of one from itself moved by m and stretched by s along an axis of variance v: m^2 + v (1 - s)^2."""
    one = features(4000)[:, :3] * torch.tensor([1.0, 2.0, 0.5])
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    moved = one * torch.tensor([1.0, 3.0, 1.0]) + torch.tensor([0.0, 0.0, 1.5])
    shift = (2 * one[:, 1].mean()) ** 2 + 1.5**2
    assert frechet(one, moved) == pytest.approx(float(shift + one[:, 1].var() * 4), rel=1e-2)


def test_kernel_is_the_unbiased_estimate_of_its_formula():
    a, b = features(40).double(), features(40, 0.7, seed=1).double()

    def k(one, other):
        return (one @ other.T / 5 + 1) ** 3

    inner = [(k(one, one).sum() - k(one, one).diagonal().sum()) / (40 * 39) for one in (a, b)]
    assert kernel(a, b) == pytest.approx(float(sum(inner) - 2 * k(a, b).mean()), rel=1e-6)
    assert kernel(features(60), features(60, seed=2)) < 0.05 * kernel(features(60), features(60, 1.0, seed=2))


@pytest.mark.parametrize("distance", [frechet, kernel])
def test_farther_is_farther_and_the_global_generator_is_left_alone(distance):
    torch.manual_seed(7)
    found = [distance(features(200), features(150, shift, seed=1)) for shift in (0.2, 0.6, 1.2)]
    assert found == sorted(found) and found[0] < found[2] / 4
    state = torch.random.get_rng_state()
    assert distance(features(200), features(150)) == distance(features(200), features(150))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("distance", [frechet, kernel])
def test_one_picture_is_no_set(distance):
    with pytest.raises(ValueError, match="two or more"):
        distance(features(1), features(9))


def test_inception_is_told_bytes_and_read_from_a_folder(weights):
    x = torch.rand(40, 3, 20, 12, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    found = load_inception(weights)(x)
    assert found.shape == (40, 6)
    told = ((x.clamp(-1, 1) + 1) * 127.5).round().byte()
    torch.testing.assert_close(found, Stub()(told, return_features=True).detach())


def test_missing_weights_are_named_with_their_place(tmp_path):
    assert find_inception(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=f"{INCEPTION} into {tmp_path}"):
        load_inception(tmp_path)
    (tmp_path / INCEPTION).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="TorchScript"):
        load_inception(tmp_path)
