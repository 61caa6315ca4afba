"""LatentSpace scales as the weights say, keeps sizes and gradients, and never gives a black picture for an overflow."""

import math
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import nn

import ldm.latents
from ldm.images import crop, pad, to_images, to_pixels
from ldm.latents import SCALE, LatentSpace, NonFiniteError
from ldm.precision import LOGVAR_FLOOR
from ldm.tiling import Tiling


def tiny_vae(seed=0, widths=(8, 8), **config):
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        norm_num_groups=4,
        **config,
    ).eval()


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


def picture(width=16, height=16, seed=0):
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    values = 127 + 100 * np.stack([np.sin(5 * x + seed), np.cos(4 * y + seed), np.sin(3 * (x + y))], -1)
    return Image.fromarray(values.astype(np.uint8))


class Blocks(nn.Module):
    """Blocks of 2 x 2 pixels as 12 channels: exact, deterministic, and by its weights overflowing in float16.

    `big` is multiplied in and divided out again, so that values above 0.55 overflow in float16, and only there.
    """

    def __init__(self, big=1.0, where="encode"):
        super().__init__()
        self.big, self.where = nn.Parameter(torch.tensor(big)), where

    def passed(self, values, where):
        return values * 2 * self.big / self.big / 2 if where == self.where else values

    def encode(self, x):
        return F.pixel_unshuffle(self.passed(x, "encode"), 2)

    def decode(self, raw):
        return self.passed(F.pixel_shuffle(raw, 2), "decode")


class Poisoned(Blocks):
    """NaN wherever a picture has a pixel of full white, in any dtype."""

    def encode(self, x):
        white = (x == 1).all(1, keepdim=True).any((2, 3), keepdim=True)
        return super().encode(x.masked_fill(white, math.nan))


# ---- the scale ----


def test_the_number_stands_once():
    code = "".join(path.read_text(encoding="utf-8") for path in Path(ldm.latents.__file__).parent.rglob("*.py"))
    assert code.count("0.18215") == 1 and f"SCALE = {SCALE}" in code


def test_equals_diffusers(vae):
    space, pictures = LatentSpace(vae), [picture(seed=seed) for seed in range(3)]
    x = to_pixels(pictures)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        assert torch.allclose(space.encode(pictures), posterior.mean * vae.config.scaling_factor, atol=1e-6)
        one = vae.encode(x[:1]).latent_dist.sample(torch.Generator().manual_seed(5)) * vae.config.scaling_factor
        assert torch.allclose(space.encode(pictures[0], torch.Generator().manual_seed(5)), one, atol=1e-6)
        z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        pixels = vae.decode(z / vae.config.scaling_factor).sample
    assert torch.allclose(space.to_pixels(z), pixels, atol=1e-5)
    assert space.decode(z) == to_images(pixels)
    assert (space.scale, space.shift, space.factor, space.channels) == (SCALE, 0.0, 2, 4)


@pytest.mark.parametrize(
    "config, scale, shift",
    [
        ({}, SCALE, 0.0),
        ({"scaling_factor": 0.13025}, 0.13025, 0.0),
        ({"scaling_factor": 0.3611, "shift_factor": 0.1159}, 0.3611, 0.1159),
        ({"scaling_factor": 1.0}, 1.0, 0.0),
        (
            {"scaling_factor": 0.5, "latents_mean": [-1.6, 1.3, 2.6, -0.1], "latents_std": [8.4, 5.9, 4.2, 5.0]},
            0.5 / torch.tensor([8.4, 5.9, 4.2, 5.0]),
            torch.tensor([-1.6, 1.3, 2.6, -0.1]),
        ),
    ],
)
def test_the_config_names_the_scale(vae, config, scale, shift):
    space = LatentSpace(tiny_vae(**config))
    torch.testing.assert_close(torch.as_tensor(space.scale), torch.as_tensor(scale))
    torch.testing.assert_close(torch.as_tensor(space.shift), torch.as_tensor(shift))
    x = to_pixels(picture())
    with torch.no_grad():
        raw = vae.encode(x).latent_dist.mean  # the same seed, so the same weights
        column = torch.as_tensor(scale).reshape(-1, 1, 1), torch.as_tensor(shift).reshape(-1, 1, 1)
        z = (raw - column[1]) * column[0]
        torch.testing.assert_close(space.from_pixels(x), z, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(space.to_pixels(z), vae.decode(raw).sample, rtol=1e-4, atol=1e-5)


def test_deviations_alone_are_the_whole_scale():
    autoencoder = Blocks()
    autoencoder.config = {"latents_mean": [1.0] * 12, "latents_std": [4.0] * 12}
    space = LatentSpace(autoencoder)
    assert space.scale.tolist() == [0.25] * 12 and space.shift.tolist() == [1.0] * 12


def test_an_argument_wins_over_the_config():
    named = tiny_vae(scaling_factor=0.5, shift_factor=2.0)
    assert (LatentSpace(named, scale=3).scale, LatentSpace(named, scale=3).shift) == (3.0, 2.0)
    assert LatentSpace(named, shift=[1, 2, 3, 4]).shift.tolist() == [1, 2, 3, 4]
    assert LatentSpace(Blocks()).scale == SCALE


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 0}, {"scale": math.nan}, {"shift": math.inf}, {"scale": [1.0, 2.0]}, {"scale": torch.ones(2, 2)}],
)
def test_a_scale_that_is_none(vae, wrong):
    with pytest.raises(ValueError, match="scale|shift"):
        LatentSpace(vae, **wrong)


