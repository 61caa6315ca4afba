"""The command line as a user meets it: pictures, figures, and one line for whatever is wrong."""

import json
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in" / "picture.png"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((37, 30)).save(path)
    return path


def test_import_and_help_load_nothing_heavy():
    heavy = ("torch", "diffusers", "transformers", "accelerate", "PIL", "numpy")
    code = f"import sys, ldm, ldm.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generate_writes_a_picture_that_says_how_it_was_made(ldm, folder, tmp_path):
    path = tmp_path / "a.png"
    status, out, err = ldm("generate", "a red apple", "-o", path, "--model", folder, "--steps", 2, "--seed", 7)
    assert (status, out.strip(), err) == (0, str(path), "")
    assert Image.open(path).size == (32, 32)
    status, out, _ = ldm("info", path, "--json", "-")
    told = json.loads(out)
    assert (told["prompt"], told["seed"], told["num_inference_steps"]) == ("a red apple", 7, 2)


def test_from_image_repeats_and_changes(ldm, folder, tmp_path):
    first, again, other = (tmp_path / f"{name}.png" for name in ("first", "again", "other"))
    ldm(
        "generate",
        "a red apple",
        "-o",
        first,
        "--model",
        folder,
        "--steps",
        2,
        "--seed",
        7,
        "--size",
        "40x32",
        "--guidance",
        2,
    )
    assert ldm("generate", "--from-image", first, "-o", again)[0] == 0
    assert np.abs(np.asarray(Image.open(first), int) - np.asarray(Image.open(again), int)).max() <= 1
    assert ldm("generate", "--from-image", first, "--seed", 8, "-o", other)[0] == 0
    assert np.abs(np.asarray(Image.open(first), int) - np.asarray(Image.open(other), int)).max() > 10


def test_many_prompts_and_counts_into_a_folder(ldm, folder, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = ldm(
        "generate", "a red apple", "a red apple", "x/../y", "", "-n", 2, "-o", out, "--model", folder, "--steps", 1
    )
    assert status == 0
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 8 and names == sorted(line.rsplit("/", 1)[1] for line in printed.split())
    assert all(name.endswith(".png") and "/" not in name for name in names)


def test_grid_is_one_sheet(ldm, folder, tmp_path):
    path = tmp_path / "sheet.png"
    assert ldm("generate", "a", "b", "-n", 3, "--grid", "-o", path, "--model", folder, "--steps", 1)[0] == 0
    assert Image.open(path).width >= 3 * 32 and Image.open(path).height >= 2 * 32


def test_a_very_long_prompt_is_read_to_its_end(ldm, folder, tmp_path):
    told = ("--model", folder, "--steps", 1)
    pictures = []
    for last in ("apple", "pear"):
        path = tmp_path / f"{last}.png"
        assert ldm("generate", "red apple " * 999 + last, "-o", path, *told)[0] == 0
        pictures.append(np.asarray(Image.open(path)))
    assert not np.array_equal(*pictures)


def test_roundtrip_compares(ldm, folder, picture, tmp_path):
    compared, figures = tmp_path / "compared.png", tmp_path / "figures.json"
    status, out, err = ldm("roundtrip", picture, "-m", folder, "-o", compared, "--json", figures)
    assert status == 0 and "psnr" in out and err == ""
    row = json.loads(figures.read_text())[0]
    assert {"psnr", "ssim", "latent_std", "diagnosis"} <= row.keys()
    assert Image.open(compared).width > 3 * 37


@pytest.mark.parametrize("size", [(1, 1), (1, 5000)])
def test_roundtrip_of_odd_shapes(ldm, folder, tmp_path, size):
    path = tmp_path / "odd.png"
    Image.new("RGB", size, "teal").save(path)
    assert ldm("roundtrip", path, "-m", folder)[0] == 0


def test_info_of_a_model(ldm, folder):
    status, out, _ = ldm("info", folder, "--json", "-")
    found = json.loads(out)
    assert status == 0 and found["unet"] == "UNet2DConditionModel" and found["factor"] == 4
    assert found["scale"] == 0.18215 and found["prediction type"] == "epsilon"


def png_bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD_FILES = {
    "missing.png": None,
    "empty.png": b"",
    "text.png": b"this is no picture",
    "bomb.png": png_bomb(),
}


@pytest.mark.parametrize("name", [*BAD_FILES, "truncated.png", "folder.png"])
def test_bad_pictures_are_one_line(ldm, folder, picture, tmp_path, name):
    bad, out = tmp_path / "in" / name, tmp_path / "out.png"
    if name == "truncated.png":
        bad.write_bytes(picture.read_bytes()[:-200])
    elif name == "folder.png":
        bad.mkdir()
    elif BAD_FILES[name] is not None:
        bad.write_bytes(BAD_FILES[name])
    status, printed, err = ldm("roundtrip", bad, "-m", folder, "-o", out)
    assert status == 2 and printed == ""
    assert err.count("\n") == 1 and name in err and "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--steps", 0], "steps 0"),
        (["--steps", "many"], "--steps"),
        (["--guidance", -1], "-1"),
        (["--guidance", "nan"], "nan"),
        (["--size", 0], "0"),
        (["--size", 7], "7"),
        (["--size", "big"], "big"),
        (["--sampler", "magic"], "magic"),
        (["--seed", -1], "-1"),
        (["--count", 0], "0"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "float3"], "float3"),
        (["--model", "nothing"], "nothing"),
        (["--no-such-option"], "no-such-option"),
        (["--from-image", "missing.png"], "missing.png"),
    ],
)
def test_bad_options_are_one_line(ldm, folder, tmp_path, options, said):
    before = ["--model", folder, "--steps", 1]
    status, out, err = ldm("generate", "a red apple", "-o", tmp_path / "a.png", *before, *options)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


