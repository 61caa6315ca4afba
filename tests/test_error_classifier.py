"""The error classifier: what its map may depend on, its losses, its data, and that it learns where errors are."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ldm.checkpoints import CheckpointError
from ldm.data.tryon import TryOn
from ldm.evaluation.error_maps import alarms, evaluate_error_maps, judged, located
from ldm.training import curves
from ldm.training.error_classifier import ErrorObjective, anywhere, boxed, train_error_classifier
from ldm.training.plan import Plan
from ldm.training.randomness import keyed
from ldm.training.twins import Twin, Twins, collate, twins, worn
from ldm.tryon.classifier import ErrorClassifier
from ldm.tryon.heat import heat, heated

SIDE = 24
SHORT = Plan(steps=4, batch_size=4, warmup=1, save_every=2, log_every=1, tensorboard=False)


def pixels(count=2, height=24, width=16, seed=0):
    return torch.rand(count, 3, height, width, generator=keyed(seed)) * 2 - 1


def classifier(widths=(8, 16), **told):
    torch.manual_seed(0)
    return ErrorClassifier(widths, **told).eval()


# ---- a made world: a square in the garment's two colours and, where a model has erred, a patch in another ----


def colours(generator, count):
    """Colours that nobody confuses: the corners and the middles of the edges of the cube."""
    corners = [c for c in np.ndindex(3, 3, 3) if 1 not in c or c.count(1) == 1]
    chosen = torch.randperm(len(corners), generator=generator)[:count]
    return [tuple(110 * value + 17 for value in corners[i]) for i in chosen.tolist()]


def twin(index, seed=0, labelled=True):
    """Person and garment of SIDE x SIDE; the garment's colours stand to the left and to the right."""
    generator = keyed(seed, index)
    left, right, wrong = colours(generator, 3)
    garment = Image.new("RGB", (SIDE, SIDE), left)
    garment.paste(right, (SIDE // 2, 0, SIDE, SIDE))
    real = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    x, y, across, down = torch.randint(0, 9, (4,), generator=generator).tolist()
    wide, high = torch.randint(6, 9, (2,), generator=generator).tolist()
    real.paste(garment.resize((16, 16)), (x, y))
    box = (x + across, y + down, x + across + wide, y + down + high)
    generated = real.copy()
    generated.paste(wrong, box)
    return Twin(f"{index}.png", real, generated, garment, [box] if labelled else None)


def world(count, seed=0, share=1.0, flip=True):
    return Twins((twin(i, seed) for i in range(count)), (SIDE, SIDE), share, flip=flip)


# ---- the network ----


@pytest.mark.parametrize(("height", "width"), [(24, 16), (13, 9), (5, 40)])
def test_a_map_has_the_size_of_its_picture(height, width):
    model, x = classifier((8, 16, 16)), pixels(2, height, width)
    logits, found = model(x, pixels(2, 11, 7)), model.error_map(x, pixels(2, 11, 7))
    assert logits.shape == (2, 1, -(-height // 4), -(-width // 4)) and found.shape == (2, 1, height, width)
    assert 0 <= found.min() and found.max() <= 1
    with pytest.raises(ValueError, match="no garment is given"):
        model.error_map(x)


def test_it_looks_at_the_garment_but_at_no_other_place_of_the_picture():
    model, x, garment = classifier(layers=2), pixels(), pixels(seed=1)
    before = model(x, garment)
    changed = x.clone()
    changed[..., 20:, 12:] = 1.0
    after = model(changed, garment)
    torch.testing.assert_close(after[..., :6, :], before[..., :6, :], rtol=1e-5, atol=1e-6)
    assert (after - before)[..., 10:, 6:].abs().min() > 1e-4
    assert (model(x, garment.flip(0)) - before).abs().max() > 1e-4


def test_where_a_thing_lies_in_the_garment_counts():
    model, x, garment = classifier(), pixels(), pixels(seed=1)
    assert (model(x, garment.flip(-1)) - model(x, garment)).abs().max() > 1e-5


def test_rows_do_not_know_each_other():
    model, x, garment = classifier(), pixels(3), pixels(3, seed=1)
    alone = torch.cat([model(x[i : i + 1], garment[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, garment), alone, rtol=1e-5, atol=1e-6)


def test_the_map_has_a_gradient_for_guidance():
    x = pixels().requires_grad_()
    classifier().error_map(x, pixels(seed=1)).mean().backward()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("garments", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path, garments):
    model, x = classifier(heads=2, garments=garments), pixels()
    model.save_pretrained(tmp_path / "classifier")
    loaded = ErrorClassifier.from_pretrained(tmp_path / "classifier")
    assert loaded.config == model.config and json.loads((tmp_path / "classifier" / "config.json").read_text())
    garment = x if garments else None
    assert torch.equal(loaded(x, garment), model(x, garment)) and not loaded.training


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        ErrorClassifier.from_pretrained(tmp_path)
    classifier().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "widths": [8, 24]}))
    with pytest.raises(CheckpointError, match="shape"):
        ErrorClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderKL"}))
    with pytest.raises(CheckpointError, match="AutoencoderKL"):
        ErrorClassifier.from_pretrained(tmp_path)
    for changes in ({"widths": "wide"}, {"widths": [10**9]}, {"layers": 10**6}, {"heads": None}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(CheckpointError, match="config.json cannot be read"):
            ErrorClassifier.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="multiple of the heads"):
        ErrorClassifier((8, 18), heads=4)
    with pytest.raises(ValueError, match="by themselves"):
        classifier(garments=False)(pixels(), pixels())


def test_heat():
    zero, one = torch.zeros(1, 4, 6), torch.ones(1, 4, 6)
    assert heat(zero).getpixel((0, 0)) == (0, 0, 0) and heat(one).getpixel((5, 3)) == (255, 250, 170)
    image = Image.new("RGB", (6, 4), (200, 30, 30))
    grey = image.convert("L").convert("RGB")
    assert heated(image, zero).tobytes() == grey.tobytes()
    half = zero.clone()
    half[..., 3:] = 1
    shown = heated(image, half)
    assert shown.size == (6, 4) and shown.getpixel((0, 0)) == grey.getpixel((0, 0)) and shown.getpixel((5, 0))[0] > 200


# ---- the losses ----


def samples(count=6, share=1.0):
    data = world(count, share=share)
    return collate([data.draw(i, keyed(2, i)) for i in range(count)])


def rows(sample, part):
    """Some rows of a batch."""
    return type(sample)(*(rows(own, part) if isinstance(own, tuple) else own[part] for own in sample))


def test_the_losses_are_their_formulas():
    logits = torch.tensor([[[[-1.0, 2.0], [0.5, -3.0]]]])
    m = torch.sigmoid(logits)
    torch.testing.assert_close(anywhere(logits, torch.ones(1)), -m.amax().log()[None])
    torch.testing.assert_close(anywhere(logits, torch.zeros(1)), -(1 - m.amax()).log()[None])
    shares = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    inside = -(m[0, 0, 0, 1].log() + 0.5 * m[0, 0, 1, 0].log()) / 1.5
    outside = -((1 - m)[0, 0, 0, 0].log() + 0.5 * (1 - m)[0, 0, 1, 0].log() + (1 - m)[0, 0, 1, 1].log()) / 2.5
    torch.testing.assert_close(boxed(logits, shares), (inside + outside)[None])
    torch.testing.assert_close(boxed(logits, torch.zeros_like(shares)), -(1 - m).log().mean()[None])
    torch.testing.assert_close(boxed(logits, torch.ones_like(shares)), -m.log().mean()[None])


def test_more_than_the_maximum_may_be_asked_for():
    logits = torch.tensor([[[[-1.0, 2.0], [0.5, -3.0]]]])
    torch.testing.assert_close(anywhere(logits, torch.ones(1), 0.5), F.softplus(torch.tensor([-1.25])))
    assert torch.equal(anywhere(logits, torch.ones(1), 0.0), anywhere(logits, torch.ones(1), 0.25))


def test_the_loss_is_the_weighted_sum_of_its_parts_and_does_not_depend_on_the_split():
    batch = samples()
    objective = ErrorObjective(classifier(), real=0.5, box=2.0)
    parts = objective(batch, [])
    torch.testing.assert_close(parts["loss"], parts["generated"] + 0.5 * parts["real"] + 2 * parts["box"])
    halves = [objective(rows(batch, part), []) for part in (slice(0, 2), slice(2, 6))]
    for name, whole in parts.items():
        torch.testing.assert_close(whole, halves[0][name] / 3 + 2 * halves[1][name] / 3)
    assert set(parts) == {"loss", "generated", "real", "box", "found", "false_alarms"}
    assert "box" not in objective(samples(share=0.0), [])


def test_each_part_is_that_of_its_pictures():
    batch, model = samples(), classifier()
    parts = ErrorObjective(model)(batch, [])
    one, zero = torch.ones(6), torch.zeros(6)
    torch.testing.assert_close(parts["generated"], anywhere(model(batch.generated, batch.garment), one).mean())
    torch.testing.assert_close(parts["real"], anywhere(model(batch.real, batch.garment), zero).mean())
    marked = batch.marked
    expected = boxed(model(marked.generated, marked.garment), F.avg_pool2d(marked.covered, 2)).mean()
    torch.testing.assert_close(parts["box"], expected)


def test_a_generated_picture_without_error_counts_as_real():
    seen = [twin(0), Twin("1.png", *[twin(1).real] * 2, twin(1).garment, [])]
    data = Twins(seen, (SIDE, SIDE))
    assert [data[i].flawed.item() for i in range(2)] == [1, 0] and not data.mark(1).covered.any()
    unknown = Twins(seen, (SIDE, SIDE), share=0.0)
    assert [unknown[i].flawed.item() for i in range(2)] == [1, 1] and not unknown.boxes


@pytest.mark.parametrize("told", [{"real": -1.0}, {"box": -0.1}, {"top": 1.1}])
def test_weights_out_of_range_are_refused(told):
    with pytest.raises(ValueError, match="expected"):
        ErrorObjective(classifier(), **told)


# ---- the data ----


def written(folder, count=4, suffix="png"):
    """Twins on disk: real, generated and garments in folders, and their boxes."""
    for name in ("real", "generated", "garments"):
        (folder / name).mkdir(parents=True)
    boxes = {}
    for i in range(count):
        one = twin(i)
        one.real.save(folder / "real" / one.name)
        one.generated.save((folder / "generated" / one.name).with_suffix(f".{suffix}"))
        one.garment.save(folder / "garments" / one.name)
        boxes[f"{i}.{suffix}"] = [list(box) for box in one.boxes]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder


def test_folders_are_joined_by_name_whatever_the_suffix(tmp_path, caplog):
    folder = written(tmp_path, suffix="webp")
    (folder / "generated" / "2.webp").unlink()
    found = list(twins(folder / "real", folder / "generated", json.loads((folder / "boxes.json").read_text())))
    assert [one.name for one in found] == ["0.png", "1.png", "3.png"] and found[0].garment is None
    assert list(map(tuple, found[1].boxes)) == [tuple(twin(1).boxes[0])]
    assert "1 pictures have no generated one" in caplog.text


def test_what_cannot_be_read_is_passed_over_and_named(tmp_path, caplog):
    folder = written(tmp_path)
    (folder / "generated" / "0.png").write_bytes(b"no picture")
    assert len(list(twins(folder / "real", folder / "generated", {}))) == 3
    assert "0.png" in caplog.text
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(twins(folder / "real", folder / "nowhere", {}))
    with pytest.raises(ValueError, match="same names"):
        Twins(twins(folder / "real", folder / "garments" / "..", {}), (8, 8))


def test_a_try_on_set_gives_its_garments(tmp_path):
    folder, root = written(tmp_path / "made"), tmp_path / "set"
    for place in ("image", "cloth", "image-parse-v3"):
        (root / "train" / place).mkdir(parents=True)
    for i in range(4):
        twin(i).real.save(root / "train" / "image" / f"{i}.png")
        twin(i).garment.save(root / "train" / "cloth" / f"{i}.png")
    (root / "train_pairs.txt").write_text("".join(f"{i}.png {(i + 1) % 4}.png\n" for i in range(4)))
    found = list(worn(TryOn(root, size=(8, 8)), folder / "generated", {"1.png": []}))
    assert [one.name for one in found] == [f"{i}.png" for i in range(4)]
    assert found[2].garment.tobytes() == twin(2).garment.tobytes() and found[2].real.size == (SIDE, SIDE)
    assert found[1].boxes == [] and found[2].boxes is None


def test_boxes_follow_size_and_mirror():
    one = Twin("a", *[Image.new("RGB", (64, 32))] * 3, [(0, 0, 16, 16), (48, 24, 64, 32)])
    sample = Twins([one], (8, 16)).mark(0)
    expected = torch.zeros(1, 8, 16)
    expected[:, :4, :4] = 1
    expected[:, 6:, 12:] = 1
    assert torch.equal(sample.covered, expected) and sample.generated.shape == (3, 8, 16)
    with pytest.raises(ValueError, match="a: box"):
        Twins([Twin("a", *[Image.new("RGB", (8, 8))] * 3, [(0, 0, 9, 4)])], (8, 8))


def test_all_of_a_sample_is_mirrored_or_none():
    data = world(3, share=0.34)
    (only,) = data.boxes
    known = [(data[1].real, data[1].generated, data[1].garment), tuple(data.mark(only))]
    seen = set()
    for i in range(24):
        drawn, again = (data.draw(1, keyed(5, i)) for _ in range(2))
        found = [(drawn.real, drawn.generated, drawn.garment), tuple(drawn.marked)]
        assert torch.equal(drawn.real, again.real) and torch.equal(drawn.marked.covered, again.marked.covered)
        which = tuple(torch.equal(own[0], one[0].flip(-1)) for own, one in zip(found, known, strict=True))
        for own, one, mirrored in zip(found, known, which, strict=True):
            assert all(torch.equal(a, b.flip(-1) if mirrored else b) for a, b in zip(own, one, strict=True))
        seen.add(which)
    assert len(seen) == 4
    still = world(3, flip=False)
    assert all(torch.equal(still.draw(1, keyed(5, i)).real, known[0][0]) for i in range(6))


def test_every_picture_with_boxes_comes_up():
    data = world(8, share=0.5, flip=False)
    drawn = [data.draw(0, keyed(6, i)).marked.generated for i in range(60)]
    assert all(any(torch.equal(data.mark(index).generated, one) for one in drawn) for index in data.boxes)


def test_few_boxes_are_drawn_by_the_seed():
    few = [Twins(map(twin, range(40)), (8, 8), 0.1, seed).boxes.keys() for seed in (0, 0, 1)]
    assert len(few[0]) == 4 and few[0] == few[1] != few[2]


def test_data_that_differ_are_told_apart():
    told = [world(4), world(4), world(5), world(4, seed=1), world(4, share=0.5), world(4, flip=False)]
    assert len({json.dumps(data.identity()) for data in told}) == 5
    with pytest.raises(ValueError, match="some with"):
        Twins([twin(0), Twin("1", twin(1).real, twin(1).real)], (8, 8))
    with pytest.raises(ValueError, match="share"):
        world(2, share=2.0)


# ---- evaluation ----


def test_figures_of_maps_that_know_all_nothing_and_half():
    boxes = [torch.zeros(2, 8, 8), torch.zeros(0, 8, 8)]
    boxes[0][0, :4, :4], boxes[0][1, 6:, 6:] = 1, 1
    truth = [boxes[0].amax(0, keepdim=True), torch.zeros(1, 8, 8)]
    perfect = located(truth, boxes)
    assert perfect == {"precision": 1, "recall": 1, "average_precision": 1, "chance": 20 / 128, "boxes_found": 1}
    blind = located([torch.full((1, 8, 8), 0.3)] * 2, boxes)
    assert blind["average_precision"] == pytest.approx(20 / 128) and blind["boxes_found"] == blind["recall"] == 0
    half = located([truth[0] * (torch.arange(8) < 4), torch.ones(1, 8, 8)], boxes)
    assert half["recall"] == 0.8 and half["precision"] == pytest.approx(16 / 80) and half["boxes_found"] == 0.5
    assert alarms([truth[0], truth[1]]) == {"false_alarms": 0.5, "alarmed": 20 / 128}
    with pytest.raises(ValueError, match="in a box"):
        located(truth[1:], boxes[1:])


# ---- training ----


@pytest.fixture(scope="module", autouse=True)
def no_curves():
    """They take as long as these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def trained(no_curves, tmp_path_factory):
    """The same training with image-level labels alone, and with boxes of one picture in twenty beside."""
    plan = Plan(steps=300, batch_size=8, learning_rate=4e-3, warmup=20, ema=0.95, save_every=1000, tensorboard=False)
    folder = tmp_path_factory.mktemp("runs")
    return {
        s: train_error_classifier(folder / str(s), world(1000, share=s), plan, (16, 32), top=0.03) for s in (0.0, 0.05)
    }


@pytest.fixture(scope="module")
def unseen():
    return world(64, seed=9)


def test_told_which_pictures_are_generated_it_learns_where_they_are_wrong(trained, unseen):
    generated, real = judged(trained[0.0], unseen)
    inside = torch.stack([unseen.boxes[i].amax(0, keepdim=True) > 0.5 for i in range(64)])
    found = torch.stack(generated)
    assert found[inside].mean() > 1.5 * found[~inside].mean() > 0
    assert torch.stack(real).mean() < 0.6 * found[inside].mean()
    figures = evaluate_error_maps(trained[0.0], unseen)
    assert figures["average_precision"] > 2.5 * figures["chance"] and figures["false_alarms"] < 0.2
    assert figures["count"] == figures["checked"] == 64


def test_a_few_boxes_make_the_map_better(trained, unseen):
    weak, few = (evaluate_error_maps(trained[share], unseen) for share in (0.0, 0.05))
    assert few["average_precision"] > 1.25 * weak["average_precision"] and few["recall"] > 1.25 * weak["recall"]


def test_a_clean_picture_is_wrong_beside_another_garment(trained, unseen):
    batch = collate([unseen[i] for i in range(64)])
    with torch.no_grad():
        own, other = (trained[0.05].error_map(batch.real, g) for g in (batch.garment, batch.garment.roll(1, 0)))
    assert other.mean() > 1.5 * own.mean() and (other.flatten(1).amax(1) > 0.5).float().mean() > 0.5


def test_a_training_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch):
    data = world(12, share=0.5)
    whole = train_error_classifier(tmp_path / "whole", data, SHORT, (8, 16))
    monkeypatch.setattr(data, "draw", stopping(data.draw, after=9))
    with pytest.raises(KeyboardInterrupt):
        train_error_classifier(tmp_path / "parts", data, SHORT, (8, 16))
    monkeypatch.undo()
    parts = train_error_classifier(tmp_path / "parts", data, SHORT, (8, 16))
    assert all(torch.equal(value, parts.state_dict()[name]) for name, value in whole.state_dict().items())
    loaded = ErrorClassifier.from_pretrained(tmp_path / "parts" / "classifier")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert Image.open(tmp_path / "parts" / "maps.png").width > 8 * SIDE
    with pytest.raises(ValueError, match="box"):
        train_error_classifier(tmp_path / "parts", data, SHORT, (8, 16), box=2.0)
    with pytest.raises(ValueError, match="data"):
        train_error_classifier(tmp_path / "parts", world(11, share=0.5), SHORT, (8, 16))


def stopping(draw, after):
    """`draw`, interrupted in its call number `after`."""
    calls = []

    def stopped(index, generator):
        calls.append(index)
        if len(calls) > after:
            raise KeyboardInterrupt
        return draw(index, generator)

    return stopped


def test_every_parameter_has_a_gradient_whether_or_not_there_are_garments():
    for garments in (True, False):
        seen = [twin(i) if garments else Twin(str(i), twin(i).real, twin(i).generated) for i in range(2)]
        data = Twins(seen, (SIDE, SIDE))
        objective = ErrorObjective(classifier(garments=garments))
        objective(collate([data[0], data[1]]), [])["loss"].backward()
        assert not [name for name, parameter in objective.named_parameters() if parameter.grad is None]


# ---- the command ----

QUICK = ("--preset", "tiny", "--steps", 2, "--batch-size", 2, "--save-every", 2, "--size", 16, "--no-tensorboard")


def test_the_command_trains_on_two_folders(ldm, tmp_path):
    folder = written(tmp_path)
    told = ("--real", folder / "real", "--generated", folder / "generated", "--boxes", folder / "boxes.json")
    status, out, err = ldm("train", "error-classifier", *told, "--share", 1, "--out", tmp_path / "run", *QUICK)
    assert status == 0 and out.strip() == str(tmp_path / "run" / "classifier"), err
    assert not ErrorClassifier.from_pretrained(tmp_path / "run" / "classifier").garments
    assert "found" in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["--generated", "g"], "--real"),
        (["--generated", "g", "--real", "r", "--data", "d"], "--real"),
        (["--generated", "g", "--real", "r", "--category", "dresses"], "--category"),
        (["--generated", "g", "--real", "nowhere"], "nowhere"),
        (["--generated", "g", "--data", "nowhere"], "nowhere"),
        (["--generated", "g", "--real", "r", "--preset", "huge"], "huge"),
        (["--generated", "g", "--real", "r", "--boxes", "none.json"], "none.json"),
        (["--generated", "g", "--real", "r", "--size", "0x8"], "--size 0"),
        (["--generated", "g", "--real", "r", "--share", "2"], "share 2.0"),
        (["--generated", "g", "--real", "r", "--box-weight", "-1"], "box -1.0"),
    ],
)
def test_what_cannot_be_done_is_one_line(ldm, tmp_path, monkeypatch, told, said):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    (tmp_path / "real").rename("r")
    (tmp_path / "generated").rename("g")
    status, out, err = ldm("train", "error-classifier", "--out", "run", *told)
    assert status == 2 and said in err and err.count("\n") == 1 and not (tmp_path / "run").exists()
