"""masks: white means free, whatever the picture's kind; nothing beyond the feather is touched."""

import numpy as np
import pytest
import torch
from PIL import Image

from ldm import masks

SQUARE = np.zeros((24, 32), bool)
SQUARE[8:14, 10:20] = True


@pytest.mark.parametrize(
    "mask",
    [
        SQUARE,
        SQUARE.astype(np.uint8) * 255,
        SQUARE.astype(np.float32),
        torch.tensor(SQUARE).float()[None],
        Image.fromarray(SQUARE),
        Image.fromarray(SQUARE.astype(np.uint8) * 200),
        Image.fromarray(SQUARE.astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(np.dstack([np.full((24, 32, 3), 255, np.uint8), SQUARE.astype(np.uint8) * 255])),
        Image.fromarray(np.dstack([np.full((24, 32), 255, np.uint8), SQUARE.astype(np.uint8) * 255])),
    ],
    ids=["bool", "uint8", "float", "tensor", "1", "L", "RGB", "RGBA", "LA"],
)
def test_any_kind_of_picture(mask):
    assert torch.equal(masks.to_mask(mask, (24, 32))[0, 0], torch.tensor(SQUARE).float())


def test_a_mask_of_another_size_is_stretched():
    small = Image.fromarray(SQUARE).resize((16, 12), Image.Resampling.NEAREST)
    assert torch.equal(masks.to_mask(small, (24, 32))[0, 0], torch.tensor(SQUARE).float())


def test_a_latent_is_free_where_any_pixel_is():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 5, 6] = 1
    assert masks.touched(mask, 4).nonzero().tolist() == [[0, 0, 1, 1]]
    assert not masks.nearest(mask, 4).any()


@pytest.mark.parametrize("radius", [0, 1, 4, 9])
def test_the_feather_covers_the_mask_and_ends_at_its_radius(radius):
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., 15:25, 18:30] = 1
    weights = masks.feathered(mask, radius)
    assert (weights[mask == 1] == 1).all()
    assert weights.min() == 0 and weights.max() == 1
    beyond = torch.ones_like(mask)
    beyond[..., 15 - radius : 25 + radius, 18 - radius : 30 + radius] = 0
    assert (weights[beyond == 1] == 0).all()
    profile = weights[0, 0, :16, 24]
    assert (profile.diff() >= 0).all()
    if radius > 1:
        assert ((profile > 0) & (profile < 1)).sum() >= radius - 1


def test_a_mask_at_the_border_stays_whole():
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., :4, :] = 1
    assert (masks.feathered(mask, 3)[..., :4, :] == 1).all()


def test_pasting_keeps_both_ends_to_the_last_bit():
    x, original = torch.rand(2, 1, 3, 4, 4)
    weights = torch.tensor([0.0, 1.0, 0.5, 0.25]).expand(1, 1, 4, 4)
    result = masks.pasted(x, original, weights)
    assert torch.equal(result[..., 0], original[..., 0]) and torch.equal(result[..., 1], x[..., 1])
    assert torch.allclose(result[..., 3], 0.25 * x[..., 3] + 0.75 * original[..., 3])


def test_numbers_that_are_not_there_are_not_pasted():
    x = torch.full((1, 3, 2, 2), torch.nan)
    assert torch.equal(masks.pasted(x, torch.ones_like(x), torch.zeros(1, 1, 2, 2)), torch.ones_like(x))
