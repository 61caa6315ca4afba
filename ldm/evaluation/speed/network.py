"""One evaluation of a U-Net, with guidance: by OpenVINO, by diffusers, and by stable-diffusion.cpp."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldm.evaluation.speed.processes import Runner, ran
from ldm.evaluation.speed.turns import GUIDANCE, PEER, PROMPT, Clock, Load, here, in_turn, rows, timed


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
        **here(),
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
