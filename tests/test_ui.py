"""The page: what its tasks give and refuse, then all of it in a browser, where one is installed.

pip install -c constraints.txt ".[ui]" playwright, and a Chromium that is found by its name, for the whole of it.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ldm import metadata
from ldm.images import pad, to_images, to_pixels
from ldm.pipeline import LatentDiffusion
from ldm.ui import tasks
from ldm.ui.shelf import ROOM, Shelf
from ldm.ui.studio import Studio
from ldm.ui.tasks import Compared, Update

PLAIN = ("", 3, 2.0, "ddim", "7")  # negative, steps, guidance, sampler, seed


def file_of(image, kind="PNG"):
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def scene(width=40, height=28):
    image = Image.new("RGB", (width, height), "steelblue")
    ImageDraw.Draw(image).ellipse((8, 4, 28, 24), fill="tomato")
    return image


def strokes(*boxes, size=(40, 28)):
    layer = Image.new("RGBA", size)
    for box in boxes:
        ImageDraw.Draw(layer).rectangle(box, fill="#ff2d95b3")
    return file_of(layer)


def same(image, other):
    return np.array_equal(np.asarray(image), np.asarray(other))


@pytest.fixture(scope="module")
def studio(pipeline):
    return Studio(pipeline)


# ---- the studio ----


def test_every_step_is_told_to_a_reader_who_keeps_up_and_the_result_comes_last(studio):
    go_on = [Event() for _ in range(3)]

    def task(callback):
        for step, event in enumerate(go_on, start=1):
            callback(step, 3, 0.0, None)
            assert event.wait(30)
        return "done"

    seen = []
    for told in studio.working(task):
        seen.append(told if told == "done" else told.step)
        if told != "done":
            go_on[told.step - 1].set()
    assert seen == [1, 2, 3, "done"]


def test_a_slow_reader_gets_the_newest_step_alone(studio):
    begun, done = Event(), Event()

    def task(callback):
        for step in range(1, 6):
            callback(step, 5, 0.0, None)
            assert step > 1 or begun.wait(30)
        done.set()

    news = studio.working(task)
    assert next(news).step == 1
    begun.set()
    assert done.wait(30)
    assert list(news) == [None]  # the task is over: of its steps none is worth a look


def test_a_reader_who_leaves_stops_the_task_at_its_next_step_and_frees_the_model(studio):
    left, answers = Event(), []

    def task(callback):
        callback(1, 2, 0.0, None)
        assert left.wait(30)
        answers.append(callback(2, 2, 0.0, None))

    with closing(studio.working(task)) as news:
        assert next(news).step == 1
    left.set()
    assert list(studio.working(lambda _: "next")) == ["next"]
    assert answers == [False]


def test_an_error_of_the_task_is_the_readers_and_the_model_goes_on(studio):
    with pytest.raises(ValueError, match="no such thing"):
        list(studio.working(lambda _: (_ for _ in ()).throw(ValueError("no such thing"))))
    assert list(studio.working(lambda _: 1)) == [1]


# ---- the tasks ----


def test_text_to_image_gives_sketches_and_the_pipelines_own_picture(studio, pipeline):
    first, *steps, last = tasks.text_to_image(studio, "a red apple", *PLAIN)
    assert (first.share, first.picture) == (0, None) and last.whole and last.share == 1 and "7" in last.words
    assert steps and all(not u.whole and u.picture.size == last.picture.size for u in steps)
    assert [u.share for u in steps] == sorted(u.share for u in steps)
    [own] = pipeline.text_to_image("a red apple", num_inference_steps=3, guidance_scale=2.0, sampler="ddim", seed=7)
    assert same(last.picture, own) and last.picture.info == own.info


def test_what_is_left_out_is_the_models_own_and_any_seed(studio, pipeline):
    made = [list(tasks.text_to_image(studio, "a fox", "", 1, None, None, ""))[-1].picture for _ in range(2)]
    told = [image.info["ldm"] for image in made]
    assert told[0]["guidance_scale"] == pipeline.defaults["guidance_scale"] and told[0]["seed"] != told[1]["seed"]


def test_an_unpainted_picture_is_drawn_over_as_a_whole(studio, pipeline):
    *_, last = tasks.edit(studio, file_of(scene()), [], 0.5, "a fox", *PLAIN)
    fitted = scene().resize((32, 22), Image.Resampling.LANCZOS)
    square = to_images(pad(to_pixels(fitted), 32)[0])[0]
    [own] = pipeline.image_to_image(
        "a fox", square, 0.5, num_inference_steps=3, guidance_scale=2.0, sampler="ddim", seed=7
    )
    assert same(last.picture, own.crop((0, 0, 32, 22)))
    told = last.picture.info["ldm"]
    assert (told["task"], told["width"], told["height"], told["strength"]) == ("image_to_image", 32, 22, 0.5)


def test_a_painted_picture_keeps_what_is_not_painted(studio):
    *steps, last = tasks.edit(
        studio, file_of(scene(32, 24)), [strokes((0, 0, 7, 23), size=(32, 24))], 1.0, "a fox", *PLAIN
    )
    assert all(u.picture is None or u.picture.size == (32, 24) for u in steps)
    given, drawn = np.asarray(scene(32, 24)), np.asarray(last.picture)
    assert np.array_equal(drawn[:, 16:], given[:, 16:]) and not np.array_equal(drawn[:, :8], given[:, :8])
    assert last.picture.info["ldm"]["task"] == "inpaint"


def test_all_layers_make_the_mask_wherever_they_were_painted():
    mask = tasks.painted([strokes((0, 0, 9, 27)), strokes((30, 0, 39, 27))], (28, 40), 64)
    white = np.asarray(mask) == 255
    assert white[:28, :10].all() and white[:28, 30:40].all() and not white[:, 11:29].any() and not white[28:].any()
    assert tasks.painted([strokes()], (28, 40), 64) is None and tasks.painted([], (28, 40), 64) is None


def test_layers_that_are_too_large_or_too_many_are_refused(studio):
    large = file_of(Image.new("1", (9000, 9000)))
    for layers, words in (([large], "what is painted: 81 megapixels, expected"), ([strokes()] * 5, "5 painted layers")):
        with pytest.raises(ValueError, match=words) as refused:
            list(tasks.edit(studio, file_of(scene()), layers, 0.5, "", *PLAIN))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size, drawn", [((300, 1), (32, 1)), ((4, 4000), (1, 32)), ((1, 1), (32, 32))])
def test_a_picture_as_thin_as_can_be_is_edited(studio, size, drawn):
    for layers in ([], [strokes((0, 0, *size), size=size)]):
        *_, last = tasks.edit(studio, file_of(scene(*size)), layers, 1.0, "a fox", *PLAIN)
        assert last.picture.size == drawn


def test_a_model_that_is_told_what_to_do_is_told(studio):
    class Instructed:
        channels_beside = 4
        latents = type("Latents", (), {"channels": 4})

    assert tasks._task(Instructed, 0.5, None) == {"task": "instruct"}


def test_a_round_trip_gives_both_pictures_and_the_figures(studio, pipeline):
    first, last = tasks.roundtrip(studio, file_of(scene()))
    check, figures = pipeline.latents.roundtrip(scene()), dict(last.figures)
    assert isinstance(first, Update) and same(last.original, scene()) and same(last.back, check.image)
    assert figures["psnr"] == f"{check.psnr:.2f} dB" and figures["diagnosis"] == check.diagnosis
    assert figures["size"] == "40 x 28"


def test_a_large_picture_goes_there_and_back_in_small(studio):
    *_, last = tasks.roundtrip(studio, file_of(scene(1200, 600), "JPEG"))
    assert isinstance(last, Compared) and last.original.size == last.back.size == (512, 256)
    assert dict(last.figures)["size"] == "512 x 256, from 1200 x 600"


def drawing(studio, **changes):
    said = {"prompt": "a", "negative": "", "steps": 1, "guidance": 1, "sampler": "ddim", "seed": "0"} | changes
    return tasks.text_to_image(studio, *said.values())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"prompt": "a" * 2001}, "prompt of 2001 characters: expected at most 2000"),
        ({"negative": "a" * 3000}, "negative prompt of 3000 characters"),
        ({"steps": 0}, "steps 0: expected a whole number from 1 to 100"),
        ({"steps": 101}, "steps 101"),
        ({"steps": 2.5}, "steps 2.5"),
        ({"steps": "7"}, "steps 7"),
        ({"steps": float("nan")}, "steps nan"),
        ({"guidance": float("inf")}, "guidance inf: expected a number from 0 to 30"),
        ({"guidance": True}, "guidance True"),
        ({"seed": "-1"}, "seed '-1': expected a whole number from 0 on"),
        ({"seed": "9" * 30}, "seed '9+': expected"),
        ({"seed": "one"}, "seed 'one'"),
        ({"sampler": "euler_z"}, "sampler 'euler_z': expected one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(studio, changes, words):
    with pytest.raises(ValueError, match=words) as refused:
        list(drawing(studio, **changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("broken.png", b"\x89PNG\r\n\x1a\n" + b"nothing" * 40, "broken.png: "),
        ("words.jpg", b"not a picture", "words.jpg: not a picture in any format"),
        ("empty.png", b"", "empty.png: .*empty"),
        ("large.png", file_of(Image.new("1", (6000, 5000))), "large.png: 30 megapixels, expected at most 24"),
    ],
)
def test_an_upload_that_cannot_be_used_is_refused_by_its_own_name(studio, tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    for task in (tasks.roundtrip(studio, tmp_path / name), tasks.edit(studio, tmp_path / name, [], 0.5, "", *PLAIN)):
        with pytest.raises(ValueError, match=words) as refused:
            list(task)
        assert str(tmp_path) not in str(refused.value) and "\n" not in str(refused.value)


def test_no_picture_and_no_strength_are_refused(studio):
    with pytest.raises(ValueError, match="no picture is given"):
        list(tasks.roundtrip(studio, None))
    with pytest.raises(ValueError, match="strength 2: expected a number from 0 to 1"):
        list(tasks.edit(studio, file_of(scene()), [], 2, "", *PLAIN))


# ---- the shelf ----


def made(prompt="a fox", seed=0):
    return metadata.attach(scene(), {"prompt": prompt, "seed": seed})


def test_a_shelf_holds_the_newest_pictures_and_says_how_they_were_made(tmp_path):
    shelf = Shelf(tmp_path)
    paths = [shelf.add(made(seed=seed)) for seed in range(ROOM + 2)]
    assert shelf.paths == paths[:1:-1] and sorted(tmp_path.iterdir()) == sorted(shelf.paths)
    assert shelf.told(shelf.paths[0].name)["seed"] == ROOM + 1 and len({path.name for path in paths}) == len(paths)
    for gone in (paths[0].name, "../elsewhere.png"):
        with pytest.raises(ValueError, match="not in the gallery any more"):
            shelf.told(gone)
    with pytest.raises(ValueError, match="no picture is chosen"):
        shelf.path("")
    shelf.clear()
    assert not list(tmp_path.iterdir()) and not shelf.paths


def test_a_picture_from_the_shelf_can_be_drawn_again(studio, tmp_path):
    shelf = Shelf(tmp_path)
    *_, last = tasks.text_to_image(studio, "a red apple", "a pear", 2, 3.5, "euler", "")
    told = shelf.told(shelf.add(last.picture).name)
    *_, again = tasks.text_to_image(studio, *tasks.again(told))
    assert same(again.picture, last.picture)


# ---- the command ----


def test_without_gradio_the_command_says_how_to_get_it(ldm, monkeypatch):
    monkeypatch.setattr("ldm.cli.ui.find_spec", lambda name: None)
    assert ldm("ui") == (2, "", 'ldm: ldm ui needs Gradio: pip install "latent-diffusion-kit[ui]"\n')


@pytest.mark.parametrize(
    "asked, words",
    [
        (("--port", 99999), "less than or equal to 65535"),
        (("--host", "300.1.1.1"), "--host 300.1.1.1: "),
        (("--port", "taken"), "in use"),
    ],
)
def test_where_nothing_can_listen_is_said_at_once(ldm, asked, words):
    pytest.importorskip("gradio", reason="the page needs Gradio")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        status, out, err = ldm("ui", *(taken.getsockname()[1] if one == "taken" else one for one in asked))
    assert (status, out) == (2, "") and words in err and len(err.splitlines()) == 1


def test_sigterm_ends_it_quietly_and_leaves_nothing(tmp_path):
    pytest.importorskip("gradio", reason="the page needs Gradio")
    command = [sys.executable, "-m", "ldm", "ui", "--engine", "torch"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, **pipes) as server:
        try:
            assert server.stdout.readline().startswith("http://127.0.0.1:")
            assert list(tmp_path.glob("ldm-ui-*"))
            server.send_signal(signal.SIGTERM)
            assert server.communicate(timeout=60) == ("", "")
        finally:
            server.kill()
    assert (server.returncode, [*tmp_path.glob("ldm-ui-*")]) == (0, [])


def test_help_imports_neither_gradio_nor_torch():
    code = "import sys; from ldm.cli import main; sys.argv = ['ldm', 'ui', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert not {'gradio', 'torch'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "127.0.0.1" in done.stdout, done.stderr


# ---- the page ----


@pytest.fixture(scope="module")
def strangers():
    """Every address but this machine's that anything here has asked for."""
    found, connect, lookup = [], socket.socket.connect, socket.getaddrinfo

    def connecting(self, address):
        found.extend([address] if isinstance(address, tuple) and not str(address[0]).startswith("127.") else [])
        return connect(self, address)

    def looking_up(host, *args, **kwargs):
        found.extend([host] if host not in ("127.0.0.1", "localhost", None, "") else [])
        return lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connecting)
        patch.setattr(socket, "getaddrinfo", looking_up)
        yield found


