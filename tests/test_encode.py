"""ldm encode: a folder of pictures -> a latent cache, as a user meets it."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ldm.latents import LatentSpace
from ldm.training.cache import LatentCache


@pytest.fixture
def photos(tmp_path):
    """Four pictures in two folders by class."""
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        path = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    return tmp_path / "photos"


def test_a_folder_becomes_a_cache_and_the_same_command_goes_on(ldm, photos, folder, tmp_path):
    out = tmp_path / "cache"
    command = ("encode", photos, "--vae", folder, "--out", out, "--side", "16", "--flip", "--text", folder)
    status, printed, err = ldm(*command)
    assert (status, err) == (0, "") and printed == f"{out}: 4 new, 0 reused, 0 stale and encoded again, 0 bad\n"
    assert ldm(*command)[1] == f"{out}: 0 new, 4 reused, 0 stale and encoded again, 0 bad\n"
    cache = LatentCache(out)
    assert cache.captions == ["cats", "cats", "dogs", "dogs"] and cache.classes == ["cats", "dogs"]
    space = LatentSpace.from_pretrained(str(folder))
    mean, _, _, extras = cache[0]
    assert mean.shape == (space.channels, 16 // space.factor, 16 // space.factor) and "states" in extras
    assert ldm(*command, "--dtype", "bfloat16")[1].startswith(f"{out}: 0 new, 0 reused, 4 stale")


def test_buckets_digits_and_emoji(ldm, photos, folder, tmp_path):
    out = tmp_path / "cache"
    assert ldm("encode", photos, "--vae", folder, "-o", out, "--side", "32", "--buckets", "8")[0] == 0
    assert {tuple(row["size"]) for row in LatentCache(out).rows} == {(40, 24)}
    assert ldm("encode", "digits", "--vae", folder, "-o", out, "--side", "8", "-n", "6", "--split", "test")[0] == 0
    assert len(LatentCache(out)) == 6
    assert ldm("encode", "emoji", "--vae", folder, "-o", out, "--side", "8", "-n", "3", "--seed", "5")[0] == 0
    assert LatentCache(out).made_by["data"]["seed"] == 5


def test_the_side_is_the_autoencoder_s_own(ldm, photos, folder, tmp_path):
    own = LatentSpace.from_pretrained(str(folder)).autoencoder.config["sample_size"]
    assert ldm("encode", photos, "--vae", folder, "-o", tmp_path / "cache")[0] == 0
    assert LatentCache(tmp_path / "cache").rows[0]["size"] == [own, own]


def test_processes_take_their_shares_from_the_environment(ldm, photos, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        status, printed, _ = ldm("encode", photos, "--vae", folder, "-o", tmp_path / "cache", "--side", "16")
        assert (
            status == 0 and f"2 new, 0 reused, 0 stale and encoded again, 0 bad, share {int(rank) + 1} of 2" in printed
        )
    assert [row["index"] for row in LatentCache(tmp_path / "cache").rows] == [0, 1, 2, 3]


def test_bad_pictures_are_counted_and_named(ldm, photos, folder, tmp_path, caplog):
    (photos / "cats" / "0.png").write_bytes(b"x")
    command = ("encode", photos, "--vae", folder, "-o", tmp_path / "cache", "--side", "16")
    status, printed, _ = ldm(*command)
    assert status == 0 and "3 new" in printed and "1 bad" in printed and "cats/0.png" in caplog.text
    status, printed, err = ldm(*command, "--skip", "0")
    assert (status, printed) == (2, "") and err.count("\n") == 1 and "cats/0.png" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--side", "17"], "--side 17: expected a multiple of"),
        (["--side", "16", "--buckets", "5"], "--buckets 5: expected a multiple of"),
        (["--side", "16", "--buckets", "12"], "side 16: expected a multiple of the buckets' unit, 12"),
        (["--crop", "corner"], "--crop 'corner': expected one of centre, random"),
        (["--beside", "layout"], "--beside 'layout': expected one of picture, mask"),
        (["--batch-size", "0"], "--batch-size 0: expected 1 or more"),
        (["--count", "9"], "count 9: expected 1 to 4"),
        (["--split", "train"], "photos/train: no such folder"),
        (["--dtype", "int8"], "--dtype 'int8'"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(ldm, photos, folder, tmp_path, options, said):
    status, printed, err = ldm("encode", photos, "--vae", folder, "-o", tmp_path / "cache", *options)
    assert (status, printed) == (2, "") and said in err and err.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_bad_sources_are_one_line(ldm, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, said in (
        (tmp_path / "gone", "no such folder; expected emoji, digits"),
        (tmp_path / "empty", "no pictures"),
    ):
        status, _, err = ldm("encode", source, "--vae", folder, "-o", tmp_path / "cache", "--side", "16")
        assert status == 2 and said in err and err.count("\n") == 1


def test_a_model_without_a_text_encoder_is_said(ldm, photos, folder, tmp_path):
    vae = tmp_path / "vae"
    LatentSpace.from_pretrained(str(folder)).save_pretrained(vae)
    status, _, err = ldm("encode", photos, "--vae", vae, "--text", vae, "-o", tmp_path / "cache", "--side", "16")
    assert status == 2 and "it has no text encoder" in err


def test_help_shows_examples(ldm):
    status, printed, _ = ldm("encode", "--help")
    assert status == 0 and "Examples" in printed and "torchrun" in printed and "--buckets" in printed


def test_help_needs_nothing_heavy():
    code = "import sys, ldm.cli.encode; print([n for n in ('torch', 'PIL', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
