"""ldm info: what made this picture; what is in this checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options


def info(
    what: Annotated[str, typer.Argument(metavar="FILE-OR-MODEL", help="A picture, a model's folder, name or hub id.")],
    json: options.Json = None,
) -> None:
    """Tells what made a picture, or what a checkpoint holds.

    **Examples**

    ldm info apple.png

    ldm info emoji --json -
    """
    picture = Path(what).is_file() or Path(what).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
    found = _picture(what) if picture else _model(what)
    if str(json) != "-":
        for key, value in found.items():
            print(f"{key}: {value}")
    options.write_json(json, found)


def _picture(path: str) -> dict[str, Any]:
    from ldm import metadata

    return metadata.told(path) or {"file": path, "made by": "unknown: the file does not say"}


def _model(source: str) -> dict[str, Any]:
    from ldm import checkpoints

    folder = checkpoints.resolve(source)
    parts = {part.parent.name: checkpoints.read_json(part) for part in sorted(folder.glob("*/config.json"))}
    parts = parts or {"model": checkpoints.read_json(folder / "config.json")}
    found: dict[str, Any] = {"folder": str(folder), "hash": checkpoints.fingerprint(folder)}
    for name, config in parts.items():
        found[name] = config.get("_class_name") or ", ".join(config.get("architectures") or ["unknown"])
        found[f"{name} parameters"] = _parameters(folder / name if (folder / name).is_dir() else folder)
    for config in parts.values():
        if "scaling_factor" in config:
            found["scale"] = config["scaling_factor"]
            found["factor"] = 2 ** (len(config.get("block_out_channels", [0])) - 1)
    if (folder / "scheduler").is_dir():
        scheduler = checkpoints.load_scheduler(folder)
        found["prediction type"] = scheduler.get("prediction_type", "epsilon")
        found["scheduler"] = scheduler.get("_class_name")
    return found | checkpoints.load_defaults(folder)


def _parameters(folder: Path) -> int:
    """How many numbers the weights in a folder hold, from the headers alone."""
    from math import prod

    from safetensors import safe_open

    from ldm.checkpoints import named

    count = 0
    for path in folder.glob("*.safetensors"):
        with named(path), safe_open(path, "np") as file:
            count += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())
    return count
