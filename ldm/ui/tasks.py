"""What the controls say -> what the page shows next, one update after another; nothing here knows Gradio.

Everything that comes from a visitor is checked here, and refused by ValueError in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from PIL import Image, ImageChops

from ldm import images as pictures
from ldm import metadata
from ldm.ui.studio import Step, Studio

FILE_MIB = 20  # of one upload,
MEGAPIXELS = 24  # and of its picture
LAYERS = 4  # that were painted on; the page has one
WORDS = 2000  # characters of a prompt
STEPS = 100  # evaluations of the network, and
GUIDANCE = 30  # its scale, at most
COMPARED_SIDE = 512  # pixels; larger pictures are made smaller before they go there and back

Upload: TypeAlias = "Path | bytes"


class Update(NamedTuple):
    """What the page shows next: words, the share in [0,1] that is done, and a picture, of which `whole` is the last."""

    words: str
    share: float
    picture: Image.Image | None = None
    whole: bool = False


class Compared(NamedTuple):
    """A picture, what came back of it, and what was lost: names and values."""

    original: Image.Image
    back: Image.Image
    figures: list[tuple[str, str]]


# ---- the three tasks ----


def text_to_image(
    studio: Studio, prompt: str, negative: str, steps: float | None, guidance: float | None, sampler: str | None,
    seed: str,
) -> Iterator[Update]:  # fmt: skip
    """Words -> sketches and a picture; None stands for the model's own, "" of a seed for any."""
    asked = _asked(prompt, negative, steps, guidance, sampler, seed)
    yield from _drawn(studio, partial(studio.pipeline.text_to_image, **asked))


def edit(
    studio: Studio, upload: Upload | None, strokes: Sequence[Upload], strength: float, prompt: str, negative: str,
    steps: float | None, guidance: float | None, sampler: str | None, seed: str,
) -> Iterator[Update]:  # fmt: skip
    """A picture -> sketches and the picture changed where there are strokes, or everywhere if there are none.

    It is brought to the model's size first. `strokes` are pictures that are transparent where nothing was painted.
    """
    asked = _asked(prompt, negative, steps, guidance, sampler, seed)
    image = _fitted(opened(upload), studio.side)
    x, size = pictures.pad(pictures.to_pixels(image), studio.side)  # a square: one shape to compile for
    asked |= _task(studio.pipeline, _number("strength", strength, 0, 1), painted(strokes, size, studio.side))
    task = getattr(studio.pipeline, asked.pop("task"))
    for update in _drawn(studio, partial(task, image=pictures.to_images(x)[0], **asked)):
        yield update if update.picture is None else update._replace(picture=_cut(update.picture, size))


def roundtrip(studio: Studio, upload: Upload | None) -> Iterator[Update | Compared]:
    """A picture -> it and what the autoencoder makes of it, in at most COMPARED_SIDE pixels a side, and figures."""
    whole = opened(upload)
    image = whole.copy()
    image.thumbnail((COMPARED_SIDE, COMPARED_SIDE), Image.Resampling.LANCZOS)
    yield Update("there and back", 0)
    [check] = studio.working(lambda _: studio.pipeline.latents.roundtrip(image))
    size = f"{image.width} x {image.height}" + (f", from {whole.width} x {whole.height}" * (image.size != whole.size))
    rows = [(row[:14].strip(), row[14:].strip()) for row in str(check).splitlines()]
    yield Compared(check.original, check.image, [("size", size), *rows])


def again(told: dict[str, Any]) -> list[Any]:
    """A picture's parameters -> what the controls say of it: prompt, negative, steps, guidance, sampler, seed."""
    names = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "sampler")
    return [*(told.get(name) for name in names), str(told.get("seed", ""))]


# ---- inside ----


def _drawn(studio: Studio, task: Callable[..., Any]) -> Iterator[Update]:
    """Updates of a task that takes a callback."""
    yield Update("begins", 0)
    with closing(studio.working(lambda callback: task(callback=callback))) as news:
        for told in news:
            if isinstance(told, Step):
                words = f"step {told.step} of {told.total}"
                yield Update(words, told.step / told.total, studio.sketch(told.z_0))
            else:
                yield Update(f"seed {told[0].info['ldm']['seed']}", 1, told[0], whole=True)