def test_the_identity_is_pixel_space():
    space, image = LatentSpace.identity(), picture(5, 3)
    assert (space.factor, space.channels, space.scale) == (1, 3, 1.0)
    assert torch.equal(space.encode(image), to_pixels(image))
    assert space.decode(space.encode(image)) == [image]
    assert space.roundtrip(image).psnr == math.inf


@pytest.mark.parametrize("widths, factor", [((8,), 1), ((8, 8), 2), ((8, 8, 8, 8), 8)])
def test_the_factor_by_config_and_by_probing(widths, factor):
    vae = tiny_vae(widths=widths, latent_channels=3)
    plain = SimpleNamespace(encode=lambda x: vae.encode(x).latent_dist.mean, decode=lambda z: vae.decode(z).sample)
    for space in (LatentSpace(vae), LatentSpace(plain)):
        assert (space.factor, space.channels) == (factor, 3)
    assert LatentSpace(plain, factor=5).factor == 5


def test_any_kind_of_pair():
    x = to_pixels(picture())
    raw = F.pixel_unshuffle(x, 2)
    for encoded in (raw, SimpleNamespace(latents=raw), SimpleNamespace(latent=raw)):
        pair = SimpleNamespace(encode=lambda x, found=encoded: found, decode=lambda z: SimpleNamespace(sample=z))
        mean, logvar = LatentSpace(pair, scale=0.5, factor=2).posterior(x)
        assert torch.equal(mean, raw / 2)
        torch.testing.assert_close(logvar, torch.full_like(raw, LOGVAR_FLOOR + 2 * math.log(0.5)))


# ---- posterior, randomness, gradients ----


def test_the_posterior_is_that_of_the_scaled_latents(vae):
    x, scale, shift = to_pixels(picture()), torch.tensor([0.5, 2.0, -1.0, 0.1]), 0.3
    mean, logvar = LatentSpace(vae, scale, shift).posterior(x)
    raw = vae.encode(x).latent_dist
    column = scale.view(-1, 1, 1)
    torch.testing.assert_close(mean, (raw.mean - shift) * column)
    torch.testing.assert_close((logvar / 2).exp(), raw.std * column.abs())


