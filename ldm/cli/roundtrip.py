"""ldm roundtrip: encode, decode, compare, diagnose."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ldm.cli import options, outputs

if TYPE_CHECKING:
    from ldm.evaluation.report import Report
    from ldm.latents import LatentSpace
    from ldm.roundtrip import RoundTrip

log = logging.getLogger("ldm")


class _Source(NamedTuple):
    name: str
    found: bool  # in a folder, where what is broken is left out


def roundtrip(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders with all in them, or http(s) addresses.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help=f"{options.MODEL.help} Repeat it to compare several.  [default: emoji]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Side by side: original, reconstruction, error; a folder for several."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="One page of all pictures, the worst first."),
    ] = None,
    json: options.Json = None,
    device: options.Device = "auto",
    dtype: options.DType = "float32",
) -> None:
    """Sends pictures through the autoencoder and back, and says what was lost and why.

    What cannot be read of a folder is named and left out.

    **Examples**

    ldm roundtrip photo.jpg

    ldm roundtrip photo.jpg -o compared.png --json figures.json

    ldm roundtrip *.png --model path/to/vae -o compared/

    ldm roundtrip photos/ --model path/to/vae --model path/to/other --report report.html
    """
    sources, silent = list(_sources(images)), str(json) == "-"
    paths = _paths(out, sources)
    options.json_target(json)
    _report_target(report)

    from tqdm import tqdm

    spaces = _spaces(model or ["emoji"], device, dtype)
    page, rows = _page(report, spaces), list[dict[str, Any]]()
    for source, path in zip(tqdm(sources, unit="picture", disable=None, delay=2), paths, strict=True):
        checks = _checks(source, spaces, page)
        rows += [{"image": source.name, "model": space, **check.to_dict()} for space, check in checks.items()]
        _show(source.name, checks, path, page, silent)
    if not rows:
        raise ValueError(f"none of {len(sources)} pictures came through, expected at least one")
    if page and report:
        report.parent.mkdir(exist_ok=True)
        page.write(report)
        if not silent:
            print(*page.summaries(), report, sep="\n")
    options.write_json(json, rows)


def _sources(images: Sequence[str]) -> Iterator[_Source]:
    """What the arguments name, folders by what is in them; a file that is named and broken ends it at once."""
    from ldm.data.folders import pictures_in
    from ldm.images import load

    for image in images:
        if Path(image).is_dir():
            yield from (_Source(str(path), True) for path in pictures_in(Path(image)))
        else:
            if not image.startswith(("http://", "https://")):  # which are not fetched twice
                load(image)
            yield _Source(image, False)


def _paths(out: Path | None, sources: Sequence[_Source]) -> list[Path | None]:
    """Where each comparison goes; nowhere without --out."""
    if out is None:
        return [None] * len(sources)
    if len(sources) == 1 and not out.is_dir():
        return [options.writable_picture(out)]
    if out.suffix and not out.is_dir():
        raise ValueError(f"{out}: {len(sources)} pictures need a folder")
    return [options.writable_picture(out / f"{i}-{Path(source.name).stem}.png") for i, source in enumerate(sources)]


def _report_target(report: Path | None) -> None:
    """An error before any work is done, where a report could not be made."""
    if report:
        options.one_of(f"{report}: suffix", report.suffix.lower(), (".html", ".htm"))
        options.writable(report)
        import ldm.evaluation.report  # noqa: F401  which may lack matplotlib


def _spaces(models: Sequence[str], device: str, dtype: str) -> "dict[str, LatentSpace]":
    """The autoencoders by their names."""
    from ldm.latents import LatentSpace

    place, number = options.device_of(device), options.dtype_of(dtype)
    loaded = [LatentSpace.from_pretrained(model).to(place, number) for model in models]
    return dict(zip(outputs.unlike(models), loaded, strict=True))


def _page(report: Path | None, spaces: "Mapping[str, LatentSpace]") -> "Report | None":
    if report is None:
        return None
    from ldm.evaluation.report import Report

    return Report(spaces)


def _checks(source: _Source, spaces: "Mapping[str, LatentSpace]", page: "Report | None") -> "dict[str, RoundTrip]":
    """A picture through each autoencoder; none where it is left out."""
    from ldm.tiling import out_of_memory

    try:
        return {name: space.roundtrip(source.name) for name, space in spaces.items()}
    except Exception as error:
        full = out_of_memory(error)
        if not source.found or not (full or isinstance(error, (ValueError, OSError))):
            raise
        reason = f"{source.name}: does not fit into memory" if full else str(error)
        log.warning("left out: %s", reason)
        if page:
            page.skip(reason)
        return {}


def _show(name: str, checks: "Mapping[str, RoundTrip]", path: Path | None, page: "Report | None", silent: bool) -> None:
    """A picture's figures, wherever they were asked for."""
    from ldm.roundtrip import compared

    if checks and path:
        options.save_picture(compared(checks), path)
    if checks and page:
        page.add(name, checks)
    elif not silent:
        for space, check in checks.items():
            print(f"{name}{f', {space}' if len(checks) > 1 else ''}\n{check}\n")
