"""Losses: each term is its formula, and who is to learn nothing from a term gets no gradient of it."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ldm.training import losses, perceptual
from ldm.training.discriminator import PRESETS, PatchDiscriminator
from ldm.training.perceptual import BLOCKS, LPIPS, find_lpips, load_lpips
from ldm.training.randomness import keyed


def pictures(count: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=keyed(seed), dtype=torch.float64) * 2 - 1


# ---- reconstruction, KL ----


def test_reconstruction_terms_are_their_formulas():
    x, y = pictures(seed=1), pictures(seed=2)
    difference = (y - x).numpy()
    np.testing.assert_allclose(losses.l1(y, x), np.abs(difference).reshape(3, -1).mean(1))
    np.testing.assert_allclose(losses.mse(y, x), (difference**2).reshape(3, -1).mean(1))


def test_kl_is_that_of_torch():
    mean, logvar = (torch.randn(2, 4, 3, 3, generator=keyed(i), dtype=torch.float64) for i in range(2))
    posterior, prior = torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).flatten(1).mean(1)
    torch.testing.assert_close(losses.kl(mean, logvar), expected)
    assert losses.kl(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)) == 0


@pytest.mark.parametrize("term", [losses.l1, losses.mse])
def test_a_terms_value_for_a_picture_depends_on_no_other(term):
    x, y = pictures(seed=1), pictures(seed=2)
    assert torch.equal(term(y, x)[1:2], term(y[1:2], x[1:2]))


# ---- the discriminator ----


def test_hinge_losses_are_their_formulas():
    real, fake = (2 * torch.randn(3, 1, 4, 4, generator=keyed(i), dtype=torch.float64) for i in range(2))
    a, b = real.numpy().reshape(3, -1), fake.numpy().reshape(3, -1)
    expected = 0.5 * (np.maximum(0, 1 - a).mean(1) + np.maximum(0, 1 + b).mean(1))
    np.testing.assert_allclose(losses.hinge(real, fake), expected)
    np.testing.assert_allclose(losses.unconvincing(fake), -b.mean(1))


def test_a_sure_discriminator_has_nothing_to_learn():
    sure = torch.full((2, 1, 3, 3), 1.0)
    assert torch.equal(losses.hinge(sure, -sure), torch.zeros(2))


@pytest.mark.parametrize(("preset", "patch"), [("tiny", 16), ("small", 34), ("base", 70)])
def test_a_discriminators_patches_have_their_size(preset, patch):
    """Without the normalisations, whose statistics are those of the whole picture."""
    critic = PatchDiscriminator(PRESETS[preset])
    critic.layers = torch.nn.Sequential(*[m for m in critic.layers if not isinstance(m, torch.nn.GroupNorm)])
    x = torch.rand(1, 3, 128, 128, generator=keyed(0), requires_grad=True)
    verdict = critic(x)
    (gradient,) = torch.autograd.grad(verdict[0, 0, verdict.shape[2] // 2, verdict.shape[3] // 2], x)
    rows, columns = gradient.abs().sum((0, 1)).nonzero().unbind(1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (patch, patch)


def test_a_discriminator_judges_each_picture_by_itself():
    torch.manual_seed(0)
    critic, x = PatchDiscriminator(PRESETS["tiny"]).double(), pictures()
    torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]), rtol=1e-12, atol=1e-12)


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    """For losses that are linear in the last layer the gradients are known by hand."""
    last = torch.tensor([[0.3, -0.2], [0.1, 0.7]], dtype=torch.float64, requires_grad=True)
    a, b = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    weight = losses.adaptive_weight((a * last).sum(), (b * last).sum(), last, samples=1)
    assert weight.item() == pytest.approx(5 / (0.5 + 1e-6), rel=1e-12)
    assert not weight.requires_grad and last.grad is None


def test_adaptive_weight_has_a_ceiling():
    last = torch.ones(2, requires_grad=True)
    assert losses.adaptive_weight(last.sum(), 0 * last.sum(), last, samples=1) == 1e4


# ---- equivariance ----


def test_equivariance_is_zero_for_an_equivariant_autoencoder():
    """One that mixes colours: latents are pictures of the same side, and shrinking or turning them is exact."""
    mixing = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, -1.0]], dtype=torch.float64)
    x = pictures(12)
    z = torch.einsum("dc,bchw->bdhw", mixing, x)
    unmixed = mixing.inverse()
    generators = [keyed(0, i) for i in range(12)]
    loss = losses.equivariance(lambda z: torch.einsum("dc,bchw->bdhw", unmixed, z), z, x, generators)
    assert loss.shape == (12,) and loss.max() < 1e-12


def test_equivariance_sees_a_decoder_that_knows_up_from_down():
    x = pictures(12)
    ramp = torch.linspace(-1, 1, 16, dtype=torch.float64).view(16, 1)

    def decode(z):
        return z + ramp[:: 16 // z.shape[-1]][: z.shape[-1]]

    assert losses.equivariance(decode, x - ramp, x, [keyed(0, i) for i in range(12)]).max() > 0.1


def test_equivariance_is_its_formula_for_each_sample():
    x, z = pictures(6, side=16), torch.randn(6, 3, 8, 8, generator=keyed(1), dtype=torch.float64)

    def decode(z):
        return F.interpolate(z, scale_factor=2)

    found = losses.equivariance(decode, z, x, [keyed(7, i) for i in range(6)])
    for i, (side, turns) in enumerate(losses.drawn_changes([keyed(7, i) for i in range(6)], 8)):
        small = F.interpolate(z[i : i + 1], (side, side), mode="bilinear", antialias=True)
        wanted = F.interpolate(x[i : i + 1], (2 * side, 2 * side), mode="bilinear", antialias=True)
        error = decode(torch.rot90(small, turns, (2, 3))) - torch.rot90(wanted, turns, (2, 3))
        assert found[i].item() == pytest.approx((error.abs().mean() + error.square().mean()).item(), rel=1e-9)


def test_every_change_is_drawn_and_by_its_own_generator():
    drawn = losses.drawn_changes([keyed(0, i) for i in range(200)], 16)
    assert set(drawn) == {(side, turns) for side in (4, 8, 12, 16) for turns in range(4)}
    assert losses.drawn_changes([keyed(0, 17)], 16) == drawn[17:18]


# ---- LPIPS ----

WIDTHS = (2, 3, 4, 5, 6)


def vgg_in_small() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors named as torchvision and the package lpips name theirs, with WIDTHS for 64, 128, 256, 512, 512."""
    draw, backbone, channels = keyed(3), {}, 3
    for width, block in zip(WIDTHS, BLOCKS):
        for i in block:
            backbone[f"features.{i}.weight"] = torch.randn(width, channels, 3, 3, generator=draw) / 3
            backbone[f"features.{i}.bias"] = torch.randn(width, generator=draw) / 3
            channels = width
    backbone["classifier.0.weight"] = torch.randn(2, 2, generator=draw)
    linear = {f"lin{k}.model.1.weight": torch.rand(1, w, 1, 1, generator=draw) for k, w in enumerate(WIDTHS)}
    return backbone, linear


