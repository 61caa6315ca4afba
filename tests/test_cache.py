"""The latent cache: what it holds is what encoding gives, and only what changed is encoded again."""

import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm import data
from ldm.data import Item
from ldm.denoising import Denoiser
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.training import encoding, shards
from ldm.training.cache import LATENTS, LatentCache
from ldm.training.conditions import Doors
from ldm.training.diffusion import PRESETS, SCHEDULER
from ldm.training.diffusion import unet as new_unet
from ldm.training.encoding import Report, encode, fingerprint
from ldm.training.shards import Shards
from ldm.training.vae import autoencoder


def tiny(seed=0) -> LatentSpace:
    torch.manual_seed(seed)
    return LatentSpace(autoencoder((16, 16, 16)).eval())


@pytest.fixture(scope="module")
def space():
    return tiny()


def write(path, seed, size=(40, 24)):
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def photos(tmp_path):
    """Five pictures with captions."""
    for i in range(5):
        write(tmp_path / "photos" / f"{i}.png", i)
        (tmp_path / "photos" / f"{i}.txt").write_text(f"picture {i}")
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "cache"


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.new, report.reused, report.stale, len(report.bad)


def opened(photos, **options):
    return data.open(photos, **({"side": 16} | options))


def latents_of(folder) -> dict[str, torch.Tensor]:
    """Every tensor of a cache by key and name."""
    found = Shards(folder, LATENTS)
    return {f"{key}/{name}": value for key in found.places for name, value in found[key].items()}


def same(one: LatentCache, other: LatentCache) -> bool:
    rows = zip([one[i] for i in range(len(one))], [other[i] for i in range(len(other))], strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2:] == b[2:] for a, b in rows)


# ---- what is kept ----


def test_moments_are_those_of_encoding_directly(photos, out, space):
    found = opened(photos)
    assert counts(encode(found, space, out, batch_size=1)) == (5, 0, 0, 0)
    cache = LatentCache(out)
    assert len(cache) == 5 and cache.captions == [f"picture {i}" for i in range(5)] and cache.sizes is None
    for i in range(5):
        mean, logvar, caption, extras = cache[i]
        with torch.no_grad():
            expected = space.posterior(to_pixels(found[i].picture))
        assert torch.equal(mean, expected[0][0].half()) and torch.equal(logvar, expected[1][0].half())
        assert caption == f"picture {i}" and extras == {}


def test_the_size_of_a_batch_changes_no_more_than_rounding(photos, out, space):
    encode(opened(photos), space, out, batch_size=1)
    encode(opened(photos), space, out.with_name("other"), batch_size=4)
    one, other = latents_of(out), latents_of(out.with_name("other"))
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=2**-10, atol=2**-13)  # one step of float16


def test_mirror_images_are_kept_and_drawn_by_the_generator(photos, out, space):
    found = opened(photos, flip=True)
    encode(found, space, out, batch_size=1)
    cache = LatentCache(out)
    mirrored = found[2].picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    with torch.no_grad():
        expected = [space.posterior(to_pixels(image))[0][0].half() for image in (found[2].picture, mirrored)]
    drawn = [cache.draw(2, torch.Generator().manual_seed(seed))[0] for seed in range(12)]
    again = [cache.draw(2, torch.Generator().manual_seed(seed))[0] for seed in range(12)]
    which = [[torch.equal(mean, view) for view in expected].index(True) for mean in drawn]
    assert set(which) == {0, 1} and all(map(torch.equal, drawn, again))
    assert torch.equal(cache[2][0], expected[0])


def test_random_crops_are_kept_as_many_as_asked_for(photos, out, space):
    random = opened(photos, crop="random")
    encode(random, space, out, crops=3)
    assert [len(set(row["keys"])) for row in LatentCache(out).rows] == [3] * 5
    assert counts(encode(random, space, out, crops=3)) == (0, 5, 0, 0)
    assert counts(encode(random, space, out, crops=4)) == (5, 0, 0, 0)


