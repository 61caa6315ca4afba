"""`ldm evaluate images`: known answers, the libraries' own figures, and what is left out where something is missing."""

import hashlib
import io
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import t
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ldm import __version__, files, metadata
from ldm.cli import options
from ldm.evaluation import evaluate_images
from ldm.evaluation.distances import INCEPTION, frechet, frechets, kernel, kernels
from ldm.evaluation.images import METRICS, intervals, table
from ldm.evaluation.images.clip import framed, load_clip
from ldm.evaluation.images.coverage import covered
from ldm.evaluation.images.figures import batched
from ldm.images import to_pixels
from ldm.training import perceptual
from ldm.training.perceptual import BLOCKS
from ldm.training.tokenizer import train_tokenizer

COUNT, SIDE = 12, 24
PROMPTS = [f"a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("apple", "pear", "cat", "dog")]


def draw(seed, count=COUNT, size=(SIDE, SIDE)):
    """Smooth pictures (N,H,W,3) of bytes."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(noise, size, mode="bicubic").clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()


def write(folder, pictures, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03d}.{suffix}")
    return folder


def noised(pictures, strength, seed=0):
    noise = np.random.default_rng(seed).normal(size=pictures.shape) * strength
    return (pictures + noise).round().clip(0, 255).astype(np.uint8)


class Inception(nn.Module):
    """What Inception's TorchScript takes and gives: bytes (B,3,H,W) -> (B,D)."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 6)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer.reset_parameters()

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        pixels = img.float() / 255
        means = F.adaptive_avg_pool2d(pixels, 4)
        rough = F.adaptive_avg_pool2d((pixels - F.avg_pool2d(pixels, 3, 1, 1)).square(), 4)
        return self.layer((means + 30 * rough).flatten(1)).double()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with small networks under the published names."""
    folder = tmp_path_factory.mktemp("weights")
    torch.jit.script(Inception()).save(str(folder / INCEPTION))
    rng, backbone, channels = torch.Generator().manual_seed(0), {}, 3
    for block in BLOCKS:
        for i in block:
            backbone[f"features.{i}.weight"] = torch.randn(4, channels, 3, 3, generator=rng) / 3
            backbone[f"features.{i}.bias"] = torch.randn(4, generator=rng) / 3
            channels = 4
    torch.save(backbone, folder / perceptual.BACKBONE)
    linear = {f"lin{k}.model.1.weight": torch.rand(1, 4, 1, 1, generator=rng) for k in range(len(BLOCKS))}
    torch.save(linear, folder / perceptual.LINEAR)
    return folder


def write_clip(folder):
    """A CLIP in small, as transformers writes it."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = train_tokenizer(PROMPTS, size=600, length=16)
    ends = {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {**small, **ends, "vocab_size": len(tokenizer.vocabulary), "max_position_embeddings": 16}
    sight = {**small, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=words, vision_config=sight, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CLIPModel(config)
        for parameter in model.parameters():  # loud enough that the words and the picture matter
            nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine without any weights but those that a test names."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def folders(tmp_path):
    """Drawn and true pictures that pair."""
    return write(tmp_path / "drawn", draw(1)), write(tmp_path / "true", draw(2))


def values(result):
    return {name: figure["value"] for name, figure in result["figures"].items()}


# ---- precision and recall ----


def test_precision_and_recall_of_points_on_a_line():
    """Of 0, 1 .. 9 the ball about 0 reaches 3 far, to the third nearest, those within 2."""
    line = torch.arange(10.0)[:, None]
    points = torch.tensor([[-3.0], [-3.1], [4.5], [12.0], [12.1]])
    assert covered(points, by=line).tolist() == [True, False, True, True, False]
    far = torch.cat([line + 100, line[:4]])
    assert covered(far, by=line).double().mean() == 4 / 14
    assert covered(line, by=far).tolist() == [True] * 7 + [False] * 3  # the ball about 3 reaches back to 0, on to 6


def test_equal_sets_cover_each_other_and_distant_ones_do_not():
    one = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)) + 50
    assert covered(one, by=one.clone()).all()
    assert not covered(one, by=one + 30).any() and not covered(one + 30, by=one).any()
    collapsed = one[:1].expand(20, -1)  # balls of no size
    assert covered(collapsed, by=one).all() and covered(one, by=collapsed).tolist() == [True] + [False] * 59


def test_coverage_is_its_equation():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(n, 5, generator=generator).double() for n in (30, 300))
    for points, by in ((one, other), (other, one)):
        radii = torch.stack([(by - centre).norm(dim=1).sort().values[3] for centre in by])
        expected = [bool(((by - point).norm(dim=1) <= radii).any()) for point in points]
        assert 0 < sum(expected) < len(expected)
        assert covered(points, by).tolist() == expected
    with pytest.raises(ValueError, match="3 pictures.* 4 or more"):
        covered(one, by=other[:3])


