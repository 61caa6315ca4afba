"""Every kind of picture becomes the pixels that it shows; what cannot be read is one line."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from ldm import images
from ldm.images import crop, error_map, flatten, grid, load, opened, pad, plain, side_by_side, to_images, to_pixels


def picture(width=12, height=8, seed=0):
    """A smooth picture with different edges, so that no turn or swap of channels goes unseen."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([20 + 200 * x / width, 20 + 200 * y / height, 60 + 10 * (x + y) % 128], -1)
    return Image.fromarray(np.uint8(values))


def grey(width=12, height=8):
    return Image.fromarray(np.uint8(np.add.outer(np.arange(height) * 8, np.arange(width) * 13)))


def file_of(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(a, b):
    return int(np.abs(np.asarray(a, np.int64) - np.asarray(b, np.int64)).max())


# ---- sources ----


def test_every_source_gives_the_same_picture(tmp_path):
    wanted, path = picture(), tmp_path / "picture.png"
    wanted.save(path)
    data = path.read_bytes()
    array = np.asarray(wanted)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    lazy = Image.open(path)
    buffer = BytesIO()
    wanted.save(buffer, "PNG")  # stands at its end
    with path.open("rb") as file:
        for source in (path, str(path), data, bytearray(data), file, buffer, wanted, lazy, array, tensor):
            loaded = load(source)
            assert loaded.mode == "RGB" and difference(loaded, wanted) == 0
            assert loaded.info == {}


def test_load_needs_no_torch():
    code = (
        "import sys; from ldm import images, metadata; import numpy as np;"
        "a = np.zeros((4, 4, 3), np.uint8); images.grid([a, a], captions=['a', 'b']); images.error_map(a, a);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body, length = self.server.answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(length if length is not None else len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        server.answers, server.url = {}, f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


def test_addresses(server, monkeypatch):
    data = file_of(picture())
    server.answers = {
        "/a.png": (200, data, None),
        "/short.png": (200, data[:-40], len(data)),
        "/gone.png": (404, b"", None),
        "/text": (200, b"<html>", None),
    }
    assert difference(load(f"{server.url}/a.png"), picture()) == 0
    for path, reason in {"/gone.png": "404", "/text": "not a picture", "/short.png": "cannot be read"}.items():
        with pytest.raises(ValueError, match=reason) as caught:
            load(server.url + path)
        assert str(caught.value).startswith(server.url + path) and "\n" not in str(caught.value)
    monkeypatch.setattr(images, "DOWNLOAD_LIMIT", 50)
    with pytest.raises(ValueError, match="more than"):
        load(f"{server.url}/a.png")


def test_an_address_without_an_answer_is_one_line():
    with pytest.raises(ValueError, match=r"^http://127\.0\.0\.1:1/x\.png: .*no answer") as caught:
        load("http://127.0.0.1:1/x.png")
    assert "\n" not in str(caught.value)


# ---- modes ----


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_colour_modes_show_one_picture(mode):
    source = picture().convert("RGBA").convert(mode) if mode == "RGBa" else picture().convert(mode)
    # what 8 bits of these two lose there and back is Pillow's rounding, none of it ours
    assert difference(load(source), picture()) <= {"YCbCr": 3, "HSV": 8}.get(mode, 0)
    assert difference(load(source), (source.convert("RGBA") if mode == "RGBa" else source).convert("RGB")) == 0


@pytest.mark.parametrize("mode", ["L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"])
def test_grey_modes_show_one_picture(mode):
    values = np.asarray(grey())
    deep = values.astype(np.uint16) * 257
    source = {
        "L": lambda: grey(),
        "LA": lambda: grey().convert("LA"),
        "La": lambda: grey().convert("LA").convert("La"),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "F": lambda: Image.fromarray((values / 255).astype(np.float32)),
    }.get(
        mode, lambda: Image.frombytes(mode, grey().size, deep.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    )()
    assert source.mode == mode
    assert difference(load(source), grey().convert("RGB")) == 0


def test_palettes_and_bits():
    flat = Image.new("RGB", (6, 4), (10, 200, 30))
    flat.paste((250, 0, 90), (0, 0, 3, 4))
    assert difference(load(flat.convert("P", palette=Image.Palette.ADAPTIVE)), flat) == 0
    bits = Image.new("1", (6, 4))
    bits.paste(1, (0, 0, 3, 4))
    assert np.asarray(load(bits))[0, :, 0].tolist() == [255] * 3 + [0] * 3


def lab_to_srgb(lab):
    """CIELAB (D50, a and b offset by 128) -> sRGB by the defining formulae (CIE 15; IEC 61966-2-1; Bradford)."""
    lightness, a, b = (np.asarray(band, float) for band in lab.split())
    fy = (lightness * 100 / 255 + 16) / 116
    f = np.stack([fy + (a - 128) / 500, fy, fy - (b - 128) / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1.0, 0.82521]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.033454],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.transpose(matrix), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_lab_is_read_as_lab():
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.info["icc_profile"] = swapped_profile()  # says nothing about LAB
    assert np.abs(np.asarray(load(lab), float) - lab_to_srgb(lab)).max() < 1
    assert difference(load(file_of(lab, "TIFF")), load(lab)) == 0


def test_sixteen_bits_keep_their_range_and_their_depth():
    ramp = np.array([[0, 1000, 32768, 65535]], np.uint16)
    x = to_pixels(Image.open(BytesIO(file_of(Image.fromarray(ramp)))))
    assert torch.allclose(x[0, 0, 0], torch.from_numpy(ramp[0] / 65535 * 2 - 1).float(), atol=1e-6)
    assert np.asarray(load(ramp))[0, :, 0].tolist() == [0, 4, 128, 255]


def test_integers_outside_of_the_stated_range():
    for values in ([[0, 70000]], [[-1, 5]]):
        source = Image.fromarray(np.array(values, np.int32))
        with pytest.raises(ValueError, match=r"0\.\.65535.*value_range"):
            load(source)
    source = Image.fromarray(np.array([[0, 50000, 100000]], np.int32))
    assert np.asarray(load(source, value_range=(0, 100000)))[0, :, 0].tolist() == [0, 128, 255]


def test_floats_say_their_range():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    with pytest.raises(ValueError, match="value_range"):
        load(values)
    with pytest.raises(ValueError, match="value_range"):
        load(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="value_range"):
        load(np.zeros((4, 4), np.int64))
    assert np.asarray(load(values, value_range=(0, 1)))[0, :, 0].tolist() == [0, 128, 255]
    assert np.asarray(load(values, value_range=(-1, 1)))[0, :, 0].tolist() == [128, 191, 255]
    assert np.asarray(load(Image.fromarray(values * 2), value_range=(0, 2)))[0, :, 0].tolist() == [0, 128, 255]
    assert np.asarray(load(values * 1.2 - 0.1, value_range=(0, 1)))[0, :, 0].tolist() == [0, 128, 255], "clamped"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_float(dtype):
    tensor = torch.tensor([-1.0, 0.0, 1.0], dtype=dtype, requires_grad=True).reshape(3, 1, 1)
    assert load(tensor, value_range=(-1, 1)).getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize("wrong", [(1, 0), (0, float("nan")), (0, float("inf")), (2, 2)])
def test_impossible_ranges(wrong):
    with pytest.raises(ValueError, match="value_range"):
        load(np.zeros((2, 2), np.float32), value_range=wrong)


@pytest.mark.parametrize(("top", "value_range"), [(255.0, (0, 1)), (-1.0, (0, 1)), (255.0, (-1, 1))])
def test_a_wrong_range_is_refused_rather_than_made_white(top, value_range):
    with pytest.raises(ValueError, match="far outside"):
        load(np.full((2, 2), top, np.float32), value_range=value_range)
    with pytest.raises(ValueError, match="far outside"):
        load(Image.fromarray(np.full((2, 2), 255, np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(bad):
    values = np.zeros((4, 4, 3), np.float32)
    values[1, 2, 0] = bad
    for source in (values, torch.from_numpy(values).permute(2, 0, 1), Image.fromarray(values[..., 0])):
        with pytest.raises(ValueError, match="NaN or infinite"):
            load(source, value_range=(0, 1))


def test_arrays_are_channels_last_and_tensors_channels_first():
    array = np.asarray(picture())
    with pytest.raises(ValueError, match=r"\(H,W,C\)"):
        load(np.moveaxis(array, -1, 0))
    with pytest.raises(ValueError, match=r"\(C,H,W\)"):
        load(torch.from_numpy(array.copy()))
    assert np.asarray(load(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]
    assert difference(load(array[..., :1]), load(array[..., 0])) == 0
    for wrong in (np.zeros(3, np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 4), np.uint8), np.array([["a"]])):
        with pytest.raises(ValueError, match="array of shape"):
            load(wrong)


# ---- alpha ----


def translucent():
    """Red, opaque at the left, half in the middle, clear at the right."""
    image = Image.new("RGBA", (3, 2), (255, 0, 0, 255))
    image.putalpha(Image.fromarray(np.array([[255, 128, 0]] * 2, np.uint8)))
    return image


@pytest.mark.parametrize("background", ["blue", "#00f", (0, 0, 255)])
def test_alpha_is_composited_on_the_stated_background(background):
    array = np.asarray(translucent())
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert tensor.shape[0] == 4, "four channels are RGBA, never latents"
    as_float = array.astype(np.float32) / 255
    for source in (translucent(), array, tensor, as_float, file_of(translucent()), file_of(translucent(), "TIFF")):
        row = np.asarray(load(source, background, (0, 1)))[0].astype(int)
        assert np.abs(row - [[255, 0, 0], [128, 0, 127], [0, 0, 255]]).max() <= 1
    assert load(translucent()).getpixel((2, 0)) == (255, 255, 255)


@pytest.mark.parametrize("background", ["no colour", (1, 2), (0, 0, 256), None])
def test_a_background_that_is_no_colour(background):
    with pytest.raises(ValueError, match="expected a colour"):
        load(picture(), background)


def test_declared_transparent_values():
    green, black = (0, 255, 0), (0, 0, 0)
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert load(file_of(palette, transparency=1), green).getpixel((1, 0)) == green
    assert load(file_of(palette, transparency=b"\xff\x00"), green).getpixel((1, 0)) == green
    assert load(file_of(palette, "GIF", transparency=1), green).getpixel((1, 0)) == green
    assert load(file_of(Image.new("L", (2, 1), 7), transparency=7), green).getpixel((0, 0)) == green
    assert load(file_of(Image.new("RGB", (2, 1), (1, 2, 3)), transparency=(1, 2, 3)), green).getpixel((0, 0)) == green
    assert load(file_of(Image.new("1", (2, 1), 0), transparency=0), green).getpixel((0, 0)) == green
    deep = Image.fromarray(np.array([[7, 0]], np.uint16))
    loaded = load(file_of(deep, transparency=7), green)
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 0))) == (green, black)
    la = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)])
    pa = Image.new("PA", (1, 1))
    assert load(la, green).getpixel((0, 0)) == load(la.convert("La"), green).getpixel((0, 0)) == green
    assert load(pa, green).getpixel((0, 0)) == green


