"""How fast is a picture drawn? Ours beside diffusers' own, in turn, from the same weights, noise and steps.

    start      whole processes, from the command to the file; and what importing takes
    drawing    calls of pipelines that are loaded, one picture each
    network    one evaluation of a U-Net, with guidance

A round is one turn of each program; the first is not counted. Ratios are of turns of one round, as a machine's pace
changes. What each drew is compared with the peer's picture, so that nothing is faster by drawing something else.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ldm.evaluation.processes import Runner, machine, ran, versions
from ldm.evaluation.throughput import LDM, summary

if TYPE_CHECKING:
    from PIL import Image

Load = Callable[..., Any]  # (model, device, dtype, engine) -> LatentDiffusion
Turn = Callable[[int], Any]  # seed -> picture
Clock = Callable[[], float]  # seconds
PEER = "diffusers"
PROMPT, GUIDANCE = "a red apple on a blue background", 3.0
SCRIPT = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
generator = torch.Generator().manual_seed(0)
images = pipe(sys.argv[2], num_inference_steps=int(sys.argv[3]), guidance_scale=float(sys.argv[4]),
              generator=generator).images
images[0].save(sys.argv[5])
"""
IMPORT = "import sys, time; t = time.perf_counter(); __import__(sys.argv[1]); print(time.perf_counter() - t)"
Ways = Mapping[str, Mapping[str, Any]]  # how one pipeline is loaded and asked; what is not said is as the peer is asked
WAYS: Ways = {
    "torch": {},
    "tuned": {"engine": "tuned"},
    "openvino": {"engine": "openvino"},
    "openvino-int8": {"engine": "openvino-int8"},
    "openvino, guided from 0.2 to 0.8 of all times": {"engine": "openvino", "guidance_interval": (0.2, 0.8)},
    "openvino, 4 steps distilled": {
        "engine": "openvino", "model": "emoji-lcm", "num_inference_steps": 4, "guidance_scale": 1.0,
    },
}  # fmt: skip
ALIKE = 8  # pictures by which it is found how alike two ways draw


@dataclass(frozen=True)
class Setting:
    """What is drawn: by which model, where that lies and what it is called, at which size, and on what."""

    source: str = "emoji"
    name: str = "emoji"
    side: int | None = None
    steps: int = 20
    device: str = "cpu"
    dtype: Any = None

    @property
    def ways(self) -> Ways:
        """Those that there are for it: OpenVINO's on the CPU alone, and what was distilled of the embedded model."""
        on_cpu = self.device == "cpu"
        return {name: way for name, way in WAYS.items()
                if (on_cpu or "openvino" not in name) and (self.name == "emoji" or "model" not in way)}  # fmt: skip

    def told(self) -> dict[str, Any]:
        """For the JSON."""
        where = {"device": self.device.partition(":")[0], "dtype": str(self.dtype or "float32").removeprefix("torch.")}
        asked = {"model": self.name, "side": self.side, "steps": self.steps, "guidance": GUIDANCE, "prompt": PROMPT}
        return asked | where


def compare_start(model: str = "emoji", steps: int = 20, rounds: int = 5, run: Runner = ran) -> dict[str, Any]:
    """`ldm generate` by either engine, and a plain script of diffusers: seconds of whole processes, and imports."""
    from ldm import checkpoints

    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.png" for i, name in enumerate(("openvino", "torch", PEER))}
        asked = ["generate", PROMPT, "--model", model, "--steps", steps, "--guidance", GUIDANCE, "--device", "cpu"]
        commands = {name: [*LDM, *asked, "--engine", name, "-o", files[name]] for name in ("openvino", "torch")}
        weights = checkpoints.resolve(model)
        commands[PEER] = [sys.executable, "-c", SCRIPT, weights, PROMPT, steps, GUIDANCE, files[PEER]]
        found = in_turn({name: partial(_seconds, run, words) for name, words in commands.items()}, rounds)
        agreeing = {name: agreement([_open(path)], [_open(files[PEER])]) for name, path in files.items()}
    imports = in_turn({f"import {name}": partial(imported, name) for name in ("ldm", PEER)}, rounds)
    return {
        "what": f"command to picture, {model}, {steps} steps, and imports: whole processes, seconds",
        "rows": {name: row | agreeing[name] for name, row in rows(found).items()},
        "imports": rows(imports),
        "settings": {"model": model, "steps": steps, "guidance": GUIDANCE, "prompt": PROMPT, "rounds": rounds},
        **_here(),
    }