def test_a_sample_does_not_depend_on_its_neighbours(vae):
    space, pictures = LatentSpace(vae), [picture(seed=seed) for seed in range(4)]

    def generators(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = space.encode(pictures, generators(range(4)))
    for j in range(4):
        torch.testing.assert_close(space.encode(pictures[j], generators([j])), together[j : j + 1])
    assert not torch.allclose(together, space.encode(pictures))
    assert torch.equal(together, space.encode(pictures, generators(range(4))))


def test_one_generator_serves_images_in_order(vae):
    space, image = LatentSpace(vae), picture()
    generator = torch.Generator().manual_seed(3)
    apart = torch.cat([space.encode(image, generator), space.encode(image, generator)])
    torch.testing.assert_close(space.encode([image, image], torch.Generator().manual_seed(3)), apart)
    assert not torch.allclose(apart[0], apart[1])
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        space.encode([image, image], [generator])


def test_pixels_and_latents_are_differentiable(vae):
    space = LatentSpace(vae)
    x = to_pixels(picture()).requires_grad_()
    space.to_pixels(space.from_pixels(x, torch.Generator().manual_seed(0))).square().sum().backward()
    got, x.grad = x.grad, None
    vae.decode(vae.encode(x).latent_dist.sample(torch.Generator().manual_seed(0))).sample.square().sum().backward()
    torch.testing.assert_close(got, x.grad, rtol=1e-4, atol=1e-5)
    assert not space.encode(picture()).requires_grad
    vae.zero_grad()


# ---- sizes ----


@pytest.mark.parametrize("width, height", [(1, 1), (1, 50), (17, 16), (16, 9), (33, 31)])
def test_what_comes_out_has_the_size_of_what_went_in(width, height):
    space, image = LatentSpace(tiny_vae(widths=(8, 8, 8))), picture(width, height)
    z = space.encode(image)
    assert z.shape == (1, 4, -(-height // 4), -(-width // 4))
    assert space.decode(z, (height, width))[0].size == (width, height)
    assert space.decode(z)[0].size == (4 * -(-width // 4), 4 * -(-height // 4))
    assert space.roundtrip(image).image.size == (width, height)
    x, size = pad(to_pixels(image), 4)
    assert space.reconstruct(image) == to_images(crop(space.to_pixels(space.from_pixels(x)), size))


def test_many_pictures(vae, tmp_path):
    space, path = LatentSpace(vae), tmp_path / "picture.png"
    picture(seed=1).save(path)
    array = np.asarray(picture(seed=1))
    tensor = to_pixels(path)[0]
    assert space.encode([path, str(path), array, picture(seed=1)]).shape == (4, 4, 8, 8)
    assert torch.allclose(space.encode(tensor, value_range=(-1, 1)), space.encode(path), atol=1e-6)
    assert [image.size for image in space.reconstruct([picture(), picture(7, 5)])] == [(16, 16), (7, 5)]
    with pytest.raises(ValueError, match="16x16.*7x5"):
        space.encode([picture(), picture(7, 5)])
    with pytest.raises(ValueError, match="value_range"):
        space.encode(tensor)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda space: space.decode(torch.zeros(1, 3, 8, 8)), r"\(1, 3, 8, 8\): expected \(B,4,h,w\)"),
        (lambda space: space.decode(torch.zeros(4, 8, 8)), r"expected \(B,4,h,w\)"),
        (lambda space: space.from_pixels(torch.zeros(1, 3, 8, 9)), r"\(1, 3, 8, 9\).*multiples of 2"),
        (lambda space: space.decode(torch.zeros(1, 4, 8, 8), (17, 16)), "larger than"),
        (lambda space: space.roundtrip([picture(), picture()]), "2 pictures"),
        (lambda space: space.statistics([]), "no picture"),
        (lambda space: LatentSpace.identity().save_pretrained("nowhere"), "no save_pretrained"),
    ],
)
def test_bad_input_is_one_line(vae, wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong(LatentSpace(vae))
    assert "\n" not in str(caught.value)


# ---- precision ----


def grey(value):
    return to_pixels(Image.new("RGB", (8, 8), (value,) * 3))


def test_results_are_float32_in_any_precision(vae):
    image, exact = picture(), LatentSpace(vae).encode(picture())
    for dtype in (torch.bfloat16, torch.float16):
        space = LatentSpace(tiny_vae()).to(dtype=dtype)
        z = space.encode(image, torch.Generator().manual_seed(0))
        assert next(space.autoencoder.parameters()).dtype == dtype
        assert z.dtype == space.to_pixels(z).dtype == torch.float32
        torch.testing.assert_close(space.encode(image), exact, rtol=0.05, atol=0.01)


def test_to_is_quiet(caplog):
    assert isinstance(LatentSpace(tiny_vae()).to("cpu", torch.bfloat16), LatentSpace)
    assert LatentSpace.identity().to("cpu", torch.float16).encode(picture()).dtype == torch.float32
    assert not caplog.records


def test_only_the_images_that_overflow_are_redone_in_float32():
    space = LatentSpace(Blocks(big=6e4), scale=1.0, factor=2).to(dtype=torch.float16)
    seen = []
    encode = space.autoencoder.encode
    space.autoencoder.encode = lambda x: seen.append((len(x), x.dtype)) or encode(x)
    x = torch.cat([grey(140), grey(250), grey(100), grey(2)])
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="Blocks: encoding overflowed in float16") as caught:
        z = space.from_pixels(x)
    assert len(caught) == 1
    assert seen == [(4, torch.float16), (2, torch.float32)]
    assert torch.equal(z[[1, 3]], F.pixel_unshuffle(x[[1, 3]], 2))  # exactly, so in float32
    torch.testing.assert_close(z, F.pixel_unshuffle(x, 2), rtol=2e-3, atol=1e-3)
    assert {p.dtype for p in space.autoencoder.parameters()} == {torch.float16}  # and stays as it was


def test_the_warning_is_given_once():
    space = LatentSpace(Blocks(big=6e4), scale=1.0, factor=2).to(dtype=torch.float16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            space.encode(Image.new("RGB", (8, 8), "white"))
        assert len(caught) == 1
        space.to(dtype=torch.float32).to(dtype=torch.float16).encode(Image.new("RGB", (8, 8), "white"))
    assert len(caught) == 1


def test_a_decoder_that_overflows():
    space = LatentSpace(Blocks(big=6e4, where="decode"), scale=1.0).to(dtype=torch.float16)
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("white", "grey", "red")]
    with pytest.warns(RuntimeWarning, match="decoding overflowed in float16"):
        decoded = space.decode(space.encode(pictures))
    assert decoded == pictures


def test_gradients_survive_an_overflow():
    space = LatentSpace(Blocks(big=6e4), scale=2.0).to(dtype=torch.float16)
    x = torch.cat([grey(140), grey(250)]).requires_grad_()
    with pytest.warns(RuntimeWarning, match="overflowed"):
        space.from_pixels(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 2.0))
    assert space.autoencoder.big.grad.isfinite()


def test_what_float32_cannot_mend_is_an_error_that_names_the_image(tmp_path):
    path = tmp_path / "white.png"
    Image.new("RGB", (16, 16), "white").save(path)
    for dtype in (torch.float32, torch.float16):
        space = LatentSpace(Poisoned()).to(dtype=dtype)
        for call in (
            lambda space: space.encode([picture(), path]),
            lambda space: space.reconstruct([picture(), path]),
            lambda space: space.roundtrip(path),
            lambda space: space.statistics([picture(), path]),
        ):
            with pytest.raises(NonFiniteError, match=re.escape(str(path)) + ": encoding gives NaN"):
                call(space)
        with pytest.raises(NonFiniteError, match="image 1: encoding") as caught, torch.no_grad():
            space.from_pixels(to_pixels([picture(), path, picture()]))
        assert caught.value.index == 1
    z = torch.zeros(3, 12, 4, 4)
    z[2, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="image 2: decoding gives NaN"):
        space.decode(z)


def test_a_plain_pair_that_fails_is_an_error_too():
    pair = SimpleNamespace(encode=lambda x: x / 0 * 0, decode=lambda z: z)
    with pytest.raises(NonFiniteError, match="image 0"):
        LatentSpace(pair, factor=1).encode(picture())


def test_autocast_does_not_reach_the_redone_part(vae):
    class Wide(Blocks):  # a matrix product, which autocast does in float16
        def encode(self, x):
            return super().encode((x.transpose(1, 3) @ (1e5 * torch.eye(3))).transpose(1, 3) / 1e5)

    space, x = LatentSpace(Wide(), scale=1.0, factor=2), to_pixels(picture())
    with torch.no_grad(), torch.autocast("cpu", torch.float16), pytest.warns(RuntimeWarning, match="overflowed"):
        z = space.from_pixels(x)
    torch.testing.assert_close(z, F.pixel_unshuffle(x, 2), rtol=1e-4, atol=1e-4)


# ---- memory ----


def tiles(side, overlap=0, together=1):
    return Tiling(area=side**2, together=together, tile=side, overlap=overlap)


class Full(Blocks):
    """Memory for so many pixels at once, and no more."""

    def __init__(self, pixels, error=None):
        super().__init__()
        self.pixels, self.seen = pixels, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def run(self, part, x, pixels):
        self.seen.append(pixels)
        if pixels > self.pixels:
            raise self.error
        return part(x)

    def encode(self, x):
        return self.run(super().encode, x, x[:, 0].numel())

    def decode(self, raw):
        return self.run(super().decode, raw, 4 * raw[:, 0].numel())


@pytest.mark.parametrize("memory", ["low", "min", tiles(16, 4), tiles(64, 32, 8)])
def test_any_memory_gives_the_same_pictures(memory):
    """Places that are independent: exactly. A network with norms is held to its figures in test_tiling."""
    pictures = [picture(301, 267, seed) for seed in range(3)]
    whole, spare = LatentSpace(Blocks(), scale=2.0), LatentSpace(Blocks(), scale=2.0, memory=memory)
    z = whole.encode(pictures)
    torch.testing.assert_close(spare.encode(pictures), z, rtol=0, atol=1e-5)
    assert spare.decode(z, (267, 301)) == whole.decode(z, (267, 301))
    assert spare.reconstruct(pictures) == whole.reconstruct(pictures)
    for one, two in zip(spare.posterior(to_pixels(picture(32, 32))), whole.posterior(to_pixels(picture(32, 32)))):
        torch.testing.assert_close(one, two)
    assert spare.roundtrip(pictures[0]).psnr > 100
    assert spare.memory == memory


def test_memory_says_what_goes_together_and_what_in_tiles():
    x, tile = torch.zeros(3, 3, 512, 512), 256**2
    for memory, seen in (("auto", [3 * 512**2]), ("low", [512**2] * 3)):
        space = LatentSpace(Full(1e9), factor=2, memory=memory)
        with torch.no_grad():
            space.from_pixels(x)
        assert space.autoencoder.seen == seen
    space = LatentSpace(Full(1e9), factor=2)
    for memory, side, most in (("auto", 1600, 512**2), ("low", 1100, 512**2), ("min", 512, tile)):
        space.memory, space.autoencoder.seen = memory, []
        with torch.no_grad():
            space.from_pixels(torch.zeros(1, 3, side, side))
        assert len(space.autoencoder.seen) > 1 and max(space.autoencoder.seen) <= most


def test_the_area_decides_and_not_a_side():
    space = LatentSpace(Full(1e9), factor=2)
    with torch.no_grad():
        space.from_pixels(torch.zeros(1, 3, 64, 20_000))
    assert space.autoencoder.seen == [64 * 20_000]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_when_memory_runs_out_pieces_get_smaller_once_and_say_so_once(caplog, error):
    x = to_pixels([picture(320, 256, seed) for seed in range(2)])
    space = LatentSpace(Full(70_000, error), scale=1.0, factor=2)
    for _ in range(2):
        with torch.no_grad():
            z = space.from_pixels(x)
            torch.testing.assert_close(space.to_pixels(z), x, rtol=0, atol=1e-6)
        torch.testing.assert_close(z, F.pixel_unshuffle(x, 2), rtol=0, atol=1e-6)
    assert [record.name for record in caplog.records] == ["ldm"]
    assert "out of memory: encoding 320x256 goes in smaller pieces" in caplog.text
    assert sum(pixels > 70_000 for pixels in space.autoencoder.seen) == 2  # the batch, then one whole picture; no more
    assert space.memory == "auto"
    space.memory, space.autoencoder.pixels, space.autoencoder.seen = "auto", 1e9, []
    space.encode(picture(320, 256))
    assert space.autoencoder.seen == [320 * 256]  # what is set again begins anew


def test_where_the_smallest_pieces_do_not_fit_the_error_stays():
    space = LatentSpace(Full(1000), factor=2)
    with pytest.raises(torch.OutOfMemoryError):
        space.encode(picture(320, 256))
    other = LatentSpace(Full(1000, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), factor=2)
    with pytest.raises(RuntimeError, match="mat1"):
        other.encode(picture(320, 256))
    assert len(other.autoencoder.seen) == 1


def test_gradients_are_those_of_the_whole(vae):
    gradients = []
    for memory in ("auto", tiles(8)):
        x = to_pixels([picture(24, 16)] * 2).requires_grad_()
        space = LatentSpace(vae, memory=memory)
        space.to_pixels(space.from_pixels(x)).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    vae.zero_grad()


def test_a_tile_that_overflows_is_redone_in_float32():
    space = LatentSpace(Blocks(big=6e4), scale=1.0, factor=2, memory=tiles(8)).to(dtype=torch.float16)
    seen, encode = [], space.autoencoder.encode
    space.autoencoder.encode = lambda x: seen.append((x.dtype, float(x.max()) > 0.55)) or encode(x)
    x = torch.cat([torch.cat([grey(140), grey(250)], dim=3), torch.cat([grey(100), grey(2)], dim=3)], dim=2)
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="Blocks: encoding overflowed in float16"):
        z = space.from_pixels(x)
    half, full = torch.float16, torch.float32
    assert seen == [(half, False), (half, True), (full, True), (half, False), (half, False), (full, False)]
    torch.testing.assert_close(z, F.pixel_unshuffle(x, 2), rtol=2e-3, atol=1e-3)
    assert torch.equal(z[..., :4, 4:], F.pixel_unshuffle(x, 2)[..., :4, 4:])


