"""Mixtures: which part an item is from depends on the seed and its number alone, as often as the weights say."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ldm import data
from ldm.data.items import Item
from ldm.data.mixture import Mixture, parts_of
from ldm.training import checkpoint
from ldm.training.plan import Plan
from ldm.training.randomness import keyed
from ldm.training.vae import train_vae

SHORT = ["--steps", "2", "--batch-size", "4", "--preset", "tiny", "--side", "16", "--held-out", "3", "--no-tensorboard"]


class Stub:
    """Items whose caption says whose they are and which; `draw` says it in capitals."""

    def __init__(self, name: str, length: int):
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return Item(Image.new("RGB", (8, 8)), f"{self.name} {index}")

    def identity(self):
        return {"kind": self.name}


class Cropped(Stub):
    def draw(self, index, generator):
        return Item(Image.new("RGB", (8, 8)), f"{self.name} {index} {torch.rand(1, generator=generator).item():.3f}")


def mixture(seed: int = 0, length: int = 6000) -> Mixture:
    return Mixture([Stub("a", 10_000), Stub("b", 10_000), Cropped("c", 7)], [6, 2, 1], seed, length)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("emoji", [("emoji", 1)]),
        ("emoji:6", [("emoji", 6)]),
        ("emoji+leaves+text", [("emoji", 1), ("leaves", 1), ("text", 1)]),
        ("emoji:6+leaves:2.5+text", [("emoji", 6), ("leaves", 2.5), ("text", 1)]),
        ("emoji:3+some/photos:2", [("emoji", 3), ("some/photos", 2)]),
        ("emoji+shards/train-{000..012}.tar:2", [("emoji", 1), ("shards/train-{000..012}.tar", 2)]),
        ("C:/photos+emoji", [("C:/photos", 1), ("emoji", 1)]),
    ],
)
def test_names_and_weights_are_read(source, parts):
    assert parts_of(source) == parts


@pytest.mark.parametrize(
    "source", ["emoji:0", "emoji:-1+text", "emoji:nan", "emoji:inf+text", "emoji+", "+emoji", ":3"]
)
def test_weights_that_are_none_are_refused(source):
    with pytest.raises(ValueError, match=r"^[^\n]*expected names[^\n]*$"):
        data.open(source)


def test_a_folder_that_is_there_is_no_mixture(tmp_path):
    folder = tmp_path / "black+white:2"
    folder.mkdir()
    assert parts_of(folder) == parts_of(str(folder)) == [(str(folder), 1)]


def test_weights_are_shares():
    found = [mixture()[i].caption[0] for i in range(6000)]
    for name, weight in (("a", 6), ("b", 2), ("c", 1)):
        assert found.count(name) / 6000 == pytest.approx(weight / 9, abs=0.02)  # three standard errors


def test_item_i_depends_on_seed_and_i_alone():
    there, other = mixture(3), mixture(3)
    captions = [there[i].caption for i in range(200)]
    assert captions == [other[i].caption for i in reversed(range(200))][::-1]
    assert captions != [mixture(4)[i].caption for i in range(200)]
    for i, caption in enumerate(captions):
        name, index = caption.split()
        assert int(index) == (i % 7 if name == "c" else i)


def test_the_choice_is_independent_of_what_the_parts_draw():
    """The parts begin with default_rng((seed, i)): given the part chosen, its first number is still uniform."""
    found = mixture(2)
    first = [np.random.default_rng((2, i)).random() for i in range(6000) if found[i].caption[0] == "b"]
    assert np.mean(first) == pytest.approx(0.5, abs=0.03) and np.std(first) == pytest.approx(12**-0.5, abs=0.02)


def test_the_generator_reaches_the_parts_that_crop():
    found = mixture()
    for i in range(60):
        drawn = found.draw(i, keyed(1, 0, i)).caption
        expected = f" {torch.rand(1, generator=keyed(1, 0, i)).item():.3f}" if drawn.startswith("c") else ""
        assert drawn == found[i].caption + expected


def test_identity_and_bounds():
    assert len(mixture(length=5)) == 5 == len(list(mixture(length=5)))
    with pytest.raises(IndexError, match="item 5 of 5"):
        mixture(length=5)[5]
    identity = data.open("emoji:2+leaves", 16, count=9, seed=3).identity()
    assert identity["kind"] == "mixture" and identity["pictures"] == 9
    assert [(part["kind"], part["weight"]) for part in identity["parts"]] == [("emoji", 2), ("leaves", 1)]
    others = [data.open(source, 16, count=9, seed=3).identity() for source in ("emoji:3+leaves", "emoji:2+text")]
    assert identity not in others and json.loads(json.dumps(identity)) == identity


def test_items_are_those_of_the_parts():
    found = data.open("emoji+gradients", 16, seed=5)
    scenes, gradients = data.open("emoji", 16, seed=5), data.open("gradients", 16, seed=5)
    for i in range(20):
        picture, caption = found[i]
        assert picture.tobytes() == (scenes if caption else gradients)[i].picture.tobytes()


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("emoji:6+leafs:2", {}, "leafs: no such folder; expected emoji, digits, leaves, gradients, text, photographs"),
        ("emoji+leaves", {"split": "seen"}, "expected none"),
        ("emoji+leaves", {"buckets": 8}, "no buckets"),
        ("emoji+leaves", {"count": 0}, "count 0"),
        ("leaves", {"flip": True}, "leaves: .*expected no flip"),
        ("text", {"crop": "random"}, "text: .*no random crop"),
        ("leaves", {"split": "test"}, "split 'test': leaves have train"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(source, options, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said) as raised:
        data.open(source, 16, **options)
    assert "\n" not in str(raised.value)


# ---- training on them ----


def test_the_command_trains_on_a_mixture(tmp_path, ldm):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 24), "red").save(tmp_path / "photos" / "red.png")
    source = f"emoji:3+leaves:2+gradients+text+{tmp_path / 'photos'}:2"
    code, out, err = ldm("train", "vae", "--data", source, "--crop", "random", "--out", tmp_path / "run", *SHORT)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "run" / "vae"), err
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert [part["kind"] for part in settings["data"]["parts"]][:4] == ["emoji", "leaves", "gradients", "text"]
    assert json.loads((tmp_path / "run" / "roundtrip.json").read_text())["count"] == 3
    code, _, err = ldm("train", "vae", "--data", "emoji+leafs", "--out", tmp_path / "b", *SHORT)
    assert code == 2 and "leafs: no such folder" in err.splitlines()[-1] and not (tmp_path / "b").exists()
    code, _, err = ldm("train", "vae", "--data", "digits+digits", "--out", tmp_path / "b", *SHORT)
    assert code == 2 and "expected one of emoji, leaves" in err.splitlines()[-1]


def test_a_run_on_a_mixture_goes_on_exactly(tmp_path):
    plan = Plan(steps=4, batch_size=4, warmup=2, save_every=2, log_every=2, tensorboard=False)
    source = data.open("emoji:2+leaves+gradients+text", 16, count=32, seed=1)

    def train() -> dict[str, torch.Tensor]:
        train_vae(tmp_path, source, plan, "tiny", 16, held_out=data.open("emoji", 16, split="heldout", count=2))
        return checkpoint.read(tmp_path / "checkpoint-00000004.safetensors").tensors

    whole = train()
    (tmp_path / "checkpoint-00000004.safetensors").unlink()
    again = train()
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(ValueError, match="data"):
        other = data.open("emoji:3+leaves+gradients+text", 16, count=32, seed=1)
        train_vae(tmp_path, other, plan, "tiny", 16)
