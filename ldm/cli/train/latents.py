"""What a diffusion model learns from: options, and the latents that they make."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ldm.cli import options

if TYPE_CHECKING:
    from ldm.latents import LatentSpace

PANEL = "Pictures"
SHOWN = [  # what samples of emoji are asked for
    "a red apple", "a cat face", "a dog face on a blue background", "a rocket", "three bananas", "a small pizza",
    "a cow face to the left of a tulip", "a house above a bus",
]  # fmt: skip
PIXELS = "pixels"  # the autoencoder that does nothing


_option = partial(options.panelled, PANEL)


DATA = "emoji, digits, a folder of pictures, tar shards, a mixture, or a cache that ldm encode made."
Data = Annotated[str, _option(DATA)]
Split = Annotated[str | None, _option("A part of the data, such as train.")]
Side = Annotated[int | None, _option("Height and width of the pictures.  [default: the autoencoder's]")]
Samples = Annotated[int | None, _option("The first so many.  [default: all; 40000 of what is drawn]")]
Crop = Annotated[str, _option("Where a square is cut: centre or random.")]
Flip = Annotated[bool, _option("Mirror half of the pictures.", "--flip")]


@dataclass(frozen=True)
class Source:
    """Which pictures, and how they are cut."""

    data: str
    split: str | None
    side: int | None  # None: the autoencoder's
    samples: int | None
    crop: str
    flip: bool
    seed: int
    beside: str = "picture"

    def __post_init__(self) -> None:
        asked = {"side": self.side, "samples": self.samples}
        options.at_least_one(**asked)
        options.one_of("--crop", self.crop, ("centre", "random"))


def space_of(vae: str) -> "LatentSpace":
    """--vae -> its latent space, on this process's device; "pixels" is the space of pixels themselves."""
    from ldm.latents import LatentSpace
    from ldm.training import processes

    device = processes.here().device
    return LatentSpace.identity() if vae == PIXELS else LatentSpace.from_pretrained(vae).to(device)


def latents(source: Source, space: "LatentSpace", vae: str, out: Path) -> Any:
    """Pictures -> their latents, encoded into `out` where that was not done before; a cache of them as it is.

    ValueError for a cache of another autoencoder's latents.
    """
    from ldm.training.cache import LatentCache
    from ldm.training.encoding import BESIDE, fingerprint

    out.mkdir(parents=True, exist_ok=True)
    if any(Path(source.data).glob("index-*-of-*.json")):
        found = LatentCache(source.data)
        if found.made_by["space"] != fingerprint(space.autoencoder, space.entries()):
            raise ValueError(f"{source.data} holds the latents of another autoencoder than {vae}")
        return found
    options.one_of("--beside", source.beside, BESIDE)
    drawn = source.data == "emoji" and source.beside == "picture"
    return _scenes(source, space, vae, out) if drawn else _encoded(source, space, out)


def pictures(source: Source, space: "LatentSpace") -> Any:
    """What is encoded, at the autoencoder's own side where none is asked for."""
    from ldm import data

    side, count = space.side if source.side is None else source.side, options.enough(source.data, source.samples)
    return data.open(source.data, side, source.crop, source.flip, split=source.split, count=count, seed=source.seed)


def _scenes(source: Source, space: "LatentSpace", vae: str, out: Path) -> Any:
    """Emoji scenes in one file: they are drawn, and drawing them all again to see what changed would take minutes."""
    from ldm import checkpoints
    from ldm.training import processes
    from ldm.training.cache import cached, encode_dataset

    scenes = pictures(source, space)
    made_by = {
        "vae": vae if vae == PIXELS else checkpoints.fingerprint(checkpoints.locate(vae)),
        "data": scenes.identity(),
    }
    with processes.here().main_process_first():
        return cached(out / "latents.safetensors", made_by, lambda: encode_dataset(scenes, space, len(scenes)))


def _encoded(source: Source, space: "LatentSpace", out: Path) -> Any:
    """Any other pictures in shards, by content; several processes share the work."""
    from ldm.training import processes
    from ldm.training.cache import LatentCache
    from ldm.training.encoding import encode

    where = processes.here()
    encode(
        pictures(source, space),
        space,
        out / "latents",
        beside=source.beside,
        process=where.process_index,
        processes=where.num_processes,
    )
    where.wait_for_everyone()
    return LatentCache(out / "latents")


def shown(data: Any, source: Source) -> list[tuple[Any, ...]]:
    """Eight items to draw samples of: of emoji the same prompts always, else the first of different captions."""
    if source.data == "emoji" and source.beside == "picture":
        return [(*data[i][:2], prompt) for i, prompt in enumerate(SHOWN[: len(data)])]
    first = {str(item[2]): item for item in (data[i] for i in range(min(len(data), 64)))}
    return list(first.values())[:8]