def test_an_overflow_leaves_the_shared_moments_finite():
    class Normed(Blocks):
        def __init__(self):
            super().__init__(big=6e4)
            self.norm = nn.GroupNorm(4, 12)

        def encode(self, x):
            return self.norm(super().encode(x))

    x = to_pixels(picture(48, 32))
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="overflowed in float16"):
        exact = LatentSpace(Normed(), scale=1.0, factor=2).from_pixels(x)
        z = LatentSpace(Normed(), scale=1.0, factor=2, memory=tiles(16)).to(dtype=torch.float16).from_pixels(x)
    torch.testing.assert_close(z, exact, rtol=0.01, atol=0.01)  # half precision has 3 digits


def test_a_tile_that_cannot_be_mended_names_its_image():
    space = LatentSpace(Poisoned(), memory=tiles(8))
    with pytest.raises(NonFiniteError, match="image 1: encoding gives NaN"):
        space.encode([picture(32, 32), Image.new("RGB", (32, 32), "white")])


def test_memory_that_is_none(vae):
    with pytest.raises(ValueError, match="memory 'much': expected auto, low, min or a Tiling"):
        LatentSpace(vae, memory="much")
    with pytest.raises(ValueError, match="tile 15: expected a multiple of 2"):
        LatentSpace(vae, memory=tiles(15))