def test_labels_classes_and_conditions_travel_along(tmp_path, out, space):
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.png", 1 + (name == "b"))
        write(tmp_path / "in" / f"{name}-mask.png", 3)
    rows = [{"file_name": f"{name}.png", "text": name, "label": name, "condition": f"{name}-mask.png"} for name in "ab"]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = opened(tmp_path / "in")
    encode(found, space, out, batch_size=1)
    cache = LatentCache(out)
    assert cache.classes == ["a", "b"] and [cache[i][3]["label"] for i in range(2)] == [0, 1]
    expected = space.unscaled(space.encode(found[1].condition))[0].half()
    assert torch.equal(cache[1][3]["beside"], expected)
    assert counts(encode(found, space, out, beside="mask")) == (0, 0, 2, 0)
    assert LatentCache(out)[0][3]["beside"].shape[0] == space.channels + 1
    with pytest.raises(ValueError, match="beside 'layout': expected one of picture, mask"):
        encode(found, space, out, beside="layout")


@pytest.mark.parametrize("beside, side", [("quarter", 8), ("eighth", 4)])
def test_low_resolution_is_what_the_pipeline_shows_of_a_small_picture(photos, out, space, beside, side, monkeypatch):
    found = opened(photos, side=32)
    encode(found, space, out, beside=beside, batch_size=1)
    small = found[0].picture.resize((side, side), Image.Resampling.BOX)
    network = new_unet(PRESETS["tiny"], 8, doors=Doors(text=False, beside=space.channels))
    pipe = LatentDiffusion(space, Denoiser(network, Diffusion.from_config(SCHEDULER)))
    shown = []
    monkeypatch.setattr(pipe, "draw", lambda order, size: shown.append(order.concat))
    pipe.instruct("", small, height=32, width=32)
    assert torch.equal(LatentCache(out)[0][3]["beside"], shown[0][0].half())
    assert counts(encode(found, space, out, beside="picture")) == (0, 0, len(found), 0)  # without a second picture
    assert "beside" not in LatentCache(out)[0][3]


