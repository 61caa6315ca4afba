"""A picture by each engine, and with fewer evaluations, beside diffusers: calls of pipelines that are loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ldm.evaluation.speed.turns import GUIDANCE, PEER, PROMPT, Load, agreement, here, in_turn, rows, timed

Turn = Callable[[int], Any]  # seed -> picture
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

    @property
    def asked(self) -> dict[str, Any]:
        """What both are asked for, by the names that both have for it."""
        return {"num_inference_steps": self.steps, "guidance_scale": GUIDANCE, "height": self.side, "width": self.side}

    def told(self) -> dict[str, Any]:
        """For the JSON."""
        where = {"device": self.device.partition(":")[0], "dtype": str(self.dtype or "float32").removeprefix("torch.")}
        asked = {"model": self.name, "side": self.side, "steps": self.steps, "guidance": GUIDANCE, "prompt": PROMPT}
        return asked | where


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
        **here(),
    }


def _ours(load: Load, setting: Setting, way: Mapping[str, Any]) -> Turn:
    asked = {"model": setting.source, "engine": "torch", **setting.asked, **way}
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
    return lambda seed: pipeline(PROMPT, generator=torch.Generator().manual_seed(seed), **setting.asked).images[0]


def fast_recipe(pipeline: Any) -> None:
    """What diffusers' documentation advises for speed on a GPU: fused projections, channels_last, compiled parts."""
    import torch

    pipeline.fuse_qkv_projections()
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.unet = torch.compile(pipeline.unet, mode="max-autotune", fullgraph=True)
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode="max-autotune", fullgraph=True)