def test_plain_keeps_alpha_and_flatten_removes_it():
    kept = plain(translucent())
    assert kept.mode == "RGBA" and difference(kept, translucent()) == 0
    assert flatten(kept, "blue").mode == "RGB" and flatten(kept, "blue").getpixel((2, 0)) == (0, 0, 255)


# ---- orientation, profiles, frames ----


def oriented(image, orientation, kind="PNG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(image, kind, exif=exif)


# how a file holds what an upright picture shows
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_orientation(orientation, kind):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(picture()))))
    if kind == "TIFF":
        data = file_of(stored, "TIFF", tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = file_of(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert difference(load(data), picture()) == 0
    assert difference(load(Image.open(BytesIO(data))), picture()) == 0


def test_orientation_of_deep_and_palette_pictures():
    deep = Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257)
    for stored in (deep, grey().convert("P")):
        assert load(oriented(stored, 6)).size == stored.size[::-1]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist(orientation):
    assert difference(load(oriented(picture(), orientation)), picture()) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_malformed_exif_is_ignored():
    for exif in (
        b"Exif\0\0junk",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 30,
    ):
        source = picture()
        source.info["exif"] = exif
        assert difference(load(source), picture()) == 0


def rgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile():
    """sRGB with the primaries of red and blue exchanged: an honest reader shows red data as blue."""
    data = bytearray(rgb_profile())
    tags = {bytes(data[p : p + 4]): p for p in range(132, 132 + 12 * int.from_bytes(data[128:132], "big"), 12)}
    red, blue = tags[b"rXYZ"] + 4, tags[b"bXYZ"] + 4
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    return bytes(data)


def test_profiles_are_brought_to_srgb():
    red = Image.new("RGB", (3, 2), (255, 0, 0))
    assert difference(load(file_of(red, icc_profile=swapped_profile())), Image.new("RGB", (3, 2), (0, 0, 255))) <= 2
    assert difference(load(file_of(picture(), icc_profile=rgb_profile())), picture()) <= 1
    tinted = plain(Image.open(BytesIO(file_of(translucent(), icc_profile=swapped_profile()))))
    assert tinted.mode == "RGBA" and tinted.getpixel((1, 0))[2:] == (255, 128), "colours change, alpha does not"
    assert "icc_profile" not in tinted.info


def test_a_profile_with_palette_orientation_and_depth():
    """The profile survives the turn, the palette and 16 bits."""
    stored = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = load(file_of(stored, exif=exif, icc_profile=swapped_profile()))
    assert turned.size == (2, 4) and turned.getpixel((0, 0))[2] > 250
    flat = load(file_of(stored.convert("P", palette=Image.Palette.ADAPTIVE), icc_profile=swapped_profile()))
    assert flat.getpixel((0, 0))[2] > 250
    deep = Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257)
    assert difference(load(file_of(deep, icc_profile=rgb_profile())), grey().convert("RGB")) <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_broken_profile_is_ignored_with_a_warning(mode):
    source = picture().convert(mode)
    source.info["icc_profile"] = b"not a profile"
    with pytest.warns(UserWarning, match="ICC profile is ignored"):
        loaded = load(source)
    assert difference(loaded, picture().convert(mode).convert("RGB")) == 0


