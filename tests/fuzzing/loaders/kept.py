"""What training, engines and benches keep."""

import json
import shutil
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fuzzing.loaders.data import write_pictures_with_metadata
from fuzzing.loaders.loader import command, loader
from fuzzing.loaders.models import pipeline


def write_cache(folder: Path) -> None:
    from ldm import data
    from ldm.training.cache import CachedLatents
    from ldm.training.encoding import encode

    (folder / "data").mkdir()
    write_pictures_with_metadata(folder / "data")

    source: Any = data.open(folder / "data" / "jsonl", side=16, flip=True)
    encode(source, pipeline().latents, folder / "cache")
    shutil.rmtree(folder / "data")
    values = torch.randn(2, 4, 2, 2).half()
    CachedLatents(values, values.clone(), ["a", "b"], {"data": "x"}).save(folder / "latents.safetensors")


def latent_caches(root: Path, damaged: Path) -> None:
    from ldm.training.cache import CachedLatents, LatentCache

    if damaged.name == "latents.safetensors":
        found: Any = CachedLatents.load(damaged)
    else:
        found = LatentCache(root / "cache")
        json.dumps([found.identity(), found.sizes])
    for i in range(len(found)):
        found[i]


class Line(nn.Module):
    """The least that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


@cache
def state() -> Any:
    from ldm.training.plan import Plan
    from ldm.training.state import State

    found = State(Line(), Plan(steps=4), torch.device("cpu"))
    found.objective.weight.sum().backward()
    found.optimizer.step()
    return found


def write_checkpoints(folder: Path) -> None:
    from ldm.training import checkpoint

    for step in (1, 2):
        facts = {**state().facts(), "step": step, "seen": [1, 2]}
        found = checkpoint.Checkpoint(state().tensors(), facts, {"data": {"side": 8}, "steps": 4})
        checkpoint.save(folder, found, keep=2)
    (folder / "log.jsonl").write_text("".join(json.dumps({"step": i, "loss": 1 / i}) + "\n" for i in (1, 2)))


def training_checkpoints(root: Path, damaged: Path) -> None:
    from ldm.training import checkpoint, log

    if damaged.suffix == ".jsonl":
        log._cut(damaged, 1)
        return
    found = checkpoint.read(damaged)
    state().restore(found.tensors, found.facts)
    checkpoint.resumable(root, {"data": {"side": 8}, "steps": 4})


def write_kept(folder: Path) -> None:
    from ldm.engines.kept import keep

    keep(folder / "about.json", json.dumps({"channels": 4}).encode())


def kept_files(root: Path, damaged: Path) -> None:
    from ldm.engines.kept import kept, whole

    path = root / "about.json"
    if (content := kept(path)) is not None:
        json.loads(content)
    whole(path)


def write_prepared(folder: Path) -> None:
    pipeline().save_pretrained(folder / "model")
    prepared_networks(folder, folder)


def prepared_networks(root: Path, damaged: Path) -> None:
    from ldm.engines.swift import SwiftDiffusion
    from ldm.pipeline import LatentDiffusion

    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("LDM_CACHE", str(root / "cache"))
        swift = SwiftDiffusion(root / "model", partial(LatentDiffusion.from_pretrained, root / "model"))
        swift.text_to_image("a red apple", num_inference_steps=1)
    _forget_traced()


def _forget_traced() -> None:
    """Torch keeps what it has traced until its process ends; a thousand preparations would fill the memory."""
    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    torch.jit._state._clear_class_state()  # type: ignore[attr-defined]


loader(latent_caches, write_cache, share=2)
loader(training_checkpoints, write_checkpoints, share=2)
loader(kept_files, write_kept)
if find_spec("openvino"):
    loader(prepared_networks, write_prepared, stays="^model/", kept="^files/cache")


def write_reports(folder: Path) -> None:
    source = Path(__file__).parents[3] / "benchmarks"
    for name in ("speed-start.json", "speed-drawing.json"):
        found = json.loads((source / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({key: found[key] for key in ("what", "rows", "imports") if key in found}))


def ldm_bench_report(root: Path, damaged: Path) -> None:
    command("bench", "report", damaged)


loader(ldm_bench_report, write_reports)
