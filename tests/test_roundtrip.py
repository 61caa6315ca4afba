"""The figures of a round trip are right; each known fault is named, and nothing else is."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldm.images import to_images, to_pixels
from ldm.roundtrip import DIAGNOSED_SIDE, diagnose, psnr, roundtrip, ssim

SCALE = 0.2


class Blocks:
    """An autoencoder that needs no training: blocks of 4 x 4 pixels in an orthogonal basis of which `keep` parts stay.

    Raw latents have a standard deviation of about 1 / SCALE on photographs. The decoder bends what leaves [-1,1], adds
    `noise`, and may be pale: it shrinks the contrast towards a brightness.
    """

    def __init__(self, keep=48, noise=0.0, contrast=1.0, brightness=0.0):
        means = torch.eye(3).repeat_interleave(16, dim=0)
        others = torch.randn(48, 45, generator=torch.Generator().manual_seed(0))
        self.basis = torch.linalg.qr(torch.cat([means, others], dim=1))[0][:, :keep]
        self.gain = 4.5 / SCALE * math.sqrt(keep / 48)
        self.noise, self.contrast, self.brightness = noise, contrast, brightness

    def encode(self, x):
        return self.gain * torch.einsum("bchw,ck->bkhw", F.pixel_unshuffle(x, 4), self.basis)

    def decode(self, raw):
        u = F.pixel_shuffle(torch.einsum("bkhw,ck->bchw", raw / self.gain, self.basis), 4)
        u = self.contrast * u + (1 - self.contrast) * self.brightness
        u = u + self.noise * torch.randn(u.shape, generator=torch.Generator().manual_seed(1))
        return torch.where(u.abs() > 1, u.sign() * (1 + 0.1 * torch.tanh(u.abs() - 1)), u)


def healthy(autoencoder):
    return lambda x: autoencoder.encode(x) * SCALE, lambda z: autoencoder.decode(z / SCALE)


def photo(seed, brightness=0.0, contrast=0.55, side=64):
    """Smooth colours and finer and finer detail, as a photograph has."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(1, 3, side, side)
    for cells, weight in ((2, 0.5), (4, 0.4), (8, 0.25), (16, 0.12), (32, 0.06)):
        detail = torch.randn(1, 3, cells, cells, generator=generator)
        x += weight * F.interpolate(detail, size=(side, side), mode="bicubic", align_corners=True)
    return (brightness + contrast * x).clamp(-1, 1)


def plain(colour):
    return to_pixels(Image.new("RGB", (64, 64), colour))


def page():
    x = torch.ones(1, 3, 64, 64)
    x[..., 10:50:6, 5:60:2] = -1
    return x


def checkerboard(cell):
    places = torch.arange(64) // cell
    return ((places[:, None] + places) % 2 * 2.0 - 1).expand(1, 3, 64, 64)


def scene():
    x = plain("white")
    x[..., 20:44, 20:44] = plain("#e01020")[..., 20:44, 20:44]
    return x


PICTURES = {colour: plain(colour) for colour in ("white", "black", "grey", "#4d4d4d", "red", "#336699")}
PICTURES |= {f"checkerboard of {cell}": checkerboard(cell) for cell in (1, 8)}
PICTURES |= {
    "page": page(),
    "scene": scene(),
    "noise": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1,
}
for seed in range(3):
    PICTURES[f"photo {seed}"] = photo(seed)
    PICTURES[f"grey photo {seed}"] = photo(seed)[:, :1].expand(1, 3, 64, 64)
    PICTURES[f"bright photo {seed}"] = photo(seed, 0.7, 0.25)
    PICTURES[f"dark photo {seed}"] = photo(seed, -0.7, 0.25)


# ---- figures ----


def test_psnr_is_that_of_8_bit_pictures():
    x, y = photo(0), photo(1)
    a, b = (np.asarray(to_images(p)[0], np.float64) for p in (x, y))
    assert psnr(x, y) == pytest.approx(10 * np.log10(255**2 / ((a - b) ** 2).mean()), abs=0.02)
    assert psnr(x, x + 0.2) == pytest.approx(20.0, abs=1e-4)  # (2 / 0.2)^2
    assert psnr(x, x) == math.inf


