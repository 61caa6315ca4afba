"""What the page looks like, in Gradio. It asks no other host for anything: no fonts, no scripts, no figures of its use.

tab: controls --go--> task --updates--> picture, status;   whole pictures --> shelf --> gallery --again--> controls
"""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr

from ldm import __version__
from ldm.samplers import SAMPLERS, default_sampler
from ldm.ui import tasks
from ldm.ui.shelf import Shelf
from ldm.ui.studio import Studio
from ldm.ui.tasks import Compared, Update

WAITING = 50  # requests that may wait for the model; more are told to come again
HOUR = 60 * 60
THEME = gr.themes.Default(
    primary_hue="blue", neutral_hue="slate", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
)
NAMES = {"psnr": "PSNR", "ssim": "SSIM", "num_inference_steps": "Steps", "guidance_scale": "Guidance"}
CSS, JS = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
log = logging.getLogger("ldm")


class Desk(NamedTuple):
    """A tab: its controls in the order in which its task takes them, and where one sees what comes of them."""

    controls: list[Any]
    go: gr.Button
    stop: gr.Button
    picture: gr.Image
    status: gr.HTML


def page(studio: Studio, folder: Path) -> gr.Blocks:
    """A model -> the page that works with it; visitors' pictures lie in `folder` while they stay."""
    with gr.Blocks(title="ldm", analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as blocks:
        shelf = gr.State(Shelf(folder), time_to_live=24 * HOUR, delete_callback=Shelf.clear)
        chosen = gr.State("")
        gr.HTML(f"<b>ldm</b> {__version__} &middot; {html.escape(studio.pipeline.name)}", elem_id="title")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Draw", id="draw"):
                drawing = _draw_tab(studio)
            with gr.Tab("Edit", id="edit"):
                editing = _edit_tab(studio)
            with gr.Tab("Round trip", id="roundtrip"):
                _roundtrip_tab(studio)
        gallery, told, again, paint = _gallery()
        for desk, task in ((drawing, tasks.text_to_image), (editing, _edit)):
            _wire(desk, studio, task, shelf, gallery)
        gallery.select(_chosen, shelf, [chosen, told, again, paint], api_visibility="private")
        settings = [*drawing.controls, *editing.controls[1:]]
        again.click(_again, [shelf, chosen], [tabs, editing.status, *settings], api_visibility="private")
        paint.click(_painted, [shelf, chosen], [tabs, editing.controls[0]], api_visibility="private")
    return blocks.queue(max_size=WAITING, default_concurrency_limit=None)


def serve(studio: Studio, folder: Path, host: str, port: int | None) -> gr.Blocks:
    """A model -> its page, listening at `blocks.local_url`; `folder` takes what visitors upload and draw.

    OSError where the port is taken; None is the first that is free from 7860 on.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "localhost", "127.0.0.1"]))
    (folder / "shelves").mkdir()
    blocks = page(studio, folder / "shelves")
    blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
        ssr_mode=False, enable_monitoring=False, run_history=False, mcp_server=False, pwa=False,
        footer_links=["settings"], max_file_size=f"{tasks.FILE_MIB}mb", theme=THEME, css_paths=CSS,
        js=JS.read_text(encoding="utf-8"),
    )  # fmt: skip
    return blocks


# ---- the tabs ----


def _draw_tab(studio: Studio) -> Desk:
    with gr.Row():
        with gr.Column():
            prompt = _prompt("a red apple on a blue background")
            go, stop = _buttons("Draw")
            settings = _settings(studio)
        picture, status = _result()
    return Desk([prompt, *settings], go, stop, picture, status)


def _edit_tab(studio: Studio) -> Desk:
    with gr.Row():
        with gr.Column():
            canvas = gr.ImageEditor(
                label="Paint what shall change", image_mode="RGBA", height=420,
                sources=("upload", "clipboard"), transforms=(), layers=False, buttons=[],
                brush=gr.Brush(default_size=16, colors=["#ff2d95b3"], color_mode="fixed"), elem_id="canvas",
                placeholder="# Drop a picture here\nor click to choose one",
            )  # fmt: skip
            canvas.preprocess = _layers(canvas)  # type: ignore[method-assign]
            prompt = _prompt("a green apple on a blue background")
            strength = _as_given(gr.Slider(
                0, 1, 0.8, step=0.05, label="Strength",
                info="Of what is painted, or of all where nothing is: 0 keeps what is there, 1 forgets it",
            ))  # fmt: skip
            go, stop = _buttons("Draw")
            settings = _settings(studio)
        picture, status = _result()
    return Desk([canvas, strength, prompt, *settings], go, stop, picture, status)


def _roundtrip_tab(studio: Studio) -> None:
    with gr.Row():
        with gr.Column():
            upload = gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], buttons=[], height=420)
            upload.preprocess = lambda payload: payload and payload.path and Path(payload.path)  # type: ignore
            go = gr.Button("There and back", variant="primary")
        with gr.Column():
            slider = gr.ImageSlider(label="Original and what comes back", height=420, buttons=["fullscreen"])
            status = gr.HTML(_bar(), elem_classes="status")
            figures = gr.HTML(elem_classes="figures")

    def run(given: Path | None) -> Iterator[list[Any]]:
        with _one_line():
            for update in tasks.roundtrip(studio, given):
                if isinstance(update, Compared):
                    yield [(update.original, update.back), _bar(), _table(update.figures)]
                else:
                    yield [gr.skip(), _bar(update.words), ""]

    gr.on(
        [go.click, upload.upload], run, upload, [slider, status, figures], api_name="roundtrip",
        concurrency_limit=1, concurrency_id="model", show_progress="minimal", show_progress_on=status,
    )  # fmt: skip


def _gallery() -> tuple[gr.Gallery, gr.HTML, gr.Button, gr.Button]:
    with gr.Row():
        with gr.Column(scale=3):
            gallery = gr.Gallery(
                label="Gallery", columns=8, fit_columns=False, height=220, object_fit="contain", format="png",
                interactive=False, allow_preview=False, buttons=[], elem_id="gallery",
            )  # fmt: skip
        with gr.Column(scale=2):
            with gr.Row():
                again = gr.Button("Use again", interactive=False, min_width=120)
                paint = gr.Button("Edit", interactive=False, min_width=120)
            told = gr.HTML("Choose a picture to see how it was made.", elem_classes="figures")
    return gallery, told, again, paint


def _prompt(example: str) -> gr.Textbox:
    return gr.Textbox(label="Prompt", placeholder=example, lines=1, max_lines=6)


def _buttons(name: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        return gr.Button(name, variant="primary", min_width=120), gr.Button("Stop", min_width=120)


def _settings(studio: Studio) -> list[Any]:
    """negative, steps, guidance, sampler, seed"""
    model = studio.pipeline
    with gr.Accordion("Settings", open=False):
        negative = gr.Textbox(label="Not to draw")
        with gr.Row():
            steps = gr.Slider(1, tasks.STEPS, model.defaults["num_inference_steps"], step=1, label="Steps")
            guidance = gr.Slider(0, tasks.GUIDANCE, model.defaults["guidance_scale"], step=0.5, label="Guidance")
        with gr.Row():
            sampler = gr.Dropdown(list(SAMPLERS), value=default_sampler(model.scheduler), label="Sampler")
            seed = gr.Textbox(label="Seed", placeholder="any")
    return [negative, *map(_as_given, (steps, guidance, sampler)), seed]


def _result() -> tuple[gr.Image, gr.HTML]:
    with gr.Column():
        picture = gr.Image(
            label="Picture", type="filepath", interactive=False, height=420, format="webp",
            buttons=["download", "fullscreen"], elem_classes="picture",
        )  # fmt: skip
        return picture, gr.HTML(_bar(), elem_classes="status")


def _as_given(component: Any) -> Any:
    """The component, handing over what it is given: `ldm.ui.tasks` says what is wrong with it, in one line."""
    component.preprocess = lambda payload: payload
    return component


def _layers(canvas: gr.ImageEditor) -> Callable[[Any], tuple[Any, list[Any]]]:
    """What an editor is given -> its picture and its layers, as files or their bytes."""

    def given(payload: Any) -> tuple[Any, list[Any]]:
        parts = canvas.blob_storage.pop(payload.id, None) if payload and payload.id else payload
        if parts is None:
            return None, []
        opened = [part and getattr(part, "path", part) for part in (parts.background, *(parts.layers or []))]
        files = [Path(part) if isinstance(part, str) else part for part in opened]
        return files[0], [file for file in files[1:] if file]

    return given


# ---- what happens ----


def _wire(desk: Desk, studio: Studio, task: Callable[..., Iterator[Update]], shelf: gr.State, gallery: gr.Gallery):
    """Go runs the task, update by update; Stop ends it, or takes it out of the queue.

    The shelf comes out too, for Gradio clears only what an event has given: an hour after the visitor has left.
    """

    def run(shelf: Shelf, *said: Any) -> Iterator[list[Any]]:
        with _one_line():
            for words, share, picture, whole in task(studio, *said):
                shown = shelf.add(picture) if picture and whole else picture or gr.skip()
                yield [shown, _bar(words, share), list(shelf.paths) if whole else gr.skip(), shelf]

    going = gr.on(
        [desk.go.click, *(c.submit for c in desk.controls if isinstance(c, gr.Textbox))], run, [shelf, *desk.controls],
        [desk.picture, desk.status, gallery, shelf], api_name=task.__name__.strip("_"),
        concurrency_limit=1, concurrency_id="model", show_progress="minimal", show_progress_on=desk.status,
    )  # fmt: skip
    desk.stop.click(lambda: _bar("stopped"), None, desk.status, cancels=going, queue=False, api_visibility="private")


def _edit(studio: Studio, canvas: tuple[Any, Sequence[Any]], *said: Any) -> Iterator[Update]:
    return tasks.edit(studio, *canvas, *said)


def _chosen(shelf: Shelf, event: gr.SelectData) -> list[Any]:
    """A picture in the gallery is chosen: its name, its parameters, and what can be done with it."""
    with _one_line():
        path = shelf.paths[event.index] if event.index < len(shelf.paths) else shelf.path(None)
        told = [(name, value) for name, value in shelf.told(path.name).items() if value != ""]
        return [path.name, _table(told), gr.Button(interactive=True), gr.Button(interactive=True)]


def _again(shelf: Shelf, name: str) -> list[Any]:
    """A picture's parameters into the controls of the tab that it was made in, and to that tab.

    The shelf holds what came of an edit, not what it was made of: the visitor is told so.
    """
    with _one_line():
        told = shelf.told(name)
    values = tasks.again(told)
    if told.get("task") in ("image_to_image", "inpaint", "instruct"):
        words = _bar("The settings are back; the picture that was edited, and what was painted on it, are not.")
        return [gr.Tabs(selected="edit"), words, *[gr.skip()] * len(values), told.get("strength", gr.skip()), *values]
    return [gr.Tabs(selected="draw"), gr.skip(), *values, *[gr.skip()] * (len(values) + 1)]


def _painted(shelf: Shelf, name: str) -> list[Any]:
    """A picture onto the canvas."""
    with _one_line():
        return [gr.Tabs(selected="edit"), str(shelf.path(name))]


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever goes wrong is told to the visitor in one line; what should not have, to the console too."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        message = str(error) or type(error).__name__
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        log.error("%s", " ".join(message.split()))
    else:
        return
    raise gr.Error(html.escape(" ".join(message.split())), print_exception=False)


# ---- how it is written ----


def _bar(words: str = "", share: float | None = None) -> str:
    """Words, and how far it is."""
    bar = "" if share is None else f'<div class="bar"><div style="width: {100 * share:.1f}%"></div></div>'
    return f'<div role="status">{bar}<span>{html.escape(words)}</span></div>'


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    names = [NAMES.get(name, name.replace("_", " ").capitalize()) for name, _ in rows]
    cells = [f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, (_, value) in zip(names, rows)]
    return f"<table>{''.join(cells)}</table>"
