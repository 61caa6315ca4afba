"""Figures and pictures of autoencoders, and both commands for every kind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.autoencoders import AE, TDVAE, VAE, VQVAE2, Batch, Shape
from ldm.autoencoders.presets import KINDS, SHAPES
from ldm.autoencoders.priors import NormalPrior
from ldm.data.tensors import numbers
from ldm.evaluation.autoencoders import classifier_features, evaluate_autoencoder
from ldm.evaluation.distances import frechet
from ldm.evaluation.portraits import portraits
from ldm.images import GAP
from ldm.training.randomness import keyed

TINY = ["--steps", 2, "--batch-size", 4, "--warmup", 1, "--prior-steps", 2, "--samples", 8, "--no-tensorboard"]
JSON = {"train": ["--no-tensorboard"], "evaluate": ["--json", "-"]}  # what a command is told besides


@pytest.fixture(scope="module")
def test_digits():
    return numbers("digits", "test", 8)


def made(kind, shape=SHAPES["digits"], **told):
    torch.manual_seed(0)
    return kind(shape, **told).eval()


def test_figures_are_means_over_the_data(test_digits):
    model = made(VAE)
    found = evaluate_autoencoder(model, test_digits, samples=3)
    y, labels = test_digits.batch(range(len(test_digits)))
    with torch.no_grad():
        kl = model.posterior(Batch(y)).kl().mean()
        error = (model.reconstruct(y) - y).square().mean()
    assert found["kl"] == pytest.approx(kl.item(), rel=1e-4) and found["error"] == pytest.approx(error.item(), rel=1e-4)
    assert found["count"] == 297 and found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
    assert found["log_likelihood"] > found["elbo"]
    assert evaluate_autoencoder(model, test_digits, samples=3) == found


@pytest.mark.parametrize("taught", ["classes", "turns"])
def test_the_distance_tells_digits_from_noise(test_digits, taught):
    learnt = numbers("digits", "train", 8)
    if taught == "turns":
        learnt.labels = None
    features = classifier_features(learnt)
    y, _ = test_digits.batch(range(len(test_digits)))
    others, _ = numbers("digits", "train", 8).batch(range(297))
    noise = torch.rand(y.shape, generator=keyed(1))
    assert frechet(features(y), features(others)) < 0.1 * frechet(features(y), features(noise))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_by_one_command_and_looked_at_by_another(kind, tmp_path, ldm):
    pictures = ["--data", "emoji"] if kind == "vq2" else []
    status, out, err = ldm("train", "autoencoder", kind, "-o", tmp_path / "run", *pictures, *TINY)
    assert status == 0, err
    folder = out.strip()
    told = [*pictures, "--count", 12, "--samples", 2, "--pictures", tmp_path / "pictures"]
    status, out, err = ldm("evaluate", "autoencoder", folder, *told, "--json", tmp_path / "a.json")
    assert status == 0, err
    found = json.loads((tmp_path / "a.json").read_text())
    assert "reconstruction" in found and all(np.isfinite(value) for value in found.values())
    drawn = {path.stem for path in (tmp_path / "pictures").iterdir()}
    if kind in ("sequential", "td"):
        assert drawn == ({"rollout"} if kind == "td" else {"sequences", "samples"})
        told = {"foresight_error", "stillness_error"} if kind == "td" else {"error", "elbo", "log_likelihood"}
        assert told <= found.keys()
        return
    assert drawn >= {"reconstructions", "interpolation", "traversal", "scatter", "samples"}
    assert ("undone" in drawn) == (kind == "denoising") and ("use" in drawn) == (kind in ("vq", "vq2"))
    assert found["distance"] > 0


def test_the_log_likelihood_of_binarised_digits_is_what_it_was(tmp_path, ldm):
    """The regression value: the recipe of --preset binary-mnist, on the digits that are at hand."""
    written = Path(__file__).parent.parent / "benchmarks" / "autoencoders.json"
    told = json.loads(written.read_text(encoding="utf-8"))["family"]["vae, binarised"]
    for command in told["commands"]:
        status, out, err = ldm(*command.replace("RUN", str(tmp_path / "run")).split()[1:], *JSON[command.split()[1]])
        assert status == 0, err
    assert json.loads(out)["log_likelihood"] == pytest.approx(told["log_likelihood"], abs=0.5)


def test_one_picture_by_name_and_what_is_wrong_in_a_line(tmp_path, ldm):
    made(AE).save_pretrained(tmp_path / "ae")
    status, _, err = ldm("evaluate", "autoencoder", tmp_path / "ae")
    assert status == 2 and "no prior" in err
    made(VAE).save_pretrained(tmp_path / "vae")
    told = ["evaluate", "autoencoder", tmp_path / "vae", "--samples", 1, "--pictures", tmp_path / "seen"]
    assert ldm(*told, "--only", "scatter")[0] == 0
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["scatter.png"]
    for place in ("flat", "classes/train/a", "classes/train/b", "classes/test/a"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (8, 8), 99).save(tmp_path / place / "one.png")
        Image.new("L", (8, 8), 9).save(tmp_path / place / "two.png")
    assert ldm(*told, "--only", "reconstructions", "--data", tmp_path / "flat", "--split", "all")[0] == 0
    for wrong, words in (
        (["--only", "portrait"], "--only 'portrait'"),
        (["--data", "moving"], "of single pictures"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", tmp_path / "flat"], "--split all"),
        (["--data", "leaves"], "--split all"),
        (["--data", tmp_path / "classes"], "classes ['a', 'b'] in the training, ['a'] in test"),
    ):
        status, _, err = ldm(*told, *wrong)
        assert status == 2 and words in err and err.count("\n") == 1
    for wrong, words in (
        (["vaee"], "autoencoder 'vaee'"),
        (["vae", "--beta", 2], "beta: vae is told likelihood, sigma"),
        (["vae", "--widths", "a"], "--widths a"),
        (["vae", "--preset", "large"], "--preset 'large'"),
        (["td", "--data", "digits"], "expected moving"),
        (["conditional", "--data", "emoji"], "expected classes"),
    ):
        status, _, err = ldm("train", "autoencoder", *wrong, "-o", tmp_path / "run", *TINY)
        assert status == 2 and words in err and err.count("\n") == 1


def test_pictures_are_enlarged_by_whole_pixels(test_digits):
    found = portraits(made(VAE), test_digits, NormalPrior((10, 1, 1)))
    sheet = found["reconstructions"]()
    assert isinstance(sheet, Image.Image) and sheet.width > 16 * 64
    cell = np.asarray(sheet)[GAP : GAP + 64, GAP : GAP + 64]
    assert (cell[::8, ::8].repeat(8, 0).repeat(8, 1) == cell).all()


def test_a_rollout_shows_what_was_seen_first():
    data = numbers("moving", "test", 16, count=6, length=9)
    model = made(TDVAE, SHAPES["frames"])
    sheet = np.asarray(portraits(model, data)["rollout"]())
    step = 64 + GAP
    rows = sheet[GAP:step], sheet[GAP + step : 2 * step]
    seen = 3 * step
    assert (rows[0][:, :seen] == rows[1][:, :seen]).all() and (rows[0][:, seen:] != rows[1][:, seen:]).any()


def test_both_levels_of_a_codebook_are_counted():
    data = numbers("emoji", "heldout", 16, 3, count=4)
    model = made(VQVAE2, Shape((16, 16), 3, 4, "conv", (6, 8)), entries=16)
    found = evaluate_autoencoder(model, data)
    with torch.no_grad():
        levels = model.codes(data.batch(range(4))[0])
    for name, level in zip(("top_perplexity", "perplexity"), levels, strict=True):
        shares = np.bincount(level.flatten(), minlength=16) / level.numel()
        shares = shares[shares > 0]
        assert found[name] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
