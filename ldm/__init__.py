"""ldm: latent diffusion on a pretrained autoencoder.

    image --images--> x --latents--> z_0 --noising--> z_t --denoising, sampling--> z_0 --latents--> x --images--> image
                                                        ^
                              prompt --text--> cond ----+         (bridging: z_T is another latent, not noise)

    files.py          files that appear whole or not at all
    images.py         any picture <-> pixels x (B,3,H,W) in [-1,1]
    masks.py          where a picture may change
    metadata.py       what made a picture, written into its file and read back
    latents.py        LatentSpace: x <-> z_0; owns the scale
    precision.py      an autoencoder's two parts, run finite: in its own dtype, else in float32
    tiling.py         large pictures through an autoencoder in tiles
    moments.py        GroupNorm's moments of a picture that is seen in tiles
    roundtrip.py      what the autoencoder loses, in figures, and why
    prompts.py        a prompt -> words and weights
    text.py           prompts -> cond (B,L,D)
    inversion.py      textual inversion: new words
    draws.py          random numbers of many samples, each from its own source
    noising.py        Process, noise schedules, Diffusion
    denoising.py      Denoiser: (z_t, t, cond) -> z_0; guidance; how conditions enter
    samplers.py       samplers by name, and the times that they visit
    sampling.py       the loop, diffusers' schedulers behind one adapter; beginning at a picture
    bridging.py       Bridge: from a degraded picture to the clean one, with less noise where it is right
    interpolating.py  from one point to another by the great circle
    vectors.py        a denoiser of codes that have no places
    autoencoders/     the family: each a first stage, LatentSpace(autoencoder)
    lora.py           LoRAs in the weights, and out again
    checkpoints/      every layout of weights -> parts, and back
    order.py          what is to be drawn, one row a picture
    engines/          how a network is run: by torch, or by OpenVINO, without importing torch
    drawing.py        order -> images, in batches that fit into memory
    pipeline.py       LatentDiffusion: every task as one sentence
    batch.py          files of prompts -> pictures and a manifest
    data/             pictures and captions to learn from
    tryon/            a person in another garment: what of it is wrong, and its repair
    training/         one loop, an objective for each kind of model
    evaluation/       does the picture show what was asked for
    ui/               the web page
    cli/              one small file for each command
    weights/          the embedded model

Names load when they are first used (PEP 562): `import ldm` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Bridge": "bridging",
    "LatentSpace": "latents",
    "LatentDiffusion": "pipeline",
    "Diffusion": "noising",
    "save": "metadata",
}
_ROOMS = ("autoencoders", "data", "evaluation", "training", "tryon")
__all__ = ["Bridge", "Diffusion", "LatentDiffusion", "LatentSpace", "save"]

if TYPE_CHECKING:
    from ldm.bridging import Bridge
    from ldm.latents import LatentSpace
    from ldm.metadata import save
    from ldm.noising import Diffusion
    from ldm.pipeline import LatentDiffusion


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ldm.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"ldm.{name}")
    raise AttributeError(f"module 'ldm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])
