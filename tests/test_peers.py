"""Our losses are pythae's, on the same networks; and the comparison compares."""

import copy
import json
import math

import pytest
import torch

from ldm.autoencoders import Batch, Shape
from ldm.autoencoders.variational import Normal
from ldm.data.tensors import numbers
from ldm.evaluation.speed.autoencoders import KINDS, SQUARES, own_training, peer, peer_training
from ldm.training.randomness import keyed

pytest.importorskip("pythae")

SHAPE = Shape((8, 8), 1, 5, "dense", (12,))


def made(kind):
    torch.manual_seed(0)
    return KINDS[kind](SHAPE)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_equal_on_the_same_weights(kind, monkeypatch):
    """Squares up to the constant of a normal density; noise left out."""
    ours, y = made(kind).eval(), torch.rand(6, 1, 8, 8, generator=keyed(1))
    theirs = peer(ours).eval()
    monkeypatch.setattr(Normal, "sample", lambda self, generators: self.mean)
    if kind in ("vae", "beta"):
        monkeypatch.setattr(theirs, "_sample_gauss", lambda mean, deviation: (mean, torch.zeros_like(mean)))
    with torch.no_grad():
        expected = theirs({"data": y})
        parts = ours.losses(Batch(y), [])
    constant = 64 * (math.log(SQUARES) + 0.5 * math.log(2 * math.pi)) if kind in ("ae", "vq") else 0.0
    reconstruction = parts["reconstruction"].mean() - constant
    if kind == "ae":
        torch.testing.assert_close(reconstruction, expected.loss)
        return
    torch.testing.assert_close(reconstruction, expected.recon_loss, rtol=1e-5, atol=1e-4)
    if kind == "vq":
        torch.testing.assert_close(parts["commitment"].mean() * ours.commitment, expected.vq_loss)
        return
    torch.testing.assert_close(parts["kl"].mean(), expected.reg_loss)
    torch.testing.assert_close(ours.loss(parts).mean(), expected.loss)


@pytest.mark.parametrize("kind", KINDS)
def test_both_learn_and_neither_touches_the_others_weights(kind):
    data, start = numbers("digits", "train", 8), made(kind)
    y = data.batch(range(200))[0]
    before = (start.reconstruct(y) - y).square().mean()
    for train in (own_training, peer_training):
        trained = train(copy.deepcopy(start), data, 5, 50, seed=0).eval()
        assert (trained.reconstruct(y) - y).square().mean() < 0.8 * before
    assert torch.equal((start.reconstruct(y) - y).square().mean(), before)


def test_the_command_writes_both_programs_figures(ldm, tmp_path):
    told = ["--side", 8, "--epochs", 4, "--rounds", 1, "--json", tmp_path / "a.json"]
    status, out, err = ldm("bench", "autoencoders", *told)
    assert status == 0, err
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["kinds"]) == set(KINDS) and out.count("ratio") == 4
    assert all(row["ldm"]["error"] > 0 and row["pythae"]["error"] > 0 for row in found["kinds"].values())
    assert ldm("bench", "autoencoders", "--epochs", 2)[0] == 2