def by_the_paper(backbone, linear, x, y) -> torch.Tensor:
    """Zhang et al. 2018, eq. 1, on the VGG16 of Simonyan and Zisserman as a list of layers."""
    plan = ["c", "r", "c", "r", "t", "p", "c", "r", "c", "r", "t", "p", *("c", "r") * 3, "t", "p", *("c", "r") * 3, "t"]
    plan += ["p", *("c", "r") * 3, "t"]
    mean = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    h, place, level, total = (torch.cat([x, y]) - mean) / deviation, 0, 0, 0
    for layer in plan:
        if layer == "t":
            unit = h / h.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10)
            first, second = unit.chunk(2)
            weights = linear[f"lin{level}.model.1.weight"]
            total, level = total + ((first - second) ** 2 * weights).sum(1).mean((1, 2)), level + 1
            continue
        if layer == "c":
            h = F.conv2d(h, backbone[f"features.{place}.weight"], backbone[f"features.{place}.bias"], padding=1)
        h = h.relu() if layer == "r" else F.max_pool2d(h, 2, 2) if layer == "p" else h
        place += 1
    return total


def test_lpips_is_its_formula():
    backbone, linear = vgg_in_small()
    lpips = LPIPS(backbone | linear)
    x, y = pictures(side=32, seed=1).float(), pictures(side=32, seed=2).float()
    torch.testing.assert_close(lpips(y, x), by_the_paper(backbone, linear, y, x), rtol=1e-4, atol=1e-6)
    assert torch.equal(lpips(x, x), torch.zeros(3))


