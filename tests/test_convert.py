"""ldm convert and ldm info: there and back bit by bit, and a line for whatever cannot be done."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_singlefile import LAYOUTS, by_diffusers, diffusers_vae, published, write

from ldm import checkpoints


def weights(folder) -> dict[str, torch.Tensor]:
    """Every tensor of a folder in diffusers' layout, as it is on disk; text names without what some versions add."""
    return {
        f"{path.parent.name}.{name.removeprefix('text_model.')}": tensor
        for path in sorted(folder.glob("*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


# ---- there and back ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_folder_to_file_to_folder_is_bit_identical(tmp_path, layout, dtype):
    first = by_diffusers(layout, tmp_path / "first", dtype)
    checkpoints.convert(first, tmp_path / "one.safetensors")
    checkpoints.convert(tmp_path / "one.safetensors", tmp_path / "second")
    assert same(weights(first), weights(tmp_path / "second")) and len(weights(first)) > 200
    for part in ("unet", "vae", "scheduler"):
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        before, after = (json.loads((where / part / name).read_text()) for where in (first, tmp_path / "second"))
        assert {**before, "scaling_factor": 0} == {**after, "scaling_factor": 0}
    one, two = (checkpoints.read(where) for where in (first, tmp_path / "second"))
    assert one.tokenizer.vocabulary == two.tokenizer.vocabulary and one.tokenizer.pad == two.tokenizer.pad
    assert one.configs["text_encoder"] == two.configs["text_encoder"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_file_to_folder_to_file_keeps_every_tensor_that_is_used(tmp_path, layout, ending):
    state = published(layout, torch.float16)
    source = write(state, tmp_path / f"source{ending}")
    checkpoints.convert(source, tmp_path / "folder", prediction_type="epsilon")
    checkpoints.convert(tmp_path / "folder", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) <= set(state) and same(back, {name: state[name] for name in back})
    unused = ("model_ema", "betas", "alphas", "sqrt", "logvar", "position_ids", "resblocks.2.", "projection", "logit")
    assert all(any(word in name for word in unused) for name in set(state) - set(back))


@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_another_autoencoder_in_place_of_its_own(tmp_path, ldm, ending):
    first, second = (by_diffusers("1.x", tmp_path / name, torch.float16) for name in ("first", "second"))
    for file in (second / "vae").glob("*.safetensors"):
        save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    status, _, err = ldm("convert", first, tmp_path / f"out{ending}", "--vae", second / "vae")
    assert status == 0, err
    checkpoints.convert(tmp_path / f"out{ending}", tmp_path / "seen")
    found, one, two = (weights(folder) for folder in (tmp_path / "seen", first, second))
    assert same(found, {name: (two if name.startswith("vae.") else one)[name] for name in one})


def test_an_autoencoder_of_other_latents_is_refused_in_a_line(tmp_path, ldm):
    folder = by_diffusers("1.x", tmp_path / "model", torch.float16)
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "latent_channels": 16}))
    status, _, err = ldm("convert", "emoji", tmp_path / "out", "--vae", folder / "vae")
    assert status == 2 and "16 channels" in err and not (tmp_path / "out").exists()


def test_the_embedded_model_is_one_file_that_needs_nothing_beside_it(ldm, tmp_path):
    path = tmp_path / "alone" / "model.safetensors"
    status, out, err = ldm("convert", "emoji", path)
    assert (status, err) == (0, "") and "prediction type: v_prediction" in out and str(path) in out
    one, two = checkpoints.load("emoji"), checkpoints.load(path)
    assert torch.equal(one.text("a red apple"), two.text("a red apple"))
    assert one.unet.config == two.unet.config and one.defaults == two.defaults and one.scheduler == two.scheduler
    assert same(one.unet.state_dict(), two.unet.state_dict()) and same(one.vae.state_dict(), two.vae.state_dict())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.prediction_type"] == "v" and json.loads(metadata["ldm"])["vae"]["scaling_factor"]


def test_diffusers_reads_the_folder_and_the_file(tmp_path):
    import diffusers

    source = write(published("1.x"), tmp_path / "model.safetensors")
    checkpoints.convert(source, tmp_path / "folder", prediction_type="epsilon")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    expected = checkpoints.load(source)
    assert same(pipe.unet.state_dict(), expected.unet.state_dict())
    assert same(pipe.vae.state_dict(), expected.vae.state_dict())
    checkpoints.convert(tmp_path / "folder", tmp_path / "back.safetensors")
    unet = diffusers.UNet2DConditionModel.from_single_file(
        str(tmp_path / "back.safetensors"), config=str(tmp_path / "folder"), subfolder="unet", local_files_only=True
    )
    assert same(unet.state_dict(), expected.unet.state_dict())


def test_the_pipeline_that_the_folder_names_is_that_of_the_task(tmp_path):
    for layout, name in (("1.x inpainting", "Inpaint"), ("InstructPix2Pix", "InstructPix2Pix"), ("2.x", "")):
        folder = tmp_path / layout
        checkpoints.convert(write(published(layout), tmp_path / "model.safetensors"), folder, None, "epsilon")
        index = json.loads((folder / "model_index.json").read_text())
        assert index["_class_name"] == f"StableDiffusion{name}Pipeline"


def test_an_autoencoder_alone_both_ways(tmp_path):
    vae = diffusers_vae(tmp_path)
    vae.register_to_config(scaling_factor=0.3)
    vae.save_pretrained(tmp_path / "vae")
    checkpoints.convert(tmp_path / "vae", tmp_path / "vae.safetensors")
    assert "encoder.mid.attn_1.q.weight" in load_file(tmp_path / "vae.safetensors")
    checkpoints.convert(tmp_path / "vae.safetensors", tmp_path / "again")
    assert same(checkpoints.load_vae(tmp_path / "again").state_dict(), vae.state_dict())
    assert json.loads((tmp_path / "again" / "config.json").read_text())["scaling_factor"] == 0.3


def test_a_guess_is_settled_before_it_is_written_down(tmp_path, monkeypatch):
    from ldm.checkpoints.probe import Verdict

    source = write(published("2.x"), tmp_path / "model.safetensors")
    monkeypatch.setattr("ldm.checkpoints.probe.probe_model", lambda *parts: Verdict("epsilon", {"epsilon": 0.6}))
    decisions = checkpoints.convert(source, tmp_path / "folder")
    assert decisions["prediction type"].value == "epsilon"
    assert checkpoints.load_scheduler(tmp_path / "folder")["prediction_type"] == "epsilon"
    assert json.loads((tmp_path / "folder" / "unet" / "config.json").read_text())["sample_size"] == 64  # 2.x base


# ---- the command ----


@pytest.fixture
def file(tmp_path):
    return write(published("1.x"), tmp_path / "model.safetensors")


def test_dtype_is_of_every_tensor(ldm, file, tmp_path):
    assert ldm("convert", file, tmp_path / "half", "--dtype", "float16")[0] == 0
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float16}
    status, _, err = ldm("convert", file, tmp_path / "other", "--dtype", "int8")
    assert status == 2 and "int8" in err and not (tmp_path / "other").exists()


