"""What made this picture: parameters <-> A1111 text <-> PNG, JPEG and WebP files.

    image.info["ldm"]           the parameters, a dict
    image.info["parameters"]    the same as the text that AUTOMATIC1111's web UI writes and that most programs read

Where they stand in a file:

    PNG                    iTXt chunks `parameters` (the text) and `ldm` (the parameters as JSON)
    JPEG, WebP             EXIF UserComment (the text: "UNICODE", then UTF-16, big-endian),
                           EXIF ImageDescription (the JSON, in ASCII, after "ldm: ")
    TIFF, BMP, GIF, PPM    nothing

The text holds flat values; the JSON holds everything and is what repeats a picture. Nothing else that a picture
carries, such as the EXIF of a photograph, is ever written.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.files import replacing
from ldm.images import Source, flatten, opened, plain

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
}
OPAQUE = {"JPEG", "BMP", "PPM"}

EXIF_IFD, USER_COMMENT, IMAGE_DESCRIPTION = 0x8769, 0x9286, 0x010E
JSON_PREFIX = "ldm: "
JPEG_EXIF_LIMIT = 65_500  # a JPEG segment holds 65,533 bytes, its header among them

# Parameter -> A1111's label, in A1111's order. Other parameters follow, `cache_interval` as "Cache interval".
LABELS = {
    "num_inference_steps": "Steps",
    "sampler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
    "model_hash": "Model hash",
    "vae": "VAE",
    "vae_hash": "VAE hash",
    "strength": "Denoising strength",
}
PARAMETERS = {label.lower(): key for key, label in LABELS.items()}

SAMPLERS = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "pndm": "PNDM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm++2m": "DPM++ 2M",
    "dpm++2m_karras": "DPM++ 2M Karras",
    "dpm++2m_sde": "DPM++ 2M SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
}
SAMPLER_NAMES = {label.lower(): name for name, label in SAMPLERS.items()}

SETTINGS_LINE = re.compile(r"Steps: \d+(,|$)")
SETTING = re.compile(r'(\w[\w \-/]{0,63}): *("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')  # the bound keeps long lines linear


# ---- parameters <-> text ----


def attach(image: Image.Image, parameters: Mapping[str, Any]) -> Image.Image:
    """image, parameters -> a copy that carries them, and nothing that the image carried before."""
    result = image.copy()
    result.info = {"ldm": dict(parameters), "parameters": describe(parameters)}
    return result


def describe(parameters: Mapping[str, Any]) -> str:
    """parameters -> A1111 text: the prompt, the negative prompt where there is one, and one line of settings.

    `version` is written as it stands ("ldm 0.1"). What is None is left out; lists and dicts become JSON.

    >>> print(describe({"prompt": "a fox", "num_inference_steps": 20, "sampler": "euler_a", "seed": 7}))
    a fox
    Steps: 20, Sampler: Euler a, Seed: 7
    """
    rest = {key: value for key, value in parameters.items() if value is not None}
    prompt, negative = str(rest.pop("prompt", "")), str(rest.pop("negative_prompt", ""))
    if "width" in rest and "height" in rest:
        rest["size"] = f"{rest.pop('width')}x{rest.pop('height')}"
    if "version" in rest:  # the last one by custom
        rest["version"] = rest.pop("version")
    keys = [key for key in LABELS if key in rest] + [key for key in rest if key not in LABELS]
    settings = ", ".join(f"{_label(key)}: {_written(key, rest[key])}" for key in keys)
    negative = f"Negative prompt: {negative}" if negative else ""
    return "\n".join([prompt, *filter(None, (negative, settings))])


def parse(text: str) -> dict[str, Any]:
    """A1111 text, ours or another program's -> parameters; always with `prompt` and `negative_prompt`.

    The settings are the last line, if it begins with "Steps: <number>"; the negative prompt begins at the first line
    that says so. Numbers are numbers; other programs' labels become names, "Clip skip" `clip_skip`.
    """
    lines = text.rstrip("\n").split("\n")
    settings = lines.pop() if SETTINGS_LINE.match(lines[-1]) else ""
    prompt, negative = _prompts(lines)
    found = {_key(label): _read_value(_key(label), value.strip()) for label, value in SETTING.findall(settings)}
    if size := re.fullmatch(r"(\d{1,9})x(\d{1,9})", str(found.get("size", ""))):
        del found["size"]
        found |= {"width": int(size[1]), "height": int(size[2])}
    return {"prompt": prompt, "negative_prompt": negative, **_named_sampler(found)}


def _prompts(lines: list[str]) -> tuple[str, str]:
    first = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[first:]).removeprefix("Negative prompt:").removeprefix(" ")
    return "\n".join(lines[:first]), negative


def _named_sampler(found: dict[str, Any]) -> dict[str, Any]:
    """A1111's names for samplers -> ours; its "Schedule type: Karras" is a part of our name."""
    label = str(found.get("sampler", "")).lower()
    schedule = str(found.get("schedule_type", "")).lower()
    if (whole := f"{label} {schedule}") in SAMPLER_NAMES:
        return {**{k: v for k, v in found.items() if k != "schedule_type"}, "sampler": SAMPLER_NAMES[whole]}
    return {**found, "sampler": SAMPLER_NAMES[label]} if label in SAMPLER_NAMES else found


