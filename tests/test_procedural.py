"""Pictures from a number: the same ones always, with the statistics that they are drawn for."""

import json

import numpy as np
import pytest

from ldm.data import leaves, lettering
from ldm.data.gradients import gradient
from ldm.data.palettes import AXES, palette
from ldm.data.procedural import DRAWS, Procedural


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(kind: str, side: int = 32, seed: int = 0, length: int = 1000) -> Procedural:
    return Procedural(kind, DRAWS[kind], side, seed, length)


def greys(kind: str, count: int, side: int) -> np.ndarray:
    """(count, side, side) grey pictures."""
    return np.stack([np.asarray(drawn(kind, side)[i][0].convert("L"), float) for i in range(count)])


# ---- what all of them are ----


@pytest.mark.parametrize("kind", DRAWS)
def test_item_i_depends_on_seed_and_i_alone(kind):
    there = [drawn(kind, seed=5)[i] for i in range(4)]
    data = drawn(kind, seed=5)
    back = [data[i] for i in reversed(range(4))][::-1]
    assert [item.picture.tobytes() for item in there] == [item.picture.tobytes() for item in back]
    assert len({item.picture.tobytes() for item in [*there, drawn(kind, seed=6)[0]]}) == 5
    assert {(item.caption, item.label, item.condition) for item in there} == {("", None, None)}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("side", [8, 33, 128])
def test_pictures_are_rgb_of_the_side_asked_for(kind, side):
    for i in range(3):
        picture = drawn(kind, side)[i].picture
        assert picture.mode == "RGB" and picture.size == (side, side)


@pytest.mark.parametrize("kind", DRAWS)
def test_identity_says_what_decides_the_pictures(kind):
    identities = [drawn(kind).identity(), drawn(kind, seed=1).identity(), drawn(kind, 64).identity()]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 3
    assert identities[0]["kind"] == kind


def test_what_is_not_there_is_refused():
    data = drawn("gradients", length=3)
    assert len(data) == 3 == len(list(data))
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"item {index} of 3"):
            data[index]
    with pytest.raises(ValueError, match="side 7: expected 8 or more"):
        drawn("leaves", 7)


# ---- dead leaves ----


def test_radii_fall_like_r_to_the_minus_three_and_cover_the_ground():
    """Of the leaves that touch a square, each counts as much less as there is more room for its centre."""
    size = 200
    r = [leaves.radii(rng(seed), size) for seed in range(200)]
    weights = [1 / (size + 2 * radius) ** 2 for radius in r]
    covered = [np.sum(np.pi * radius**2 * weight) for radius, weight in zip(r, weights, strict=True)]
    assert np.mean(covered) == pytest.approx(leaves.COVER, rel=0.03)  # 200 pictures: one standard error is 1 %
    radius, weight = np.concatenate(r), np.concatenate(weights)
    octaves = [weight[(radius >= low * size) & (radius < 2 * low * size)].sum() for low in (0.035, 0.07, 0.14)]
    assert octaves[0] / octaves[1] == pytest.approx(4, rel=0.1)  # the integral of r^-3, four times that of the next
    assert octaves[1] / octaves[2] == pytest.approx(4, rel=0.1)


def test_stretching_and_turning_a_leaf_keeps_its_area_and_its_place():
    leaf = np.array([[30.0, 40.0, 9.0, 1.0, 0.0, 0.0, 0, 0.0, 3]])  # a disc
    other = np.array([[30.0, 40.0, 9.0, 1.7, 0.4, 2.0, 0, 0.0, 3]])
    for one in (leaf, other):
        x, y = leaves.corners_of(one, 48).reshape(48, 2).T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert area == pytest.approx(np.pi * 81, rel=0.005)  # a polygon of 48 corners is 0.3 % smaller than its circle
        assert (x.mean(), y.mean()) == pytest.approx((30, 40))
    triangle = leaves.corners_of(np.array([[0.0, 0, 9, 1, 0, 0, 3, 0, 2]]), 20).reshape(20, 2)
    assert len(np.unique(triangle.round(6), axis=0)) == 3