def compare_drawing(
    load: Load, setting: Setting | None = None, rounds: int = 5, ways: Ways | None = None
) -> dict[str, Any]:
    """One picture by each of the ways and by diffusers, eager: seconds of calls, after everything is loaded.

    `load` is `LatentDiffusion.from_pretrained`. On a GPU diffusers draws by its fast recipe, too.
    """
    setting = setting or Setting()
    ways = setting.ways if ways is None else ways
    turns: dict[str, Turn] = {name: _ours(load, setting, way) for name, way in ways.items()}
    if setting.device != "cpu":
        turns[f"{PEER}, its fast recipe"] = _theirs(setting, fast_recipe)
    turns[PEER] = _theirs(setting)
    drawn = {name: [turn(seed) for seed in range(ALIKE)] for name, turn in turns.items()}
    found = in_turn({name: partial(timed, partial(turn, 0)) for name, turn in turns.items()}, rounds)
    agreeing = {name: agreement(pictures, drawn[PEER]) for name, pictures in drawn.items()}
    return {
        "what": f"a picture, {setting.name}, {setting.steps} steps unless said, everything loaded: seconds",
        "rows": {name: row | agreeing[name] for name, row in rows(found).items()},
        "settings": setting.told() | {"rounds": rounds},
        **_here(),
    }


def compare_network(
    load: Load, model: str, side: int, rounds: int = 5, engines: Sequence[str] = ("openvino", "openvino-int8"),
    name: str = "", sdcpp: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One evaluation of a U-Net with guidance, a batch of two, by OpenVINO and by diffusers, eager: seconds.

    `load` is `LatentDiffusion.from_pretrained`, `side` the picture's, `name` what the model is called in what is
    written, if not by where it lies, `sdcpp` the program of stable-diffusion.cpp, for the same weights in float16.
    "off" is how far outputs are from the peer's, as a share of their norm.
    """
    import torch

    whole = load(model)
    if whole.text is None:
        raise ValueError(f"{model} takes no words: expected a model of words")
    latents = whole.latent_shape(whole.size(side, side))
    z, cond = torch.randn(2, *latents), torch.randn(2, whole.text.tokenizer.length, whole.text.features)
    t = torch.full((2,), 500)
    networks: dict[str, Any] = {name: load(model, engine=name).denoiser.unet for name in engines}
    networks[PEER] = whole.denoiser.unet
    with torch.no_grad():
        turns = {name: partial(network, z, t, encoder_hidden_states=cond) for name, network in networks.items()}
        drawn = {name: getattr(output := turn(), "sample", output) for name, turn in turns.items()}
        clocks = {name: partial(timed, turn) for name, turn in turns.items()}
        with _evaluated_by(sdcpp, model, side) as others:
            found = in_turn({**others, **clocks}, rounds)
    off = {name: float((y - drawn[PEER]).norm() / drawn[PEER].norm()) for name, y in drawn.items()}
    return {
        "what": f"one evaluation of the U-Net of {name or model} with guidance, {side} x {side}: seconds",
        "rows": {
            name: row | ({"off": round(off[name], 6)} if name in off else {}) for name, row in rows(found).items()
        },
        "settings": {"model": name or model, "side": side, "rounds": rounds},
        **_here(),
    }


@contextmanager
def _evaluated_by(sdcpp: Path | None, model: str, side: int, run: Runner = ran) -> Iterator[dict[str, Clock]]:
    """stable-diffusion.cpp's program, if there is one -> its clock: seconds that a second step takes longer than one.

    It takes both guided halves one after the other, and prints what it likes: whole processes are measured.
    """
    if sdcpp is None:
        yield {}
        return
    import torch

    from ldm import checkpoints

    with TemporaryDirectory() as folder:
        weights, cores = Path(folder) / "model.safetensors", os.cpu_count()
        checkpoints.convert(model, weights, torch.float16)
        asked = [sdcpp, "-m", weights, "-p", PROMPT, "--cfg-scale", GUIDANCE, "-H", side, "-W", side,
                 "--sampling-method", "euler", "-t", cores, "-o", f"{folder}/drawn.png", "--steps"]  # fmt: skip
        yield {"stable-diffusion.cpp": lambda: run([*asked, 2]).seconds - run([*asked, 1]).seconds}


def _ours(load: Load, setting: Setting, way: Mapping[str, Any]) -> Turn:
    asked = {"model": setting.source, "engine": "torch", "num_inference_steps": setting.steps,
             "guidance_scale": GUIDANCE, "height": setting.side, "width": setting.side, **way}  # fmt: skip
    model, engine = asked.pop("model"), asked.pop("engine")
    pipeline = load(model, device=setting.device, dtype=setting.dtype, engine=engine)
    return lambda seed: pipeline.text_to_image(PROMPT, seed=seed, **asked)[0]


def _theirs(setting: Setting, recipe: Callable[[Any], None] = lambda pipeline: None) -> Turn:
    import torch
    from diffusers import StableDiffusionPipeline

    from ldm import checkpoints

    source = checkpoints.resolve(setting.source)
    pipeline = StableDiffusionPipeline.from_pretrained(source, local_files_only=True, torch_dtype=setting.dtype)
    pipeline.to(setting.device).set_progress_bar_config(disable=True)
    recipe(pipeline)
    asked = {"num_inference_steps": setting.steps, "guidance_scale": GUIDANCE, "height": setting.side,
             "width": setting.side}  # fmt: skip
    return lambda seed: pipeline(PROMPT, generator=torch.Generator().manual_seed(seed), **asked).images[0]


def fast_recipe(pipeline: Any) -> None:
    """What diffusers' documentation advises for speed on a GPU: fused projections, channels_last, compiled parts."""
    import torch

    pipeline.fuse_qkv_projections()
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.unet = torch.compile(pipeline.unet, mode="max-autotune", fullgraph=True)
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode="max-autotune", fullgraph=True)


