"""ldm ui: the web page."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ldm.cli import engines, options


def ui(
    model: options.Model = "emoji",
    host: Annotated[str, typer.Option(help="Who may come: 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: the first that is free, from 7860 on]")
    ] = None,
    engine: engines.Engine = "auto",
    device: options.Device = "auto",
    dtype: engines.DType = "auto",
) -> None:
    """A page in the browser: draw from words, edit with a brush, round trips, and a gallery of what was made.

    All of it stays on this machine, and nothing is fetched. Who can reach the address can draw: there is no password.

    **Examples**

    ldm ui

    ldm ui --model path/to/model --device cuda --port 8000
    """
    if not find_spec("gradio"):
        raise ValueError('ldm ui needs Gradio: pip install "latent-diffusion-kit[ui]"')

    from signal import SIGTERM, default_int_handler, signal
    from tempfile import TemporaryDirectory
    from threading import Event

    from ldm.ui.page import serve
    from ldm.ui.studio import Studio

    _reachable(host, port)
    signal(SIGTERM, default_int_handler)  # ends it as Ctrl-C does, with what visitors left
    studio = Studio(engines.pipeline_by(engine, model, device, dtype))
    with TemporaryDirectory(prefix="ldm-ui-") as folder:
        studio.warm()
        page = serve(studio, Path(folder), host, port)
        try:
            print(f"{page.local_url} (Ctrl-C ends it)", flush=True)
            Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)


def _reachable(host: str, port: int | None) -> None:
    """ValueError before any work is done, where nothing can listen there."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        raise ValueError(f"--host {host}{f' --port {port}' if port else ''}: {error.strerror}") from None