# ---- intervals ----


@pytest.mark.parametrize("size", [(40, 60, 8), (40, 30, 90), (200, 30, 8)])  # more features than pictures, and fewer
def test_distances_of_many_parts_are_those_of_each(size):
    n, m, d = size
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator) + 0.5
    parts = intervals.halves(n)[:3]
    assert list(frechets(one, other, parts)) == pytest.approx([frechet(one[part], other) for part in parts], rel=1e-6)
    parts = torch.zeros(3, n, dtype=torch.bool)
    for part in parts:  # as many as the others: then the library takes all of both sets at once
        part[torch.randperm(n, generator=generator)[: min(n, m)]] = True
    others = other[: min(n, m)]
    assert kernels(one, others, parts).tolist() == pytest.approx([kernel(one[p], others) for p in parts], rel=1e-6)


def test_halves_take_every_picture_as_often_and_no_other_than_their_seed():
    taken = intervals.halves(9, seed=3)
    assert taken.shape == (intervals.HALVES, 9) and (taken.sum(1) == 4).all()
    assert taken.double().mean(0).tolist() == pytest.approx([4 / 9] * 9, abs=0.2)
    assert torch.equal(taken, intervals.halves(9, seed=3)) and not torch.equal(taken, intervals.halves(9, seed=4))


@pytest.mark.parametrize("count", [100, 7])
def test_intervals_of_a_mean_are_students(count):
    known = torch.randn(count, generator=torch.Generator().manual_seed(0)).double()
    error = float(known.std()) / count**0.5
    low, high = intervals.of_mean(known.tolist())
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, count - 1) * error, rel=0.12)
    assert (high + low) / 2 == pytest.approx(float(known.mean()), abs=0.3 * error)
    parts = [float(known[half].mean()) for half in intervals.halves(count)]
    low, high = intervals.of_halves(float(known.mean()), parts, count)
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, count - 1) * error, rel=0.2)


def test_students_factor():
    for freedom in (1, 2, 3, 4, 10, 1000):
        assert intervals.student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-3)


@pytest.mark.parametrize("count", [3, 5, 10, 30])
def test_intervals_of_few_pictures_hold_the_expected_mean(count):
    rng = np.random.default_rng(count)
    found = [intervals.of_mean(rng.normal(size=count), seed) for seed in range(2000)]
    assert np.mean([low <= 0 <= high for low, high in found]) >= 0.92


def test_intervals_of_a_mean_stay_within_what_a_figure_can_be():
    assert intervals.of_mean([0.5, 0.9], least=-1, most=1) == (-1, 1)