def _label(key: str) -> str:
    return LABELS.get(key) or key.replace("_", " ").capitalize()


def _key(label: str) -> str:
    return PARAMETERS.get(label.lower()) or label.lower().replace(" ", "_")


def _written(key: str, value: Any) -> str:
    """A value as A1111 writes it: plain, or as a JSON string where commas, colons or quotes would mislead a reader."""
    if key == "sampler":
        value = SAMPLERS.get(str(value), value)
    if isinstance(value, (list, tuple, dict)):
        value = _json(value)
    text = str(value)
    misleading = re.search(r'[,:\n"]', text) or (isinstance(value, str) and _read_value(key, text.strip()) != value)
    return json.dumps(text, ensure_ascii=False) if misleading else text


def _read_value(key: str, text: str) -> Any:
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    if text in ("True", "False"):
        return text == "True"
    if key.endswith(("hash", "model", "vae")):  # names, even those made of digits
        return text
    for kind in (int, float):
        try:
            if str(kind(text)) == text and text not in ("nan", "inf", "-inf"):
                return kind(text)
        except ValueError:
            pass
    return text


def _json(value: Any) -> str:
    """JSON in ASCII, which every kind of text field can hold; what JSON does not know becomes a number or a string."""
    return json.dumps(value, default=lambda v: v.item() if hasattr(v, "item") else str(v))


# ---- files ----


