"""The command line: one small file for each command; nothing heavy is imported before a command runs."""

import io
import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from ldm.cli import (
    bench,
    convert,
    dolls,
    edit,
    encode,
    evaluate,
    generate,
    info,
    interpolate,
    refine,
    roundtrip,
    train,
    tryon,
    ui,
)

app = typer.Typer(
    name="ldm",
    help="Latent diffusion: pictures from words, and what an autoencoder makes of a picture.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.command()(edit.edit)
app.command()(interpolate.interpolate)
app.command()(refine.refine)
app.command()(tryon.tryon)
app.command()(roundtrip.roundtrip)
app.command()(info.info)
app.command()(encode.encode)
app.command()(convert.convert)
app.command()(dolls.dolls)
app.command()(ui.ui)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")


@app.callback()
def everywhere(
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing: a hub id is looked for in the hub's cache alone.")
    ] = False,
) -> None:
    """What holds for every command."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported
        if client := sys.modules.get("huggingface_hub.constants"):
            client.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def main() -> None:
    """Runs a command. Exit status 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    logging.basicConfig(format="ldm: %(message)s", level=logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    warnings.formatwarning = lambda message, *_, **__: f"ldm: {message}\n"
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = _refuse("interrupted", 130)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        status = _refuse(str(error) or type(error).__name__, 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ldm"):
            raise
        status = _refuse(f"this needs the package {error.name!r}, which is not installed", 2)
    except RuntimeError as error:
        if "memory" not in str(error) and "allocate" not in str(error):
            raise
        status = _refuse(f"not enough memory: {str(error).splitlines()[0]}", 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own, whichever click it stands on
            raise
        status = _refuse(error.format_message(), 2)
    status = status if isinstance(status, int) else 0
    if "ldm.training.processes" in sys.modules:  # several processes have trained together
        sys.modules["ldm.training.processes"].leave(status)
    sys.exit(status)


def _refuse(message: str, status: int) -> int:
    print(f"ldm: {' '.join(message.split())}", file=sys.stderr)
    return status
