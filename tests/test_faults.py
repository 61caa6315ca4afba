"""Damaged checkpoints through the command line: one line, exit 2, nothing written, and nothing of theirs is run."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pickles import Evil
from test_singlefile import published, write

GAIN = "model.diffusion_model.input_blocks.1.1.norm.weight"  # numbers around 1


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def flipped(path: Path, place: int, bit: int) -> Path:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return path


def bit_of_the_header(path: Path) -> Path:
    return flipped(path, 9, 7)


def bit_that_makes_nan(path: Path) -> Path:
    """1.x has the exponent 0111 1111; with its highest bit it is that of no number."""
    numbers = load_file(path)[GAIN]
    place = int(((1 < numbers) & (numbers < 2)).nonzero()[0])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    start = json.loads(path.read_bytes()[8 : 8 + length])[GAIN]["data_offsets"][0]
    flipped(path, 8 + length + start + 4 * place + 3, 6)
    assert load_file(path)[GAIN].isnan().sum() == 1
    return path


def pickled(path: Path) -> Path:
    """The same tensors as a pickle, under the same name."""
    aside = path.with_suffix(".ckpt")
    torch.save({"state_dict": load_file(path)}, aside)
    return aside.replace(path)


def truncated_pickle_by_another_name(path: Path) -> Path:
    return truncated(pickled(path))


def program(path: Path) -> Path:
    """A pickle that would write a file, in the place of one tensor."""
    state = load_file(path) | {GAIN: Evil(os.system, f"touch {path.parent / 'it-ran'}")}
    torch.save({"state_dict": state}, path.with_suffix(".ckpt"))
    path.unlink()
    return path.with_suffix(".ckpt")


def missing_shard(path: Path) -> Path:
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    names = {name: f"{'ab'[i % 2]}.safetensors" for i, name in enumerate(sorted(load_file(weights)))}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps({"weight_map": names}))
    weights.rename(weights.with_name("a.safetensors"))
    return path


def contradicting_config(path: Path) -> Path:
    config = path / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_channels": 8}))
    return path


def without(part: str):
    def missing(path: Path) -> Path:
        shutil.rmtree(path / part)
        return path

    missing.__name__ = f"without_{part}"
    return missing


FILES = [truncated, bit_of_the_header, bit_that_makes_nan, truncated_pickle_by_another_name, program]
FOLDERS = [missing_shard, contradicting_config]
FOLDERS += [without(part) for part in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")]
COMMANDS = {
    "generate": ("generate", "x", "-m", "BAD", "-o", "out.png"),
    "info": ("info", "BAD"),
    "to a file": ("convert", "BAD", "new/out.safetensors"),
    "to a folder": ("convert", "BAD", "new/out"),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(published("1.x"), tmp_path_factory.mktemp("file") / "model.safetensors")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", FILES + FOLDERS, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_one_line_and_leaves_nothing(ldm, file, folder, tmp_path, monkeypatch, damage, command):
    monkeypatch.chdir(tmp_path)
    source = file.parent if damage in FILES else folder
    copy = shutil.copytree(source, tmp_path / "copy")
    bad = damage(copy / file.name if damage in FILES else copy)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = ldm(*(bad if word == "BAD" else word for word in COMMANDS[command]))
    assert (status, out) == (2, "") and err.startswith("ldm: ") and err.count("\n") == 1
    assert bad.name in err and sorted(tmp_path.rglob("*")) == before  # so that no program ran, either


def test_what_a_file_holds_counts_and_not_its_ending(ldm, file, tmp_path):
    copy = pickled(shutil.copytree(file.parent, tmp_path / "copy") / file.name)
    assert ldm("info", copy, "--no-probe")[0] == 0
    assert ldm("convert", copy, tmp_path / "new" / "out.safetensors", "--prediction-type", "epsilon")[0] == 0
    for name in ("x.ckpt", "x.pt"):
        save_file(load_file(file), copy.with_name(name), metadata={"format": "pt"})
        assert ldm("info", copy.with_name(name), "--no-probe")[0] == 0


# ---- --offline ----


@pytest.fixture
def sockets(monkeypatch):
    """What was asked of the network, in a list; no answer is given."""
    asked: list[object] = []

    def shut(*arguments, **_):
        asked.append(arguments)
        raise OSError("shut")

    for name in ("socket.connect", "socket.connect_ex", "socket.sendto", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(f"socket.{name}", shut)
    return asked


@pytest.mark.parametrize(
    "command",
    [("info", "nobody/nothing"), ("generate", "x", "-m", "nobody/nothing"), ("convert", "nobody/nothing", "o")],
)
def test_offline_keeps_to_the_cache(ldm, tmp_path, monkeypatch, sockets, command):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.chdir(tmp_path)
    status, out, err = ldm("--offline", *command)
    assert (status, out) == (2, "") and "nobody/nothing" in err and err.count("\n") == 1
    assert not sockets and os.environ["HF_HUB_OFFLINE"] == "1" and not list(tmp_path.iterdir())
    huggingface_hub.constants.HF_HUB_OFFLINE = False
    assert ldm(*command)[0] == 2 and sockets  # without it, the network is asked