def test_the_spectrum_falls_like_that_of_photographs():
    """Power ~ 1/f^2 over three octaves (Field 1987); such a fit gives about 2.3 for photographs, and 0 for noise."""
    assert -2.6 < slope(greys("leaves", 40, 96)) < -1.9
    assert abs(slope(rng().normal(size=(40, 96, 96)))) < 0.1


def slope(x: np.ndarray) -> float:
    """Pictures (N,H,H) -> the exponent of their mean power spectrum from 3 to 24 waves across."""
    side = x.shape[-1]
    window = np.outer(np.hanning(side), np.hanning(side))
    power = np.abs(np.fft.fft2((x - x.mean((1, 2), keepdims=True)) * window)) ** 2
    power /= power.sum((1, 2), keepdims=True)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, 1 / side)] * 2))
    waves = np.array([3, 4.25, 6, 8.5, 12, 17, 24])
    at = [power[:, (frequency > f / 1.19) & (frequency < f * 1.19)].mean() for f in waves]
    return float(np.polyfit(np.log(waves), np.log(at), 1)[0])


def test_textures_are_seen_inside_of_leaves_only_where_they_are_asked_for():
    flat = np.full((32, 32, 3), 128, np.float32)
    plain, strong = np.zeros((32, 32), np.uint8), np.full((32, 32), 255, np.uint8)
    half = np.hstack([plain[:, :16], strong[:, :16]])
    textured = leaves.textured(rng(3), flat, half)
    light = leaves.textured(rng(3), flat, plain)
    assert np.array_equal(textured[:, :16], light[:, :16])
    assert (textured - light)[:, 16:].std() > 10


# ---- gradients and text ----


def test_gradients_are_smooth_or_flat():
    x = np.stack([np.asarray(gradient(rng(seed), 96), float) for seed in range(60)])
    steps = np.abs(np.diff(x, axis=2)).max(-1).reshape(60, -1)
    assert np.mean(np.median(steps, 1) <= 5) > 0.9  # grey levels from pixel to pixel: no noise, few steep ones
    flat = np.mean(steps.max(1) == 0)
    assert 0.1 < flat < 0.45  # one colour, a quarter; a few change from top to bottom alone


def test_letters_stand_out_from_their_ground():
    x = greys("text", 60, 96)
    contrast = np.maximum(np.abs(np.diff(x, axis=1)).max((1, 2)), np.abs(np.diff(x, axis=2)).max((1, 2)))
    assert np.mean(contrast > lettering.CONTRAST / 2) > 0.9  # sharp: from one pixel to the next


@pytest.mark.parametrize("ground", [0.0, 90.0, 128.0, 255.0])
def test_ink_is_chosen_by_its_contrast(ground):
    for seed in range(20):
        ink = np.array(lettering.inks(rng(seed), ground)[0])
        assert abs(ink @ [0.299, 0.587, 0.114] - ground) >= lettering.CONTRAST


def test_the_font_has_every_sign():
    font = lettering.font(24)
    missing = bytes(font.getmask("\uffff"))
    for sign in lettering.LETTERS + lettering.LETTERS.upper() + lettering.SIGNS:
        assert font.getmask(sign).getbbox() and bytes(font.getmask(sign)) != missing, sign


# ---- colours ----


def test_colours_of_a_picture_belong_together_and_differ_most_in_light():
    palettes = [palette(rng(seed), 30) for seed in range(100)]
    assert all(found.shape == (30, 3) and 0 <= found.min() and found.max() <= 255 for found in palettes)
    within = np.mean([found.std(0).mean() for found in palettes])
    assert within < 0.9 * np.concatenate(palettes).std(0).mean()
    light, yellow, red = np.median([(found @ AXES.T).std(0) for found in palettes], axis=0)
    assert light > 1.5 * yellow > 1.5 * red
