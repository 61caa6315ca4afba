"""interpolating: the great circle keeps norms, the ends are exact, degenerate pairs are mixed by a line."""

import pytest
import torch

from ldm.interpolating import path, slerp

a, b = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_noise_stays_as_loud_as_noise(share):
    assert slerp(a, b, share, axes=3).std().item() == pytest.approx(1, abs=0.05)
    assert ((1 - share) * a + share * b).std() < slerp(a, b, share, axes=3).std()


def test_the_ends_are_exact():
    assert torch.equal(slerp(a, b, 0.0), a) and torch.equal(slerp(a, b, 1.0), b)


def test_the_angle_grows_evenly():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    turn = torch.pi / 2 * torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])
    assert torch.allclose(path(x, y, 4), torch.stack([turn.cos(), turn.sin()], dim=1), atol=1e-6)


def test_reversed_is_the_same_way_back():
    assert torch.allclose(path(a, b, 5, axes=3).flip(0), path(b, a, 5, axes=3), atol=1e-6)


@pytest.mark.parametrize("other", [a, -a, 2 * a, torch.zeros_like(a)], ids=["same", "opposite", "longer", "zero"])
def test_without_a_circle_there_is_the_line(other):
    assert torch.allclose(slerp(a, other, 0.25, axes=3), 0.75 * a + 0.25 * other, atol=1e-5)


def test_each_vector_turns_by_itself():
    whole = slerp(a, b, 0.3)
    assert torch.equal(slerp(a[..., :1, :], b[..., :1, :], 0.3), whole[..., :1, :])


def test_half_precision_is_kept():
    assert slerp(a.half(), b.half(), 0.5).dtype == torch.float16


def test_one_frame_is_the_beginning():
    assert torch.equal(path(a, b, 1), a)
    with pytest.raises(ValueError, match="frames 0"):
        path(a, b, 0)
