"""Any picture <-> pixels x (B,3,H,W) float32 in [-1,1].

    source --load--> image (PIL, RGB) ;  sources --to_pixels--> x --to_images--> images ;  x --pad--> x' --crop--> x

A source is a path, an http(s) address, bytes, a binary file object, a PIL image, a numpy array or a torch tensor.
Whatever it is, it comes out upright (EXIF orientation), in sRGB (ICC profile) and opaque (alpha composited on a stated
background). How its numbers are read:

    1, L, LA, P, PA, RGB(A), CMYK, YCbCr, HSV, LAB    8 bits, by their mode
    I;16 (also B, L, N)                               0..65535
    I                                                 0..65535, else an error, unless `value_range` is stated
    F                                                 0..1 unless `value_range` is stated
    arrays and tensors of bool, uint8, uint16         by their dtype
    arrays and tensors of any other dtype             `value_range=(lo, hi)` must be stated, nothing is guessed

Arrays are (H,W) or (H,W,C), tensors are (H,W) or (C,H,W); C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA (four channels
are never latents). Of a file with several frames the first is taken. Whatever cannot be read is one line that names it:
FileNotFoundError for a missing file, ValueError for the rest. Only the functions that make tensors import torch.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from http.client import HTTPException
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, UnidentifiedImageError

if TYPE_CHECKING:
    import torch

Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | torch.Tensor"
Colour: TypeAlias = "str | tuple[int, int, int]"
Range: TypeAlias = "tuple[float, float]"

FILE_LIMIT = 2**30  # bytes of one picture file
DOWNLOAD_LIMIT = 100 * 2**20  # bytes
SOCKET_TIMEOUT_S = 10
DOWNLOAD_TIMEOUT_S = 60

DTYPE_RANGES: dict[str, Range] = {"bool": (0, 1), "uint8": (0, 255), "uint16": (0, 65535)}
RANGE_SLACK = 0.5  # how far floats may overshoot a range, in spans of it, before the range is taken to be wrong

# EXIF orientation -> what makes the picture upright (Exif 2.3, tag 274)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ---- source -> image ----


def load(source: Source, background: Colour = "white", value_range: Range | None = None) -> Image.Image:
    """source -> image: RGB, 8 bits, upright, sRGB, opaque, without metadata.

    Alpha is composited on `background`. `value_range` says what float data mean (see the head of this module);
    values a little outside of it are clamped, values far outside of it are an error, as are NaN and infinity.
    """
    rgb = _rgb(source, background, value_range)
    return Image.fromarray(np.rint(rgb * 255).astype(np.uint8) if rgb.dtype == np.float32 else rgb)


def opened(source: Source) -> Image.Image:
    """path, address, bytes, file object or PIL image -> PIL image in its own mode, decoded, with its own metadata."""
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = source if isinstance(source, Image.Image) else Image.open(BytesIO(_bytes(source)))
            picture.load()
        if 0 in picture.size:
            raise ValueError("it has no pixels")
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{name}: a folder, expected a picture") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not a picture in any format that Pillow can read") from None
    except Exception as error:  # Pillow's decoders raise nearly every type there is
        raise ValueError(f"{name}: cannot be read: {_one_line(error)}") from error
    return picture


def plain(picture: Image.Image, value_range: Range | None = None) -> Image.Image:
    """PIL image of any mode -> RGB, or RGBA where it has transparency: 8 bits, upright, sRGB, without metadata."""
    picture = _upright(opened(picture))
    if _is_deep(picture):
        values = np.rint(_deep(picture, value_range) * 255).astype(np.uint8)
        profile = picture.info.get("icc_profile")
        picture = Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values)
        picture.info["icc_profile"] = profile
    colours, alpha = _colours_and_alpha(picture)
    # LAB says its colours by itself, a profile would be applied twice
    result = _to_srgb(colours, None if picture.mode == "LAB" else picture.info.get("icc_profile"))
    if alpha is not None:
        result.putalpha(alpha)
    result.info = {}
    return result


def flatten(picture: Image.Image, background: Colour = "white") -> Image.Image:
    """RGB or RGBA -> RGB, its alpha composited on `background`."""
    if picture.mode == "RGB":
        return picture
    canvas = Image.new("RGBA", picture.size, _colour(background))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def _rgb(source: Source, background: Colour, value_range: Range | None) -> np.ndarray:
    """source -> (H,W,3), uint8 in 0..255 or float32 in 0..1: 8-bit pictures stay exact, deeper ones stay deep."""
    colour = _colour(background)
    array = _array(source)
    if array is not None:
        return _over(_unit(array, value_range, _name(source)), colour)
    picture = opened(source)
    # Pillow applies profiles to 8 bits only, so a deep picture with a profile is rounded first
    if _is_deep(picture) and not picture.info.get("icc_profile"):
        return _over(_deep(_upright(picture), value_range), colour)
    return np.asarray(flatten(plain(picture, value_range), colour))


# ---- bytes ----


def _bytes(source: Any) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        data = _download(source)
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    elif hasattr(source, "read"):
        data = _file_object(source)
    else:
        raise ValueError("expected a path, an http(s) address, bytes, a file object, a PIL image, an array or a tensor")
    if not data:
        raise ValueError("it is empty")
    if len(data) > FILE_LIMIT:
        raise ValueError(f"more than {FILE_LIMIT >> 20} MiB")
    return data


def _file_object(file: BinaryIO) -> bytes:
    if hasattr(file, "seekable") and file.seekable():
        file.seek(0)  # as Pillow does: a buffer that was just written stands at its end
    data = file.read(FILE_LIMIT + 1)
    if not isinstance(data, bytes):
        raise ValueError("the file object gives text, expected one opened in binary mode")
    return data


def _download(url: str) -> bytes:
    from urllib.request import Request, urlopen

    data, end = bytearray(), time.monotonic() + DOWNLOAD_TIMEOUT_S
    try:
        with urlopen(Request(url, headers={"User-Agent": "ldm"}), timeout=SOCKET_TIMEOUT_S) as response:
            while chunk := response.read1(2**16):
                data += chunk
                if len(data) > DOWNLOAD_LIMIT:
                    raise ValueError(f"more than {DOWNLOAD_LIMIT >> 20} MiB")
                if time.monotonic() > end:
                    raise ValueError(f"not complete after {DOWNLOAD_TIMEOUT_S} seconds")
    except (OSError, HTTPException) as error:
        # an OSError would be told as a matter of files
        raise ValueError(f"the address gives no answer that can be used: {_one_line(error)}") from error
    return bytes(data)


def _name(source: Any) -> str:
    """What an error calls a source."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) or "the empty path"
    if hasattr(source, "shape"):
        return f"{'array' if isinstance(source, np.ndarray) else 'tensor'} of shape {tuple(source.shape)}"
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or f"image of mode {source.mode}"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"picture given as {type(source).__name__}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# ---- modes, profiles, orientation ----