@pytest.fixture(scope="module")
def embedded():
    return Studio(LatentDiffusion.from_pretrained("emoji"))


@pytest.fixture(scope="module")
def served(embedded, strangers, tmp_path_factory):
    """The page of the embedded model, served."""
    pytest.importorskip("gradio", reason='the page needs Gradio: pip install ".[ui]"')
    from ldm.ui.page import serve

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "NO_PROXY"):
            patch.setenv(name, "")
        blocks = serve(embedded, tmp_path_factory.mktemp("ui"), "127.0.0.1", None)
        yield blocks
        blocks.close(verbose=False)


def test_it_listens_on_this_machine_alone_and_tells_nobody(served, strangers):
    assert served.local_url.startswith("http://127.0.0.1:") and not served.analytics_enabled
    assert served.max_file_size == tasks.FILE_MIB * 2**20 and served.run_history is False and not strangers


@pytest.fixture
def client(served, monkeypatch):
    """Makes a client; its library, which is not ours, would ask the hub for a list of programs."""
    from gradio_client import Client

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return lambda: Client(served.local_url, verbose=False, analytics_enabled=False)


def test_ten_users_at_once_each_get_their_own_picture(client, strangers, capfd):
    prompts = [f"{count} {thing}" for count in ("a", "two") for thing in ("fox", "apple", "owl", "tulip", "pizza")]

    def visit(seed):
        said = prompts[seed], "", 4, 3, "ddim", str(seed)
        picture, _, gallery = client().predict(*said, api_name="/text_to_image")
        return metadata.told(Path(picture)), len(gallery), same(Image.open(picture), Image.open(gallery[0]["image"]))

    with ThreadPoolExecutor(10) as visitors:
        found = list(visitors.map(visit, range(10)))
    assert [(told["prompt"], told["seed"]) for told, _, _ in found] == list(zip(prompts, range(10)))
    assert all(count == 1 and shown for _, count, shown in found)  # nobody sees another's
    assert not strangers and "Traceback" not in capfd.readouterr().err


