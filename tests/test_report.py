"""The page of round trips: its figures are right, its order is, it needs nothing but itself, and trusts no name."""

import gc
import json
import math
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.evaluation import report as reports
from ldm.evaluation.report import Report
from ldm.evaluation.report.album import EXACT, LARGE, SMALL, Album
from ldm.evaluation.report.latents import ALL, EACH, Histogram, Latents
from ldm.evaluation.report.summary import best
from ldm.latents import LatentSpace

EVIL = "<script>alert(1)</script>.png"


def darkened(kept=0.9, gain=1.0, mean=0.0, scale=1.0):
    """Raw latents are `gain` times the pixels, plus `mean`; what comes back is `kept` times the picture."""
    pair = SimpleNamespace(encode=lambda x: gain * x + mean, decode=lambda raw: kept * (raw - mean) / gain)
    return LatentSpace(pair, scale=scale, shift=0.0, factor=1)


def picture(seed=0, width=24, height=16):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def grey(level):
    return Image.new("RGB", (24, 16), (level,) * 3)


def made(spaces, images):
    report = Report(spaces)
    for name, image in images.items():
        report.add(name, {space: spaces[space].roundtrip(image) for space in spaces})
    return report


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.cards = [], "", []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data
        if [tag for tag, _ in self.tags[-2:]] == ["li", "h3"] and data.strip():
            self.cards.append(data.strip())

    def places(self):
        """Of each card's picture its place in each order."""
        told = [card["data-places"] for card in self.all("li") if "data-places" in card]
        return [[int(place) for place in places.split()] for places in told]

    def widths(self):
        """Of each card's pictures."""
        widths = [int(img["width"]) for img in self.all("img")[:-1]]
        each = len(widths) // len(self.cards)
        return [widths[i : i + each] for i in range(0, len(widths), each)]

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


def page_of(report, tmp_path):
    report.write(tmp_path / "report.html")
    return Page(tmp_path / "report.html")


# ---- latents ----


def test_a_histogram_grows_and_loses_nothing():
    generator, histogram, given = torch.Generator().manual_seed(0), Histogram(2), []
    for spread in (0.1, 1.0, 7.0, 0.3):
        given.append(spread * torch.randn(1, 2, 9, 11, generator=generator))
        histogram.add(given[-1])
    values = torch.cat([z.flatten(2) for z in given], dim=2)[0]
    edges, densities = histogram.density(4.0)
    assert float(edges[-1]) >= 4 and torch.allclose(edges, -edges.flip(0))
    for own, density in zip(values, densities):
        counts = np.histogram(own.numpy(), edges.double().numpy())[0]
        assert (density * np.diff(edges)).numpy() == pytest.approx(counts / own.numel(), abs=1e-6)


def test_a_histogram_is_that_of_the_normal_distribution():
    histogram = Histogram(1)
    histogram.add(torch.randn(1, 1, 500, 500, generator=torch.Generator().manual_seed(0)))
    edges, densities = histogram.density(4.0)
    middle = (edges[1:] + edges[:-1]) / 2
    normal = torch.exp(-middle.square() / 2) / math.sqrt(2 * math.pi)
    assert (densities[0] - normal).abs().max() < 0.02


@pytest.mark.parametrize("gain, scale", [(5.0, 1.0), (0.02, 1.0), (5.0, 0.2)])
def test_the_recommended_scale_is_one_over_the_deviation(gain, scale):
    space = darkened(gain=gain, scale=scale)
    latents = Latents(space)
    for seed in range(3):
        latents.add(picture(seed))
    pixels = np.concatenate([np.asarray(picture(seed)).ravel() for seed in range(3)]) / 127.5 - 1
    advice = latents.advice()
    assert float(advice.fitting_scale) == pytest.approx(1 / (gain * pixels.std()), rel=1e-3)
    assert advice.fits == (0.7 <= scale * gain * pixels.std() <= 1.4)
    assert ("does not fit" in advice.words) != advice.fits
    assert json.loads(advice.configs[ALL])["scaling_factor"] == pytest.approx(float(advice.fitting_scale), rel=1e-3)


def test_a_shift_is_recommended_where_it_matters():
    for mean, told in ((0.01, "0"), (3.0, "3")):
        latents = Latents(darkened(mean=mean, scale=1.7))
        latents.add(picture(1, 64, 64))
        advice = latents.advice()
        assert (round(float(advice.fitting_shift), 1) == float(told)) and ("centre" in advice.words) == (mean == 3)


