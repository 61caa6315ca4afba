"""ldm info: what made this picture; what is in this checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options

CHEAP = 50_000_000  # parameters of a U-Net that is asked in about a second, loading included


def info(
    what: Annotated[
        str, typer.Argument(metavar="FILE-OR-MODEL", help="A picture, a model's folder, file, name or hub id.")
    ],
    probe: Annotated[
        bool | None,
        typer.Option("--probe/--no-probe", help="Ask the network what it emits; left out: only a small one."),
    ] = None,
    json: options.Json = None,
) -> None:
    """Tells what made a picture, or what a checkpoint holds, what was decided about it, and why.

    **Examples**

    ldm info apple.png

    ldm info emoji --json -

    ldm info sd15.safetensors --probe
    """
    found = _picture(what) if _is_picture(Path(what)) else _model(what, probe)
    if str(json) != "-":
        for key, value in found.items():
            print(f"{key}: {value}")
    options.write_json(json, found)


def _is_picture(path: Path) -> bool:
    from ldm import checkpoints

    if path.is_file():
        return not checkpoints.is_checkpoint(path)
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")


def _picture(path: str) -> dict[str, Any]:
    from ldm import metadata

    return metadata.told(path) or {"file": path, "made by": "unknown: the file does not say"}


def _model(source: str, probe: bool | None) -> dict[str, Any]:
    from ldm import checkpoints

    contents, path = checkpoints.read(source), checkpoints.locate(source)
    with checkpoints.named(path):
        return _contents(source, contents, path, probe)


def _contents(source: str, contents: Any, path: Path, probe: bool | None) -> dict[str, Any]:
    from ldm import checkpoints

    found: dict[str, Any] = {"file" if path.is_file() else "folder": str(path), "hash": checkpoints.fingerprint(path)}
    for part, tensors in contents.tensors.items():
        config = contents.configs[part]
        found[part] = config.get("_class_name") or ", ".join(config.get("architectures") or ["unknown"])
        found[f"{part} parameters"] = sum(tensor.numel() for tensor in tensors.values())
        found[f"{part} dtype"] = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}))
    vae = contents.configs.get("vae", {})
    found["factor"] = vae.get("factor") or 2 ** (len(vae.get("block_out_channels", [0])) - 1)
    if "unet" in contents.tensors:
        found["scheduler"] = contents.configs["scheduler"].get("_class_name")
        if probe is None and found["unet parameters"] > CHEAP:
            found["outputs"] = "not asked (large); --probe does"
        elif probe is not False:
            contents.decisions = checkpoints.settled(checkpoints.parts_of(contents, source)).decisions
    for name, decision in contents.decisions.items():
        found[name] = decision.value
        if decision.why:
            found[f"{name} from"] = decision.why
    return found | contents.configs.get("defaults", {})
