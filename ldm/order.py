"""An order: what is to be drawn, checked and filled in, one row a picture; nothing of it is drawn here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict

from ldm.samplers import steps_for, steps_run

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ldm.sampling import Callback, Start


class Settings(TypedDict, total=False):
    """What every task takes by name; `LatentDiffusion.text_to_image` explains each."""

    negative_prompt: str | Sequence[str] | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    sampler: str | None
    seed: int | Sequence[int] | None
    num_images_per_prompt: int
    noise: Tensor | None
    prompt_embeds: Tensor | None
    guidance_interval: tuple[float, float]
    guidance_rescale: float | None
    clip_skip: int
    prompt_weights: bool
    output: Literal["pil", "latent"]
    callback: Callback | None


PLAIN = {"guidance_interval": (0.0, 1.0), "guidance_rescale": 0.0, "clip_skip": 0, "prompt_weights": True}


@dataclass(eq=False)
class Order:
    """B pictures: their words and seeds, what they begin at and are conditioned on, and how they are drawn.

    `size` is that of the network's picture, (height, width), each a multiple of f; `run` is how many of the steps are
    walked, None for all; `asked` is what the caller called them, if not `steps`; `told` and `notes` are what the task
    adds to the metadata of all pictures and of each.
    """

    prompts: list[str]
    negatives: list[str]
    seeds: list[int]
    draws: list[Generator]
    size: tuple[int, int]
    steps: int
    guidance: float
    sampler: str
    callback: Callback | None = None
    output: str = "pil"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    clip_skip: int = 0
    prompt_weights: bool = True
    noise: Tensor | None = None  # (B,C,H/f,W/f)
    embeds: Tensor | None = None  # (B,L,D)
    start: Start | None = None
    far: Tensor | None = None  # z_T (B,C,H/f,W/f), where a bridge begins
    error_map: Tensor | None = None  # (B,1,H/f,W/f)
    concat: Tensor | None = None  # (B,C',H/f,W/f)
    labels: Tensor | None = None  # (B,)
    image_guidance: float | None = None
    run: int | None = None
    asked: int | None = None
    told: dict[str, Any] = field(default_factory=dict)
    notes: list[dict[str, Any]] | None = None  # of each picture

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, rows: Sequence[int]) -> Order:
        """The order for some of the pictures alone."""

        def some(value: Any) -> Any:
            return [value[row] for row in rows] if isinstance(value, list) else value[list(rows)]

        names = ("prompts", "negatives", "seeds", "draws", "noise", "embeds", "far", "error_map", "concat", "labels",
                 "notes")  # fmt: skip
        chosen = {name: some(value) for name in names if (value := getattr(self, name)) is not None}
        if self.start is not None:
            free = self.start.free
            chosen["start"] = replace(self.start, z_0=some(self.start.z_0), free=None if free is None else some(free))
        return replace(self, **chosen)

    @property
    def spread(self) -> bool:
        """Whether more steps were laid out than asked for, to run as many on a shorter walk."""
        return self.asked not in (None, self.steps)

    @property
    def walked(self) -> int:
        """How many of the steps are run."""
        return self.steps if self.run is None else self.run

    def walking(self, strength: float, T: int, exact_steps: bool = False, as_diffusers: bool = False) -> Order:
        """The order for a picture that is given: the share `strength` of the steps, or that many `exact_steps`.

        Diffusers' rule for the share rounds down in floating point: 0.58 of 50 steps are 28.
        """
        run = steps_run(self.steps, strength)
        if as_diffusers:
            run = int(self.steps * strength)
        if not exact_steps or not strength:
            return replace(self, run=run, told=self.told | {"strength": strength, "executed_steps": run})
        steps = steps_for(self.steps, strength)
        if self.steps <= T < steps:
            least = f"{self.steps / T:g}"
            raise ValueError(f"{self.steps} exact_steps at strength {strength}: expected a strength of {least} or more")
        told = {"strength": strength, "executed_steps": self.steps, "exact_steps": True}
        return replace(self, steps=steps, run=self.steps, asked=self.steps, told=self.told | told)

    def settings(self) -> dict[str, Any]:
        """What the metadata say of all pictures alike; `num_inference_steps` is what was asked for."""
        height, width = self.size
        settings = {"num_inference_steps": self.asked or self.steps, "guidance_scale": self.guidance}
        changed = {name: getattr(self, name) for name, value in PLAIN.items() if getattr(self, name) != value}
        return settings | {"sampler": self.sampler, "height": height, "width": width} | changed | self.told


def ordered(
    prompt: str | Sequence[str],
    size: tuple[int, int],
    defaults: dict[str, Any],
    settings: Settings,
    told: dict[str, Any] | None = None,
    draws: Callable[[list[int]], list[Any]] | None = None,
) -> Order:
    """Prompts and settings -> Order, with the checkpoint's own `defaults` for what is None or left out.

    `draws` gives, of seeds, what noise is drawn from: torch's generators where it is left out.

    Raises ValueError that names the argument for anything out of range, TypeError for one that is unknown.
    """
    unknown = sorted(settings.keys() - Settings.__annotations__.keys())
    if unknown:
        raise TypeError(f"unexpected argument {unknown[0]!r}: expected one of {', '.join(Settings.__annotations__)}")
    asked: dict[str, Any] = {**defaults, **{k: v for k, v in settings.items() if v is not None}}
    prompts, each = [prompt] if isinstance(prompt, str) else list(prompt), asked.get("num_images_per_prompt", 1)
    seeds = seeds_of(settings.get("seed", 0), len(prompts), each)
    output = asked.get("output", "pil")
    if output not in ("pil", "latent"):
        raise ValueError(f"output {output!r}: expected 'pil' or 'latent'")
    return Order(
        prompts=_repeated(prompts, each),
        negatives=_repeated(_matched(asked.get("negative_prompt", ""), prompts), each),
        seeds=seeds,
        draws=(draws or _generators)(seeds),
        size=size,
        steps=asked["num_inference_steps"],
        guidance=asked["guidance_scale"],
        sampler=asked["sampler"],
        callback=asked.get("callback"),
        output=output,
        **{name: asked.get(name, value) for name, value in PLAIN.items()},
        noise=asked.get("noise"),
        embeds=_rows(asked.get("prompt_embeds"), len(prompts), each),
        told=told or {},
    )


def _generators(seeds: list[int]) -> list[Generator]:
    from ldm.sampling import generators  # here, as an engine without torch has no use for it

    return generators(seeds)


def seeds_of(seed: int | Sequence[int] | None, prompts: int, each: int) -> list[int]:
    """seed, seed + 1, ... for the `each` pictures of each prompt, or the list itself; a random start for None."""
    if not prompts:
        raise ValueError('no prompt given; the empty prompt is ""')
    if each < 1:
        raise ValueError(f"num_images_per_prompt {each}: expected 1 or more")
    if seed is None:
        seed = secrets.randbelow(2**32)
    if isinstance(seed, SupportsIndex):  # numpy's integers too
        return [int(seed) + j for j in range(each)] * prompts
    if len(seed) != prompts * each:
        raise ValueError(f"{len(seed)} seeds for {prompts * each} pictures")
    return list(seed)


def _matched(negative: str | Sequence[str], prompts: list[str]) -> list[str]:
    """One negative prompt for each prompt."""
    if isinstance(negative, str):
        return [negative] * len(prompts)
    if len(negative) != len(prompts):
        raise ValueError(f"{len(negative)} negative prompts for {len(prompts)} prompts")
    return list(negative)


def _repeated(values: list[Any], each: int) -> list[Any]:
    return [value for value in values for _ in range(each)]


def _rows(embeds: Tensor | None, prompts: int, each: int) -> Tensor | None:
    """One row for each prompt -> one row for each picture."""
    if embeds is None:
        return None
    if embeds.ndim != 3 or len(embeds) != prompts:
        raise ValueError(f"prompt_embeds of shape {tuple(embeds.shape)}: expected ({prompts}, tokens, features)")
    return embeds.repeat_interleave(each, dim=0)