def test_channels_that_differ_are_told_and_get_a_scale_each():
    gains = torch.tensor([0.1, 1.0, 4.0]).view(3, 1, 1)
    pair = SimpleNamespace(encode=lambda x: gains * x + 0.5, decode=lambda raw: (raw - 0.5) / gains)
    latents = Latents(LatentSpace(pair, 1.0, 0.0, factor=1))
    latents.add(picture(0, 100, 100))
    advice = latents.advice()
    config = json.loads(advice.configs[EACH])
    spread = (np.asarray(picture(0, 100, 100)) / 127.5 - 1).std(axis=(0, 1))
    assert config["latents_std"] == pytest.approx(gains.flatten().numpy() * spread, rel=1e-3)
    assert config["latents_mean"] == pytest.approx([0.5] * 3, abs=0.1) and "Channels differ" in advice.words
    again = Latents(LatentSpace(pair, 1 / torch.tensor(config["latents_std"]), config["latents_mean"], factor=1))
    again.add(picture(0, 100, 100))
    assert again.advice().statistics.channel_std == pytest.approx([1] * 3, rel=1e-3)
    assert "Channels differ" not in again.advice().words and "by channel" in again.advice().fitting_scale


def test_constant_latents_have_no_scale():
    pair = SimpleNamespace(encode=lambda x: 0 * x, decode=lambda raw: raw)
    latents = Latents(LatentSpace(pair, 1.0, 0.0, factor=1))
    latents.add(picture())
    assert latents.advice().fitting_scale == "none" and "constant" in latents.advice().words


def test_the_posteriors_noise_counts():
    """Means of 0 and variances of 4: a diffusion model would be taught with latents of deviation 2."""

    def encode(x):
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=0 * x, logvar=0 * x + math.log(4)))

    latents = Latents(LatentSpace(SimpleNamespace(encode=encode, decode=lambda raw: raw), 1.0, 0.0, factor=1))
    latents.add(picture(0, 200, 200))
    assert float(latents.advice().fitting_scale) == pytest.approx(0.5)
    edges, densities = latents.histogram.density(8.0)
    middle = (edges[1:] + edges[:-1]) / 2
    assert (densities[0] * middle.square() * edges.diff()).sum() == pytest.approx(4, rel=0.03)


# ---- pictures ----


def test_pictures_are_bounded_and_small_ones_exact():
    import base64

    def opened(kept):
        return Image.open(BytesIO(base64.b64decode(album.uri(kept).removeprefix("data:image/webp;base64,"))))

    album = Album()
    wide, tiny = picture(0, 1500, 300), picture(1, EXACT, 7)
    shown = [album.keep(image) for image in (wide, tiny)]
    assert opened(shown[0].large).size == (LARGE, round(300 * LARGE / 1500)) and opened(shown[0].small).width == SMALL
    assert shown[1].large == shown[1].small
    assert opened(shown[1].small).convert("RGB").tobytes() == tiny.tobytes()
    assert max(len(album.uri(kept)) for kept in shown[0]) < 4 / 3 * (3 * LARGE * 103 + 1000)


def test_no_picture_stays_in_memory():
    report, spaces = Report({"a": darkened()}), {"a": darkened()}

    def living():
        gc.collect()
        return sum(issubclass(type(thing), (Image.Image, torch.Tensor)) for thing in gc.get_objects())

    report.add("0", {"a": spaces["a"].roundtrip(picture(0))})
    before = living()
    for seed in range(8):
        report.add(str(seed), {"a": spaces["a"].roundtrip(picture(seed))})
    assert living() == before and len(report.rows) == 9


# ---- the page ----


def test_the_worst_come_first(tmp_path):
    """What is kept of a grey picture is nine tenths: the farther from middle grey, the worse."""
    levels = [200, 128, 255, 140, 180, 150, 240, 210, 170, 230, 160, 190, 220]
    page = page_of(made({"a": darkened()}, {f"x/{level:03}.png": grey(level) for level in levels}), tmp_path)
    assert page.cards == [f"{level:03}.png" for level in sorted(levels, reverse=True)]
    assert page.words.index("The worst ten") < page.words.index("160.png") < page.words.index("The rest")
    assert page.words.index("The rest") < page.words.index("150.png")
    assert page.places() == [[i] * 3 for i in range(13)]


