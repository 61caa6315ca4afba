"""A model -> its networks as OpenVINO reads them, once: text encoder, U-Net, decoder.

    ids (B,L) --text--> cond (B,L,D);   z_t, t, cond --unet--> output;   z_0 --decoder--> x (B,3,H,W) in [-1,1]

They lie in a folder of their own in the cache, named by what is in the model's files.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ldm.checkpoints import locate
from ldm.engines.kept import home, keep, kept
from ldm.engines.openvino import Network, runtime, save

log = logging.getLogger("ldm")

FILES = TEXT, UNET, DECODER = "text.xml", "unet.xml", "decoder.xml"
EIGHT = "unet-int8.xml"
ABOUT = "model.json"  # written last: a folder that has it is whole
SMALL = 1 << 28  # bytes of weights that are read to the last one; of more, the times of change say what changed
VERSION = 2  # of what is written here


class Prepared(NamedTuple):
    """What `prepare` wrote of a model, and its networks."""

    about: dict[str, Any]
    text: Network
    unet: Network
    decoder: Network


def folder_of(root: Path) -> Path:
    """Where the networks of a model's folder belong."""
    files = sorted(root.rglob("*.safetensors")) + sorted(root.rglob("*.bin"))
    small = sum(path.stat().st_size for path in files) <= SMALL
    digest = hashlib.sha256(str(VERSION).encode())
    for path in files:
        found = path.stat()
        digest.update(f"{path.relative_to(root).as_posix()} {found.st_size}".encode())
        digest.update(path.read_bytes() if small else str(found.st_mtime_ns).encode())
    for path in sorted(root.rglob("*.json")):
        digest.update(path.read_bytes())
    return home() / "openvino" / digest.hexdigest()[:16]


def prepared(source: str | Path, model: Callable[[], Any], eight: bool = False) -> Prepared:
    """A model in diffusers' layout -> its networks, which are prepared where they are not yet.

    `model` loads it, as a LatentDiffusion, if need be; `eight` has the U-Net in int8. ValueError for a single file, or
    as `prepare` raises it.
    """
    root = locate(source)
    if root.is_file():
        raise ValueError(f"{source} is a single file: OpenVINO draws for folders; ldm convert makes one of it")
    folder = folder_of(root)
    if _about(folder) is None:
        log.warning("preparing %s for OpenVINO, once", source)
        prepare(model(), folder)
    found = Prepared(_about(folder), *(Network(folder / name, lambda: prepare(model(), folder)) for name in FILES))
    return found._replace(unet=_quantised(found.unet, folder / EIGHT, model)) if eight else found


def _quantised(unet: Network, path: Path, model: Callable[[], Any]) -> Network:
    """The same U-Net in int8, which is made where it is not yet."""

    def remake() -> None:
        from ldm.engines.quantizing import quantise

        log.warning("measuring what its U-Net meets, for int8, once")
        quantise(unet, path, model())

    if not path.is_file():
        remake()
    return Network(path, remake)


def _about(folder: Path) -> Any:
    """What `prepare` wrote of a model; None where it did not come to its end, or was changed since."""
    content = kept(folder / ABOUT)
    return None if content is None else json.loads(content)


def prepare(model: Any, folder: Path) -> None:
    """A LatentDiffusion, on the CPU in float32 -> its networks in `folder`.

    ValueError for a model that takes anything but words.
    """
    space, config = model.latents, model.denoiser.unet.config
    if model.text is None or config.get("num_class_embeds") or config.in_channels != config.out_channels:
        raise ValueError(f"{model.name}: OpenVINO draws for models that take words, and nothing else")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be made: {error.strerror}") from error
    for name, part in parts_of(model).items():
        write(folder / name, part)
    about = {
        "channels": space.channels, "factor": space.factor, "sample_size": config.sample_size, "hash": model.hash,
        "scale": space.entries()["scaling_factor"], "scheduler": model.scheduler, "defaults": model.defaults,
    }  # fmt: skip
    keep(folder / ABOUT, json.dumps(about).encode())


class Part(NamedTuple):
    """A module, how it is called, examples of what it is told, and their shapes; any side that is None may change."""

    module: Any
    call: Callable[..., Any]
    examples: tuple[Any, ...]
    shapes: tuple[tuple[int | None, ...], ...]


def parts_of(model: Any) -> dict[str, Part]:
    """A LatentDiffusion -> the files of its networks, and what becomes each of them."""
    import torch

    space, unet, text = model.latents, model.denoiser.unet, model.text
    channels, side, length = space.channels, unet.config.sample_size, text.tokenizer.length
    ids, cond = torch.zeros(2, length, dtype=torch.long), torch.randn(2, length, text.features)
    z, t = torch.randn(2, channels, side, side), torch.tensor([999.0, 1.0])  # some samplers stop between whole numbers
    latents = (None, channels, None, None)
    return {
        TEXT: Part(text.model, lambda module, ids: module(ids).last_hidden_state, (ids,), ((None, length),)),
        UNET: Part(
            unet,
            lambda module, z, t, cond: module(z, t, encoder_hidden_states=cond).sample,
            (z, t, cond),
            (latents, (None,), (None, None, text.features)),
        ),
        DECODER: Part(
            space.autoencoder, lambda module, z: module.decode(space.unscaled(z)).sample, (z[:1],), (latents,)
        ),
    }


def write(path: Path, part: Part) -> None:
    """A part -> path (.xml) and its weights (.bin), sealed."""
    import torch

    from ldm.checkpoints.modules import quiet

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = part.module

        def forward(self, *tensors: Any) -> Any:
            return part.call(self.module, *tensors)

    sides = [runtime().PartialShape([-1 if side is None else side for side in shape]) for shape in part.shapes]
    with torch.no_grad(), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # of tracing: that shapes may change is tested
        model = runtime().convert_model(Traced().eval(), example_input=part.examples, input=sides)
    save(model, path)
