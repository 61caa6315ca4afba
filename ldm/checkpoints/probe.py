"""What a network emits, found by asking it: a warning for epsilon taken for v, and the scale of an autoencoder.

The probe shows the network z_t = a z_0 + c eps, made of known latents and known noise, and compares the output with
what each prediction type calls for: eps, a eps - c z_0 (v), or z_0. All three are combinations of z_t, which the
network has before it, and of one direction that it can only know by telling picture from noise. So

    skill = 1 - |output - target|^2 / |target - (its projection on z_t)|^2

is 1 for a perfect network of that type, at most 0 for one that merely hands z_t on, whatever its gain, and far below 0
for a trained network of another type: at a = 0.4 a perfect epsilon network has the v skill 2a - 1 = -0.2, a perfect v
network the epsilon skill 1 - 2(1 - a)/a^2 = -6.5 (both for latents of unit variance). The middle of the noise schedule
is the place to ask. At its clean end v is eps; at its noisy end epsilon is z_t itself, which a network without any
training hands on as well.

It can tell what a network that denoises was trained to emit. It cannot tell anything of one that does not: random or
broken weights, pictures of another kind than it was trained on, or a condition that it needs and is not given, have no
skill of any type, and the verdict is None. It says nothing about the quality of the samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ldm.noising import Diffusion

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ldm.text import TextEncoder

LEVELS = (0.35, 0.5)  # of the signal a in z_t: low enough that the types differ, high enough to see the picture
ENOUGH = 0.2  # of skill, and of its lead over the next type's


@dataclass(frozen=True)
class Verdict:
    """What a network emits, None if it does not show, and its skill by each prediction type (1 is perfect)."""

    prediction_type: str | None
    skill: dict[str, float]


def probe(output: "Callable[[Tensor, int], Tensor]", process: Diffusion, z_0: "Tensor", seed: int = 0) -> Verdict:
    """output(z_t (B,C,h,w), t in 1..T), a process for its noise schedule, latents of pictures -> what output emits.

    z_0 (B,C,h,w) should have unit variance. The verdict needs a type that is best at every noise level.
    """
    skills = [_skills(output, process, t, z_0, seed) for t in _times(process)]
    mean = {name: sum(skill[name] for skill in skills) / len(skills) for name in skills[0]}
    best, second = sorted(mean, key=lambda name: -mean[name])[:2]
    always = all(max(skill, key=lambda name: skill[name]) == best for skill in skills)
    clear = always and mean[best] >= ENOUGH and mean[best] - mean[second] >= ENOUGH
    return Verdict(best if clear else None, mean)


def _times(process: Diffusion) -> list[int]:
    """The times whose signal is nearest to each of LEVELS."""
    return [max(1, int(abs(process.a - level).argmin())) for level in LEVELS]


def _skills(
    output: "Callable[[Tensor, int], Tensor]", process: Diffusion, t: int, z_0: "Tensor", seed: int
) -> dict[str, float]:
    import torch

    eps = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(seed))
    z_t = process.noise(z_0, t, eps)
    a, c = float(process.a[t]), float(process.c[t])
    found = output(z_t, t)
    targets = {"epsilon": eps, "v_prediction": a * eps - c * z_0, "sample": z_0}
    return {name: _skill(found, target, z_t) for name, target in targets.items()}


def _skill(found: "Tensor", target: "Tensor", z_t: "Tensor") -> float:
    hidden = target - (target * z_t).sum() / z_t.square().sum() * z_t
    return float(1 - (found - target).square().sum() / hidden.square().sum())


# ---- of a whole checkpoint ----


def probe_model(vae: Any, unet: Any, text: "TextEncoder | None", scheduler: dict[str, Any]) -> Verdict | None:
    """The parts of a model -> what its U-Net emits, asked with the latents of a made picture and the empty prompt.

    Two small pictures, at two noise levels. None where the U-Net needs what is not at hand, a class for instance.
    """
    import torch

    config = unet.config
    if text is None and type(unet).__name__ != "UNet2DModel":
        return None
    if "block_out_channels" not in config or "block_out_channels" not in vae.config:
        return None  # networks of the package's own say what they emit
    if config.get("num_class_embeds") or config.get("class_embed_type") or config.get("addition_embed_type"):
        return None
    process = Diffusion.from_config(
        {**scheduler, "prediction_type": "v_prediction"}
    )  # of which all schedules are legal
    levels = len(config["block_out_channels"])
    size = config.get("sample_size") or 16
    side = -(-min(size if isinstance(size, int) else min(size), 16) // 2 ** (levels - 1)) * 2 ** (levels - 1)
    with torch.no_grad():
        z_0 = _latents(vae, side)
        if z_0.shape[1] != config["out_channels"]:
            return None
        extra = _empty(z_0, config["in_channels"] - z_0.shape[1])
        cond = {} if text is None else {"encoder_hidden_states": text([""] * len(z_0))}

        def output(z_t: "Tensor", t: int) -> "Tensor":
            return unet(torch.cat([z_t, extra], dim=1), t - 1, **cond).sample

        return probe(output, process, z_0)


def _latents(vae: Any, side: int) -> "Tensor":
    """The latents (2,C,side,side) of made pictures, of unit variance: so that the scale does not matter."""
    import torch

    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    x = torch.stack([picture(side * factor, seed) for seed in range(2)])
    mean = vae.encode(x).latent_dist.mean
    return (mean - mean.mean()) / mean.std()


def _empty(z: "Tensor", channels: int) -> "Tensor":
    """The channels beside z_t: a mask that hides all, then no picture; for a U-Net without a mask no picture alone."""
    import torch

    extra = torch.zeros(z.shape[0], channels, *z.shape[2:])
    if channels == z.shape[1] + 1:
        extra[:, 0] = 1
    return extra


def picture(side: int, seed: int = 0) -> "Tensor":
    """A made picture (3,side,side) in [-1,1]: a coloured ramp, five discs with edges, and fine grain."""
    import torch

    def draw(*shape: int) -> "torch.Tensor":
        return 2 * torch.rand(*shape, generator=generator) - 1

    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    slope = draw(3, 2, 1, 1) / 2
    image = draw(3, 1, 1) / 2 + slope[:, 0] * x + slope[:, 1] * y
    for _ in range(5):
        (row, column), radius, colour = draw(2), 0.15 + 0.25 * draw(1).abs(), draw(3, 1, 1)
        inside = ((y - row).square() + (x - column).square()).sqrt() < radius
        image = torch.where(inside, colour, image)
    return (image + 0.05 * draw(3, side, side)).clamp(-1, 1)


def raw_deviation(vae: Any, side: int = 128) -> float:
    """The standard deviation of an autoencoder's latents of made pictures, before any scale."""
    import torch

    with torch.no_grad():
        return float(vae.encode(torch.stack([picture(side, seed) for seed in range(2)])).latent_dist.mean.std())
