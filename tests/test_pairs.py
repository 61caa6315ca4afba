"""Degradations, and pairs of clean and degraded pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from ldm import data
from ldm.data.degrading import DEGRADATIONS, degradation
from ldm.data.pairs import Degraded, FolderPairs, Made, Patches


def generator(seed=0):
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clean():
    return data.open("emoji", 48, count=6)[3][0].convert("RGB")


def difference(one, other):
    return np.abs(np.asarray(one).astype(float) - np.asarray(other)).mean()


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_is_a_picture_of_the_same_size_that_its_generator_decides(name, clean):
    degrade = degradation(name)
    first, again, other = (degrade(clean, generator(seed)) for seed in (0, 0, 1))
    assert (first.size, first.mode) == (clean.size, "RGB") and first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes() and difference(first, clean) > 0.5


WORSE = {"blur:1": "blur:4", "jpeg:60": "jpeg:3", "downsample:1.5": "downsample:6", "mask:0.05": "mask:0.5"}


@pytest.mark.parametrize("weak, strong", WORSE.items())
def test_more_is_worse(weak, strong, clean):
    assert difference(degradation(weak)(clean, generator()), clean) < difference(
        degradation(strong)(clean, generator()), clean
    )


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_mask_covers_about_its_share(share, clean):
    grey = Image.new("RGB", (64, 48), (10, 200, 30))
    covered = [
        (np.asarray(degradation(f"mask:{share}")(grey, generator(i))) != np.asarray(grey)).any(-1).mean()
        for i in range(60)
    ]
    assert 0.6 * share < np.mean(covered) <= 1.1 * share  # rectangles may overlap


@pytest.mark.parametrize(
    "asked", ["blurr", "", "blur:x", "blur:3-1", "jpeg:0", "jpeg:200", "mask:1.5", "downsample:0.5", "blur:nan"]
)
def test_a_degradation_that_is_not_known(asked):
    with pytest.raises(ValueError, match="expected"):
        degradation(asked)


def test_degraded_items_are_drawn_anew_and_by_number():
    pairs = Degraded(data.open("emoji", 32, count=4), degradation("blur"), "blur")
    first, again, other = (pairs.draw(2, generator(seed)) for seed in (0, 0, 1))
    assert first[0].tobytes() == again[0].tobytes() == other[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes() != other[1].tobytes()
    assert len(pairs) == 4 and pairs.identity()["how"] == "blur"


def test_patches_are_cropped_alike(clean):
    pairs = Patches(Degraded([(clean, "")], lambda image, _: image, "nothing"), 16)
    for seed in range(5):
        one, other = pairs.draw(0, generator(seed))
        assert one.size == (16, 16) and one.tobytes() == other.tobytes()
    with pytest.raises(ValueError, match="expected 64 or more"):
        Patches(pairs, 64).draw(0, generator())


def test_made_pairs_are_the_same_at_every_draw():
    made = Made.of(Degraded(data.open("emoji", 32, count=3), degradation("jpeg"), "jpeg"))
    assert made.pixels.shape == (3, 2, 32, 32, 3) and made.pixels.dtype == torch.uint8
    assert [p.tobytes() for p in made.draw(1, generator(0))] == [p.tobytes() for p in made.draw(1, generator(1))]


def written(folder, **pictures):
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


def test_two_folders_are_matched_by_name(tmp_path, clean):
    written(tmp_path / "clean", a=clean, b=clean, c=clean)
    written(tmp_path / "rough", b=clean.transpose(Image.Transpose.FLIP_LEFT_RIGHT), c=clean, d=clean)
    pairs = FolderPairs(tmp_path / "rough", tmp_path / "clean")
    assert pairs.names == ["b", "c"] and len(pairs) == 2
    good, rough = pairs.draw(0, generator())
    assert good.tobytes() == clean.tobytes() != rough.tobytes()


def test_folders_that_do_not_go_together(tmp_path, clean):
    written(tmp_path / "clean", a=clean, b=clean)
    written(tmp_path / "rough", b=clean.resize((20, 20)))
    written(tmp_path / "others", x=clean)
    with pytest.raises(ValueError, match="20x20 and 48x48"):
        FolderPairs(tmp_path / "rough", tmp_path / "clean").draw(0, generator())
    with pytest.raises(ValueError, match="no picture of the same name"):
        FolderPairs(tmp_path / "others", tmp_path / "clean")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FolderPairs(tmp_path / "nowhere", tmp_path / "clean")