def test_an_interval_of_a_distance_holds_what_other_pictures_give():
    """Of 40 sets drawn anew the deviation of frechet and kernel is what the intervals of single sets say."""
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(400, 6, generator=generator)
    found, errors = {"frechet": [], "kernel": []}, {"frechet": [], "kernel": []}
    for _ in range(40):
        one, whole = torch.randn(80, 6, generator=generator) * 1.2 + 0.4, torch.ones(1, 80, dtype=torch.bool)
        for name, distances in (("frechet", frechets), ("kernel", kernels)):
            figure = float(next(iter(distances(one, other, whole))))
            scattered = [float(value) for value in distances(one, other, intervals.halves(80))]
            low, high = intervals.of_halves(figure, scattered, 80)
            found[name].append(figure)
            errors[name].append((high - low) / 2 / t.ppf(0.975, 79))
    for name in found:
        assert np.mean(errors[name]) == pytest.approx(np.std(found[name], ddof=1), rel=0.25)


def test_intervals_of_shares_are_wilsons():
    """The shares p whose own deviation puts them 1.96 of it away from what was seen, within 0 and 1."""
    for hits, count in ((3, 10), (64, 64), (0, 5)):
        low, high = intervals.of_share(hits, count)
        assert 0 <= low < high <= 1
        for p in {low, high} - {0.0, 1.0}:
            assert abs(hits / count - p) == pytest.approx(1.96 * (p * (1 - p) / count) ** 0.5)
    assert intervals.of_share(64, 64)[1] == 1 and intervals.of_share(0, 5)[0] == pytest.approx(0, abs=1e-12)


def test_no_interval_of_one_value_and_no_width_of_equal_ones():
    assert intervals.of_mean([1.0]) is None
    assert intervals.of_mean([2.0] * 5) == (2, 2)


# ---- known answers ----


def test_identical_sets(folders, weights, tmp_path):
    found = evaluate_images(folders[0], folders[0], weights=weights)
    assert set(found["figures"]) == {*METRICS} - {"frechet", "kernel", "clip_score"}
    assert values(found) == {
        "fid": pytest.approx(0, abs=1e-6),
        "kid": found["figures"]["kid"]["value"],
        "precision": 1,
        "recall": 1,
        "psnr": None,  # of no picture: all are equal
        "ssim": pytest.approx(1),
        "lpips": 0,
    }
    assert found["figures"]["fid"]["low"] == 0 < found["figures"]["fid"]["high"]
    assert values(found)["kid"] <= 0  # without bias: the sets share their pictures, so are nearer than chance
    assert found["settings"]["features"] == "inception" and len(found["pictures"]) == COUNT
    equal = {"value": None, "low": None, "high": None, "count": 0, "left_out": 0, "equal": COUNT}
    assert found["figures"]["psnr"] == equal and found["pictures"][3]["equal"] is True
    assert "| all equal | " in table(found) and f"| 0, {COUNT} equal " in table(found)
    json.dumps(found, allow_nan=False)


def test_psnr_is_a_mean_over_the_pairs_that_differ_beside_how_many_are_equal(folders):
    for name in ("003.png", "007.png"):
        (folders[0] / name).write_bytes((folders[1] / name).read_bytes())
    found = evaluate_images(*folders, ["psnr", "ssim"])
    figure, rows = found["figures"]["psnr"], {row["name"]: row for row in found["pictures"]}
    known = [row["psnr"] for row in rows.values() if "equal" not in row]
    assert (figure["count"], figure["equal"], len(known)) == (COUNT - 2, 2, COUNT - 2)
    assert figure["value"] == pytest.approx(np.mean(known))
    assert figure["low"] < figure["value"] < figure["high"] and found["figures"]["ssim"]["count"] == COUNT
    assert rows["003.png"] == {"name": "003.png", "psnr": None, "equal": True, "ssim": pytest.approx(1)}
    assert "| 10, 2 equal |" in table(found)