def test_pictures_in_buckets_keep_their_sizes(photos, out, space):
    write(photos / "5.png", 5, (24, 40))
    found = opened(photos, side=32, buckets=8)
    encode(found, space, out, batch_size=3)
    cache = LatentCache(out)
    assert cache.sizes == found.sizes and len(set(cache.sizes)) == 2
    for i, (width, height) in enumerate(cache.sizes):
        assert cache[i][0].shape[1:] == (height // space.factor, width // space.factor)


def test_any_dataset_of_pictures_and_captions_can_be_encoded(out, space):
    scenes = data.open("emoji", side=16, count=6)
    assert counts(encode(scenes, space, out, batch_size=1)) == (6, 0, 0, 0)
    assert counts(encode(scenes, space, out)) == (0, 6, 0, 0)
    cache = LatentCache(out)
    assert cache.captions == [caption for _, caption in scenes]
    assert torch.equal(cache[3][0], space.encode(scenes[3][0])[0].half())
    own = [Item(image, "", 7) for image, _ in scenes]
    encode(own, space, out)
    assert LatentCache(out)[0][3] == {"label": 7}


def test_states_of_a_frozen_text_encoder(photos, out, space):
    text = tiny_pipeline().text
    (photos / "1.txt").write_text("picture 0")
    encode(opened(photos), space, out, text)
    cache = LatentCache(out)
    ids = torch.tensor(text.tokenizer(["picture 2"]))
    with torch.no_grad():
        expected = text.encode(ids)[0].half()
    torch.testing.assert_close(cache[2][3]["states"], expected, rtol=2**-10, atol=2**-13)
    assert len(cache.states.places) == 4  # two captions are one
    assert cache.rows[0]["states"] == cache.rows[1]["states"]
    with torch.no_grad():
        next(text.model.parameters()).mul_(2)
    assert counts(encode(opened(photos), space, out, text)) == (0, 5, 0, 0)
    assert not cache.states.places.keys() & LatentCache(out).states.places.keys()
    encode(opened(photos), space, out)
    assert "states" not in LatentCache(out)[0][3] and not list(out.glob("text-*"))


def test_it_is_fresh_in_every_worker_and_trains(photos, out, space):
    encode(opened(photos, flip=True), space, out)
    cache = LatentCache(out)
    cache[0]  # maps a file, which a worker must do for itself
    loader = torch.utils.data.DataLoader(cache, 2, num_workers=1, collate_fn=list, multiprocessing_context="spawn")
    loaded = [item for batch in loader for item in batch]
    assert len(loaded) == 5 and all(torch.equal(item[0], cache[i][0]) for i, item in enumerate(loaded))


# ---- what is encoded again ----


def test_what_did_not_change_is_not_encoded_again(photos, out, space, monkeypatch):
    encode(opened(photos), space, out)
    before = latents_of(out)
    monkeypatch.setattr(LatentSpace, "posterior", None)
    os.utime(photos / "2.png", (1, 1))  # another date is no other picture
    (photos / "3.png").rename(photos / "6.png")
    (photos / "3.txt").rename(photos / "6.txt")
    assert counts(encode(opened(photos), space, out)) == (0, 5, 0, 0)
    after = latents_of(out)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_changed_picture_is_encoded_again_even_where_its_date_and_size_stay(photos, out, space):
    path = photos / "2.bmp"
    (photos / "2.png").unlink()
    write(path, 2)
    encode(opened(photos), space, out, batch_size=1)
    before, status = LatentCache(out), path.stat()
    old = [before[i] for i in range(5)]
    write(path, 77)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    assert counts(encode(opened(photos), space, out, batch_size=1)) == (0, 4, 1, 0)
    after = LatentCache(out)
    assert [torch.equal(old[i][0], after[i][0]) for i in range(5)] == [True, True, False, True, True]
    assert torch.equal(after[2][0], space.encode(opened(photos)[2].picture)[0].half())
    assert before.identity() != after.identity()


def test_a_changed_caption_costs_no_encoding(photos, out, space):
    encode(opened(photos), space, out)
    (photos / "1.txt").write_text("other words")
    before = LatentCache(out).identity()
    assert counts(encode(opened(photos), space, out)) == (0, 5, 0, 0)
    cache = LatentCache(out)
    assert cache[1][2] == "other words" and cache.identity() != before


def test_another_autoencoder_or_size_makes_all_of_it_anew_and_the_old_goes(photos, out, space):
    encode(opened(photos), space, out)
    old = set(out.glob("latents-*"))
    assert counts(encode(opened(photos), tiny(1), out)) == (0, 0, 5, 0)
    assert not old & set(out.glob("latents-*"))
    assert counts(encode(opened(photos, side=32), tiny(1), out)) == (0, 0, 5, 0)
    assert counts(encode(opened(photos, side=32, flip=True), tiny(1), out)) == (5, 0, 0, 0)  # the other side is new
    assert LatentCache(out)[0][0].shape[-1] == 32 // space.factor


def test_a_fingerprint_is_of_what_latents_depend_on():
    space = tiny()
    before = fingerprint(space.autoencoder, space.entries())
    assert before == fingerprint(tiny().autoencoder, space.entries())
    with torch.no_grad():
        space.autoencoder.decoder.conv_in.weight.mul_(2)
        space.autoencoder.post_quant_conv.weight.mul_(2)
    assert fingerprint(space.autoencoder, space.entries()) == before
    assert fingerprint(space.autoencoder, LatentSpace(space.autoencoder, scale=0.5).entries()) != before
    assert fingerprint(tiny().autoencoder.bfloat16(), space.entries()) != before
    with torch.no_grad():
        space.autoencoder.quant_conv.bias[0] += 1
    assert fingerprint(space.autoencoder, space.entries()) != before


# ---- what goes wrong ----


def test_bad_pictures_are_left_out_and_named_up_to_a_limit(photos, out, space):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:90])
    (photos / "3.png").write_bytes(b"")
    report = encode(opened(photos), space, out)
    assert counts(report) == (3, 0, 0, 2)
    assert [name.rpartition("/")[2] for name in report.bad] == ["1.png", "3.png"]
    assert LatentCache(out).captions == ["picture 0", "picture 2", "picture 4"]
    write(photos / "3.png", 3)
    assert str(encode(opened(photos), space, out)) == "1 new, 3 reused, 0 stale and encoded again, 1 bad"
    (photos / "0.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"2 pictures cannot be read, at most 1 may be: .*0\.png.*; .*1\.png"):
        encode(opened(photos, skip=1), space, out)


def test_no_good_picture_is_an_error(tmp_path, out, space):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no picture can be read: .*a\.png"):
        encode(opened(tmp_path / "in"), space, out)


class Breaking(torch.nn.Module):
    """An autoencoder that gives what `breaks` makes of the means of pictures whose corner is white."""

    def __init__(self, vae, breaks):
        super().__init__()
        self.vae, self.breaks, self.config = vae, breaks, vae.config

    def encode(self, x):
        found = self.vae.encode(x).latent_dist
        white = (x[:, 0, 0, 0] == 1)[:, None, None, None]
        mean = torch.where(white, self.breaks(found.mean), found.mean)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, logvar=found.logvar))