def test_lpips_learns_nothing_is_in_no_checkpoint_and_has_a_gradient_where_features_are_dead():
    backbone, linear = vgg_in_small()
    dead = {name: tensor * 0 - float(name.endswith("bias")) for name, tensor in backbone.items()}
    lpips = LPIPS(dead | linear)
    assert not list(lpips.parameters()) and not lpips.state_dict()
    y = pictures(side=16).float().requires_grad_()
    lpips(y, pictures(side=16, seed=5).float()).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(y))


def renamed_as_saved(backbone, linear) -> dict[str, torch.Tensor]:
    """The names of a whole saved LPIPS of the package lpips."""
    slices = {i: k for k, block in enumerate(BLOCKS, 1) for i in block}
    named = {
        re.sub(r"features\.(\d+)", lambda m: f"net.slice{slices[int(m[1])]}.{m[1]}", name): tensor
        for name, tensor in backbone.items()
        if name.startswith("features")
    }
    return named | linear | {f"lins.{name[3:]}": tensor for name, tensor in linear.items()}


def test_lpips_is_read_from_its_publishers_files_and_from_one(tmp_path):
    backbone, linear = vgg_in_small()
    (tmp_path / "two").mkdir()
    torch.save(backbone, tmp_path / "two" / "vgg16-397923af.pth")
    torch.save(linear, tmp_path / "two" / "vgg.pth")
    save_file({k: v.clone() for k, v in renamed_as_saved(backbone, linear).items()}, tmp_path / "one.safetensors")
    x, y = pictures(side=16, seed=1).float(), pictures(side=16, seed=2).float()
    expected = LPIPS(backbone | linear)(y, x)
    assert torch.equal(load_lpips(tmp_path / "two")(y, x), expected)
    assert torch.equal(load_lpips(tmp_path / "one.safetensors")(y, x), expected)


def test_lpips_is_found_where_torch_hub_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    assert find_lpips() == []
    (tmp_path / "checkpoints").mkdir()
    backbone, linear = vgg_in_small()
    torch.save(backbone, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    assert find_lpips() == []
    torch.save(linear, tmp_path / "checkpoints" / "vgg.pth")
    assert [path.name for path in find_lpips()] == ["vgg16-397923af.pth", "vgg.pth"]
    assert isinstance(load_lpips(), LPIPS)


def test_missing_weights_of_lpips_are_named_and_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth.*vgg\.pth.*hub"):
        load_lpips()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_lpips(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth"):
        load_lpips(tmp_path)


def test_half_of_lpips_and_another_networks_are_refused(tmp_path):
    backbone, linear = vgg_in_small()
    torch.save(backbone, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(ValueError, match=r"lacks 5 tensors, linear0.*vgg\.pth") as error:
        load_lpips(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    linear["lin2.model.1.weight"] = torch.rand(1, 9, 1, 1)
    with pytest.raises(ValueError, match=r"level 2 are \(1, 9, 1, 1\)"):
        LPIPS(backbone | linear)


def test_the_smallest_gradient_is_finite_at_equal_pictures():
    backbone, linear = vgg_in_small()
    x = pictures(side=16).float()
    y = x.clone().requires_grad_()
    LPIPS(backbone | linear)(y, x).sum().backward()
    assert torch.isfinite(y.grad).all() and math.isclose(y.grad.abs().max().item(), 0, abs_tol=1e-7)