def test_a_profile_for_other_colours():
    source = picture().convert("CMYK")
    source.info["icc_profile"] = rgb_profile()
    with pytest.warns(UserWarning, match="ICC profile is ignored"):
        assert difference(load(source), picture()) == 0
    source = grey()
    source.info["icc_profile"] = rgb_profile()  # common: a grey picture with an RGB profile
    assert difference(load(source), grey().convert("RGB")) <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_of_several_frames(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = file_of(first, kind, save_all=True, append_images=[second])
    assert Image.open(BytesIO(data)).n_frames == 2
    assert difference(load(data), first) <= 2


# ---- what cannot be read ----


def bad_files(folder):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("This is not a picture.")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for kind, suffix in {
        "PNG": "png",
        "JPEG": "jpg",
        "WEBP": "webp",
        "BMP": "bmp",
        "GIF": "gif",
        "TIFF": "tif",
    }.items():
        data = file_of(noise, kind)
        (folder / f"truncated.{suffix}").write_bytes(data[: len(data) // 2])
    (folder / "head.png").write_bytes(file_of(noise)[:20])
    (folder / "folder.png").mkdir()
    return sorted(folder.iterdir())


def test_bad_files_are_one_line_that_names_them(tmp_path):
    paths = bad_files(tmp_path)
    assert len(paths) == 10
    for path in paths:
        with pytest.raises(ValueError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value), path
    for path, reason in {"empty.png": "empty", "text.png": "not a picture", "folder.png": "a folder"}.items():
        with pytest.raises(ValueError, match=reason):
            load(tmp_path / path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, of what is cut
@given(st.integers(0, 10**6), st.sampled_from(["PNG", "GIF", "JPEG", "TIFF"]))
@settings(max_examples=40, deadline=None)
def test_a_file_cut_anywhere_is_whole_or_an_error(cut, kind):
    data = file_of(picture(20, 20).convert("P") if kind == "GIF" else picture(20, 20), kind)
    try:
        loaded = load(data[: cut % len(data)])
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert difference(loaded, load(data)) == 0


@pytest.mark.filterwarnings("ignore")  # Pillow's own, and ours of broken profiles
@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["PNG", "GIF", "JPEG", "TIFF", "WEBP", "BMP"]))
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_is_a_picture_or_a_valueerror(place, byte, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture().convert("P") if kind == "GIF" else picture()
    extra = {} if kind in ("GIF", "BMP") else {"exif": exif, "icc_profile": rgb_profile()}
    data = bytearray(file_of(image, kind, **extra))
    data[place % len(data)] = byte
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
        try:
            assert load(bytes(data)).mode == "RGB"
        except ValueError as error:
            assert "\n" not in str(error)


def test_missing_files(tmp_path):
    for path in (tmp_path / "none.png", "", "no such prompt"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(path)
    for path in ("a\0b", "x" * 5000):
        with pytest.raises(ValueError, match="cannot be read"):
            load(path)


def test_what_is_no_source():
    for source in (None, 3, {"path": "x"}, BytesIO(b""), b"", open):
        with pytest.raises(ValueError, match="expected|empty"):
            load(source)
    with pytest.raises(ValueError, match="binary"), open(__file__) as file:
        load(file)
    with pytest.raises(ValueError, match="no pixels"):
        load(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("factor", [1.5, 3])
def test_a_decompression_bomb_is_an_error(monkeypatch, recwarn, factor, tmp_path):
    """Pillow only warns between once and twice its limit."""
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    with pytest.raises(ValueError, match="bomb") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load(path).size == (100, 100), "who raises the limit may pass"


def test_a_bomb_of_text(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("parameters", "a" * 2_000_000, zip=True)
    (tmp_path / "text.png").write_bytes(file_of(picture(), pnginfo=chunks))
    with pytest.raises(ValueError, match="text.png"):
        load(tmp_path / "text.png")


def test_opened_leaves_mode_and_metadata(tmp_path):
    source = opened(oriented(grey(), 6))
    assert source.mode == "L" and source.size == grey().size and source.getexif()[0x0112] == 6


# ---- pixels ----


def test_all_eight_bit_values_survive():
    ramp = Image.fromarray(np.stack([np.arange(256, dtype=np.uint8)] * 3, -1).reshape(16, 16, 3))
    x = to_pixels(ramp)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32 and x.is_contiguous()
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(x[0, 0].flatten(), 2 * (torch.arange(256) / 255) - 1)
    assert difference(to_images(x)[0], ramp) == 0


def test_lists_batches_and_sizes():
    array = np.asarray(picture())
    batch = np.stack([array, array[::-1]])
    x = to_pixels([picture(), array[::-1].copy()])
    assert torch.equal(to_pixels(batch), x)
    assert torch.equal(to_pixels(torch.from_numpy(batch).permute(0, 3, 1, 2)), x)
    assert torch.equal(to_pixels((picture(),)), x[:1])
    given_pixels = torch.rand(2, 3, 5, 4) * 2 - 1
    assert torch.allclose(to_pixels(given_pixels, value_range=(-1, 1)), given_pixels, atol=1e-6), (
        "not rounded to 8 bits"
    )
    with pytest.raises(ValueError, match="at least one"):
        to_pixels([])
    with pytest.raises(ValueError, match="12x8.*5x7"):
        to_pixels([picture(), picture(5, 7)])


def test_resizing_is_asked_for():
    x = to_pixels([picture(), picture(5, 7)], size=(16, 24))
    assert x.shape == (2, 3, 16, 24)
    wanted = np.asarray(picture().resize((24, 16), Image.Resampling.LANCZOS))
    assert difference(to_images(x)[0], wanted) == 0
    deep = to_pixels(np.asarray(picture()).astype(np.float32) / 255, size=(16, 24), value_range=(0, 1))
    assert (deep - x[:1]).abs().max() <= 2 / 255 and deep.abs().max() <= 1
    with pytest.raises(ValueError, match="size"):
        to_pixels(picture(), size=(0, 8))


def test_pictures_of_pixels():
    x = torch.tensor([-2.0, -1, -0.004, 0, 1, 7]).reshape(1, 1, 1, 6)
    assert np.asarray(to_images(x)[0]).tolist() == [[0, 0, 127, 128, 255, 255]]
    assert to_images(x)[0].mode == "L"
    assert [i.mode for i in to_images(torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16, requires_grad=True))] == ["RGB"] * 2
    assert to_images(torch.zeros(1, 3, 4, 5))[0].size == (5, 4)
    assert to_images(torch.zeros(0, 3, 4, 5)) == []
    for shape in ((3, 4, 4), (1, 4, 8, 8), (1, 2, 3, 3, 3)):
        with pytest.raises(ValueError, match="expected"):
            to_images(torch.zeros(shape))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_picture_that_is_not_finite_is_named(bad):
    x = torch.zeros(4, 3, 2, 2)
    x[2, 1, 0, 1] = bad
    with pytest.raises(ValueError, match="picture 2 of 4"):
        to_images(x)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17))
@settings(deadline=None)
def test_crop_undoes_pad(height, width, multiple):
    x = torch.rand(1, 2, height, width)
    padded, size = pad(x, multiple)
    assert size == (height, width)
    assert all(
        side % multiple == 0 and 0 <= side - old < multiple for side, old in zip(padded.shape[2:], size, strict=True)
    )
    assert torch.equal(crop(padded, size), x)


@given(st.integers(9, 40), st.integers(9, 40))
@settings(deadline=None, max_examples=30)
def test_pad_is_torchs_reflection_where_that_exists(height, width):
    x = torch.rand(1, 3, height, width)
    wanted = torch.nn.functional.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
    assert torch.equal(pad(x, 8)[0], wanted)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 7)])