def test_what_is_no_number_is_left_out_and_not_null(folders, clip):
    from safetensors.torch import load_file, save_file

    broken = {name: value * float("nan") for name, value in load_file(clip / "model.safetensors").items()}
    folder = folders[0].parent / "broken"
    shutil.copytree(clip, folder)
    save_file(broken, folder / "model.safetensors", {"format": "pt"})
    (folders[0] / "000.txt").write_text("a red apple")
    found = evaluate_images(*folders, clip=folder)
    assert "no finite numbers" in found["left_out"]["clip_score"] and "clip_score" not in found["figures"]
    json.dumps(found, allow_nan=False)
    found = evaluate_images(*folders, features="clip", clip=folder)
    assert set(found["figures"]) == {"psnr", "ssim"}


def test_more_noise_is_worse_by_every_figure(folders, weights, tmp_path):
    clean = draw(2)
    rows = []
    for strength in (4, 16, 48):
        drawn = write(tmp_path / f"noised-{strength}", noised(clean, strength))
        rows.append(values(evaluate_images(drawn, folders[1], ["frechet", "kernel"])))
        rows[-1] |= values(evaluate_images(drawn, folders[1], weights=weights))
    for name in ("fid", "kid", "frechet", "kernel", "lpips"):
        worse = [row[name] for row in rows]
        assert worse == sorted(set(worse)), name
    for name in ("psnr", "ssim"):
        worse = [row[name] for row in rows]
        assert worse == sorted(set(worse), reverse=True), name
    assert rows[0]["precision"] == 1 > rows[-1]["precision"]


@pytest.mark.filterwarnings("ignore:.*save all extracted features")
def test_figures_are_the_librarys_own(folders, weights):
    found = evaluate_images(*folders, weights=weights)
    y, x = (torch.from_numpy(draw(seed)).permute(0, 3, 1, 2) for seed in (1, 2))
    fid, kid = FrechetInceptionDistance(Inception()), KernelInceptionDistance(Inception(), subset_size=COUNT)
    for metric in (fid, kid):
        metric.update(x, real=True)
        metric.update(y, real=False)
    one, other = y.double() / 255, x.double() / 255
    psnr = [float(peak_signal_noise_ratio(a, b, data_range=1.0)) for a, b in zip(one, other)]
    _, places = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
    ssim = (
        places[..., 5:-5, 5:-5].flatten(1).mean(1)
    )  # inside of what it reflects at the border, as Wang et al. have it
    expected = {
        "fid": pytest.approx(float(fid.compute()), rel=1e-4),
        "kid": pytest.approx(float(kid.compute()[0]), rel=1e-4),
        "psnr": pytest.approx(np.mean(psnr), rel=1e-5),
        "ssim": pytest.approx(float(ssim.mean()), abs=1e-6),
    }
    assert {name: value for name, value in values(found).items() if name in expected} == expected
    assert [row["psnr"] for row in found["pictures"]] == pytest.approx(psnr, rel=1e-5)
    assert all(figure["low"] < figure["value"] <= figure["high"] for figure in found["figures"].values())


def test_what_judged_is_told(folders, weights, clip, monkeypatch):
    def hashed(folder, *names):
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in names}

    (folders[0] / "000.txt").write_text("a red apple")
    monkeypatch.chdir(weights.parent)
    near = Path(weights.name)
    settings = evaluate_images(*folders, weights=near, clip=clip)["settings"]
    assert settings["folders"] == [str(folder) for folder in folders] and settings["seed"] == 0
    assert settings["networks"] == {
        "inception": {"folder": weights.name, "files": hashed(weights, INCEPTION)},
        "lpips": {"folder": weights.name, "files": hashed(weights, perceptual.BACKBONE, perceptual.LINEAR)},
        "clip": {"folder": str(clip), "files": hashed(clip, "model.safetensors")},
    }
    assert settings["versions"]["torch"] == version("torch") and settings["versions"]["ldm"] == __version__
    assert settings["versions"]["torchmetrics"] == version("torchmetrics")
    told = evaluate_images(*folders, ["precision"], features="emoji")["settings"]["networks"]
    assert set(told) == {"autoencoder"} and told["autoencoder"]["name"] == "emoji"
    assert len(told["autoencoder"]["encoder"]) == 16
    assert evaluate_images(*folders, ["psnr"])["settings"]["networks"] == {}