def test_a_page_is_bounded_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MOST", 12)
    page = page_of(made({"a": darkened()}, {str(level): grey(level) for level in range(150, 165)}), tmp_path)
    assert page.cards == [str(level) for level in range(164, 152, -1)]
    assert "3 more pictures, not among the worst 12 by any order" in page.words and "15 pictures" in page.words


def opposed():
    """The darker a picture the worse by one autoencoder, the brighter the worse by the other."""
    pairs = [
        SimpleNamespace(encode=lambda x: x, decode=lambda x, end=end: 0.9 * (x - end) + end) for end in (1.0, -1.0)
    ]
    return {name: LatentSpace(pair, 1.0, 0.0, factor=1) for name, pair in zip("ab", pairs)}


def test_the_worst_of_every_order_are_shown_large(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MOST", 30)
    page = page_of(made(opposed(), {f"{i:02}": grey(6 * i).resize((170, 10)) for i in range(40)}), tmp_path)
    assert page.cards == [f"{i:02}" for i in (*range(15), *range(25, 40))]
    assert "10 more pictures, not among the worst 15 by any order" in page.words
    for order in range(6):
        worst = [places[order] for places, widths in zip(page.places(), page.widths()) if widths == [170] * 5]
        assert set(range(10)) < set(worst) and len(worst) == 20
    assert [widths[0] for widths in page.widths()] == [170] * 10 + [SMALL] * 10 + [170] * 10
    monkeypatch.setattr(reports, "MOST", 3)
    assert len(page_of(made(opposed(), {str(i): grey(6 * i) for i in range(40)}), tmp_path).cards) == 20


def test_every_order_begins_with_its_own_worst(tmp_path, monkeypatch):
    """In a browser, where one is installed: what is pressed among the ten opens in the large size."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright is installed")
    chromium = shutil.which("chromium") or pytest.skip("no Chromium is installed")
    monkeypatch.setattr(reports, "MOST", 30)
    made(opposed(), {f"{i:02}": grey(6 * i).resize((170, 10)) for i in range(40)}).write(tmp_path / "report.html")
    with api.sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.goto((tmp_path / "report.html").as_uri())
        for order, worst in (("3", range(39, 29, -1)), ("0", range(10)), ("5", range(39, 29, -1))):
            page.get_by_label("Worst first").select_option(order)
            assert page.locator("ol").first.locator("h3").all_text_contents() == [f"{i:02} 170 × 10" for i in worst]
            assert page.locator(".card").count() == 30
            page.locator(".card button").first.click()
            assert page.locator("dialog img").evaluate("img => img.naturalWidth") == 170
            page.keyboard.press("Escape")


def test_figures_and_alternative_texts(tmp_path):
    space, image = darkened(), picture()
    check = space.roundtrip(image)
    page = page_of(made({"a": space}, {"folder/photo.png": image}), tmp_path)
    texts = [img["alt"] for img in page.all("img")]
    assert texts == [
        "photo.png, original",
        f"photo.png, reconstruction by a, {check.psnr:.2f} dB",
        f"photo.png, error of a, at most {check.max_error:.0f} of 255",
        "",  # the one that opens large, which takes over the words of what it shows
    ]
    assert f"{check.psnr:.2f} dB" in page.words and f"SSIM {check.ssim:.3f}" in page.words
    assert "of folder/" in page.words and "The picture" in page.words
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert page.all("html") == [{"lang": "en"}] and any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_several_autoencoders_stand_side_by_side(tmp_path):
    spaces = {"good": darkened(0.95), "bad": darkened(0.5), "exact": darkened(1.0)}
    report = made(spaces, {name: picture(i) for i, name in enumerate("abc")})
    assert [found.best for found in report.summaries()] == [0, 0, 3]
    assert report.summaries()[0].psnr > report.summaries()[1].psnr
    page = page_of(report, tmp_path)
    assert len(page.places()) == 3 and len(page.all("option")) == 9
    assert len(page.all("img")) == 3 * (1 + 2 * 3) + 1
    for name in spaces:
        assert page.words.count(name) >= 3 + 3  # in the table, at its latents, in the orders, in every card
    assert "equal" in page.words and "3 of 3" in page.words
    assert [sorted(order) for order in zip(*page.places())] == [[0, 1, 2]] * 9  # equal ones have a place each


def test_pictures_that_come_back_exactly_leave_the_mean_finite(tmp_path):
    """White does, of which nothing is lost."""
    space = opposed()["a"]
    report = made({"a": space}, {str(level): grey(level) for level in (255, 100, 200)})
    (found,), levels = report.summaries(), [space.roundtrip(grey(level)).psnr for level in (100, 200)]
    assert found.equal == 1 and found.psnr == pytest.approx(sum(levels) / 2) and found.psnr_worst == min(levels)
    assert f"{found.psnr:.2f} dB" in str(found) and "means of 3; 1 equal, which the dB leave out" in str(found)
    words = page_of(report, tmp_path).words
    assert f"{found.psnr:.2f} dB1 equal" in words and "PSNR,mean" in words
    (same,) = made({"a": space}, {"x": grey(255)}).summaries()
    assert same.psnr == math.inf and same.equal == 1 and "a: all equal; scale" in str(same)


def test_who_is_best():
    assert best([[1.0, 2.0], [3.0, 2.0], [5.0, 5.0]]) == [1, 1]
    assert best([[1.0], [2.0]]) == [2]


def test_faults_are_named_and_counted(tmp_path):
    pair = SimpleNamespace(encode=lambda x: 5 * x, decode=lambda raw: raw.flip(1) / 5)
    photo = Image.merge(
        "RGB", [Image.radial_gradient("L").resize((64, 64)), *[Image.linear_gradient("L").resize((64, 64))] * 2]
    )
    page = page_of(made({"a": LatentSpace(pair, 0.2, 0.0, factor=1)}, {"photo": photo}), tmp_path)
    assert "channels swapped" in page.words and "1 of 1" in page.words
    assert any(p.get("class") == "fault" for p in page.all("p"))


def test_the_page_needs_nothing_but_itself(tmp_path):
    page = page_of(made({"a": darkened(), "b": darkened(0.5)}, {str(i): picture(i) for i in range(12)}), tmp_path)
    reached = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert reached and all(value.startswith(("data:", "#")) for value in reached)
    assert "http:" not in page.text and "https:" not in page.text and "@import" not in page.text
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", page.text))
    assert not page.all("link") and [tag for tag in page.all("script") if "src" in tag] == []
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page.text)) <= set(ids)


def test_names_are_text(tmp_path):
    report = made({f"<b>{EVIL}": darkened(), "&amp;": darkened(0.5)}, {EVIL: picture(), '" onload="alert(2)': grey(9)})
    report.skip(f"{EVIL}: <img src=x onerror=alert(3)>")
    page = page_of(report, tmp_path)
    assert len(page.all("script")) == 1 and "<script>alert" not in page.text
    assert EVIL in page.cards and '" onload="alert(2)' in page.cards and "&amp;" in page.words
    assert not [attributes for _, attributes in page.tags if {"onload", "onerror"} & set(attributes)]
    assert f"<b>{EVIL}" in page.words


def test_a_name_that_is_no_utf_8(tmp_path):
    report = made({"a": darkened()}, {b"caf\xe9.png".decode("utf-8", "surrogateescape"): picture()})
    assert "caf?.png" in page_of(report, tmp_path).cards


def test_the_same_page_twice(tmp_path):
    texts = [page_of(made({"a": darkened()}, {"x": picture()}), tmp_path).text for _ in range(2)]
    assert texts[0] == texts[1]


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="no autoencoder"):
        Report({})
    with pytest.raises(ValueError, match="no picture"):
        Report({"a": darkened()}).write(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
    report, path = made({"a": darkened()}, {"x": picture()}), tmp_path / "report.html"
    path.write_text("old")
    report.album._file.close()
    with pytest.raises(ValueError, match="cannot be written"):
        report.write(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# ---- the command ----


@pytest.fixture
def pictures(tmp_path):
    """A folder with a picture, one in a folder within, and one that is broken."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    picture(0).save(folder / "a.png")
    picture(1, 30, 20).save(folder / "more" / "b.png")
    (folder / EVIL.replace("/", "")).write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture either")
    return folder


def test_a_folder_gives_a_report(ldm, folder, pictures, tmp_path, caplog):
    report, figures, out = tmp_path / "report.html", tmp_path / "figures.json", tmp_path / "out"
    status, said, _ = ldm("roundtrip", pictures, "-m", folder, "--report", report, "--json", figures, "-o", out)
    assert status == 0 and said.splitlines()[-1] == str(report) and "dB" in said
    assert caplog.text.count("left out") == 1 and "not a picture" in caplog.text
    rows = json.loads(figures.read_text())
    assert [row["image"] for row in rows] == [str(pictures / "a.png"), str(pictures / "more" / "b.png")]
    assert {row["model"] for row in rows} == {str(folder)} and len(list(out.iterdir())) == 2
    page = Page(report)
    assert set(page.cards) >= {"a.png", "more/b.png"} and "1 is left out" in page.words
    assert len(page.all("script")) == 1


def test_a_name_that_is_no_utf_8_is_printed(ldm, folder, tmp_path):
    """As a file's name has it in a folder; capsys's standard output is strict."""
    odd = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system knows no such name")
    picture().save(odd / "a.png")
    with pytest.raises(UnicodeEncodeError):
        print(odd)
    for more, lines in (([], 8), (["--report", odd / "report.html"], 2)):
        status, said, _ = ldm("roundtrip", odd, "-m", folder, *more)
        assert status == 0 and "caf\\udce9" in said and len(said.strip().splitlines()) == lines


def test_several_models_on_the_command_line(ldm, folder, pictures, tmp_path):
    report, out = tmp_path / "new" / "report.html", tmp_path / "compared.png"
    told = ["-m", folder, "--model", folder / "vae", "--report", report, "--json", "-", "-o", out]
    status, said, err = ldm("roundtrip", pictures / "a.png", *told)
    rows = json.loads(said)
    assert status == 0 and err == "" and [row["model"] for row in rows] == [str(folder), str(folder / "vae")]
    assert rows[0]["psnr"] == rows[1]["psnr"] and Image.open(out).width > 5 * 24
    assert f"through {folder} and {folder / 'vae'}" in Page(report).words


def test_a_folder_without_a_report(ldm, folder, pictures, caplog):
    status, said, _ = ldm("roundtrip", pictures, "-m", folder)
    assert status == 0 and said.count("psnr") == 2 and "left out" in caplog.text


def test_what_does_not_fit_into_memory_is_left_out(ldm, folder, pictures, tmp_path, caplog, monkeypatch):
    """Its folder's report is not lost; a picture that was named, and every other error, end it as before."""
    named, command = pictures / "more" / "b.png", ("-m", folder, "--report", tmp_path / "report.html")
    through, errors = LatentSpace.roundtrip, []

    def roundtrip(space, image):
        if str(named) == image:
            raise errors[-1]
        return through(space, image)

    monkeypatch.setattr(LatentSpace, "roundtrip", roundtrip)
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")):
        errors.append(error)
        assert ldm("roundtrip", pictures, *command)[0] == 0
        page = Page(tmp_path / "report.html")
        assert page.cards == ["a.png"] and "2 are left out" in page.words
        assert f"{named}: does not fit into memory" in page.words and str(named) in caplog.text
        caplog.clear()
        assert ldm("roundtrip", named, *command)[0] == 2
    errors.append(RuntimeError("no kernel"))
    with pytest.raises(RuntimeError, match="no kernel"):
        ldm("roundtrip", pictures, *command)


def test_what_is_refused(ldm, folder, pictures, tmp_path):
    empty, broken, report = tmp_path / "empty", tmp_path / "broken", tmp_path / "report.html"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    (tmp_path / "folder.html").mkdir()
    for arguments, said in (
        ([empty, "--report", report], "no pictures"),
        ([broken, "--report", report], "none of 1 pictures"),
        ([broken / "a.png", "--report", report], "not a picture"),
        ([pictures, broken / "a.png", "--report", report], "not a picture"),
        ([pictures, "--report", tmp_path / "report.png"], "suffix"),
        ([pictures, "--report", tmp_path / "folder.html"], "cannot be written"),
        ([pictures, "--report", tmp_path / "no" / "such" / "report.html"], "does not exist"),
    ):
        status, printed, err = ldm("roundtrip", *arguments, "-m", folder)
        assert status == 2 and said in err.splitlines()[-1] and printed == "" and "Traceback" not in err
        assert not report.exists()
