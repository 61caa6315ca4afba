"""Virtual try-on: its parts, each against what it says, and all stages in small, from dolls to repaired pictures."""

import json

import pytest
import torch
from PIL import Image

from ldm.bridging import Bridge
from ldm.data import dolls
from ldm.data.tryon import TryOn
from ldm.data.tryon.synthetic import write
from ldm.denoising import Denoiser
from ldm.evaluation.distances import INCEPTION
from ldm.evaluation.error_maps import alarms
from ldm.evaluation.tryon import table
from ldm.evaluation.tryon.cases import to_layers
from ldm.latents import LatentSpace
from ldm.training.conditions import Doors
from ldm.training.plan import Plan
from ldm.training.presets import PRESETS, unet
from ldm.training.tryon.extraction import Extracted, extract, synthetic
from ldm.training.tryon.looks import Looks
from ldm.training.tryon.matching import MatchObjective, Worn
from ldm.training.tryon.refinement import Repairs, difference_boxes, everywhere, known, random_map
from ldm.training.tryon.stages import Recipe, made_of, train_tryon
from ldm.training.tryon.warping import Dressing, Undressing, WarpObjective
from ldm.tryon.experts import Experts
from ldm.tryon.given import beside
from ldm.tryon.matching import Matcher
from ldm.tryon.model import TryOnModel, unlike
from ldm.tryon.steering import steered
from ldm.tryon.warping import CHANNELS, moved, warp