def test_nan_is_refused_by_the_picture_s_path_and_what_was_done_is_kept(photos, out):
    Image.new("RGB", (16, 16), "white").save(photos / "3.png")
    broken = LatentSpace(Breaking(tiny().autoencoder, lambda mean: mean * float("nan")))
    with pytest.raises(ValueError, match=r"photos/3\.png: its latents are NaN or infinite") as caught:
        encode(opened(photos), broken, out, batch_size=2)
    assert "\n" not in str(caught.value)
    assert len(Shards(out, LATENTS).places) == 2 and not list(out.glob("index*"))
    with pytest.raises(FileNotFoundError, match="no latent cache there; ldm encode makes one"):
        LatentCache(out)


def test_latents_that_float16_cannot_hold_are_refused_by_path(photos, out):
    Image.new("RGB", (16, 16), "white").save(photos / "3.png")
    large = LatentSpace(Breaking(tiny().autoencoder, lambda mean: mean + 1e6))
    with pytest.raises(ValueError, match=r"photos/3\.png: its latents are larger than float16 holds"):
        encode(opened(photos), large, out)


def test_a_damaged_shard_is_named(photos, out, space):
    encode(opened(photos), space, out)
    next(out.glob("latents-*")).write_bytes(b"\0" * 40)
    for read in (lambda: LatentCache(out), lambda: encode(opened(photos), space, out)):
        with pytest.raises(ValueError, match=r"latents-\w+\.safetensors cannot be read"):
            read()


def test_latents_that_are_missing_are_said(photos, out, space):
    encode(opened(photos), space, out)
    next(out.glob("latents-*")).unlink()
    with pytest.raises(ValueError, match=r"the latents of .*0\.png are not there; run the same ldm encode again"):
        LatentCache(out)
    assert counts(encode(opened(photos), space, out)) == (5, 0, 0, 0)
    assert len(LatentCache(out)) == 5


# ---- stopped, and in several processes ----

KILLED = """
    import os, signal, sys
    from test_cache import opened, tiny
    from ldm.training import shards
    from ldm.training.encoding import encode
    from pathlib import Path

    shards.ENTRIES = 2
    write = shards.Shards.write

    def kill(self):
        if len(self.places) == 2:
            (self.folder / ".half.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(self)

    shards.Shards.write = kill
    encode(opened(Path(sys.argv[1])), tiny(), Path(sys.argv[2]), batch_size=1)
"""


def test_after_a_kill_between_shards_only_the_rest_is_encoded(photos, out, space):
    folder = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(folder), folder])}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(photos), str(out)]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -9
    assert len(Shards(out, LATENTS).places) == 2
    assert counts(encode(opened(photos), space, out, batch_size=1)) == (3, 2, 0, 0)
    assert not list(out.glob(".*.tmp"))
    encode(opened(photos), space, out.with_name("whole"), batch_size=1)
    assert same(LatentCache(out), LatentCache(out.with_name("whole")))