def test_sides_too_short_for_a_reflection_are_edge_padded(height, width):
    x = torch.rand(1, 3, height, width)
    padded, size = pad(x, 8)
    assert torch.equal(crop(padded, size), x)
    if height <= 4:
        assert torch.equal(padded[:, :, height:, :width], x[:, :, -1:].expand(-1, -1, 8 - height, -1))


def test_pad_is_differentiable_and_refuses_nonsense():
    x = torch.rand(1, 3, 5, 5, requires_grad=True)
    pad(x, 8)[0].sum().backward()
    assert x.grad.sum() == 3 * 64
    assert pad(torch.zeros(1, 3, 8, 16), 8)[0].shape == (1, 3, 8, 16)
    with pytest.raises(ValueError, match="multiple 0"):
        pad(x, 0)
    with pytest.raises(ValueError, match="larger"):
        crop(x, (6, 5))


# ---- sheets ----


def test_grid_places_each_picture():
    colours = ["red", "lime", "blue", "yellow", "black"]
    sheet = grid([Image.new("RGB", (10, 6), colour) for colour in colours], background="white")
    assert sheet.size == (3 * 14 + 4, 2 * 10 + 4)
    centres = [sheet.getpixel((4 + 14 * (i % 3) + 5, 4 + 10 * (i // 3) + 3)) for i in range(6)]
    assert centres == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 0, 0), (255, 255, 255)]
    assert grid([picture()] * 3, columns=1).height > grid([picture()] * 3, columns=3).height
    assert grid([picture(4, 4), picture(20, 10)]).size == (52, 18)


def test_captions_are_written_below():
    plain_sheet = grid([picture()] * 2)
    long = "a red apple left of a very large green cactus on a pale blue background, " * 5
    for caption in ("a", "a red apple on blue", long, "🍎 中文\nline", "x" * 300, ""):
        sheet = grid([picture()] * 2, captions=[caption, "b"])
        assert sheet.height > plain_sheet.height
        assert sheet.height < plain_sheet.height + 5 * 16
    ink = np.asarray(side_by_side([picture(), picture()], ["input", "output"]))[4 + 8 :]
    assert ink.min() < 100 and ink.max() == 255
    dark = np.asarray(grid([Image.new("RGB", (8, 8))], captions=["light"], background="black"))
    assert dark.max() > 150, "captions stand out from a dark background"


def test_sheets_that_cannot_be_made():
    for wrong in (
        lambda: grid([]),
        lambda: grid([picture()], columns=0),
        lambda: grid([picture()], captions=["a", "b"]),
    ):
        with pytest.raises(ValueError, match="expected"):
            wrong()
    with pytest.raises(ValueError, match="captions"):
        side_by_side([picture()], [])
    with pytest.raises(ValueError, match="expected one size"):
        error_map(picture(), picture(5, 5))


def test_error_map_rises_with_the_error():
    base = Image.new("RGB", (65, 1))
    ramp = np.broadcast_to(np.arange(65, dtype=np.uint8)[None, :, None], (1, 65, 3))
    heat = error_map(base, ramp)
    luminance = np.asarray(heat, float)[0] @ [0.2126, 0.7152, 0.0722]
    assert heat.getpixel((0, 0)) == (0, 0, 0) and (np.diff(luminance) > -0.5).all() and luminance[-1] > 230
    assert np.asarray(error_map(picture(), picture())).max() == 0
    assert difference(error_map(base, ramp), error_map(ramp, base)) == 0