def test_what_stands_there_is_replaced_by_force_alone(ldm, file, tmp_path):
    out = tmp_path / "out"
    assert ldm("convert", file, out)[0] == 0
    before = checkpoints.fingerprint(out)
    status, _, err = ldm("convert", file, out, "--dtype", "float16")
    assert status == 2 and "--force" in err and checkpoints.fingerprint(out) == before
    assert ldm("convert", file, out, "--dtype", "float16", "--force")[0] == 0
    assert checkpoints.fingerprint(out) != before
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    status, _, err = ldm("convert", file, thesis, "--force")
    assert status == 2 and err.count("\n") == 1 and (thesis / "chapter.txt").exists()


def test_a_file_converts_onto_itself(ldm, file):
    assert ldm("convert", file, file, "--force", "--dtype", "float16")[0] == 0
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    assert checkpoints.load(file)


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("nothing", "out", "nothing"),
        ("model.safetensors", "out.ckpt", ".safetensors"),
        ("model.safetensors", "no/such/folder/out.safetensors", "no/such"),
        ("damaged.safetensors", "out", "damaged.safetensors"),
        ("damaged.safetensors", "new/out.safetensors", "damaged.safetensors"),
        ("nothing", "new/out.safetensors", "nothing"),
    ],
)
def test_what_cannot_be_done_is_one_line(ldm, file, tmp_path, source, out, words):
    shutil.copy(file, tmp_path / "damaged.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(file.read_bytes()[:-10])
    there = sorted(tmp_path.rglob("*"))
    status, _, err = ldm("convert", tmp_path / source, tmp_path / out)
    assert status == 2 and words in err and err.count("\n") == 1 and sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("out", ["out.safetensors", "new/out.safetensors", "out"])
def test_a_disk_that_fills_up_leaves_nothing(file, tmp_path, out):
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.argv = ['ldm', *sys.argv[1:]]\nfrom ldm.cli import main\nmain()"
    )
    there = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-c", code, "convert", str(file), str(tmp_path / out), "--prediction-type", "epsilon"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "cannot be written" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == there