def test_a_seed_repeats_every_number(folders, weights):
    one, other, third = (evaluate_images(*folders, weights=weights, seed=seed) for seed in (0, 0, 1))
    assert one == other != third
    assert values(one) == pytest.approx(values(third), rel=1e-9)  # features are summed in another order


# ---- CLIP ----


class TheirModel(nn.Module):
    """A CLIPModel whose features are tensors, as torchmetrics expects them."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels):
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, ids, mask):
        return self.model.get_text_features(ids, mask).pooler_output


@torch.no_grad()
def test_clip_scores_are_the_librarys_own(clip, tmp_path):
    from transformers import CLIPImageProcessorPil

    pictures, loaded = draw(1, size=(40, 50)), load_clip(clip)
    see = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})

    def processor(images=None, text=None, **told):
        if images is not None:
            return see(images=images, return_tensors="pt")
        ids = torch.tensor(loaded.tokenizer(text))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    expected = []
    for picture, prompt in zip(pictures, PROMPTS, strict=True):
        x = torch.from_numpy(picture).permute(2, 0, 1)
        expected.append(float(clip_score(x, prompt, lambda: (TheirModel(loaded.model), processor))))
    x = to_pixels(list(pictures))
    assert framed(x, 32).shape == (COUNT, 3, 32, 32)
    assert torch.allclose(framed(x, 32)[:1], see(images=[pictures[0]], return_tensors="pt")["pixel_values"], atol=1e-5)
    for i, prompt in enumerate(PROMPTS):
        metadata.save(metadata.attach(Image.fromarray(pictures[i]), {"prompt": prompt}), tmp_path / f"{i:03d}.png")
    found = evaluate_images(tmp_path, tmp_path, ["clip_score"], clip=clip)
    assert [row["clip_score"] for row in found["pictures"]] == pytest.approx(expected, abs=1e-3)
    assert values(found)["clip_score"] == pytest.approx(np.mean(expected), abs=1e-3) and np.std(expected) > 1


def test_prompts_are_read_from_metadata_without_weights_and_else_from_captions(clip, tmp_path):
    pictures = [Image.fromarray(picture) for picture in draw(1, 3)]
    told = [{"prompt": "a (red:1.3) [apple]"}, {"prompt": "a (red) apple", "prompt_weights": False}]
    for i, (picture, parameters) in enumerate(zip(pictures, told)):
        metadata.save(metadata.attach(picture, parameters), tmp_path / f"{i}.png")
    pictures[2].save(tmp_path / "2.png")
    (tmp_path / "2.txt").write_text("a blue dog")
    (tmp_path / "0.txt").write_text("another")
    found = evaluate_images(tmp_path, tmp_path, ["clip_score"], clip=clip)
    loaded = load_clip(clip)
    expected = loaded.scores(loaded.images(to_pixels(pictures)), ["a red apple", "a (red) apple", "a blue dog"])
    assert [row["clip_score"] for row in found["pictures"]] == pytest.approx(expected.tolist(), rel=1e-5)
    (tmp_path / "2.txt").unlink()
    assert evaluate_images(tmp_path, tmp_path, ["clip_score"], clip=clip)["figures"]["clip_score"]["count"] == 2


def test_clips_features_compare_sets_too_and_are_not_called_fid(folders, clip):
    found = evaluate_images(*folders, features="clip", clip=clip)
    assert {"frechet", "kernel", "precision", "recall"} <= set(found["figures"]) and "fid" not in found["figures"]
    assert found["settings"]["features"] == "clip" and "prompt" in found["left_out"]["clip_score"]


def test_half_a_clip_is_refused_and_not_drawn_at_random(clip, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept = load_file(clip / "model.safetensors")
    kept.pop("text_projection.weight")
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors of a CLIPModel, text_projection\.weight"):
        load_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_clip(tmp_path)


# ---- what is not there ----


def test_without_weights_there_are_other_figures_by_other_names(folders):
    found = evaluate_images(*folders)
    assert set(found["figures"]) == {"frechet", "kernel", "precision", "recall", "psnr", "ssim"}
    assert found["settings"]["features"] == "emoji"
    assert set(found["left_out"]) == {"fid", "kid", "lpips", "clip_score"}
    assert INCEPTION in found["left_out"]["fid"] and perceptual.BACKBONE in found["left_out"]["lpips"]
    assert "config.json" in found["left_out"]["clip_score"]


def test_inceptions_weights_alone_are_not_taken_for_those_of_lpips(folders, weights, tmp_path):
    (tmp_path / INCEPTION).write_bytes((weights / INCEPTION).read_bytes())
    found = evaluate_images(*folders, weights=tmp_path)
    assert "fid" in found["figures"] and f"put {perceptual.BACKBONE}" in found["left_out"]["lpips"]


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"metrics": ["fid"]}, rf"put {INCEPTION} into .*hub"),
        ({"metrics": ["precision"]}, INCEPTION),
        ({"metrics": ["lpips"]}, r"vgg16-397923af\.pth.*vgg\.pth"),
        ({"metrics": ["clip_score"]}, r"CLIP's weights are not at hand; put config\.json"),
        (
            {"metrics": ["fid"], "features": "emoji"},
            "metric 'fid': of the features of emoji expected frechet or kernel",
        ),
        ({"metrics": ["frechet"], "features": "inception"}, "'frechet'.* expected fid or kid"),
        ({"metrics": ["psrn"]}, "'psrn': expected one of fid"),
    ],
)
def test_what_was_asked_for_and_cannot_be_given_is_an_error(folders, told, named):
    with pytest.raises(ValueError, match=named) as error:
        evaluate_images(*folders, **told)
    assert "\n" not in str(error.value)


def test_an_autoencoder_that_is_not_there_is_an_error(folders):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_images(*folders, features="nowhere")


def test_pictures_that_do_not_pair_are_compared_as_sets_alone(folders, weights, tmp_path):
    drawn = write(tmp_path / "others", draw(3, COUNT + 3))
    found = evaluate_images(drawn, folders[1], weights=weights)
    assert found["figures"]["psnr"]["count"] == COUNT  # those that do
    assert found["settings"]["generated"] == COUNT + 3 and found["settings"]["reference"] == COUNT
    for file in drawn.iterdir():
        file.rename(drawn / f"other-{file.name}")
    found = evaluate_images(drawn, folders[1], weights=weights)
    assert set(found["figures"]) == {"fid", "kid", "precision", "recall"}
    assert found["left_out"]["psnr"] == "no drawn picture has the name of a true one"
    with pytest.raises(ValueError, match="no drawn picture has the name"):
        evaluate_images(drawn, folders[1], ["ssim"])


def test_pairs_are_found_by_name_whatever_the_suffix_and_none_where_a_name_comes_twice(folders, tmp_path):
    drawn = write(tmp_path / "drawn-jpg", draw(2), "jpg")
    found = evaluate_images(drawn, folders[1], ["psnr"])
    assert found["figures"]["psnr"]["count"] == COUNT and values(found)["psnr"] > 30
    assert found["pictures"][0]["name"] == "000.jpg"
    Image.new("RGB", (SIDE, SIDE)).save(drawn / "000.png")
    with pytest.raises(ValueError, match="13 pictures with 12 names"):
        evaluate_images(drawn, folders[1], ["psnr"])


def test_pairs_are_found_by_their_paths_within_the_folders(tmp_path):
    for name, seed in (("drawn", 1), ("true", 2)):
        for i, part in enumerate("xy"):
            write(tmp_path / name / part, draw(seed + 2 * i, 3), "png" if name == "true" else "bmp")
    found = evaluate_images(tmp_path / "drawn", tmp_path / "true", ["psnr"])
    assert found["figures"]["psnr"]["count"] == 6
    assert [row["name"] for row in found["pictures"]] == [f"{part}/00{i}.bmp" for part in "xy" for i in range(3)]
    alone = [evaluate_images(tmp_path / "drawn" / part, tmp_path / "true" / part, ["psnr"]) for part in "xy"]
    assert [row["psnr"] for row in found["pictures"]] == [row["psnr"] for part in alone for row in part["pictures"]]


def test_pictures_of_other_sizes_are_compared_as_sets_alone(folders, weights, tmp_path):
    larger = write(tmp_path / "larger", draw(1, size=(32, 40)))
    found = evaluate_images(larger, folders[1], weights=weights)
    assert set(found["figures"]) == {"fid", "kid", "precision", "recall"}
    assert "is 40x32" in found["left_out"]["psnr"] and "24x24; expected pairs of one size" in found["left_out"]["psnr"]
    with pytest.raises(ValueError, match="expected pairs of one size"):
        evaluate_images(larger, folders[1], ["psnr"])


def test_single_pairs_of_two_sizes_or_too_small_ones_are_left_out_and_counted(ldm, folders, weights):
    Image.new("RGB", (40, 32), "red").save(folders[0] / "005.png")
    for folder, colour in zip(folders, ("red", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / "006.png")
    found = evaluate_images(*folders, ["psnr", "ssim", "lpips"], weights=weights)
    counts = {name: (figure["count"], figure["left_out"]) for name, figure in found["figures"].items()}
    assert counts == {"psnr": (COUNT - 1, 1), "ssim": (COUNT - 1, 1), "lpips": (COUNT - 2, 2)}
    rows = {row["name"]: row for row in found["pictures"]}
    assert set(rows["005.png"]["left_out"]) == {"psnr", "ssim", "lpips"} and "psnr" not in rows["005.png"]
    assert set(rows["006.png"]["left_out"]) == {"lpips"} and rows["006.png"]["psnr"] > 0
    status, out, _ = ldm("evaluate", "images", *folders, "--weights", weights)
    assert status == 0 and "| 10, 2 left out |" in out and "| 11, 1 left out |" in out
    assert "pairs left out: psnr, ssim: " in out and "pairs left out: lpips: " in out and ", and 1 more" in out


def test_a_batch_is_bounded_by_its_pixels_too():
    small, large = torch.zeros(1, 3, 512, 512), torch.zeros(1, 3, 3000, 4000)
    assert [len(x) for x in batched([small] * 70)] == [32, 32, 6]
    assert [len(x) for x in batched([large] * 3 + [small])] == [1, 1, 1, 1]
    assert all(x is large for x in batched([large] * 2))  # no copy


def test_one_picture_each_has_no_distance_and_no_interval(weights, tmp_path):
    one, other = (write(tmp_path / name, draw(seed, 1)) for name, seed in (("one", 1), ("other", 2)))
    found = evaluate_images(one, other, weights=weights)
    assert set(found["figures"]) == {"psnr", "ssim", "lpips"}
    assert found["figures"]["psnr"]["low"] is None and found["figures"]["psnr"]["count"] == 1
    assert "1 drawn and 1 true pictures; expected 2 or more" in found["left_out"]["fid"]
    assert "4 or more" in found["left_out"]["recall"]
    with pytest.raises(ValueError, match="2 or more"):
        evaluate_images(one, other, ["kid"], weights=weights)
    (other / "000.png").rename(other / "another.png")
    with pytest.raises(ValueError, match="no figure can be given; .*2 or more"):
        evaluate_images(one, other, weights=weights)


def test_three_pictures_have_distances_without_intervals(weights, tmp_path):
    one, other = (write(tmp_path / name, draw(seed, 3)) for name, seed in (("one", 1), ("other", 2)))
    found = evaluate_images(one, other, weights=weights)
    assert found["figures"]["fid"]["value"] > 0 and found["figures"]["fid"]["low"] is None
    assert "precision" in found["left_out"]


def test_pictures_that_are_too_small_for_lpips_have_their_other_figures(weights, tmp_path):
    one, other = (write(tmp_path / name, draw(seed, size=(8, 8))) for name, seed in (("one", 1), ("other", 2)))
    found = evaluate_images(one, other, weights=weights)
    assert "8x8; expected sides of 16" in found["left_out"]["lpips"].replace(": ", "; ") and "ssim" in found["figures"]


# ---- the command ----


def test_the_command_tells_a_table_and_writes_json(ldm, folders, weights, tmp_path):
    status, out, err = ldm("evaluate", "images", *folders, "--weights", weights, "--json", tmp_path / "a.json")
    assert (status, err) == (0, "")
    assert out.startswith("12 drawn, 12 true pictures; sets by the features of inception\n| figure ")
    assert "| psnr " in out and "left out: clip_score: CLIP's weights are not at hand" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["figures"]["fid"]["low"] < found["figures"]["fid"]["value"] < found["figures"]["fid"]["high"]
    status, out, _ = ldm("evaluate", "images", *folders, "--metric", "psnr", "--metric", "ssim", "--json", "-")
    assert status == 0 and set(json.loads(out)["figures"]) == {"psnr", "ssim"}


def test_names_that_are_no_utf8_cost_no_result(ldm, folders, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (40, 32)).save(tmp_path / "large.png")
    for folder, source in ((folders[0], tmp_path / "large.png"), (folders[1], folders[1] / "000.png")):
        shutil.copy(source, folder / name)
    told = ("evaluate", "images", *folders, "--metric", "psnr", "--json")
    status, out, err = ldm(*told, tmp_path / "a.json")
    assert (status, err) == (0, "") and r"caf\udce9.png is 40x32" in out
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    status, out, err = ldm(*told, "-")
    assert (status, err) == (0, "") and json.loads(out) == found
    row = next(row for row in found["pictures"] if row["name"] == name)
    assert "40x32" in row["left_out"]["psnr"] and found["figures"]["psnr"]["count"] == COUNT


def test_json_is_escaped_only_where_it_must_be(monkeypatch, tmp_path):
    for value in ("caf\xe9", "caf\udce9"):
        files.write_json(tmp_path / "a.json", {"name": value})
        assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": value}
        assert ("\xe9".encode() in (tmp_path / "a.json").read_bytes()) == (value == "caf\xe9")
        with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as narrow, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", narrow)
            options.write_json(Path("-"), {"name": value})
            narrow.flush()
            assert json.loads(narrow.buffer.getvalue()) == {"name": value}


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (("--metric", "fid"), INCEPTION),
        (("--metric", "beauty"), "beauty"),
        (("--features", "nowhere"), "nowhere"),
        (("--json", "nowhere/there/a.json"), "nowhere"),
        (("--device", "toaster"), "toaster"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(ldm, folders, told, named):
    status, out, err = ldm("evaluate", "images", *folders, *told)
    assert (status, out) == (2, "") and named in err and err.count("\n") == 1


def test_folders_that_cannot_be_used_are_said_in_one_line(ldm, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = write(tmp_path / "broken", draw(1))
    (broken / "007.png").write_bytes((broken / "007.png").read_bytes()[:200])
    for one, named in ((tmp_path / "empty", "no pictures"), (tmp_path / "no", "no such folder"), (broken, "007.png")):
        status, out, err = ldm("evaluate", "images", one, folders[1])
        assert (status, out) == (2, "") and named in err and err.count("\n") == 1


def test_help(ldm):
    status, out, _ = ldm("evaluate", "images", "--help")
    assert status == 0 and "Examples" in out and "--metric" in out
