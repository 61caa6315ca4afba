"""Photographs that packages carry: parts to learn from, and others, on a grid, to be tried on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ldm import data
from ldm.data import photographs
from ldm.data.photographs import COLOURED, GREY, UNSEEN, Photographs, UnseenPhotographs, cut, grid, recoloured
from ldm.evaluation.roundtrip import evaluate_roundtrip
from ldm.latents import LatentSpace
from ldm.training.vae import autoencoder


@pytest.fixture
def learnt() -> None:
    pytest.importorskip("skimage")


@pytest.fixture
def tried() -> None:
    pytest.importorskip("sklearn")


def tiny(side: int) -> LatentSpace:
    torch.manual_seed(0)
    vae = autoencoder((16, 16, 16)).eval()
    vae.register_to_config(sample_size=side)
    return LatentSpace(vae)


@pytest.mark.usefixtures("learnt")
def test_item_i_depends_on_seed_and_i_alone():
    one, other = Photographs(32, 5, 40), Photographs(32, 5, 40)
    there, back = [one[i] for i in range(40)], [other[i] for i in reversed(range(40))][::-1]
    assert [item.picture.tobytes() for item in there] == [item.picture.tobytes() for item in back]
    assert len({item.picture.tobytes() for item in there}) == 40
    assert {(item.picture.size, item.picture.mode, item.caption) for item in there} == {((32, 32), "RGB", "")}
    assert one.identity() == other.identity() != Photographs(32, 6, 40).identity()
    assert one.identity()["kind"] == "photographs" and json.dumps(one.identity())


@pytest.mark.usefixtures("learnt")
def test_a_part_may_be_larger_than_its_photograph():
    assert cut(np.random.default_rng(0), 640).size == (640, 640)


@pytest.mark.usefixtures("learnt")
def test_parts_are_of_every_scale_and_place(monkeypatch):
    """Cut from a picture whose red tells x and whose green tells y: both, and how fast they change, vary."""
    ramp = np.arange(256, dtype=np.uint8)
    map_ = np.stack([*np.meshgrid(ramp, ramp), np.zeros((256, 256), np.uint8)], -1)
    monkeypatch.setattr(photographs, "loaded", lambda name: Image.fromarray(map_))
    monkeypatch.setattr(photographs, "recoloured", lambda rng: tuple(np.eye(3, 4).ravel()))
    x = np.stack([np.asarray(cut(np.random.default_rng(seed), 32), float) for seed in range(60)])
    width = np.abs(x[:, 16, 31, 0] - x[:, 16, 0, 0]) + np.abs(x[:, 31, 16, 0] - x[:, 0, 16, 0])
    assert width.min() < 45 and width.max() > 200  # from 32 pixels, its own scale, to all of it
    assert np.ptp(x[:, 16, 16, 0]) > 150 and np.ptp(x[:, 16, 16, 1]) > 150
    mirrored = x[:, 16, 31, 0] < x[:, 16, 0, 0]
    assert 0.3 < mirrored.mean() < 0.7


def test_recolouring_exchanges_channels():
    for seed in range(10):
        matrix = np.array(recoloured(np.random.default_rng(seed))).reshape(3, 4)
        assert not matrix[:, 3].any()
        used = matrix[:, :3] > 0
        assert (used.sum(0) == 1).all() and (used.sum(1) == 1).all()
        assert (np.abs(matrix[:, :3][used] - 1) <= photographs.GAIN).all()


@pytest.mark.usefixtures("learnt", "tried")
def test_no_photograph_is_both_learnt_and_tried():
    assert not {*COLOURED, *GREY} & {*UNSEEN}
    learnt = {photographs.file("skimage", "scikit-image", name).read_bytes() for name in (*COLOURED, *GREY)}
    assert not learnt & {photographs.file("sklearn", "scikit-learn", name).read_bytes() for name in UNSEEN}


def test_a_grid_covers_the_middle_once():
    x = np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    squares = [np.asarray(square) for square in grid(Image.fromarray(x), 5)]
    assert len(squares) == 6
    rows = [np.hstack(squares[:3]), np.hstack(squares[3:])]
    assert np.array_equal(np.vstack(rows), x[0:10, 1:16])


@pytest.mark.usefixtures("tried")
def test_the_unseen_are_scikit_learns():
    from sklearn.datasets import load_sample_images

    found = data.open("photographs", 256, split="test")
    assert len(found) == 4 and found[3].picture.size == (256, 256)
    for i, whole in enumerate(load_sample_images().images):
        first = np.asarray(found[2 * i].picture)
        assert np.array_equal(first, whole[85:341, 64:320])
    assert len(UnseenPhotographs(128)) == 30 and len(UnseenPhotographs(128, 7)) == 7
    with pytest.raises(ValueError, match="side 500: expected 1 to 427"):
        UnseenPhotographs(500)


def test_what_is_missing_is_named_in_one_line(monkeypatch, tmp_path, ldm):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="scikit-image"):
        data.open("photographs", 32)
    code, _, err = ldm("train", "vae", "--data", "emoji:2+photographs", "--out", tmp_path / "run")
    assert code == 2 and "scikit-image" in err and len(err.splitlines()) == 2 and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("learnt")
def test_a_version_without_the_photographs_is_refused(monkeypatch):
    monkeypatch.setattr(photographs, "COLOURED", ("eagle.png",))
    with pytest.raises(FileNotFoundError, match="eagle.png: this version of scikit-image does not carry it"):
        data.open("photographs", 32)


# ---- evaluation ----


def test_scenes_are_seen_at_the_autoencoders_own_side():
    space = tiny(16)
    found = evaluate_roundtrip(space, count=2, seed=4)
    scenes = data.open("emoji", 16, split="heldout", seed=1_000_004)
    checks = [space.roundtrip(scenes[i][0]) for i in range(2)]
    assert found["psnr"] == pytest.approx(sum(check.psnr for check in checks) / 2, rel=1e-6)
    assert found["settings"] == {"data": "emoji", "split": "heldout", "seed": 4, "side": 16}
    assert evaluate_roundtrip(space, count=1, side=24)["settings"]["side"] == 24
    assert evaluate_roundtrip(LatentSpace.identity(), count=1)["settings"]["side"] == 64
    with pytest.raises(ValueError, match="count 0"):
        evaluate_roundtrip(space, count=0)


@pytest.mark.usefixtures("tried")
def test_the_command_tries_photographs(ldm, folder, tmp_path):
    figures = tmp_path / "figures.json"
    arguments = ["--data", "photographs", "--count", "3", "--side", "64", "--json", figures]
    code, out, err = ldm("evaluate", "roundtrip", "-m", folder, *arguments)
    found = json.loads(figures.read_text())
    assert code == 0 and out.startswith(f"photographs, test: {found['psnr']:.2f} dB"), err
    assert found["count"] == 3 and found["settings"]["side"] == 64
    code, _, err = ldm("evaluate", "roundtrip", "-m", folder, "--data", "photographs", "--split", "dev")
    assert code == 2 and "split 'dev': photographs have train and test" in err and len(err.splitlines()) == 1