def save(image: Image.Image, path: str | os.PathLike[str], metadata: bool = True, quality: int = 95) -> None:
    """image -> a picture file, in the format that its suffix names, with `image.info["ldm"]` and `["parameters"]`.

    The picture is written as RGB or RGBA of 8 bits, upright and in sRGB; on white where the format has no alpha.
    `quality` is that of JPEG and WebP. The file appears whole or not at all: until it is complete, an older one stays.
    ValueError or FileNotFoundError where it cannot be written. A JPEG holds 64 KB of metadata: beyond that the JSON,
    then the text is left out, with a warning.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}, expected one of {' '.join(FORMATS)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality}: expected 1..100")
    picture = plain(image)
    if kind in OPAQUE:
        picture = flatten(picture)
    options = _options(kind, quality) | (_embedded(kind, *_texts(image)) if metadata else {})
    with replacing(path) as file:
        picture.save(file, kind, **options)


def save_moving(images: Sequence[Image.Image], path: str | os.PathLike[str], fps: float = 8.0) -> None:
    """images of one size -> a GIF, WebP or PNG that plays them for ever; it appears whole or not at all."""
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind not in ("GIF", "WEBP", "PNG"):
        raise ValueError(f"{path}: {path.suffix!r} cannot move, expected .gif, .webp or .png")
    first, *rest = (flatten(plain(image)) for image in images)
    with replacing(path) as file:
        first.save(file, kind, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def read(path: Source) -> dict[str, Any]:
    """picture, whoever wrote it -> {"ldm": parameters or None, "parameters": A1111 text or None}.

    JSON that is malformed, or is not of ours, is None. FileNotFoundError or ValueError where there is no picture.
    """
    picture = opened(path)
    comment, description = _exif_fields(picture)
    text = _png_text(picture.info.get("parameters")) or _comment(comment)
    blob = picture.info.get("ldm") or (description if description.startswith(JSON_PREFIX) else "")
    parameters = blob if isinstance(blob, dict) else _object(str(blob).removeprefix(JSON_PREFIX))
    return {"ldm": parameters, "parameters": text or None}


def told(path: Source) -> dict[str, Any]:
    """picture -> the parameters that made it, from the JSON or else from the A1111 text; {} where it does not say.

    FileNotFoundError or ValueError where there is no picture.
    """
    found = read(path)
    return found["ldm"] or (parse(found["parameters"]) if found["parameters"] else {})


def _options(kind: str, quality: int) -> dict[str, Any]:
    # colour at full resolution: small drawings suffer visibly from half
    return {"JPEG": {"quality": quality, "subsampling": 0}, "WEBP": {"quality": quality}}.get(kind, {})


def _texts(image: Image.Image) -> tuple[str, str]:
    """image -> its A1111 text and its JSON, either empty where there is none."""
    parameters, text = image.info.get("ldm"), image.info.get("parameters")
    if isinstance(parameters, str):  # as Pillow gives it from a PNG
        parameters = _object(parameters)
    if text is None and parameters:
        text = describe(parameters)
    # lone surrogates, as from a terminal's broken bytes, have no UTF-8
    clean = str(text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return clean, _json(parameters) if parameters else ""


def _embedded(kind: str, text: str, blob: str) -> dict[str, Any]:
    """A1111 text and JSON -> what Pillow's writer of this format is to be given."""
    if kind == "PNG":
        chunks = PngInfo()
        for key, value in (("parameters", text), ("ldm", blob)):
            if value:
                chunks.add_itxt(key, value)
        return {"pnginfo": chunks}
    if kind not in ("JPEG", "WEBP"):
        return {}
    choices = [(text, blob), (text, ""), ("", "")]
    kept = next(c for c in choices if kind == "WEBP" or len(_exif(*c)) <= JPEG_EXIF_LIMIT)
    if kept != choices[0]:
        warnings.warn("a JPEG cannot hold so much metadata: some is left out; PNG and WebP hold it", stacklevel=3)
    return {"exif": _exif(*kept)} if any(kept) else {}


def _exif(text: str, blob: str) -> bytes:
    exif = Image.Exif()
    if blob:
        exif[IMAGE_DESCRIPTION] = JSON_PREFIX + blob
    if text:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()


def _exif_fields(picture: Image.Image) -> tuple[Any, str]:
    """image -> UserComment and ImageDescription of its EXIF."""
    try:
        exif = picture.getexif()
        return exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b""), str(exif.get(IMAGE_DESCRIPTION, ""))
    except Exception:  # malformed EXIF raises nearly every type there is, and says nothing
        return b"", ""


def _png_text(value: Any) -> str:
    """The text of a chunk; tEXt is Latin-1 by the standard, yet several programs write UTF-8 into it."""
    if type(value) is not str:  # iTXt is a subclass, and already UTF-8
        return str(value or "")
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _comment(value: Any) -> str:
    """EXIF UserComment -> text: 8 bytes name the encoding; UTF-16 comes in either byte order, whatever is written."""
    if not isinstance(value, bytes):
        return str(value or "")
    code, body = value[:8], value[8:]
    if code == b"UNICODE\0":
        little = body[1::2].count(0) > body[0::2].count(0)  # the zero halves of Latin letters
        text = body.decode("utf-16-le" if little else "utf-16-be", "replace")
    else:
        text = (body if code in (b"ASCII\0\0\0", bytes(8)) else value).decode("utf-8", "replace")
    return text.rstrip("\0")


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
