"""What made a picture goes into its file and comes back; nothing else does; a file appears whole or not at all."""

import json
import os
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from ldm import metadata
from ldm.metadata import attach, describe, parse, read, save

PARAMETERS = {
    "prompt": 'a "red" apple, left of: 🍎\nSteps: 99, on a second line — 中文 é',
    "negative_prompt": "blur, \\ backslash\nand a second line",
    "num_inference_steps": 20,
    "sampler": "ddim",
    "guidance_scale": 7.5,
    "seed": 5,
    "width": 64,
    "height": 48,
    "model": 'emoji, "first": one',
    "model_hash": "0012345678",
    "version": "ldm 0.1",
}
WITH_METADATA = [".png", ".jpg", ".jpeg", ".webp", ".PNG"]
WITHOUT = [".bmp", ".tif", ".tiff", ".gif", ".ppm"]


def picture(mode="RGB"):
    values = np.zeros((8, 12, 3), np.uint8)
    values[:, :6, 0], values[:, 6:, 1] = 250, 120
    return Image.fromarray(values).convert(mode)


# ---- text ----


def test_the_text_is_a1111s():
    told = {**PARAMETERS, "prompt": "a red apple", "negative_prompt": "blur", "model": "emoji"}
    assert describe(told) == (
        "a red apple\nNegative prompt: blur\n"
        "Steps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 5, Size: 64x48, Model: emoji, Model hash: 0012345678, "
        "Version: ldm 0.1"
    )
    assert describe({"prompt": "a", "negative_prompt": "", "seed": None}) == "a"
    assert describe({"prompt": "a", "num_inference_steps": 3, "cache_interval": 2}) == "a\nSteps: 3, Cache interval: 2"


def test_the_text_comes_back():
    assert parse(describe(PARAMETERS)) == PARAMETERS


lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
prompts = lines.filter(lambda p: not any(line.startswith("Negative prompt:") for line in p.split("\n")))
names = st.sampled_from(["model", "vae", "model_hash", "note", "eta", "strength", "cache_interval", "version"])
values = st.one_of(lines, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
tricky = st.sampled_from(["12", "1e5", "1.5", "True", '"', '"a"', " a ", "a, Seed: 3", "\\", "", "nan", "inf", "007"])


@given(prompts, lines, st.dictionaries(names, values | tricky, max_size=4), st.sampled_from(list(metadata.SAMPLERS)))
@settings(deadline=None, max_examples=200)
def test_any_flat_parameters_come_back(prompt, negative, rest, sampler):
    texts = {k: str(v) if k.endswith(("hash", "model", "vae")) else v for k, v in rest.items()}
    told = {"prompt": prompt, "negative_prompt": negative, "num_inference_steps": 7, "sampler": sampler, **texts}
    assert parse(describe(told)) == told


def test_texts_of_other_programs():
    text = (
        "masterpiece, (apple:1.2)\nsecond line\nNegative prompt: blur,\n bad\n"
        "Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1234567890123, Size: 512x768, "
        'Model hash: 6ce0161689, Model: v1-5, Clip skip: 2, Lora hashes: "a: 1, b: 2", Version: v1.9.4'
    )
    assert parse(text) == {
        "prompt": "masterpiece, (apple:1.2)\nsecond line",
        "negative_prompt": "blur,\n bad",
        "num_inference_steps": 28,
        "sampler": "dpm++2m_karras",
        "guidance_scale": 7,
        "seed": 1234567890123,
        "width": 512,
        "height": 768,
        "model_hash": "6ce0161689",
        "model": "v1-5",
        "clip_skip": 2,
        "lora_hashes": "a: 1, b: 2",
        "version": "v1.9.4",
    }
    assert parse("p\nSteps: 5, Sampler: Euler a, Schedule type: Automatic")["sampler"] == "euler_a"
    assert parse("p\nSteps: 5, Sampler: Restart")["sampler"] == "Restart"


@pytest.mark.parametrize("text", ["", "only a prompt", "Camera: x, Lens: y, Light: z", "two\nlines"])
def test_texts_without_settings_are_prompts(text):
    assert parse(text) == {"prompt": text, "negative_prompt": ""}


def test_hostile_texts_are_read_in_time():
    for junk in ("a" * 200_000, " " * 200_000, 'a:"' * 60_000, '"' * 200_000, "a:" * 100_000, "\\" * 200_000):
        assert parse("p\nSteps: 5, " + junk)["num_inference_steps"] == 5


def test_attach_leaves_the_image_alone():
    source = picture()
    source.info["comment"] = "private"
    result = attach(source, PARAMETERS)
    assert source.info == {"comment": "private"}
    assert result.info == {"ldm": PARAMETERS, "parameters": describe(PARAMETERS)}


# ---- files ----


@pytest.mark.parametrize("suffix", WITH_METADATA)
def test_metadata_comes_back_from_a_file(suffix, tmp_path):
    path = tmp_path / f"picture{suffix}"
    save(attach(picture(), PARAMETERS), path)
    assert read(path) == {"ldm": PARAMETERS, "parameters": describe(PARAMETERS)}
    save(attach(picture(), PARAMETERS), path, metadata=False)
    assert read(path) == {"ldm": None, "parameters": None}
    save(picture(), path)
    assert read(path) == {"ldm": None, "parameters": None}


def test_png_chunks_are_what_other_programs_look_for(tmp_path):
    save(attach(picture(), PARAMETERS), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as source:
        assert source.text["parameters"] == describe(PARAMETERS)
        assert json.loads(source.text["ldm"]) == PARAMETERS
        assert set(source.text) == {"parameters", "ldm"}


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_user_comment_is_what_other_programs_look_for(suffix, tmp_path):
    save(attach(picture(), PARAMETERS), tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as source:
        comment = source.getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + describe(PARAMETERS).encode("utf-16-be")


@pytest.mark.parametrize("suffix", WITHOUT)
def test_formats_without_metadata_are_saved(suffix, tmp_path):
    path = tmp_path / f"picture{suffix}"
    save(attach(picture(), PARAMETERS), path)
    with Image.open(path) as source:
        assert np.abs(np.asarray(source.convert("RGB"), int) - np.asarray(picture(), int)).max() == 0
    assert read(path) == {"ldm": None, "parameters": None}


def test_values_that_json_does_not_know(tmp_path):
    told = {"prompt": "a", "scale": np.float32(0.5), "seeds": [1, np.int64(2)], "path": tmp_path, "nested": {"a": None}}
    save(attach(picture(), told), tmp_path / "a.png")
    back = read(tmp_path / "a.png")["ldm"]
    assert back == {"prompt": "a", "scale": 0.5, "seeds": [1, 2], "path": str(tmp_path), "nested": {"a": None}}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_broken_unicode_does_not_stop_a_picture(suffix, tmp_path):
    told = {"prompt": "a \udce9 b \0 c"}
    save(attach(picture(), told), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    assert back["ldm"] == told and back["parameters"] == "a � b \0 c"


@pytest.mark.parametrize(("prompt", "left"), [("a" * 10_000, 2), ("中" * 10_000, 1), ("🍎" * 40_000, 0)])
def test_long_prompts(prompt, left, tmp_path):
    image = attach(picture(), {"prompt": prompt})
    for suffix in (".png", ".webp"):
        save(image, tmp_path / f"a{suffix}")
        assert read(tmp_path / f"a{suffix}") == {"ldm": {"prompt": prompt}, "parameters": prompt}
    if left == 2:
        save(image, tmp_path / "a.jpg")
    else:
        with pytest.warns(UserWarning, match="JPEG"):
            save(image, tmp_path / "a.jpg")
    back = read(tmp_path / "a.jpg")
    assert back == {"ldm": {"prompt": prompt} if left == 2 else None, "parameters": prompt if left else None}


def private(kind):
    """A photograph's file with a place, a comment, a profile and a text chunk."""
    image, exif = picture(), Image.Exif()
    exif[0x010F] = "SECRET camera"
    exif[0x010E] = "SECRET description"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0SECRET comment"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "SECRET author")
    options = {"PNG": {"pnginfo": chunks}, "JPEG": {"comment": b"SECRET"}, "GIF": {"comment": b"SECRET"}}.get(kind, {})
    xmp = {"xmp": b"<x>SECRET</x>"} if kind in ("JPEG", "WEBP") else {}
    buffer = BytesIO()
    image.save(buffer, kind, **({} if kind == "GIF" else {"exif": exif}), **options, **xmp)
    assert b"SECRET" in buffer.getvalue()
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".bmp"])
def test_nothing_of_an_input_is_inherited(kind, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    opened = Image.open(BytesIO(private(kind)))
    for image in (opened, attach(opened, PARAMETERS), attach(opened.convert("RGB"), PARAMETERS)):
        save(image, path)
        assert b"SECRET" not in path.read_bytes()
        with Image.open(path) as written:
            assert not written.getexif().get_ifd(0x8825)
            assert "comment" not in written.info and "icc_profile" not in written.info


def test_what_is_saved_is_what_was_seen(tmp_path):
    """Orientation and depth are applied, not lost with the metadata that spoke of them."""
    buffer, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture().save(buffer, "PNG", exif=exif)
    save(Image.open(buffer), tmp_path / "turned.png")
    assert Image.open(tmp_path / "turned.png").size == (8, 12)
    deep = Image.fromarray(np.full((2, 2), 32768, np.uint16))
    save(deep, tmp_path / "deep.png")
    assert Image.open(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".ppm"])
def test_alpha_is_composited_where_there_is_none(suffix, tmp_path):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    save(clear, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as written:
        assert written.mode == "RGB" and min(written.getpixel((3, 3))) > 250
    save(clear, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "RGBA"


def test_quality(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in (".jpg", ".webp"):
        save(noise, tmp_path / f"high{suffix}")
        save(noise, tmp_path / f"low{suffix}", quality=20)
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size
    for quality in (0, 101, -5):
        with pytest.raises(ValueError, match=f"quality {quality}"):
            save(noise, tmp_path / "a.jpg", quality=quality)


# ---- a file appears whole or not at all ----


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("older", [True, False])
def test_a_failure_leaves_what_was_there(failure, older, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    if older:
        save(attach(picture(), PARAMETERS), path)
    before = path.read_bytes() if older else None

    def half_a_picture(self, file, *_, **__):
        file.write(b"\x89PNG")
        raise failure

    monkeypatch.setattr(Image.Image, "save", half_a_picture)
    with pytest.raises(ValueError if isinstance(failure, OSError) else type(failure)) as caught:
        save(picture("L"), path)
    if isinstance(failure, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == (["a.png"] if older else [])


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        save(picture(), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder"):
        save(picture(), tmp_path / "none" / "a.png")
    for place in (tmp_path / "file" / "a.png", tmp_path / "folder.png", tmp_path / ("x" * 300 + ".png")):
        with pytest.raises(ValueError, match="cannot be written") as caught:
            save(picture(), place)
        assert str(caught.value).startswith(str(place)) and "\n" not in str(caught.value)
    for name in ("a.xyz", "a", ".png"):
        with pytest.raises(ValueError, match=r"unknown suffix.*\.png"):
            save(picture(), tmp_path / name)
    for suffix in (".webp", ".jpg", ".gif"):
        with pytest.raises(ValueError, match="cannot be written"):
            save(Image.new("RGB", (70_000, 1)), tmp_path / f"long{suffix}")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_an_existing_file_is_replaced_and_a_link_followed(tmp_path):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    save(attach(picture(), PARAMETERS), str(tmp_path / "link.png"))
    assert (tmp_path / "link.png").is_symlink()
    assert read(tmp_path / "real.png")["ldm"] == PARAMETERS
    mode = os.stat(tmp_path / "real.png").st_mode & 0o777
    (tmp_path / "ordinary").touch()
    assert mode == os.stat(tmp_path / "ordinary").st_mode & 0o777, "permissions as of any new file"


# ---- whoever wrote it ----


def png(**texts):
    chunks, buffer = PngImagePlugin.PngInfo(), BytesIO()
    for key, value in texts.items():
        chunks.add(b"tEXt", key.encode() + b"\0" + value) if isinstance(value, bytes) else chunks.add_text(key, value)
    picture().save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


@pytest.mark.parametrize("blob", ["{", "[1]", "3", "", "null", "[" * 100_000, '"text"', "NaN"])
def test_malformed_json_is_none_and_the_text_is_kept(blob):
    assert read(png(parameters="a\nSteps: 3", ldm=blob)) == {"ldm": None, "parameters": "a\nSteps: 3"}


def test_png_texts_in_either_encoding():
    assert read(png(parameters="café".encode("latin-1")))["parameters"] == "café"
    assert read(png(parameters="café 🍎".encode()))["parameters"] == "café 🍎"
    assert read(png(parameters="plain"))["parameters"] == "plain"
    assert read(png(other="x")) == {"ldm": None, "parameters": None}


@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "apple é 🍎".encode("utf-16-be"),
        b"UNICODE\0" + "apple é 🍎".encode("utf-16-le"),
        b"\0\0\0\0\0\0\0\0" + "apple é 🍎".encode(),
        "apple é 🍎".encode() + b"\0\0",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_user_comments_in_every_encoding(comment, kind):
    exif, buffer = Image.Exif(), BytesIO()
    exif.get_ifd(0x8769)[0x9286] = comment
    exif[0x010E] = '{"shape": [1, 2]}'  # another program's JSON is not ours
    picture().save(buffer, kind, exif=exif)
    assert read(buffer.getvalue()) == {"ldm": None, "parameters": "apple é 🍎"}


def test_ascii_comments_and_malformed_exif():
    exif, buffer = Image.Exif(), BytesIO()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0apple"
    picture().save(buffer, "JPEG", exif=exif)
    assert read(buffer.getvalue())["parameters"] == "apple"
    source = picture()
    source.info["exif"] = b"Exif\0\0junk"
    assert read(source) == {"ldm": None, "parameters": None}


def test_read_says_what_is_wrong(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png: not a picture"):
        read(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "none.png")


def test_a_size_of_very_many_digits_is_left_as_it_is():
    assert parse(f"a\nSteps: 20, Size: {'9' * 5000}x1")["size"] == f"{'9' * 5000}x1"