# ---- the sketch of latents ----


def test_a_preview_is_the_best_linear_map():
    space = LatentSpace.identity()
    image = picture(20, 12)
    assert space.preview(space.encode(image)) == [image]
    space = LatentSpace(Blocks(), scale=0.5)
    flat = Image.new("RGB", (20, 12), (250, 10, 99))
    (sketch,) = space.preview(space.encode(flat))
    assert sketch.size == (20, 12)
    np.testing.assert_allclose(np.asarray(sketch, float), np.asarray(flat, float), atol=1)


def test_a_preview_costs_one_fit_and_stays_at_the_size_of_pictures(vae):
    space = LatentSpace(vae)
    first = space.preview(torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)))
    assert [image.size for image in first] == [(16, 12)] * 2
    space.autoencoder = None  # not needed any more
    assert space.preview(torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))) == first
    blocks = np.asarray(first[0]).reshape(6, 2, 8, 2, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    with pytest.raises(ValueError, match=r"expected \(B,4,h,w\)"):
        space.preview(torch.zeros(1, 3, 4, 4))


# ---- round trip and statistics ----


def test_the_round_trip_is_that_of_encode_and_decode(vae):
    space, image = LatentSpace(vae), picture(15, 13)
    check = space.roundtrip(image)
    z = space.encode(image)
    assert check.image == space.decode(z, (13, 15))[0] and check.original == image
    assert (check.latent_mean, check.latent_std) == pytest.approx((float(z.mean()), float(z.std(correction=0))))
    assert check.fitting_scale == pytest.approx(SCALE / check.latent_std, rel=1e-4)


def test_an_overflow_is_diagnosed():
    for where, side in (("encode", "encoder"), ("decode", "decoder")):
        space = LatentSpace(Blocks(big=6e4, where=where), scale=1.0).to(dtype=torch.float16)
        check = space.roundtrip(picture(64, 64))
        assert check.diagnosis.startswith(f"overflow in the {side}") and check.psnr > 60


def test_an_autoencoder_that_scales_by_itself_is_diagnosed():
    pair = SimpleNamespace(
        encode=lambda x: 5 * F.pixel_unshuffle(x, 2) * SCALE, decode=lambda z: F.pixel_shuffle(z, 2) / 5
    )
    assert "scale applied twice in encode" in LatentSpace(pair).roundtrip(picture(64, 64)).diagnosis
    pair.decode = lambda z: F.pixel_shuffle(z, 2) / 5 / SCALE
    assert LatentSpace(pair).roundtrip(picture(64, 64)).diagnosis.startswith("ok")


@pytest.mark.parametrize("seed", range(3))
def test_no_false_alarm_on_a_network_that_knows_nothing(seed):
    space = LatentSpace(tiny_vae(seed))
    images = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black", "grey", "red")]
    for image in [*images, picture(32, 32), picture(32, 32).convert("L"), picture(32, 32, seed=2)]:
        assert space.roundtrip(image).diagnosis.startswith("ok")


@pytest.mark.filterwarnings("ignore:latents of")
def test_statistics_are_those_of_samples(vae):
    space = LatentSpace(vae, scale=[0.5, 1.0, 2.0, 4.0], shift=[0.0, 0.1, -0.1, 0.2])
    pictures = [picture(16, 16, seed) for seed in range(3)] + [picture(20, 12)]
    found, generator = space.statistics(pictures), torch.Generator().manual_seed(0)
    draws = [space.encode(p, generator).transpose(0, 1).flatten(1) for p in pictures for _ in range(50)]
    samples = torch.cat(draws, dim=1)
    assert found.count == 4
    assert (found.mean, found.std) == pytest.approx((float(samples.mean()), float(samples.std())), rel=0.03, abs=0.03)
    assert found.channel_std == pytest.approx(samples.std(dim=1).tolist(), rel=0.03)
    assert found.channel_mean == pytest.approx(samples.mean(dim=1).tolist(), abs=0.1)


def test_statistics_tell_the_fitting_scale(vae):
    pictures = [picture(seed=seed) for seed in range(3)]
    for scale, shift in ((0.01, 0.3), ([0.1, 0.1, 0.2, 30.0], [0.0, 0.1, -0.1, 0.2])):
        with pytest.warns(UserWarning, match="latents of 3 pictures have standard deviation .* the scale that gives 1"):
            found = LatentSpace(vae, scale, shift).statistics(pictures)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted = LatentSpace(vae, found.fitting_scale, shift).statistics(pictures)
        assert fitted.std == pytest.approx(1, rel=1e-3)
        assert fitted.fitting_scale == pytest.approx(found.fitting_scale, rel=1e-3)


# ---- keeping ----


@pytest.mark.parametrize(
    "scale, shift", [(None, None), (0.44, None), (0.44, 0.2), ([0.1, 0.2, 0.3, 0.4], None), (0.5, [1.0, 2.0, 3.0, 4.0])]
)
def test_a_space_is_kept_with_its_scale(vae, tmp_path, scale, shift):
    space = LatentSpace(vae, scale, shift)
    space.save_pretrained(tmp_path / "vae")
    for source, subfolder in ((tmp_path / "vae", None), (tmp_path, "vae"), (tmp_path, None)):
        again = LatentSpace.from_pretrained(source, subfolder)
        for kept, given in ((again.scale, space.scale), (again.shift, space.shift)):
            torch.testing.assert_close(*torch.broadcast_tensors(torch.as_tensor(kept), torch.as_tensor(given)))
        torch.testing.assert_close(again.encode(picture()), space.encode(picture()))
    assert AutoencoderKL.from_pretrained(tmp_path / "vae").config.latent_channels == 4
    assert not list(tmp_path.rglob("*.partial"))


def test_given_values_win_over_those_of_the_file(vae, tmp_path):
    LatentSpace(vae, 0.44, 0.2).save_pretrained(tmp_path)
    space = LatentSpace.from_pretrained(tmp_path, scale=0.13025, shift=[1.0, 2.0, 3.0, 4.0], memory="min")
    assert (space.scale, space.shift.tolist(), space.memory) == (0.13025, [1.0, 2.0, 3.0, 4.0], "min")
    assert LatentSpace.from_pretrained(tmp_path, shift=0).shift == 0