# ---- turns ----


def in_turn(turns: Mapping[str, Clock], rounds: int) -> dict[str, list[float]]:
    """What is measured by name -> seconds of each, `rounds` of them, all in turn; a first round is not counted."""
    found = [{name: turn() for name, turn in turns.items()} for _ in tqdm(range(rounds + 1), "rounds", disable=None)]
    return {name: [row[name] for row in found[1:]] for name in turns}


def _seconds(run: Runner, command: Sequence[object]) -> float:
    return run(command).seconds


def timed(turn: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    turn()
    return time.perf_counter() - began


def imported(package: str) -> float:
    """The seconds that a new interpreter takes to import a package."""
    found = subprocess.run([sys.executable, "-c", IMPORT, package], check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


# ---- figures ----


def rows(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Seconds of each round -> those, and how many times faster than the peer, which stands last."""
    *_, peer = seconds.values()
    return {
        name: {"seconds": summary(own), "ratio": summary([b / a for a, b in zip(own, peer, strict=True)])}
        for name, own in seconds.items()
    }


def agreement(drawn: Sequence["Image.Image"], expected: Sequence["Image.Image"]) -> dict[str, Any]:
    """Pictures and those of the peer -> the largest difference in levels of 255, and where there is one, PSNR in dB."""
    pairs = [(np.asarray(one, float), np.asarray(other, float)) for one, other in zip(drawn, expected, strict=True)]
    levels = max(int(np.abs(one - other).max()) for one, other in pairs)
    errors = [np.mean((one - other) ** 2) for one, other in pairs]
    psnr = np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors])
    return {"levels": levels} | ({"psnr": round(float(psnr), 1)} if levels else {})


def said(found: Mapping[str, Any]) -> str:
    """Rows in lines to read."""
    lines = [found["what"]]
    for name, row in {**found["rows"], **found.get("imports", {})}.items():
        agreed = f", {row['levels']} levels from the peer's picture" if "levels" in row else ""
        agreed += f", {row['psnr']} dB" if "psnr" in row else ""
        agreed += f", {row['off']:.2g} from the peer's output" if "off" in row else ""
        lines.append(f"{name}: {row['seconds']['median']:.3g} s, {row['ratio']['median']:.3g} times as fast{agreed}")
    return "\n".join(lines)


def _open(path: Path) -> Any:
    from ldm import images

    return images.load(path)


def _here() -> dict[str, Any]:
    return {"machine": machine(), "versions": versions("torch", "diffusers", "transformers", "openvino")}
