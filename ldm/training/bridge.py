"""Training a bridge: pairs (clean, degraded) -> a U-Net that leads from the one to the other (I2SB, Liu et al. 2023).

    clean, degraded --latents--> z_0, z_T --noising, M--> z_t --U-Net, shown z_T, M--> output, against the target

The loop, the objective and the loss are those of diffusion; a bridge only has a far end.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from ldm import masks
from ldm.bridging import Bridge, shown
from ldm.checkpoints import named
from ldm.data.pairs import Pairs
from ldm.files import write_tensors
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.training.conditions import Conditions, Doors, collate
from ldm.training.diffusion import DiffusionObjective, Recipe
from ldm.training.encoding import fingerprint
from ldm.training.loop import fit
from ldm.training.plan import Plan
from ldm.training.presets import PRESETS, new_network
from ldm.training.randomness import keyed

Errors = Callable[[Tensor], Tensor]  # x (B,3,H,W) -> M (B,1,H,W) in [0,1]
Item = tuple[Tensor, Tensor, str, dict[str, Tensor]]


class PixelPairs:
    """Pairs of pictures -> items of a bridge between pixels, made anew whenever they are drawn.

    `beside` names what the network is shown (`bridging.shown`). `errors` gives the map of a degraded picture; without
    it, it is 1.
    """

    def __init__(self, pairs: Pairs, beside: Sequence[str] = ("z_T",), errors: Errors | None = None):
        self.pairs, self.beside, self.errors = pairs, tuple(beside), errors

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        return self.draw(index, keyed(0, index))

    def draw(self, index: int, generator: Generator) -> Item:
        x, far = to_pixels(list(self.pairs.draw(index, generator))).unsqueeze(1)
        M = torch.ones_like(far[:, :1]) if self.errors is None else self.errors(far).cpu()
        return item(x[0], torch.full((1, 1, 1), -torch.inf), far, M, self.beside)

    def identity(self) -> dict[str, Any]:
        judge = getattr(self.errors, "__self__", None)  # the classifier, whose method it is
        errors = None if judge is None else fingerprint(judge)
        return {"kind": "pixel pairs", "beside": self.beside, "errors": errors, "pairs": self.pairs.identity()}


class EncodedPairs:
    """Pairs as they lie in a latent space: moments of the clean, mean of the degraded (N,C,h,w), maps (N,1,h,w)."""

    def __init__(self, tensors: dict[str, Tensor], made_by: dict[str, Any], beside: Sequence[str] = ("z_T",)):
        self.tensors, self.made_by, self.beside = tensors, made_by, tuple(beside)

    def __len__(self) -> int:
        return len(self.tensors["mean"])

    def __getitem__(self, index: int) -> Item:
        mean, logvar, far, M = (self.tensors[name][index].float() for name in ("mean", "logvar", "far", "error_map"))
        return item(mean, logvar, far[None], M[None], self.beside)

    def identity(self) -> dict[str, Any]:
        return {**self.made_by, "beside": self.beside}


def item(mean: Tensor, logvar: Tensor, far: Tensor, M: Tensor, beside: Sequence[str]) -> Item:
    """z_0's moments (C,h,w), z_T (1,C,h,w) and M (1,1,h,w) -> an item as `collate` takes it."""
    extras = {"far": far[0], "error_map": M[0]}
    told = shown(beside, far, M)
    return mean, logvar, "", extras if told is None else extras | {"beside": told[0]}


@torch.no_grad()
def encode_pairs(
    pairs: Pairs, space: LatentSpace, errors: Errors | None = None, batch_size: int = 32
) -> dict[str, Tensor]:
    """Pairs, each drawn once -> what `EncodedPairs` keeps, in float16."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("mean", "logvar", "far", "error_map")}
    for start in tqdm(range(0, len(pairs), batch_size), desc="encoding", disable=None):
        drawn = [pairs.draw(i, keyed(0, i)) for i in range(start, min(start + batch_size, len(pairs)))]
        x, y = (to_pixels(list(pictures)) for pictures in zip(*drawn, strict=True))
        mean, logvar = space.posterior(x)
        M = torch.ones_like(y[:, :1]) if errors is None else errors(y).cpu()
        ends = mean, logvar, space.from_pixels(y), masks.lowered(M, space.factor)
        for name, values in zip(found, ends, strict=True):
            found[name].append(values.half().cpu())
    return {name: torch.cat(values) for name, values in found.items()}


def kept(path: Path, made_by: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors at `path`, made where there are none; ValueError where they were made of something else."""
    import json

    from safetensors import safe_open

    if not path.exists():
        write_tensors(path, make(), {"made_by": json.dumps(made_by)})
    with named(path), safe_open(path, "pt") as file:
        found = json.loads(file.metadata()["made_by"])
        if found != json.loads(json.dumps(made_by)):
            raise ValueError(f"{path} was made of {found}, not of {made_by}; remove it or take another folder")
        return {name: file.get_tensor(name) for name in file.keys()}


def train_bridge(
    out: Path,
    data: Any,
    plan: Plan,
    bridge: Bridge,
    preset: str = "local",
    classes: int = 0,
    init: Any = None,
    between: tuple[float, float] = (0.0, 1.0),
) -> Any:
    """Items with "far" and "error_map" -> a U-Net, in float32 on the CPU, for `bridge` (I2SB, Liu et al. 2023).

    `data[i]` is (mean (C,h,w), logvar, caption, {"far": z_T (1,C,h,w), "error_map": M (1,1,h,w), ...}), as `PixelPairs`
    and `EncodedPairs` give it. `classes` is of a flag that the network is told besides.

    `init` is a U-Net to start from in place of a new one of `preset`, `between` the shares of all times of which it
    learns: so experts are made of a network that knows all times. The same call goes on from `out`'s checkpoint.
    ValueError for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    torch.manual_seed(plan.seed)
    mean, *_, extras = data[0]
    doors = Doors(False, classes, len(extras["beside"]) if "beside" in extras else 0)
    network = new_network(PRESETS[preset], mean.shape[-1], len(mean), doors) if init is None else copy.deepcopy(init)
    network.train().requires_grad_()
    recipe = Recipe(drop=0.0, between=between)
    objective = DiffusionObjective(network, bridge, Conditions.of(doors, None), recipe)
    settings: dict[str, Any] = {"kind": "bridge", "preset": preset, "bridge": bridge.config(), "classes": classes}
    settings |= {"init": fingerprint(init), "between": between} if init is not None else {}
    average = fit(objective, data, plan, out, partial(collate, doors, None), settings)
    return average.unet.cpu().to(memory_format=torch.contiguous_format)