def slow_ssim(a, b):
    """Wang et al. 2004, window by window, in the range 0..255."""
    place = np.arange(11) - 5
    weight = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    weight /= weight.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = (v[top : top + 11, left : left + 11] for v in (a, b))
            m, n = (weight * p).sum(), (weight * q).sum()
            var_p, var_q = (weight * (p - m) ** 2).sum(), (weight * (q - n) ** 2).sum()
            covariance = (weight * (p - m) * (q - n)).sum()
            values.append((2 * m * n + c1) * (2 * covariance + c2) / ((m * m + n * n + c1) * (var_p + var_q + c2)))
    return np.mean(values)


def test_ssim_is_that_of_wang_et_al():
    x = photo(0, side=20)[..., :15, :]
    y = (0.8 * x + 0.3 * photo(1, side=20)[..., :15, :]).clamp(-1, 1)
    a, b = (127.5 * (p[0].double().numpy() + 1) for p in (x, y))
    assert ssim(x, y) == pytest.approx(np.mean([slow_ssim(p, q) for p, q in zip(a, b)]), abs=1e-9)


def test_ssim_at_the_edges():
    x = photo(0)
    assert ssim(x, x) == pytest.approx(1, abs=1e-12)
    assert ssim(x, -x) < 0
    for height, width in ((1, 1), (1, 50), (7, 9)):
        small = x[..., :height, :width]
        assert ssim(small, small) == pytest.approx(1)
        assert ssim(small, (small + 0.5).clamp(-1, 1)) < 0.99


@pytest.mark.parametrize("height, width", [(64, 29), (11, 50), (12, 11), (9, 14), (21, 7)])
def test_ssim_in_strips_is_that_of_the_whole_picture(height, width, monkeypatch):
    x, y = (torch.cat([photo(seed), photo(seed + 1)])[..., :height, :width] for seed in (0, 2))
    whole = ssim(x, y)
    for strip in (1, 700, 6 * width * height - 1):
        monkeypatch.setattr("ldm.roundtrip.STRIP", strip)
        assert ssim(x, y) == pytest.approx(whole, abs=1e-12)


def test_ssim_sees_a_strip_at_a_time(monkeypatch):
    seen, conv = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *others: (seen.append(x.numel()), conv(x, *others))[1])
    monkeypatch.setattr("ldm.roundtrip.STRIP", 4000)
    ssim(photo(0, side=256), photo(1, side=256))
    assert sum(seen) > 10 * 3 * 256**2 and max(seen) <= 4000 + 11 * 3 * 256


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 1), st.floats(-1, -0.1), st.floats(0.05, 5))
def test_figures_of_a_known_error(seed, red, blue, scale):
    x = 0.3 * photo(seed)
    change = torch.tensor([red, 0.0, blue]).view(1, 3, 1, 1) / 2
    check = roundtrip(x, lambda x: scale * x, lambda z: z / scale + change, scale)
    assert check.channel_shift == pytest.approx([127.5 * red / 2, 0, 127.5 * blue / 2], abs=1e-2)
    assert check.max_error == pytest.approx(127.5 * max(abs(red), abs(blue)) / 2, abs=1e-2)
    assert check.psnr == pytest.approx(psnr(x, x + change), abs=0.01)
    assert check.latent_mean == pytest.approx(scale * float(x.mean()), abs=1e-5)
    assert check.latent_std == pytest.approx(scale * float(x.std(correction=0)), rel=1e-4)
    assert check.latent_channel_std == pytest.approx((scale * x.std(dim=(0, 2, 3), correction=0)).tolist(), rel=1e-4)
    assert (check.latent_min, check.latent_max) == pytest.approx((scale * float(x.min()), scale * float(x.max())))


def test_the_fitting_scale_makes_the_latents_unit():
    x, raw = photo(0), Blocks().encode(photo(0))
    scales, shifts = torch.linspace(0.1, 2, 48).view(-1, 1, 1), torch.linspace(-5, 5, 48).view(-1, 1, 1)
    for scale, shift in ((SCALE, 0.0), (1.0, 0.5), (scales, 0.3), (SCALE, shifts)):
        z = (raw - shift) * scale
        check = roundtrip(x, lambda x, z=z: z, lambda z: x, scale, shift)
        assert float((check.fitting_scale * (raw - shift)).std()) == pytest.approx(1, rel=1e-3)