def _asked(
    prompt: str, negative: str, steps: float | None, guidance: float | None, sampler: str | None, seed: str
) -> dict[str, Any]:
    """The controls all drawing has in common, checked, by the names that a pipeline's tasks have for them."""
    for name, text in (("prompt", prompt), ("negative prompt", negative)):
        if len(text or "") > WORDS:
            raise ValueError(f"{name} of {len(text)} characters: expected at most {WORDS}")
    return {
        "prompt": prompt or "",
        "negative_prompt": negative or "",
        "num_inference_steps": None if steps is None else _whole("steps", steps, 1, STEPS),
        "guidance_scale": None if guidance is None else _number("guidance", guidance, 0, GUIDANCE),
        "sampler": sampler or None,
        "seed": _seed(seed),
    }


def _task(pipeline: Any, strength: float, mask: Image.Image | None) -> dict[str, Any]:
    """What this model does with a picture, and what that needs to know."""
    if pipeline.channels_beside == pipeline.latents.channels:
        return {"task": "instruct"}
    if mask is None:
        return {"task": "image_to_image", "strength": strength}
    return {"task": "inpaint", "strength": strength, "mask": mask}


def opened(upload: Upload | None) -> Image.Image:
    """A file, or its bytes -> RGB picture. ValueError for what is none, or has more than MEGAPIXELS."""
    if upload is None:
        raise ValueError("no picture is given: choose one that the browser can show")
    return pictures.load(_file(upload, "the picture"))


def _file(upload: Upload, name: str) -> BytesIO:
    """A file, or its bytes, which are called `name` -> what Pillow can read. ValueError for more than MEGAPIXELS."""
    file = BytesIO(upload if isinstance(upload, bytes) else upload.read_bytes())
    file.name = name if isinstance(upload, bytes) else upload.name
    if (found := _megapixels(file)) > MEGAPIXELS:
        raise ValueError(f"{file.name}: {found:.0f} megapixels, expected at most {MEGAPIXELS}")
    return file


def _megapixels(file: BytesIO) -> float:
    """Of a picture's file, by its head alone; 0 where it cannot be read, which `load` will explain."""
    try:
        return math.prod(Image.open(file).size) / 1e6
    except Exception:  # Pillow's decoders raise nearly every type there is
        return 0


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """A picture -> the same, its longer side of `side` pixels, its shorter one of at least one."""
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def painted(strokes: Sequence[Upload], size: tuple[int, int], side: int) -> Image.Image | None:
    """Layers, transparent where nothing was painted -> mask, white where something was; None if nothing was.

    The layers are brought to `size` = (H, W), in the top left corner of a square. ValueError for more than LAYERS.
    """
    if len(strokes) > LAYERS:
        raise ValueError(f"{len(strokes)} painted layers: expected at most {LAYERS}")
    mask = Image.new("L", (side, side))
    for layer in strokes:
        alpha = (
            pictures.opened(_file(layer, "what is painted"))
            .convert("RGBA")
            .getchannel("A")
            .resize(size[::-1], Image.Resampling.BOX)
        )
        mask.paste(ImageChops.lighter(mask.crop((0, 0, *alpha.size)), alpha))
    mask = mask.point(lambda value: 255 * (value > 16))  # a hint of the brush's soft edge is none
    return mask if mask.getbbox() else None


def _cut(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A square picture -> its top left corner of `size` = (H, W), which says so."""
    cut, told = image.crop((0, 0, size[1], size[0])), image.info.get("ldm")
    return metadata.attach(cut, told | {"height": size[0], "width": size[1]}) if told else cut


def _seed(text: str | None) -> int | None:
    """Digits -> their number; nothing -> None, any seed."""
    digits = str(text or "").strip()
    if digits and not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise ValueError(f"seed {text!r}: expected a whole number from 0 on, or nothing for any")
    return int(digits) if digits else None


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} {value}: expected a number from {low} to {high}")
    return value


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value % 1:
        raise ValueError(f"{name} {value}: expected a whole number from {low} to {high}")
    return int(value)
