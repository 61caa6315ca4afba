"""Pickles: the tensors come out, and nothing that a pickle asks for is run, called or imported."""

import os
import pickle
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from ldm.checkpoints import CheckpointError
from ldm.checkpoints.pickles import Foreign, read_pickle
from ldm.checkpoints.tensors import is_checkpoint, kind, read_tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def tensors() -> dict[str, torch.Tensor]:
    """Of every dtype, and views: transposed, strided, sharing one storage, of no element, of no axis."""
    generator = torch.Generator().manual_seed(0)
    plain = {str(dtype): (torch.randn(3, 4, generator=generator) * 9).to(dtype) for dtype in DTYPES}
    whole = torch.randn(6, 5, generator=generator)
    views = {"turned": whole.T, "strided": whole[1::2, 1:], "row": whole[3], "none": torch.empty(0, 2)}
    return plain | views | {"number": torch.tensor(1.5), "parameter": torch.nn.Parameter(torch.randn(2))}


class Callback:
    """Stands for what Lightning leaves in a checkpoint: an object with a state, in places where keys and values go."""

    def __init__(self):
        self.best = {"score": 1.0}


class Bag(dict):
    pass


class Evil:
    """A program that would run: what its `__reduce__` names is called with these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def lightning(state: dict) -> dict:
    bag = Bag(a=1)
    bag.callbacks = [Callback()]
    return {"epoch": 3, "global_step": 875000, "state_dict": state, "callbacks": {Callback: Callback()}, "bag": bag}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("foreign", [True, False])
def test_tensors_come_out_as_they_went_in(tmp_path, zipped, foreign):
    path, expected = tmp_path / "model.ckpt", tensors()
    held = lightning(expected) if foreign else {"state_dict": expected, "global_step": 875000}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    file = read_tensors(path)
    assert file.tensors.keys() == expected.keys() and file.global_step == 875000
    for name, tensor in expected.items():
        assert file.tensors[name].dtype == tensor.dtype and torch.equal(file.tensors[name], tensor.detach()), name
    assert bool(file.skipped) == foreign and all("Callback" in name or "Bag" in name for name in file.skipped)


def test_a_state_dict_needs_no_wrapping(tmp_path):
    torch.save({"a": torch.ones(2), "note": "x"}, tmp_path / "a.pt")
    assert list(read_tensors(tmp_path / "a.pt").tensors) == ["a"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["value", "key", "inside"])
@pytest.mark.parametrize("how", ["system", "exec", "eval", "mkdir", "import"])
def test_a_program_in_a_pickle_does_not_run(tmp_path, place, how, zipped):
    proof, path = tmp_path / "it-ran", tmp_path / "model.ckpt"
    code = f"open({str(proof)!r}, 'w')"
    evil = {
        "system": Evil(os.system, f"touch {proof}"),
        "exec": Evil(exec, code),
        "eval": Evil(eval, code),
        "mkdir": Evil(os.mkdir, str(proof)),
        "import": Evil(__import__, "antigravity"),
    }[how]
    state = {"weight": torch.ones(2)}
    held = {"value": {"state_dict": state, "x": evil}, "key": {"state_dict": state, (evil,): 1}}
    held["inside"] = {"state_dict": state | {"bias": evil}}
    torch.save(held[place], path, _use_new_zipfile_serialization=zipped)
    file = read_tensors(path)
    assert list(file.tensors) == ["weight"] and torch.equal(file.tensors["weight"], torch.ones(2))
    assert file.skipped and not proof.exists() and "antigravity" not in sys.modules


def test_a_module_that_a_pickle_names_is_not_imported(tmp_path, monkeypatch):
    module = tmp_path / "strange_module_of_a_stranger.py"
    module.write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import strange_module_of_a_stranger

    thing = strange_module_of_a_stranger.Thing()
    torch.save({"state_dict": {"a": torch.ones(1)}, "thing": thing}, tmp_path / "a.ckpt")
    module.write_text("raise SystemExit('it was imported')\n")
    del sys.modules["strange_module_of_a_stranger"]
    file = read_tensors(tmp_path / "a.ckpt")
    assert file.skipped == ("strange_module_of_a_stranger.Thing",) and list(file.tensors) == ["a"]
    assert "strange_module_of_a_stranger" not in sys.modules


def test_placeholders_take_what_is_done_to_them(tmp_path):
    class Things(list):
        pass

    globals()["Things"] = Things
    Things.__qualname__ = "Things"
    held = lightning({"a": torch.ones(1)}) | {"things": Things([1, 2, 3]), "set": {1, 2}, "slice": slice(1, 2)}
    torch.save(held, tmp_path / "a.ckpt")
    found, skipped = read_pickle(tmp_path / "a.ckpt")
    assert isinstance(found["things"], Foreign) and isinstance(found["bag"], Foreign) and len(skipped) == 5
    assert vars(found["bag"]) == {} and found["epoch"] == 3


def test_a_tensor_cannot_reach_outside_of_its_storage(tmp_path):
    path, bad = tmp_path / "a.ckpt", tmp_path / "bad.ckpt"
    torch.save({"a": torch.arange(4.0), "x": Callback()}, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bad, "w") as out:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):  # the shape (4,): BININT1 4, TUPLE1, memoised
                assert content.count(b"K\x04\x85") == 1
                content = content.replace(b"K\x04\x85", b"K\xff\x85")
            out.writestr(name, content)
    with pytest.raises(CheckpointError, match="bad.ckpt"):
        read_tensors(bad)


def test_content_decides_not_the_ending(tmp_path):
    expected = {"a": torch.randn(3)}
    pickled, safe = tmp_path / "pickled.safetensors", tmp_path / "safe.ckpt"
    torch.save(expected, pickled)
    save_file(expected, safe, metadata={"format": "pt", "who": "me"})
    assert (kind(pickled), kind(safe)) == ("pickle", "safetensors")
    assert torch.equal(read_tensors(pickled).tensors["a"], expected["a"])
    assert torch.equal(read_tensors(safe).tensors["a"], expected["a"]) and read_tensors(safe).metadata["who"] == "me"


def test_what_would_unpack_to_far_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(10**7))
    with pytest.raises(CheckpointError, match="a.ckpt would unpack to more than 100 times its size"):
        read_tensors(tmp_path / "a.ckpt")


BAD = {
    "empty.ckpt": b"",
    "text.safetensors": b"version https://git-lfs.github.com/spec/v1\n",
    "plain.pt": pickle.dumps({"a": 1}),
    "command.ckpt": pickle.dumps(Evil(os.system, "false")),
    "half.ckpt": b"PK\x03\x04" + b"\0" * 100,
    "long.safetensors": (2**40).to_bytes(8, "little") + b"{",
}


@pytest.mark.parametrize("name", BAD)
def test_what_holds_no_tensors_is_one_line_that_names_it(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    assert is_checkpoint(path)
    with pytest.raises(CheckpointError, match=name) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_pickle_is_refused(tmp_path, zipped):
    path = tmp_path / "a.ckpt"
    torch.save(lightning({"a": torch.randn(4000)}), path, _use_new_zipfile_serialization=zipped)
    for share in (0.1, 0.5, 0.99):
        content = path.read_bytes()
        (tmp_path / "cut.ckpt").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(CheckpointError, match="cut.ckpt"):
            read_tensors(tmp_path / "cut.ckpt")


def test_a_picture_is_no_checkpoint(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    assert not is_checkpoint(tmp_path / "a.png")
