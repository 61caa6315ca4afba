"""Bridges trained, kept and used: what is learnt of pairs, in pixels and in latents, and what refinement refuses."""

import json

import pytest
import torch
from PIL import Image

from ldm import data
from ldm.bridging import Bridge, symmetric
from ldm.data.degrading import degradation
from ldm.data.pairs import Degraded
from ldm.denoising import Denoiser
from ldm.images import to_pixels
from ldm.latents import LatentSpace
from ldm.pipeline import LatentDiffusion
from ldm.training.bridge import EncodedPairs, PixelPairs, encode_pairs, kept, train_bridge
from ldm.training.conditions import Conditions, Doors, collate
from ldm.training.diffusion import DiffusionObjective, Recipe
from ldm.training.plan import Plan
from ldm.training.presets import PRESETS, unet
from ldm.training.randomness import streams
from ldm.training.vae import autoencoder


def plan(**changes):
    told = {
        "steps": 3,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "warmup": 2,
        "ema": 0.9,
        "log_every": 1,
        "save_every": 9,
    }
    return Plan(**{**told, "tensorboard": False, **changes})


def pairs(count=6, side=16):
    return Degraded(data.open("emoji", side, count=count), degradation("blur:1"), "blur:1")


def bridged(network, beside, space=None, **told):
    """A model of a network that answers for a bridge."""
    process = Bridge(**told)
    defaults = {"num_inference_steps": 3, "guidance_scale": 1.0, "beside": beside}
    return LatentDiffusion(
        space or LatentSpace.identity(), Denoiser(network, process), None, process.config(), defaults
    )


def network(beside=3, side=16, channels=3):
    torch.manual_seed(0)
    return unet(PRESETS["tiny"], side, channels, Doors(False, 0, beside)).eval()


# ---- what is learnt of ----


@pytest.mark.parametrize("beside, channels", [((), 0), (("z_T",), 3), (("z_T", "error_map"), 4)])
def test_pixel_pairs_hold_both_ends_and_what_is_shown(beside, channels):
    items = PixelPairs(pairs(), beside, errors=lambda x: x[:, :1].abs())
    x, logvar, _, extras = items.draw(0, torch.Generator().manual_seed(0))
    assert x.shape == extras["far"].shape == (3, 16, 16) and not torch.equal(x, extras["far"])
    assert torch.equal(extras["error_map"], extras["far"][:1].abs())
    assert len(extras.get("beside", ())) == channels
    if channels:
        assert torch.equal(extras["beside"][:3], extras["far"])
    assert torch.exp(logvar / 2).item() == 0  # pixels have no posterior


def test_encoded_pairs_are_the_latents_of_both_ends():
    space, made = LatentSpace(autoencoder((8, 8)).eval()), pairs(3)
    items = EncodedPairs(encode_pairs(made, space), {}, ("z_T", "error_map"))
    mean, logvar, _, extras = items[1]
    clean, degraded = made.draw(1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean, space.posterior(to_pixels([clean]))[0][0], atol=2e-3, rtol=2e-3)
    assert extras["far"].shape == mean.shape == logvar.shape and extras["error_map"].shape == (1, *mean.shape[1:])
    assert not torch.equal(extras["far"], mean) and (extras["error_map"] == 1).all()


def test_what_was_made_is_kept_and_told_from_others(tmp_path):
    made, path = [], tmp_path / "pairs.safetensors"

    def make():
        made.append(1)
        return {"x": torch.arange(3)}

    for _ in range(2):
        assert torch.equal(kept(path, {"of": [1, 2]}, make)["x"], torch.arange(3))
    assert len(made) == 1
    with pytest.raises(ValueError, match="was made of"):
        kept(path, {"of": [1, 3]}, make)


# ---- the objective ----


class Told(torch.nn.Module):
    """A network that notes what it was shown."""

    def forward(self, x, t):
        self.x, self.t = x, t
        return torch.zeros_like(x[:, :3]) + self.weight

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize("M", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["residual", "epsilon"])
def test_the_loss_is_that_of_the_bridge_with_its_noise_times_the_map(M, kind):
    """Against equations 11 and 12, and reading B, written out."""
    bridge, told = Bridge(prediction_type=kind), Told()
    objective = DiffusionObjective(told, bridge, Conditions(), Recipe(drop=0.0))
    items = [PixelPairs(pairs(), (), errors=lambda x: torch.full_like(x[:, :1], M))[i] for i in range(4)]
    batch = collate(Doors(False), None, items)
    loss = objective(batch, streams(0, [(0, i) for i in range(4)]))["loss"]
    t = (told.t + 1).numpy()
    a, b, c, sigma = (
        torch.tensor(table[t]).view(-1, 1, 1, 1) for table in (bridge.a, bridge.b, bridge.c, bridge.sigma)
    )
    noise = told.x - a * batch.mean - b * batch.far
    assert (noise.abs().max() < 1e-5) == (M == 0)
    target = (told.x - batch.mean) / sigma if kind == "residual" else noise / c
    assert loss.item() == pytest.approx(target.square().mean().item(), rel=1e-3)
    assert 1 <= t.min() and t.max() <= bridge.highest


