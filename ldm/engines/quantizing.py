"""Eight bits: a prepared U-Net whose layers compute in int8, calibrated on what it meets while it draws (NNCF).

    prompts --DDIM--> what the U-Net is told on the way --statistics--> ranges --quantise--> network

Some layers lose most: those that read the time, the first and the last, and those by which words come in, which are
cross-attention and what follows it. They stay in float32: of the embedded model's pictures 8 dB hang on the latter (30
dB from float32's without them, 38 with), and a tenth of the speed.
"""

import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from ldm.denoising import Denoiser
from ldm.engines.network import NetworkUNet
from ldm.engines.openvino import Network, runtime, save

PROMPTS = (  # in the words of any model of pictures, the package's own among them
    "a red apple on a blue background",
    "two purple cats in the snow",
    "a dog to the left of a tulip",
    "a cow on the grass",
    "three green pears",
    "a face with a smile",
    "a rocket above a house on a yellow background",
    "an elephant",
)
STEPS = 5
LARGEST = 32  # latents of a side that are drawn: ranges do not depend on how many there are
SENSITIVE = [".*time.*", ".*conv_in.*", ".*conv_out.*", ".*attn2.*", ".*ff.*"]


def quantise(network: Network, path: Path, model: Any) -> None:
    """A prepared U-Net and the LatentDiffusion it is of -> `path`, the same in int8.

    ModuleNotFoundError without nncf.
    """
    calls = trajectories(network, model)
    runtime()  # before nncf, which would import it with its telemetry
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # not nncf.set_log_level, which quietens others' handlers too
    with redirect_stdout(sys.stderr):  # its bars
        quantised = nncf.quantize(
            network.read(),
            nncf.Dataset(calls),
            subset_size=len(calls),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(patterns=SENSITIVE, validate=False),
        )
    save(quantised, path)


def trajectories(network: Network, model: Any) -> list[tuple[np.ndarray, ...]]:
    """What the U-Net is told while PROMPTS are drawn, guided as the model would be; nothing of them is decoded."""
    calls: list[tuple[np.ndarray, ...]] = []

    def noted(z_t: Any, t: Any, encoder_hidden_states: Any) -> Any:
        calls.append(tuple(part.float().numpy().copy() for part in (z_t, t, encoder_hidden_states)))
        return unet(z_t, t, encoder_hidden_states)

    unet = NetworkUNet(network, model.denoiser.unet.config)
    side = model.latents.factor * min(unet.config.sample_size, LARGEST)
    denoiser, model.denoiser = model.denoiser, Denoiser(noted, model.process)
    try:
        for seed, prompt in enumerate(PROMPTS):
            asked = {"num_inference_steps": STEPS, "sampler": "ddim", "height": side, "width": side}
            model.text_to_image(prompt, seed=seed, output="latent", **asked)
    finally:
        model.denoiser = denoiser
    return calls