def test_a_client_that_sends_nonsense_gets_one_line(client, capfd):
    visitor = client()
    for nonsense in (("a", "", 4000, 3, "ddim", ""), ("a", "", "x", 3, "ddim", ""), ("a", "", 4, 3, "no such", "")):
        with pytest.raises(Exception, match="expected") as refused:
            visitor.predict(*nonsense, api_name="/text_to_image")
        assert "\n" not in str(refused.value)
    assert "Traceback" not in capfd.readouterr().err


def test_who_has_left_leaves_no_pictures(client, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # Gradio then waits for a second, not for an hour
    visitor = client()
    for seed in "12":
        *_, gallery = visitor.predict("a fox", "", 1, 1, "ddim", seed, api_name="/text_to_image")
    [shelves] = tmp_path_factory.getbasetemp().glob("ui[0-9]*/shelves")
    paths = [shelves / Path(shown["image"]).name for shown in gallery]
    assert len(paths) == 2 and all(path.exists() for path in paths)
    visitor.close()
    until(lambda: not any(path.exists() for path in paths))


def test_who_comes_while_too_many_wait_is_told_to_come_again(client, served, embedded, monkeypatch, capfd):
    monkeypatch.setattr(served._queue, "max_size", 2)
    pause, waiting = Event(), served._queue.event_queue_per_concurrency_id["model"].queue
    draw = partial(client().submit, "a fox", "", 5, 1, "ddim", "3", api_name="/text_to_image")
    with counted(embedded, pause) as calls:
        served_first = [draw()]
        until(lambda: len(calls) == 4)
        served_first += [draw(), draw()]
        until(lambda: len(waiting) == 2)
        with pytest.raises(Exception, match="full"):
            draw().result(30)
        pause.set()
        assert all(metadata.told(Path(job.result(60)[0]))["seed"] == 3 for job in served_first)
    assert "Traceback" not in capfd.readouterr().err


def until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser(served):
    api = pytest.importorskip("playwright.sync_api", reason="no playwright is installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, served, capfd):
    """A visit, in which no other host is asked for anything, and no traceback appears."""
    visit, hosts = browser.new_page(viewport={"width": 1280, "height": 1000}), set()
    visit.on("request", lambda asked: hosts.add(re.split("[/:]+", asked.url)[1] if "://" in asked.url else None))
    visit.set_default_timeout(30_000)
    visit.goto(served.local_url)
    visit.get_by_label("Prompt").first.wait_for()
    yield visit
    visit.close()
    assert hosts - {None} == {"127.0.0.1"}
    assert "Traceback" not in capfd.readouterr().err


class Tab:
    """The tab that is seen."""

    def __init__(self, page, name):
        page.get_by_role("tab", name=name, exact=True).click()
        self.panel = page.get_by_role("tabpanel").filter(visible=True)

    def say(self, prompt, steps=3, seed="5"):
        self.panel.get_by_label("Prompt").fill(prompt)
        if not self.panel.get_by_label("Seed").count():
            self.panel.get_by_role("button", name="Settings").click()
        self.panel.get_by_label("number input for Steps").fill(str(steps))
        self.panel.get_by_label("Seed").fill(seed)
        self.panel.get_by_label("Seed").press("Tab")

    def press(self, name):
        self.panel.get_by_role("button", name=name, exact=True).click()

    def wait(self, words):
        self.panel.get_by_text(re.compile(words)).first.wait_for()

    def picture(self, page):
        """What is shown, as the file that a visitor would save."""
        image = self.panel.locator(".picture img")
        return page.request.get(image.get_attribute("src")).body()


def test_a_visitor_draws_and_uses_a_picture_again(page, embedded):
    draw, pause = Tab(page, "Draw"), Event()
    draw.say("a red apple on a blue background", steps=12)
    with counted(embedded, pause):
        draw.press("Draw")
        draw.wait(r"step \d of 12")
        draw.panel.locator(".picture img").wait_for()  # the sketch
        pause.set()
        draw.wait("seed 5")
    first = draw.picture(page)
    assert metadata.told(first)["prompt"] == "a red apple on a blue background"
    draw.say("a fox", steps=3, seed="6")
    draw.press("Draw")
    draw.wait("seed 6")
    page.locator("#gallery .thumbnail-lg").nth(1).click()
    page.locator(".figures").get_by_text("a red apple on a blue background").wait_for()
    page.get_by_role("button", name="Use again").click()
    page.wait_for_function("() => document.querySelector('textarea').value.startsWith('a red apple')")
    assert draw.panel.get_by_label("Seed").input_value() == "5"
    draw.press("Draw")
    draw.wait("seed 5")
    assert same(Image.open(BytesIO(draw.picture(page))), Image.open(BytesIO(first)))


def test_a_visitor_stops_a_drawing_and_draws_another(page, embedded):
    draw, pause = Tab(page, "Draw"), Event()
    draw.say("a fox", steps=100)
    with counted(embedded, pause) as calls:
        draw.press("Draw")
        draw.wait("of 100")
        draw.press("Stop")
        pause.set()
        draw.wait("stopped")
        draw.say("a fox", steps=2, seed="8")
        draw.press("Draw")
        draw.wait("seed 8")
        assert len(calls) < 100


def test_who_leaves_does_not_keep_the_model(page, browser, embedded, served):
    other = browser.new_page()
    other.goto(served.local_url)
    pause = Event()
    with counted(embedded, pause) as calls:
        draw = Tab(other, "Draw")
        draw.say("a fox", steps=100)
        draw.press("Draw")
        draw.wait("of 100")
        other.close()
        pause.set()
        draw = Tab(page, "Draw")
        draw.say("an owl", steps=2, seed="9")
        draw.press("Draw")
        draw.wait("seed 9")
        assert len(calls) < 100


def settled(locator):
    """Where something is, once it has come to rest there: a picture moves the canvas when it is loaded."""
    box = None
    while (now := locator.bounding_box()) != box:
        box = now
        locator.page.wait_for_timeout(300)
    return box


def choose(page, name, data):
    """Gives the canvas a file, once it is there: what comes before that is lost."""
    settled(page.locator("#canvas canvas").first)
    picture = {"name": name, "mimeType": "image/png", "buffer": data}
    page.locator("#canvas input[type=file]").set_input_files(picture)


def test_a_visitor_paints_over_a_picture(page):
    edit = Tab(page, "Edit")
    choose(page, "scene.png", file_of(scene(128, 128)))
    page.locator("#canvas").get_by_label("Brush", exact=True).click()
    box = settled(page.locator("#canvas canvas").first)
    page.mouse.move(box["x"] + box["width"] / 2 - 50, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 50, box["y"] + box["height"] / 2, steps=10)
    page.mouse.up()
    edit.say("a tomato", steps=3)
    edit.press("Draw")
    edit.wait("seed 5")
    result = edit.picture(page)
    given, drawn = np.asarray(scene(128, 128)), np.asarray(Image.open(BytesIO(result)))
    [rows] = (given != drawn).any(axis=(1, 2)).nonzero()
    assert metadata.told(result)["task"] == "inpaint" and 64 in rows and 0 < rows.min() and rows.max() < 127


def test_a_visitor_is_told_of_a_file_that_the_canvas_cannot_show(page):
    edit = Tab(page, "Edit")
    choose(page, "broken.png", b"\x89PNG\r\n\x1a\nnothing")
    edit.wait("broken.png: not a picture that this browser can show")
    page.locator("#canvas canvas").first.evaluate(
        """(canvas) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["nothing"], "dropped.png", { type: "image/png" }));
            canvas.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    edit.wait("dropped.png: not a picture")
    choose(page, "scene.png", file_of(scene(64, 64)))
    edit.panel.get_by_text("dropped.png").wait_for(state="detached")
    settled(page.locator("#canvas canvas").first)
    edit.say("a tomato", steps=2)
    edit.press("Draw")
    edit.wait("seed 5")  # the status line still says how it goes
    page.locator("#gallery .thumbnail-lg").first.click()
    page.get_by_role("button", name="Use again").click()
    edit.wait("The settings are back; the picture that was edited")


def test_a_visitor_sees_what_a_round_trip_loses_and_why_a_file_cannot_be_used(page, tmp_path):
    there = Tab(page, "Round trip")
    (tmp_path / "scene.png").write_bytes(file_of(scene(96, 64)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    there.panel.locator("input[type=file]").first.set_input_files(tmp_path / "scene.png")
    there.wait("PSNR")
    there.wait("96 x 64")
    assert there.panel.locator("img").count() >= 3
    there.panel.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
    page.get_by_text(re.compile("broken.png: .*")).first.wait_for()


@contextmanager
def counted(studio, pause):
    """How often the network is asked; the fourth time it waits for `pause` to be over."""
    calls = []

    def asked(*_):
        calls.append(1)
        assert len(calls) != 4 or pause.wait(30)

    hook = studio.pipeline.denoiser.unet.register_forward_hook(asked)
    try:
        yield calls
    finally:
        pause.set()
        hook.remove()