def test_no_prompt_is_one_line(ldm):
    status, _, err = ldm("generate")
    assert status == 2 and err.count("\n") == 1 and "prompt" in err


@pytest.mark.parametrize("path", ["no/such/folder/a.png", "occupied/a.png", "a.xyz"])
def test_unwritable_output_is_said_before_anything_is_drawn(ldm, tmp_path, monkeypatch, path):
    monkeypatch.setattr("ldm.pipeline.LatentDiffusion.from_pretrained", lambda *a, **k: pytest.fail("it was loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").write_text("a file")
    status, _, err = ldm("generate", "a", "-o", path)
    assert status == 2 and err.count("\n") == 1 and path in err
    assert [p.name for p in tmp_path.iterdir()] == ["occupied"]


def test_a_sheet_repeats_as_a_sheet(ldm, folder, tmp_path):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    ldm("generate", "a", "b", "-n", 2, "--grid", "-o", first, "--model", folder, "--steps", 1)
    assert ldm("generate", "--from-image", first, "-o", again)[0] == 0
    assert np.abs(np.asarray(Image.open(first), int) - np.asarray(Image.open(again), int)).max() <= 1


def test_a_picture_from_a_stranger_cannot_choose_a_download(ldm, tmp_path):
    from ldm.metadata import attach, save

    path = tmp_path / "a.png"
    save(attach(Image.new("RGB", (8, 8)), {"prompt": "a", "model": "someone/something"}), path)
    status, _, err = ldm("generate", "--from-image", path, "-o", tmp_path / "b.png")
    assert status == 2 and "someone/something" in err and err.count("\n") == 1
    save(attach(Image.new("RGB", (8, 8)), {"prompt": "a", "height": "64"}), path)
    status, _, err = ldm("generate", "--from-image", path, "-o", tmp_path / "b.png")
    assert status == 2 and "height" in err and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_bad_weights_are_one_line(ldm, folder, tmp_path, damage):
    model, out = shutil.copytree(folder, tmp_path / "model"), tmp_path / "a.png"
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink() if damage == "missing" else weights.write_bytes(weights.read_bytes()[:999])
    for command in (["generate", "a", "-o", out], ["info"]):
        where = ["--model", model] if command[0] == "generate" else [model]
        status, _, err = ldm(*command, *where)
        assert (status, err.count("\n")) == (2, 1) or (command == ["info"] and damage == "missing")
    assert not out.exists()


def test_roundtrips_go_into_a_folder_twice(ldm, folder, picture, tmp_path):
    for _ in range(2):
        assert ldm("roundtrip", picture, picture, "-m", folder, "-o", tmp_path / "compared")[0] == 0
    assert len(list((tmp_path / "compared").iterdir())) == 2


def test_training_from_the_command_line(ldm, tmp_path):
    vae, model = tmp_path / "vae", tmp_path / "diffusion"
    told = ["--preset", "tiny", "--side", 16, "--batch-size", 4, "--save-every", 2]
    assert ldm("train", "vae", "-o", vae, "--steps", 2, *told)[0] == 0
    told += ["--samples", 12]
    assert ldm("train", "diffusion", "-o", model, "--vae", vae / "vae", "--steps", 2, *told)[0] == 0
    path = tmp_path / "a.png"
    assert ldm("generate", "a red apple", "-m", model / "model", "-o", path, "--steps", 2)[0] == 0
    assert Image.open(path).size == (16, 16)
    figures = tmp_path / "figures.json"
    judged = ldm("evaluate", "prompts", "-m", model / "model", "--count", 2, "--steps", 1, "--json", figures)
    assert judged[0] == 0 and 0 <= json.loads(figures.read_text())["accuracy"] <= 1


# Edits and walks.


def test_edit_keeps_the_size(ldm, folder, picture, tmp_path):
    path = tmp_path / "a.png"
    status, out, err = ldm("edit", picture, "a red apple", "-o", path, "-m", folder, "--steps", 4, "--strength", 0.5)
    assert (status, out.strip(), err) == (0, str(path), "")
    image = Image.open(path)
    image.load()
    assert image.size == (37, 30) and '"strength": 0.5' in image.info["ldm"]


def test_edit_makes_variations_of_a_picture_without_words(ldm, folder, picture, tmp_path):
    status, out, _ = ldm("edit", picture, "-n", 2, "-o", tmp_path / "out", "-m", folder, "--steps", 2)
    assert status == 0 and len(out.split()) == 2
    assert '"guidance_scale": 1.0' in Image.open(out.split()[0]).info["ldm"]


def test_edit_draws_into_a_mask(ldm, folder, picture, tmp_path):
    mask = Image.new("1", (37, 30))
    mask.paste(1, (10, 10, 20, 20))
    mask.save(tmp_path / "mask.png")
    told = ("--mask", tmp_path / "mask.png", "--feather", 0, "-m", folder, "--steps", 2)
    assert ldm("edit", picture, "a red apple", "-o", tmp_path / "a.png", *told)[0] == 0
    changed = (np.asarray(Image.open(tmp_path / "a.png")) != np.asarray(Image.open(picture))).any(-1)
    assert changed[10:20, 10:20].any()
    changed[10:20, 10:20] = False
    assert not changed.any()


def test_edit_uses_an_editing_model_as_one(ldm, picture, tmp_path):
    from conftest import tiny_pipeline

    tiny_pipeline(in_channels=8).save_pretrained(tmp_path / "model")
    told = ("-m", tmp_path / "model", "--steps", 2, "--image-guidance", 1.2, "-o", tmp_path / "a.png")
    assert ldm("edit", picture, "make it snow", *told)[0] == 0
    assert '"image_guidance_scale": 1.2' in Image.open(tmp_path / "a.png").info["ldm"]
    status, _, err = ldm("generate", "snow", "-m", tmp_path / "model", "-o", tmp_path / "b.png")
    assert status == 2 and "instruct" in err and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png"])
def test_interpolate_writes_a_picture_that_moves(ldm, folder, tmp_path, ending):
    path = tmp_path / f"morph{ending}"
    told = ("-m", folder, "--steps", 1, "-n", 3, "--there-and-back", "--seed-b", 5)
    assert ldm("interpolate", "a cat face", "a dog face", "-o", path, *told)[0] == 0
    assert Image.open(path).n_frames == 4


def test_interpolate_writes_frames_between_two_pictures(ldm, folder, picture, tmp_path):
    told = ("--image", picture, "--image", picture, "--strength", 0, "-n", 2, "-m", folder, "-o", tmp_path / "frames")
    status, out, _ = ldm("interpolate", "", "", *told)
    assert status == 0 and [Image.open(path).size for path in out.split()] == [(37, 30)] * 2


@pytest.mark.parametrize(
    "command, said",
    [
        (("edit", "nothing.png", "x"), "nothing.png"),
        (("edit", "IN", "x", "--strength", 2), "strength 2"),
        (("edit", "IN", "x", "--mask", "nothing.png"), "nothing.png"),
        (("edit", "IN", "x", "-n", 0), "--count 0"),
        (("edit", "IN", "x", "--feather", 3), "--feather"),
        (("edit", "IN", "x", "--image-guidance", 2), "--image-guidance"),
        (("edit", "IN", "x", "--memory", "huge"), "huge"),
        (("edit", "IN", "x", "--lora", "nothing.safetensors"), "nothing.safetensors"),
        (("edit", "IN", "x", "--embedding", "nothing.pt"), "nothing.pt"),
        (("interpolate", "a", "b", "-n", 0), "--frames 0"),
        (("interpolate", "a", "b", "-o", "a.jpg"), ".jpg"),
        (("interpolate", "a", "b", "--image", "IN"), "--image given 1 times"),
        (("interpolate", "a", "b", "--fps", 0), "--fps 0"),
        (("generate", "--prompts", "nothing.txt"), "nothing.txt"),
        (("generate", "x", "--prompts", "nothing.txt"), "no other prompts"),
        (("generate", "x", "--clip-skip", 9), "clip_skip 9"),
    ],
)
def test_bad_edits_end_with_one_line_and_no_file(ldm, folder, picture, tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = ldm(*(picture if word == "IN" else word for word in command), "-m", folder)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