SIZE = (32, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight dolls to learn from, and four others."""
    path = tmp_path_factory.mktemp("sets") / "dolls"
    dolls.write(path, 8, 4)
    return path


@pytest.fixture(scope="module")
def looks(folder):
    return Looks.read(TryOn(folder, "train", size=SIZE))


# ---- looks ----


def test_looks_are_the_pictures_of_the_set(folder, looks):
    look = TryOn(folder, "train", size=SIZE)[3]
    assert looks.names[3] == look.name and len(looks) == 8 and looks.size == SIZE
    person = looks.pixels("person")[3]
    assert torch.equal(
        ((person + 1) * 127.5).round().byte().movedim(0, -1),
        torch.tensor(list(look.person.getdata())).byte().view(*SIZE, 3),
    )
    told = looks.given([1, 3])
    assert torch.equal(told.agnostic[1], looks.pixels("agnostic")[3]) and set(told.mask.unique().tolist()) == {0.0, 1.0}
    assert looks.pixels("worn")[3].mean() > 0.03  # it wears something


def test_what_stands_beside_is_every_condition_in_the_space(looks):
    told, worn = looks.given([0, 1]), torch.rand(2, 3, *SIZE) * 2 - 1
    found = beside(LatentSpace.identity(), told, worn)
    assert torch.equal(found, torch.cat([told.agnostic, told.pose, worn, told.mask], 1))


def test_garments_that_are_not_known_are_not_seen(folder, run):
    """Every stage's own pictures are of the pairs that are known, in any order of the list."""
    seen = {path.stem for path in (run / "drawn" / "train").iterdir()}
    assert len(seen) < 8 and seen <= {name.removesuffix(".jpg") for name in TryOn(folder, "train", size=SIZE).names}


# ---- warping ----


def test_moving_by_nothing_is_the_picture_and_by_a_pixel_its_neighbour():
    x = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(moved(x, torch.zeros(2, 2, 8, 6)), x, atol=1e-5, rtol=0)
    flow = torch.zeros(2, 2, 8, 6)
    flow[:, 0] = 2 / 6  # one pixel to the right is looked at
    torch.testing.assert_close(moved(x, flow)[..., :-1], x[..., 1:], atol=1e-5, rtol=0)
    flow = torch.zeros(2, 2, 8, 6)
    flow[:, 1] = 2 / 8
    torch.testing.assert_close(moved(x, flow)[..., :-1, :], x[..., 1:, :], atol=1e-5, rtol=0)


def test_a_garment_is_learnt_to_be_worn(looks):
    """On its few pictures the loss falls, and the cover comes to lie where the garment is."""
    torch.manual_seed(0)
    move = Dressing(looks).batch(range(8))
    network = unet(PRESETS["tiny"], SIZE[1], CHANNELS, Doors(False, 0, 10 - CHANNELS))
    objective, optimiser = WarpObjective(network), torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        parts = objective(move, [])
        parts["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(parts["loss"].item())
    assert losses[-1] < 0.5 * losses[0]
    found = warp(network, move.source, move.guide)
    assert ((found.cover > 0.5).float() - move.mask).abs().mean() < 0.1
    assert torch.equal(found.on(0.0), found.cover * found.image)


def test_undressing_is_the_way_back(looks):
    there, back = Dressing(looks).batch([2]), Undressing(looks).batch([2])
    assert torch.equal(back.target, there.source) and torch.equal(back.guide[:, :1], there.mask)
    inside = there.mask.expand(-1, 3, -1, -1) == 1
    assert torch.equal(back.source[inside], there.target[inside]) and (back.source[~inside] == 1).all()


# ---- extraction ----


def figures(**changed):
    good = {"outline": 0.0, "width": 0.3, "unlike": 0.1} | changed
    return Extracted(
        torch.zeros(1, 3, *SIZE), torch.ones(1, 1, *SIZE), *(torch.tensor([value]) for value in good.values())
    )


@pytest.mark.parametrize(
    "changed, kept", [({}, True), ({"outline": 0.5}, False), ({"width": 0.01}, False), ({"unlike": 0.9}, False)]
)
def test_each_filter_keeps_out_what_it_is_for(changed, kept, looks):
    found = figures(**changed)
    assert found.good.tolist() == [kept]
    assert len(synthetic(looks.some([2]), found)) == kept


def test_extracted_garments_become_pairs(looks):
    torch.manual_seed(0)
    dress, undress = (unet(PRESETS["tiny"], SIZE[1], CHANNELS, Doors(False, 0, n - CHANNELS)).eval() for n in (10, 7))
    found = extract(looks, undress, dress)
    assert found.garment.shape == (8, 3, *SIZE) and (found.width > 0.05).all() and (found.unlike > 0).all()
    everyone = found._replace(outline=torch.zeros(8), unlike=torch.zeros(8), width=torch.ones(8))
    pairs = looks.joined(synthetic(looks, everyone))
    assert len(pairs) == 16 and pairs.synthetic.tolist() == [0] * 8 + [1] * 8
    assert torch.equal(pairs.parts["person"][8:], looks.parts["person"])
    assert not torch.equal(pairs.parts["garment"][8:], looks.parts["garment"])


# ---- what bridges learn from ----


def repairs(maps, told=("z_T", "error_map", "given")):
    photographs, drawn = torch.randint(0, 256, (2, 3, 3, 8, 6), generator=torch.Generator().manual_seed(0)).byte()
    given = torch.rand(3, 10, 8, 6)
    return Repairs(photographs, drawn, given, maps, told, torch.tensor([0, 1, 0]), "test"), photographs, drawn, given


def test_an_item_is_a_pair_with_its_map_and_conditions():
    M = torch.rand(3, 1, 8, 6)
    items, photographs, drawn, given = repairs(known(M))
    x, _, _, extras = items.draw(1, torch.Generator().manual_seed(0))
    assert torch.equal(x, photographs[1].float() / 127.5 - 1) and extras["label"] == 1
    assert torch.equal(extras["far"], drawn[1].float() / 127.5 - 1) and torch.equal(extras["error_map"], M[1])
    assert torch.equal(extras["beside"], torch.cat([extras["far"], M[1], given[1]]))
    assert items.identity() != repairs(known(M))[0].identity()  # other conditions


def test_without_a_map_the_network_is_shown_none():
    items, *_ = repairs(everywhere((8, 6)), ("z_T", "given"))
    extras = items[0][3]
    assert extras["beside"].shape == (13, 8, 6) and (extras["error_map"] == 1).all()


def test_random_maps_are_in_range_and_their_generators():
    one, again, other = (random_map((16, 12), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == (1, 16, 12) and 0 <= one.min() < 0.4 < 0.6 < one.max() <= 1


def test_boxes_lie_around_what_differs():
    x = torch.zeros(3, 32, 32)
    y = x.clone()
    y[:, 5:12, 20:26] = 1.0
    y[:, 30, 2] = 1.0  # too small to be seen
    [box] = difference_boxes(x, y)
    truth = to_layers([(20, 5, 26, 12)], (32, 32))
    found = to_layers([box], (32, 32))
    assert (found - truth).abs().sum() <= 2 * (6 + 7) + 4  # a pixel all around, as it is smoothed
    assert (found >= truth).all() and difference_boxes(x, x) == []


# ---- steering, experts ----


def pixelwise(x, t):
    return 0.3 * x[:, :3]


def test_a_strength_of_0_is_the_sampler_itself():
    denoiser = Denoiser(pixelwise, Bridge())
    assert steered(denoiser, lambda x: x[:, :1], 0.0) is denoiser
    with pytest.raises(ValueError, match="expected 0 or more"):
        steered(denoiser, lambda x: x[:, :1], -1.0)
    with pytest.raises(ValueError, match="residuals"):
        steered(Denoiser(pixelwise, Bridge(prediction_type="epsilon")), lambda x: x[:, :1], 1.0)


def test_steering_adds_the_slope_of_the_errors():
    bridge, z = Bridge(), (torch.rand(2, 3, 4, 4) - 0.5).double()

    def errors(x):
        return torch.sigmoid(x.mean(1, keepdim=True))

    def energy(z):
        z_0 = z - bridge.sigma[400] * pixelwise(z, None)
        return errors(z_0).flatten(1).mean(1)

    found = steered(Denoiser(pixelwise, bridge), errors, 2.0).output(z, 400)
    h = 1e-5
    for place in [(0, 1, 2, 3), (1, 0, 0, 0)]:
        step = torch.zeros_like(z)
        step[place] = h
        slope = ((energy(z + step) - energy(z - step)) / (2 * h)).sum()
        difference = (found - pixelwise(z, None))[place]
        assert difference.item() == pytest.approx(2.0 * bridge.sigma[400] * slope.item(), rel=1e-4)
    better = z - bridge.sigma[400] * found
    assert errors(better).mean() < errors(z - bridge.sigma[400] * pixelwise(z, None)).mean()


class Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value, self.config = value, {"in_channels": 3}

    def forward(self, x, t, **told):
        return type(
            "Out", (), {"sample": torch.full_like(x, self.value) + sum(v.view(-1, 1, 1, 1) for v in told.values())}
        )


def test_each_time_has_its_expert():
    experts = Experts(Constant(1.0), Constant(2.0), middle=500)
    x, t = torch.zeros(4, 3, 2, 2), torch.tensor([0, 499, 500, 999])
    assert experts(x, t)[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert experts(x, torch.full((4,), 3))[:, 0, 0, 0].tolist() == [1] * 4
    assert experts(x, t, class_labels=torch.tensor([10, 20, 30, 40]))[:, 0, 0, 0].tolist() == [11, 21, 32, 42]
    assert experts.config["in_channels"] == 3


# ---- matching ----


def test_a_matcher_learns_who_wears_what_and_comes_back(tmp_path, looks):
    torch.manual_seed(0)
    objective = MatchObjective(Matcher())
    optimiser, batch = torch.optim.Adam(objective.parameters(), 1e-3), Worn(looks).batch(range(8))
    for _ in range(120):
        parts = objective(batch, [])
        parts["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert objective(batch, [])["right"] >= 0.9
    matcher = objective.matcher.eval()
    matcher.save(tmp_path / "m.safetensors")
    again = Matcher.load(tmp_path / "m.safetensors")
    x, y = looks.pixels("person")[:4], looks.pixels("person")[4:]
    assert torch.equal(again.persons(x), matcher.persons(x))
    assert (matcher.distance(x, x) == 0).all() and (matcher.distance(x, y) > 0).all()
    near, far = (matcher.distance(x, x + strength * torch.randn_like(x)) for strength in (0.05, 0.3))
    assert (near < far).all()


# ---- all of it ----


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tryon"
    recipe = Recipe(
        effort=0.001, known=0.75, h2g=True, experts=True, preset="tiny", pixel_preset="tiny", vae_preset="tiny"
    )
    train_tryon(folder, out, recipe, SIZE)
    return out


def test_every_stage_leaves_what_the_next_one_needs(run):
    stages = json.loads((run / "stages.json").read_text())
    assert {"vae", "dress", "matcher", "base", "drawn", "errors", "bridge plain", "bridge classified"} <= stages.keys()
    assert json.loads((run / "h2g.json").read_text())["photographs"] == 2
    kept = 6 + json.loads((run / "h2g.json").read_text())["kept"]
    assert len(list((run / "drawn" / "train").iterdir())) == kept
    assert len(list((run / "drawn" / "test").iterdir())) == 4


def test_garments_that_were_taken_off_are_a_set_of_their_own_and_flagged(folder, run, tmp_path):
    """Untrained networks' garments pass no filter: here all of them pass."""
    source = TryOn(folder, "train", size=SIZE)
    looks = Looks.read(source).some([5, 2])
    looks.parts["garment"] = looks.parts["garment"].flip(1)  # other colours
    assert write(tmp_path / "set", source, made_of(source, looks)) == 2
    found = Looks.read(TryOn(tmp_path / "set", "train", size=SIZE))
    assert found.names == looks.names and found.synthetic.tolist() == [1, 1]
    for part in ("person", "agnostic", "agnostic_mask", "pose", "worn"):
        assert torch.equal(found.parts[part], looks.parts[part])
    assert (found.pixels("garment") - looks.pixels("garment")).abs().mean() < 0.05  # JPEG
    assert (run / "h2g.json").is_file() and Looks.read(source).synthetic.sum() == 0
    both = looks.joined(Looks.read(source).some([0]))
    assert both.synthetic.tolist() == [0, 0, 0] and both.joined(found).synthetic.tolist() == [0, 0, 0, 1, 1]


def test_the_base_model_keeps_what_is_not_drawn_anew(run, folder):
    looks = Looks.read(TryOn(folder, "test", size=SIZE))
    model, told = TryOnModel.from_pretrained(run), looks.given()
    x = model.base.draw(told, [0, 1, 2, 3], 3)
    kept = (told.mask == 0).expand_as(x)
    torch.testing.assert_close(x[kept], told.person[kept])
    alone = model.base.draw(told.rows(slice(2, 3)), [2], 3)
    torch.testing.assert_close(x[2:3], alone, atol=2e-2, rtol=0)  # the autoencoder's rounding in batches
    assert not torch.equal(x, model.base.draw(told, [9, 8, 7, 6], 3))


def test_refinement_is_the_bridge_with_the_classifiers_map(run, folder):
    looks = Looks.read(TryOn(folder, "test", size=SIZE))
    model, told = TryOnModel.from_pretrained(run), looks.given()
    x_1, M, x = model.try_on(told, [0, 1, 2, 3], steps=2, refinement=2)
    assert x.shape == x_1.shape == (4, 3, *SIZE) and M.shape == (4, 1, *SIZE)
    assert (M[told.mask == 0] == 0).all() and 0 <= M.min() <= M.max() <= 1
    others = [unlike(seed) for seed in range(4)]
    assert torch.equal(x, model.refine(x_1, told, others, 2, strength=0.0))
    assert not torch.equal(x, model.refine(x_1, told, others, 2, strength=5.0))
    assert torch.equal(x[(told.mask == 0).expand_as(x)], told.person[(told.mask == 0).expand_as(x)])


def test_the_commands_judge_and_draw(ldm, run, folder, tmp_path):
    asked = ["evaluate", "tryon", run, "--data", folder, "--evaluations", "2", "--json", tmp_path / "a.json"]
    status, out, err = ldm(*asked, "--sheet", tmp_path / "sheet.png")
    assert status == 0, err
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(row["kind"], row["variant"]) for row in found["rows"]] == [
        (kind, name)
        for kind in ("drawn", "flawed", "unpaired")
        for name in ("base", "again", "plain", "random", "classified", "experts", "pasted", "true")
        if (name != "again" or kind == "drawn") and (name != "true" or kind != "unpaired")
    ]
    assert table(found["rows"]) in out and set(found["classifier"]) == {"drawn", "flawed"}
    flawed = {row["variant"]: row for row in found["rows"] if row["kind"] == "flawed"}
    assert flawed["base"]["inside"] > 5 * flawed["base"]["outside"]  # errors lie in the true boxes
    assert flawed["plain"]["gain"] == 0 and flawed["classified"]["gain_se"] > 0
    assert found["base_error"]["train"] > 0 and found["floor"]["frechet"] > 0
    assert all({"ssim", "lpips"}.isdisjoint(row) for row in found["rows"] if row["kind"] == "unpaired")
    assert all(row["frechet"] > 0 and "kernel" in row for row in found["rows"])
    assert len(found["missing"]) == 2 and INCEPTION in out and "left out: LPIPS" in out
    assert Image.open(tmp_path / "sheet.png").size[0] > 7 * SIZE[1]
    status, out, err = ldm(
        "tryon", folder, "--model", run, "-n", 2, "--steps", 2, "--refinement", 2, "--sheet", "-o", tmp_path / "o"
    )
    assert status == 0, err
    assert len(out.split()) == 2 and all(Image.open(path).size[0] > 5 * SIZE[1] for path in out.split())


def test_the_same_command_goes_on(ldm, folder, tmp_path):
    told = ["--data", folder, "--size", "32x32", "--tiny", "--effort", 0.001, "--out", tmp_path / "run"]
    assert ldm("train", "tryon", *told, "--bridges", "")[0] == 0
    first = (tmp_path / "run" / "drawn" / "test").stat().st_mtime_ns
    status, out, err = ldm("train", "tryon", *told, "--bridges", "classified")
    assert (status, out.strip()) == (0, str(tmp_path / "run")), err
    assert (tmp_path / "run" / "bridge-classified" / "model").is_dir()
    assert not (tmp_path / "run" / "bridge-plain").exists()
    assert (tmp_path / "run" / "drawn" / "test").stat().st_mtime_ns == first


@pytest.mark.parametrize(
    "asked, message",
    [
        (["--size", "50x64"], "multiples of 16"),
        (["--known", "0"], "expected shares"),
        (["--h2g"], "share of known garments below 1"),
        (["--bridges", "none"], "expected some of plain"),
        (["--effort", "-1"], "expected shares"),
    ],
)
def test_what_train_tryon_refuses(ldm, folder, tmp_path, asked, message):
    status, _, err = ldm("train", "tryon", "--data", folder, *asked, "--out", tmp_path / "run")
    assert status == 2 and message in err and err.count("\n") == 1


def test_what_is_not_there(ldm, folder, tmp_path):
    for asked in (
        ["tryon", folder, "--model", tmp_path, "-o", tmp_path / "o"],
        ["evaluate", "tryon", tmp_path, "--data", folder],
    ):
        status, _, err = ldm(*asked)
        assert status == 2 and err.count("\n") == 1 and "ldm train tryon" in err
    assert ldm("train", "tryon", "--data", tmp_path / "none", "--out", tmp_path / "run")[0] == 2


def test_a_plan_is_never_empty():
    assert isinstance(Recipe(effort=1e-9).plan("vae", 4, 1e-3), Plan)
    assert alarms([torch.zeros(1, 4, 4)])["false_alarms"] == 0