def test_a_bridge_learns_to_repair(tmp_path):
    """Pictures whose colours are swapped: after some steps what comes out is nearer to the clean ones than z_T is."""
    swapped = Degraded(
        data.open("emoji", 16, count=16), lambda image, _: Image.merge("RGB", image.split()[::-1]), "swap"
    )
    items = PixelPairs(swapped)
    trained = train_bridge(tmp_path, items, plan(steps=250, batch_size=8, learning_rate=4e-3), Bridge(), "tiny")
    model = bridged(trained.eval(), ["z_T"])
    clean, degraded = zip(*[swapped.draw(i, torch.Generator()) for i in range(8)], strict=True)
    refined = to_pixels(model.refine(list(degraded), seed=0))
    before, after = ((to_pixels(list(clean)) - x).square().mean() for x in (to_pixels(list(degraded)), refined))
    assert after < 0.5 * before


def test_training_goes_on_where_it_was(tmp_path):
    items = PixelPairs(pairs())
    whole = train_bridge(tmp_path / "a", items, plan(steps=4, save_every=2), Bridge(), "tiny")
    train_bridge(tmp_path / "b", items, plan(steps=4, save_every=2), Bridge(), "tiny")
    (tmp_path / "b" / "checkpoint-00000004.safetensors").unlink()
    again = train_bridge(tmp_path / "b", items, plan(steps=4, save_every=2), Bridge(), "tiny")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="settings|bridge"):
        train_bridge(tmp_path / "b", items, plan(steps=4, save_every=2), Bridge(symmetric(beta_max=1.0)), "tiny")


# ---- refinement ----


def test_a_model_comes_back_from_disk(tmp_path):
    model, picture = bridged(network(), ["z_T"]), pairs().draw(0, torch.Generator())[1]
    model.save_pretrained(tmp_path / "model")
    again = LatentDiffusion.from_pretrained(tmp_path / "model")
    assert isinstance(again.process, Bridge) and again.defaults["beside"] == ["z_T"]
    one, other = (found.refine(picture, seed=3)[0] for found in (model, again))
    assert one.tobytes() == other.tobytes() and one.size == picture.size
    assert one.info["ldm"]["task"] == "refine" and one.info["ldm"]["seed"] == 3


@pytest.mark.parametrize("size", [(16, 16), (21, 19), (5, 40)])
def test_any_size_comes_back_at_its_own(size):
    picture = pairs().draw(0, torch.Generator())[1].resize(size)
    assert bridged(network(), ["z_T"]).refine(picture)[0].size == size


def test_in_latents_the_map_is_lowered_and_what_is_right_keeps_its_pixels():
    space = LatentSpace(autoencoder((8, 8)).eval())
    model = bridged(network(4 + 1, 8, 4), ["z_T", "error_map"], space)
    picture, M = pairs(side=32).draw(0, torch.Generator())[1], torch.zeros(1, 1, 32, 32)
    M[..., 16:] = 1
    found = to_pixels(model.refine(picture, error_map=M, keep=0))
    assert torch.equal(found[..., :16], to_pixels(picture)[..., :16])
    assert not torch.isclose(found[..., 16:], to_pixels(picture)[..., 16:]).all()
    white = Image.fromarray((M[0, 0].numpy() * 255).astype("uint8"))
    assert (
        model.refine(picture, error_map=white, keep=0)[0].tobytes()
        == model.refine(picture, error_map=M, keep=0)[0].tobytes()
    )


def test_several_pictures_are_what_each_is_alone():
    model, given = bridged(network(), ["z_T"]), [pairs().draw(i, torch.Generator())[1] for i in range(3)]
    together = model.refine(given, seed=[5, 6, 7])
    for i, picture in enumerate(given):
        one, other = to_pixels(together[i]), to_pixels(model.refine(picture, seed=5 + i)[0])
        assert (one - other).abs().max() <= 2 / 255 + 1e-6


def test_a_soft_map_keeps_what_is_mostly_right():
    model, picture = bridged(network(), ["z_T"]), pairs().draw(0, torch.Generator())[1]
    M = torch.full((1, 1, 16, 16), 0.1)
    M[..., 8:] = 0.9
    found = to_pixels(model.refine(picture, error_map=M, keep=0))
    assert torch.equal(found[..., :8], to_pixels(picture)[..., :8]) and not torch.equal(found, to_pixels(picture))


def test_what_is_given_beside_serves_every_picture():
    model = bridged(network(5), ["z_T", "given"])
    picture, given = pairs().draw(0, torch.Generator())[1], torch.rand(1, 2, 16, 16)
    assert len(model.refine(picture, beside=given, num_images_per_prompt=2)) == 2
    with pytest.raises(ValueError, match="expected 16 x 16 places"):
        model.refine(picture, beside=torch.rand(1, 2, 8, 8))