def _upright(picture: Image.Image) -> Image.Image:
    try:
        method = UPRIGHT.get(picture.getexif().get(0x0112, 1))
    except Exception:  # malformed EXIF, which says nothing
        return picture
    return picture if method is None else _with_info(picture.transpose(method), picture)


def _with_info(turned: Image.Image, picture: Image.Image) -> Image.Image:
    turned.info = {key: picture.info[key] for key in ("icc_profile", "transparency") if key in picture.info}
    return turned


def _colours_and_alpha(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """8-bit picture -> its colours in the mode that a profile would speak of (L, RGB or CMYK), and its alpha."""
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        grey = picture.mode in ("1", "L", "LA")
        return rgba.getchannel("R") if grey else rgba.convert("RGB"), rgba.getchannel("A")
    if picture.mode == "LAB":
        return _from_lab(picture), None
    mode = {"1": "L", "L": "L", "CMYK": "CMYK"}.get(picture.mode, "RGB")
    return picture.convert(mode), None


def _from_lab(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    # the table that lcms would interpolate in is off by up to 9 levels on strong colours
    rgb = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    assert rgb is not None
    return rgb


def _to_srgb(colours: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return colours.convert("RGB")
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB" and colours.mode == "L":
            colours = colours.convert("RGB")
        result = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(f"a broken ICC profile is ignored: {_one_line(error)}", stacklevel=2)
        return colours.convert("RGB")
    assert result is not None
    return result


# ---- numbers that are not 8 bits ----


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _deep(picture: Image.Image, value_range: Range | None) -> np.ndarray:
    """image of mode I;16, I or F -> (H,W,1) grey, or (H,W,2) where one value is declared transparent, in 0..1."""
    values, name = np.asarray(picture), _name(picture)
    if picture.mode == "I" and value_range is None:
        if values.size and (values.min() < 0 or values.max() > 65535):
            found = f"{values.min()}..{values.max()}"
            raise ValueError(f"{name}: values run over {found}, expected 0..65535 or a stated value_range=(lo, hi)")
        values = values.astype(np.uint16)
    unit = _unit(values, value_range or (0, 1), name)
    key = picture.info.get("transparency")
    return np.concatenate([unit, unit != np.float32(key / 65535)], axis=-1) if isinstance(key, int) else unit


def _array(source: Any) -> np.ndarray | None:
    """array or tensor -> (H,W) or (H,W,C); None for every other source."""
    if isinstance(source, np.ndarray):
        return source
    torch = sys.modules.get("torch")  # where it was never imported there are no tensors
    if torch is None or not isinstance(source, torch.Tensor):
        return None
    tensor = source.detach().cpu()
    values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(values, 0, -1) if values.ndim == 3 else values


def _unit(values: np.ndarray, value_range: Range | None, name: str) -> np.ndarray:
    """(H,W) or (H,W,C) -> (H,W,C) float32 in 0..1, by the dtype's range or the stated one."""
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or not 1 <= values.shape[-1] <= 4 or values.dtype.kind not in "biuf":
        expected = "expected numbers: an array (H,W) or (H,W,C), a tensor (H,W) or (C,H,W), C from 1 to 4"
        raise ValueError(f"{name}, {values.dtype}: {expected}")
    if 0 in values.shape:
        raise ValueError(f"{name}: it has no pixels")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: it has NaN or infinite values")
    known = DTYPE_RANGES.get(values.dtype.name)
    low, high = known or _stated(value_range, f"{name}, {values.dtype}")
    slack = 0 if known else RANGE_SLACK * (high - low)
    if values.min() < low - slack or values.max() > high + slack:
        found = f"{float(values.min()):g}..{float(values.max()):g}"
        raise ValueError(f"{name}: values run over {found}, far outside value_range=({low:g}, {high:g})")
    return ((values.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def _stated(value_range: Range | None, name: str) -> Range:
    if value_range is None:
        raise ValueError(f"{name}: say what its values mean, such as value_range=(0, 1) or value_range=(-1, 1)")
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range {value_range}: expected two finite numbers, the lower first")
    return low, high


def _over(values: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(H,W,C) in 0..1, C of 1 to 4 -> (H,W,3), where C is even its last channel is alpha over `colour`."""
    if values.shape[-1] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1:]
        values = values * alpha + (np.asarray(colour, np.float32) / 255) * (1 - alpha)
    return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.float32)


def _colour(background: Colour) -> tuple[int, int, int]:
    if isinstance(background, str):
        try:
            return ImageColor.getrgb(background)[:3]
        except ValueError:
            pass
    elif (
        isinstance(background, tuple)
        and len(background) == 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in background)
    ):
        return background[0], background[1], background[2]
    raise ValueError(f"background {background!r}: expected a colour's name, #rrggbb or three integers in 0..255")


# ---- images <-> pixels ----


def to_pixels(
    images: Source | Sequence[Source],
    size: tuple[int, int] | None = None,
    background: Colour = "white",
    value_range: Range | None = None,
) -> torch.Tensor:
    """source, list of B, array (B,H,W,C) or tensor (B,C,H,W) -> pixels (B,3,H,W) float32 in [-1,1], on the CPU.

    `size` is (H, W): every picture is stretched to it (Lanczos); without it all must have one size, else ValueError.
    Data deeper than 8 bits are not rounded to 8. Not differentiable.
    """
    import torch

    sources = _listed(images)
    if not sources:
        raise ValueError("no picture given, expected at least one")
    arrays = [_resized(_rgb(source, background, value_range), size) for source in sources]
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            first, other = (f"{a.shape[1]}x{a.shape[0]}" for a in (arrays[0], array))
            raise ValueError(f"picture 0 is {first}, picture {index} is {other}: expected one size, or say size=(H, W)")
    unit = np.stack([a if a.dtype == np.float32 else a.astype(np.float32) / 255 for a in arrays])
    return torch.from_numpy(2 * unit - 1).permute(0, 3, 1, 2).contiguous()


def to_images(x: torch.Tensor | np.ndarray) -> list[Image.Image]:
    """pixels (B,3,H,W), or (B,1,H,W) for grey, in [-1,1] -> B images: clamped, rounded to 8 bits.

    A picture with NaN or infinite values is a ValueError that names its index: nothing is painted over.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"pixels of shape {tuple(x.shape)}: expected (B,3,H,W) or (B,1,H,W)")
    x = x if isinstance(x, np.ndarray) else x.detach().float().cpu().numpy()
    if lost := [index for index, picture in enumerate(x) if not np.isfinite(picture).all()]:
        raise ValueError(f"picture {lost[0]} of {len(x)} has NaN or infinite values")
    values = ((x.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return [Image.fromarray(v if v.shape[-1] == 3 else v[..., 0]) for v in values]


def _listed(images: Any) -> list[Any]:
    batch = isinstance(images, (list, tuple)) or (_array(images) is not None and images.ndim == 4)
    return list(images) if batch else [images]


def _resized(rgb: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or rgb.shape[:2] == tuple(size):
        return rgb
    if min(size) < 1:
        raise ValueError(f"size {tuple(size)}: expected (H, W), both at least 1")
    height, width = size
    channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(rgb, -1, 0)]
    resized = [np.asarray(c.resize((width, height), Image.Resampling.LANCZOS)) for c in channels]
    return np.stack(resized, axis=-1).clip(0, 1 if rgb.dtype == np.float32 else 255)


# ---- sizes that a network cannot take ----


def pad(x: torch.Tensor, multiple: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """x (B,C,H,W), multiple -> x (B,C,H',W') with H' and W' the next multiples, and (H, W) for `crop`.

    Grown at the bottom and the right by reflection; along a side that is too short to be reflected, by its edge.
    """
    if multiple < 1:
        raise ValueError(f"multiple {multiple}: expected at least 1")
    height, width = x.shape[-2:]
    return _extended(_extended(x, -2, -height % multiple), -1, -width % multiple), (height, width)


def crop(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """x (B,C,H',W'), (H, W) -> x (B,C,H,W): the top left corner, which undoes `pad`."""
    height, width = size
    if height > x.shape[-2] or width > x.shape[-1]:
        raise ValueError(f"size {tuple(size)}: larger than the pixels, which are {tuple(x.shape[-2:])}")
    return x[..., :height, :width]


def _extended(x: torch.Tensor, dim: int, amount: int) -> torch.Tensor:
    import torch

    if amount == 0:
        return x
    last = x.shape[dim] - 1
    index = torch.arange(last + 1 + amount, device=x.device)
    index = last - (last - index).abs() if amount <= last else index.clamp(max=last)
    return x.index_select(dim, index)


# ---- contact sheets ----

GAP = 4  # pixels between pictures
CAPTION_LINES = 4
CAPTION_WIDTH = 96  # pixels that a captioned picture takes at least
FONT_SIZE = 12
LINE_HEIGHT = FONT_SIZE + 4


def grid(
    images: Sequence[Source],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    background: Colour = "white",
) -> Image.Image:
    """images, in rows -> one image, each centred in a cell as large as the largest, its caption (up to 4 lines) below.

    Without `columns` the sheet is about as wide as it is high.
    """
    pictures = [load(image, background) for image in images]
    if not pictures:
        raise ValueError("no picture given, expected at least one")
    if columns is not None and columns < 1:
        raise ValueError(f"columns {columns}: expected at least 1")
    if captions is not None:
        pictures = _captioned(pictures, captions, background)
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), _colour(background))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + GAP)
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
    return sheet


def side_by_side(images: Sequence[Source], labels: Sequence[str]) -> Image.Image:
    """images, labels -> one image with all of them in a row, labelled below."""
    return grid(images, columns=max(1, len(images)), captions=labels)


def error_map(image: Source, other: Source, limit: float = 0.25) -> Image.Image:
    """two images of one size -> their mean absolute difference over the channels, as a heat picture.

    Black is equal, pale yellow a difference of `limit` (1 is white against black) or more, brighter all the way.
    """
    a, b = (np.asarray(load(source), np.float32) for source in (image, other))
    if a.shape != b.shape:
        raise ValueError(f"pictures of {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]}: expected one size")
    return heat(np.abs(a - b).mean(-1) / (255 * limit))


HEAT = [(0, 0, 0), (70, 15, 110), (175, 45, 95), (240, 120, 30), (255, 250, 170)]


def heat(values: np.ndarray) -> Image.Image:
    """Numbers (H,W), 0 to 1 -> image: from black over violet and orange to pale yellow."""
    stops = np.linspace(0, 1, len(HEAT))
    colours = [np.interp(values, stops, channel) for channel in zip(*HEAT, strict=True)]
    return Image.fromarray(np.stack(colours, -1).astype(np.uint8))


def _captioned(pictures: list[Image.Image], captions: Sequence[str], background: Colour) -> list[Image.Image]:
    """images and captions -> images of one size: each centred, its caption below."""
    if len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures, expected one for each")
    font, colour = ImageFont.load_default(FONT_SIZE), _colour(background)
    width, height = max(CAPTION_WIDTH, *(p.width for p in pictures)), max(p.height for p in pictures)
    labels = [_wrapped(caption, width) for caption in captions]
    text_height = LINE_HEIGHT * max(label.count("\n") + 1 for label in labels)
    cells = []
    for picture, label in zip(pictures, labels, strict=True):
        cell = Image.new("RGB", (width, height + text_height), colour)
        cell.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        ink = "black" if sum(colour) > 382 else "white"
        ImageDraw.Draw(cell).multiline_text((width // 2, height + 1), label, ink, font, anchor="ma", align="center")
        cells.append(cell)
    return cells


def _wrapped(text: str, width: int) -> str:
    characters = max(1, round(width / (0.55 * FONT_SIZE)))
    return "\n".join(textwrap.wrap(text, characters, max_lines=CAPTION_LINES, placeholder="…"))