def test_networks_without_such_names_are_refused(ldm, tmp_path, pipeline):
    from diffusers import UNet2DModel

    unet = UNet2DModel(block_out_channels=(32, 64), down_block_types=("DownBlock2D",) * 2, in_channels=4,
                       up_block_types=("UpBlock2D",) * 2, out_channels=4, sample_size=8)  # fmt: skip
    checkpoints.save(tmp_path / "model", pipeline.latents.autoencoder, unet, None, pipeline.scheduler)
    status, _, err = ldm("convert", tmp_path / "model", tmp_path / "model.safetensors")
    assert status == 2 and "without a text encoder" in err and not (tmp_path / "model.safetensors").exists()


# ---- ldm info ----


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_info_tells_what_a_file_is_and_what_was_decided(ldm, tmp_path, ending):
    path = write(published("2.x inpainting", torch.float16), tmp_path / f"x{ending}")
    status, out, err = ldm("info", path, "--json", "-")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert "2.x" in told["architecture"] and "inpainting" in told["architecture"]
    assert told["prediction type"] == "epsilon" and "inpainting" in told["prediction type from"]
    assert told["scale"] == 0.18215 and "2.x" in told["scale from"] and told["factor"] == 4
    assert told["unet dtype"] == "float16" and told["unet parameters"] > 10_000
    assert told["outputs"] == "of no clear type" and "model_ema" in told["left aside"]
    assert "outputs" not in json.loads(ldm("info", path, "--json", "-", "--no-probe")[1])


def test_info_asks_the_embedded_network(ldm):
    told = json.loads(ldm("info", "emoji", "--json", "-")[1])
    assert told["outputs"] == told["prediction type"] == "v_prediction" and told["scale"] == 0.18215


def test_info_says_that_a_large_network_was_not_asked(ldm, file, monkeypatch):
    monkeypatch.setattr("ldm.cli.info.CHEAP", 100)
    assert "outputs: not asked (large); --probe does\n" in ldm("info", file)[1]
    assert json.loads(ldm("info", file, "--json", "-")[1])["outputs"] == "not asked (large); --probe does"
    assert "outputs: of no clear type\n" in ldm("info", file, "--probe")[1]
    assert "outputs" not in ldm("info", file, "--no-probe")[1]


def test_info_of_an_autoencoder_alone(ldm, tmp_path):
    save_file(diffusers_vae(tmp_path).state_dict(), tmp_path / "vae.safetensors")
    told = json.loads(ldm("info", tmp_path / "vae.safetensors", "--json", "-")[1])
    assert told["scale"] is None and told["scale from"] == "the file names none" and told["factor"] == 4
    assert "alone" in told["layout"] and "unet" not in told


def test_info_of_a_file_without_its_tokenizer(ldm, file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    shutil.rmtree(file.parent / "tokenizer")
    status, out, _ = ldm("info", file, "--no-probe")
    assert status == 0 and "1.x, text to image" in out