def test_two_processes_make_the_cache_of_one(photos, out, space):
    whole = out.with_name("whole")
    (photos / "1.png").write_bytes(b"bad")
    encode(opened(photos, flip=True), space, whole, batch_size=1)
    reports = [encode(opened(photos, flip=True), space, out, batch_size=1, process=1, processes=2)]
    with pytest.raises(ValueError, match="1 of 2 shares are there; run the same ldm encode again"):
        LatentCache(out)
    reports += [encode(opened(photos, flip=True), space, out, batch_size=1, process=0, processes=2)]
    assert [counts(report) for report in reports] == [(1, 0, 0, 1), (3, 0, 0, 0)]
    one, two = LatentCache(whole), LatentCache(out)
    assert one.identity() == two.identity() and same(one, two)
    before, after = latents_of(whole), latents_of(out)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_another_number_of_processes_goes_on_from_what_is_there(photos, out, space):
    for process in range(2):
        encode(opened(photos), space, out, process=process, processes=2)
    assert counts(encode(opened(photos), space, out)) == (0, 5, 0, 0)
    assert [path.name for path in out.glob("index*")] == ["index-00000-of-00001.json"]
    for process in range(3):
        assert encode(opened(photos), space, out, process=process, processes=3).new == 0
    assert len(LatentCache(out)) == 5


def test_shares_of_different_things_are_refused(photos, out, space):
    encode(opened(photos), space, out, process=0, processes=2)
    encode(opened(photos), tiny(1), out, process=1, processes=2)
    with pytest.raises(ValueError, match="its shares were made of different things"):
        LatentCache(out)


def test_a_shard_is_written_when_it_is_full_or_old(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ENTRIES", 3)
    found = Shards(tmp_path, "x")
    for i in range(7):
        found.add(f"k{i}", {"a": torch.full((2,), float(i)), "b": torch.tensor(i)})
    assert len(list(tmp_path.glob("x-*"))) == 2 and "k6" in found
    monkeypatch.setattr(shards, "SECONDS", -1)
    found.add("k7", {"a": torch.zeros(0)})
    again = Shards(tmp_path, "x")
    assert sorted(again.places) == [f"k{i}" for i in range(8)]
    assert again["k5"]["a"].tolist() == [5, 5] and again["k5"]["b"].item() == 5 and list(again["k7"]) == ["a"]
    again.sweep(["k0", "k7"])
    assert sorted(again.places) == ["k0", "k1", "k2", "k6", "k7"] == sorted(Shards(tmp_path, "x").places)


def test_threads_that_read_ahead_change_no_order(photos, out, space, monkeypatch):
    monkeypatch.setattr(encoding, "AHEAD", 2)
    encode(opened(photos), space, out)
    assert [row["index"] for row in LatentCache(out).rows] == list(range(5))


@pytest.mark.parametrize(
    "name, value",
    [("index", "0"), ("keys", []), ("keys", [5]), ("caption", None), ("label", "a"), ("states", 1), ("size", [16])],
)
def test_an_index_with_other_kinds_of_values_is_named(photos, out, space, name, value):
    encode(opened(photos), space, out)
    index = next(out.glob("index-*.json"))
    whole = json.loads(index.read_text())
    whole["items"][1][name] = value
    index.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=f"{index.name}: not the list of a latent cache"):
        LatentCache(out)
    with pytest.raises(ValueError, match=f"{index.name}: not the list of a latent cache"):
        encode(opened(photos), space, out)


def test_a_shard_without_moments_is_named(photos, out, space):
    encode(opened(photos), space, out)
    [path] = out.glob(f"{LATENTS}-*.safetensors")
    save_file({name: value for name, value in load_file(path).items() if not name.endswith("logvar")}, path)
    cache = LatentCache(out)
    with pytest.raises(ValueError, match=f"{path.name}: no mean and logvar of"):
        cache[0]