def test_figures_are_of_what_is_seen():
    x = page()
    assert roundtrip(x, lambda x: x, lambda z: 3 * z).psnr == math.inf  # clamped to [-1,1], as the picture is


def test_reports():
    x = photo(0)
    check = roundtrip(x, *healthy(Blocks(noise=0.1)), SCALE)
    figures = json.loads(json.dumps(check.to_dict(), allow_nan=False))
    assert figures["psnr"] == check.psnr and figures["diagnosis"] == check.diagnosis
    assert len(figures["channel_shift"]) == 3 and "image" not in figures
    assert f"{check.psnr:.2f} dB" in str(check) and check.diagnosis in str(check)
    perfect = roundtrip(plain("red"), lambda x: 0 * x, lambda z: plain("red")).to_dict()
    assert perfect["psnr"] is None and perfect["fitting_scale"] is None
    json.dumps(perfect, allow_nan=False)


def test_the_picture_shows_original_reconstruction_and_error():
    check = roundtrip(photo(0), *healthy(Blocks(noise=0.3)), SCALE)
    assert check.original == to_images(photo(0))[0]
    assert check.image.size == check.original.size and check.image != check.original
    sheet = check.picture()
    assert sheet.width >= 3 * 64 and sheet.height > 64
    thirds = [np.asarray(sheet.crop((k * sheet.width // 3, 0, (k + 1) * sheet.width // 3, 64))) for k in range(3)]
    assert thirds[2].mean() < thirds[0].mean()  # the error map is dark


# ---- faults ----


def encode_forgets_the_scale(encode, decode):
    return lambda x: encode(x) / SCALE, decode


def encode_scales_twice(encode, decode):
    return lambda x: encode(x) * SCALE, decode


def decode_forgets_the_scale(encode, decode):
    return encode, lambda z: decode(z * SCALE)


def decode_scales_twice(encode, decode):
    return encode, lambda z: decode(z / SCALE)


def encoder_is_fed_0_to_1(encode, decode):
    return lambda x: encode((x + 1) / 2), decode


def decoder_gives_0_to_1(encode, decode):
    return encode, lambda z: (decode(z) + 1) / 2


def encoder_wants_0_to_1(encode, decode):
    return lambda x: encode(2 * x - 1), decode


def decoder_is_read_as_0_to_1(encode, decode):
    return encode, lambda z: 2 * decode(z) - 1


def encoder_is_fed_bgr(encode, decode):
    return lambda x: encode(x.flip(1)), decode


def decoder_gives_bgr(encode, decode):
    return encode, lambda z: decode(z).flip(1)


FAULTS = [
    (encode_forgets_the_scale, "scale missing in encode"),
    (encode_scales_twice, "scale applied twice in encode"),
    (decode_forgets_the_scale, "scale missing in decode"),
    (decode_scales_twice, "scale applied twice in decode"),
    (encoder_is_fed_0_to_1, "[0,1] fed to the encoder in place of [-1,1]"),
    (decoder_gives_0_to_1, "[0,1] given by the decoder in place of [-1,1]"),
    (encoder_wants_0_to_1, "[-1,1] fed to the encoder in place of [0,1]"),
    (decoder_is_read_as_0_to_1, "[-1,1] given by the decoder in place of [0,1]"),
    (encoder_is_fed_bgr, "channels swapped before the encoder"),
    (decoder_gives_bgr, "channels swapped after the decoder"),
]


@pytest.mark.parametrize("broken, named", FAULTS, ids=[broken.__name__ for broken, _ in FAULTS])
@pytest.mark.parametrize(
    "autoencoder", [Blocks(), Blocks(keep=12), Blocks(noise=0.1)], ids=["exact", "blurred", "noisy"]
)
def test_each_fault_is_named(autoencoder, broken, named):
    for seed in range(3):
        check = roundtrip(photo(seed), *broken(*healthy(autoencoder)), SCALE)
        assert named in check.diagnosis, (seed, check.diagnosis)
        # a side that cannot be told apart may be named too, but no other kind of fault
        kind = named.split()[0]
        assert all(part.startswith(kind) for part in check.diagnosis.split(": undone")[0].split(" or "))


def test_the_side_that_forgot_the_scale_is_told_by_the_latents():
    x, pair = photo(0), healthy(Blocks())
    for broken, named in FAULTS[:4]:
        check = roundtrip(x, *broken(*pair), SCALE)
        assert check.diagnosis.startswith(f"{named}: "), check.diagnosis


def test_an_affine_map_by_channel_is_undone_as_a_whole():
    x, blocks = photo(0), Blocks()
    scale = torch.linspace(0.1, 0.4, 48).view(-1, 1, 1)
    shift = torch.linspace(-5, 5, 48).view(-1, 1, 1)
    check = roundtrip(x, blocks.encode, lambda z: blocks.decode(z / scale + shift), scale, shift)
    assert "scale missing in encode" in check.diagnosis
    check = roundtrip(x, lambda x: (blocks.encode(x) - shift) * scale, blocks.decode, scale, shift)
    assert "scale missing in decode" in check.diagnosis


def test_overflow_is_named_and_the_precise_pair_takes_over():
    x, (encode, decode) = photo(0), healthy(Blocks())
    for broken, side in (
        ((lambda x: encode(x) / 0 * 0, decode), "encoder"),
        ((encode, lambda z: decode(z).masked_fill(z.max() > 0, math.inf)), "decoder"),
    ):
        check = roundtrip(x, *broken, SCALE, precise=(encode, decode))
        assert check.diagnosis.startswith(f"overflow in the {side}")
        assert check.psnr > 60 and check.image == check.original
        with pytest.raises(ValueError, match=f"the {side} gives NaN or infinite values"):
            roundtrip(x, *broken, SCALE)


def test_overflow_and_a_fault_of_the_precise_pair_are_both_named():
    precise = decode_forgets_the_scale(*healthy(Blocks()))
    check = roundtrip(photo(0), lambda x: precise[0](x) * math.nan, precise[1], SCALE, precise=precise)
    assert check.diagnosis.startswith("overflow in the encoder") and "scale missing in decode" in check.diagnosis


def test_low_precision_is_named():
    encode, decode = healthy(Blocks())
    coarse = lambda x: (encode(x) * 1.5).round() / 1.5  # noqa: E731
    assert "precision too low" in roundtrip(photo(0), coarse, decode, SCALE, precise=(encode, decode)).diagnosis
    assert roundtrip(photo(0), encode, decode, SCALE, precise=(encode, decode)).diagnosis.startswith("ok")


def test_a_large_picture_is_diagnosed_at_a_small_size():
    sides = []

    def watched(x):
        sides.append(max(x.shape[-2:]))
        return encode(x) / SCALE

    encode, decode = healthy(Blocks())
    check = roundtrip(photo(0, side=512)[..., :256], watched, decode, SCALE)
    assert check.original.size == (256, 512) and "scale missing in encode" in check.diagnosis
    assert sides[0] == 512 and max(sides[1:]) == DIAGNOSED_SIDE


# ---- no false alarm ----


HEALTHY = {
    "exact": Blocks(),
    "blurred": Blocks(keep=12),
    "block means": Blocks(keep=3),
    "noisy": Blocks(noise=0.1),
    "mostly noise": Blocks(noise=0.6),
    "pale": Blocks(keep=12, contrast=0.5),
    "pale and dark": Blocks(keep=12, contrast=0.3, brightness=-0.5),
    "pale and bright": Blocks(keep=3, contrast=0.3, brightness=0.5),
    "nearly blank": Blocks(keep=3, contrast=0.1, brightness=1.0),
}


@pytest.mark.parametrize("autoencoder", HEALTHY.values(), ids=HEALTHY.keys())
def test_no_false_alarm(autoencoder):
    for name, x in PICTURES.items():
        check = roundtrip(x, *healthy(autoencoder), SCALE, precise=healthy(autoencoder))
        assert check.diagnosis.startswith("ok: no known fault"), (name, check.diagnosis)


def test_plain_pictures_are_evidence_of_nothing():
    for broken, _ in FAULTS:
        for colour in ("white", "black", "grey", "red"):
            assert diagnose(plain(colour), *broken(*healthy(Blocks())), SCALE) == []


def test_tiny_pictures():
    check = roundtrip(torch.full((1, 3, 1, 1), 0.5), lambda x: x, lambda z: z.expand(1, 3, 8, 8))
    assert check.image.size == (1, 1) and check.diagnosis.startswith("ok")