def test_what_refine_refuses(pipeline):
    picture, model = pairs().draw(0, torch.Generator())[1], bridged(network(), ["z_T"])
    with pytest.raises(ValueError, match="no bridge"):
        pipeline.refine(picture)
    with pytest.raises(ValueError, match="that is for refine"):
        model.unconditional()
    with pytest.raises(ValueError, match="error_map of shape"):
        model.refine(picture, error_map=torch.ones(1, 1, 3, 3))
    with pytest.raises(ValueError, match="steps 0"):
        model.refine(picture, num_inference_steps=0)
    with pytest.raises(ValueError, match="what was given has others"):
        bridged(network(5), ["z_T", "given"]).refine(picture, beside=torch.zeros(1, 1, 16, 16))


# ---- the commands ----


def test_a_bridge_from_the_command_line(ldm, tmp_path):
    told = ["--preset", "tiny", "--steps", 2, "--batch-size", 2, "--samples", 4, "--side", 16, "--no-tensorboard"]
    status, out, err = ldm("train", "bridge", "--degrade", "jpeg:5", *told, "--out", tmp_path / "run")
    assert status == 0, err
    assert out.strip() == str(tmp_path / "run" / "model")
    pairs().draw(0, torch.Generator())[1].resize((24, 20)).save(tmp_path / "a.png")
    asked = ["refine", tmp_path / "a.png", "--model", tmp_path / "run" / "model", "--steps", 2]
    status, out, err = ldm(*asked, "--heat", tmp_path / "heat.png", "-n", 2, "-o", tmp_path / "out")
    assert status == 0, err
    assert [Image.open(path).size for path in out.split()] == [(24, 20)] * 2
    assert Image.open(tmp_path / "heat.png").size == (24, 20)
    white = Image.new("L", (24, 20))
    white.paste(255, (12, 0, 24, 20))
    white.save(tmp_path / "map.png")
    asked += ["--map", tmp_path / "map.png", "--heat", tmp_path / "own.png", "-o", tmp_path / "own"]
    assert ldm(*asked)[0] == 0
    heat = torch.tensor(list(Image.open(tmp_path / "own.png").getdata())).view(20, 24, 3).float()
    yellow = heat[..., 0] - heat[..., 2]  # the map that was given, not another
    assert yellow[:, 14:].min() > 30 and yellow[:, :10].abs().max() < 5
    status, out, _ = ldm("info", tmp_path / "out" / "a-refined-0.png", "--json", "-")
    assert status == 0 and json.loads(out)["task"] == "refine"


def test_a_bridge_of_two_folders_in_latents(ldm, tmp_path, folder):
    for i in range(3):
        clean, rough = pairs(side=32).draw(i, torch.Generator())
        for name, picture in (("clean", clean), ("rough", rough)):
            (tmp_path / name).mkdir(exist_ok=True)
            picture.save(tmp_path / name / f"{i}.png")
    told = ["--preset", "tiny", "--steps", 2, "--batch-size", 2, "--patch", 32, "--no-tensorboard", "--vae", folder]
    asked = ["train", "bridge", "--data", tmp_path / "clean", "--degraded", tmp_path / "rough", *told]
    status, _, err = ldm(*asked, "--out", tmp_path / "run")
    assert status == 0, err
    model = LatentDiffusion.from_pretrained(tmp_path / "run" / "model")
    assert model.refine(tmp_path / "rough" / "0.png", num_inference_steps=2)[0].size == (32, 32)


@pytest.mark.parametrize(
    "asked, message",
    [
        ([], "expected one of --degrade"),
        (["--degrade", "blur", "--degraded", "x"], "expected one of --degrade"),
        (["--degrade", "blurr"], "blurr"),
        (["--degrade", "blur", "--target", "v"], "--target"),
        (["--degrade", "blur", "--preset", "none"], "--preset"),
        (["--degrade", "blur", "--beta-max", "0"], "beta_max"),
        (["--degrade", "blur", "--ode", "--target", "epsilon"], "ode"),
    ],
)
def test_what_train_bridge_refuses(ldm, tmp_path, asked, message):
    status, _, err = ldm("train", "bridge", *asked, "--samples", 4, "--out", tmp_path / "run")
    assert status == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "run" / "model").exists()


def test_round_trips_are_compared_before_and_after(ldm, tmp_path, folder):
    bridged(network(), ["z_T"]).save_pretrained(tmp_path / "bridge")
    asked = ["evaluate", "roundtrip", "--model", folder, "--side", 32, "--count", 2, "--json", tmp_path / "a.json"]
    status, out, err = ldm(*asked, "--bridge", tmp_path / "bridge", "--steps", 2)
    found = json.loads((tmp_path / "a.json").read_text())
    assert status == 0 and "refined" in out, err
    assert found["settings"]["steps"] == 2 and found["refined_psnr"] != found["psnr"] and found["refined_ssim"] < 1
