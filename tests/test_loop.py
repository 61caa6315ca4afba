"""The loop: a step is its formula, whatever the split; what is not finite is skipped; the run is reported."""

import copy
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import torch
from runs import Points, Tiny, plan
from safetensors.torch import save_file
from torch import nn

from ldm.draws import gaussian, integers, uniform
from ldm.noising import Diffusion
from ldm.training import checkpoint, curves, log, processes
from ldm.training.conditions import Batch, Conditions, Doors
from ldm.training.diffusion import PRESETS, SCHEDULER, DiffusionObjective, unet
from ldm.training.loop import _Samples, fit
from ldm.training.order import batches, places, shares
from ldm.training.plan import Plan
from ldm.training.randomness import keyed, number, streams
from ldm.training.state import SETTLE_EVERY, State
from ldm.training.step import advance
from ldm.training.vae import Recipe, VAEObjective, autoencoder

CPU = torch.device("cpu")


def taken(iterator, count):
    return [next(iterator) for _ in range(count)]


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_curves(request, monkeypatch):
    """Drawing takes longer than these trainings."""
    if not {"curves", "matplotlib"} & set(request.node.originalname.split("_")):
        monkeypatch.setattr(curves, "draw", lambda folder: None)


# ---- the plan ----


def test_the_rate_rises_and_ends_at_zero():
    told = Plan(steps=100, warmup=10, learning_rate=2.0)
    rates = [told.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0, abs=1e-12)


def test_a_constant_rate_stays():
    told = Plan(steps=100, warmup=10, learning_rate=2.0, schedule="constant")
    assert [told.learning_rate_at(step) for step in (4, 9, 50, 99)] == [1.0, 2.0, 2.0, 2.0]


def test_the_average_forgets_its_start_first():
    told = Plan(steps=1, ema=0.99)
    assert told.ema_at(0) == 0.1 and told.ema_at(90) == 0.91 and told.ema_at(10**4) == 0.99


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": -1}, {"ema": 1.0}, {"mixed_precision": "fp8"}, {"clip": 0.0}, {"keep": 0}]
)
def test_a_plan_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} .*expected"):
        Plan(**{"steps": 1, **wrong})


# ---- order and randomness ----


def test_every_epoch_sees_every_sample_once_and_restarts_do_not_matter():
    whole = taken(batches(10, 3, seed=5), 10)
    for start in (1, 4, 7):
        assert taken(batches(10, 3, seed=5, start=start), 10 - start) == whole[start:]
    seen = [place for batch in whole for place in batch]
    assert sorted(seen) == [(epoch, index) for epoch in range(3) for index in range(10)]
    assert [index for _, index in seen[:10]] != [index for _, index in seen[10:20]]
    assert taken(batches(10, 3, seed=6), 10) != whole


@pytest.mark.parametrize("processes, accumulation", [(1, 1), (2, 1), (4, 1), (2, 3), (1, 7)])
def test_processes_and_parts_share_out_the_same_batch(processes, accumulation):
    batch = taken(places(100, seed=0), 8 if processes * accumulation < 8 else 11)
    parts = [part for process in range(processes) for part in shares(batch, process, processes, accumulation)]
    assert len(parts) == processes * accumulation
    assert sorted(place for part in parts for place in part) == sorted(batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_too_small_to_share_is_refused():
    with pytest.raises(ValueError, match="batch_size 3: expected 4"):
        shares([(0, 0), (0, 1), (0, 2)], 0, 2, 2)
    with pytest.raises(ValueError, match="no samples"):
        next(batches(0, 4, 0))


def test_only_samples_of_one_size_share_a_batch_and_none_is_lost():
    sizes = [(64, 64)] * 7 + [(32, 128)] * 4 + [(128, 32)]
    whole = taken(batches(12, 3, seed=1, sizes=sizes), 40)
    assert all(len({sizes[index] for _, index in batch}) == 1 and len(batch) == 3 for batch in whole)
    assert taken(batches(12, 3, seed=1, start=17, sizes=sizes), 23) == whole[17:]
    seen = [place for batch in whole for place in batch]
    assert len(set(seen)) == len(seen) and {(0, index) for index in range(12)} <= set(seen)


def test_generators_depend_on_their_key_alone():
    keys = [(0, 1), (1, 0), (0, -1, 1), (0, 2), (0, 2, "data"), (0, 1, 2), (0, 12)]
    assert len({torch.randn(1, generator=keyed(*key)).item() for key in keys}) == len(keys)
    assert torch.equal(torch.randn(5, generator=keyed(0, 1)), torch.randn(5, generator=keyed(0, 1)))
    assert number(0, 1) == 0x76E3AD33397EA5FD  # the same on every machine and in every version, or no run goes on


def test_each_row_is_drawn_by_its_own_generator():
    def drawn(rows, draw):
        return draw([keyed(0, 0, row) for row in rows])

    for draw in (uniform, lambda own: integers(own, 3, 90)):
        whole = drawn(range(200), draw)
        assert whole.shape == (200,) and torch.equal(whole[[5, 3]], drawn([5, 3], draw))
    assert 0 <= drawn(range(200), uniform).min() < 0.1 and 0.9 < drawn(range(200), uniform).max() < 1
    assert sorted(set(drawn(range(200), lambda own: integers(own, 3, 6)).tolist())) == [3, 4, 5]


def test_items_are_augmented_by_their_epoch_and_index():
    samples = _Samples(Points(), seed=4)
    (_, first), (_, again), (_, later) = samples[0, 3], samples[0, 3], samples[1, 3]
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], later[0]) and torch.equal(first[1], later[1])


# ---- the average ----


class Parts(nn.Module):
    """Something that learns, something that does not, and a buffer."""

    def __init__(self):
        super().__init__()
        self.net, self.critic, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(1))


def test_the_average_is_its_formula():
    state = State(Parts(), plan(), CPU)
    net, seen = state.objective.net, state.objective.seen
    before = state.average.net.weight.clone()
    with torch.no_grad():
        net.weight += 1
        seen += 5
    state.update_average(0.9)
    assert torch.allclose(state.average.net.weight, 0.9 * before + 0.1 * net.weight)
    assert state.average.seen.item() == 5 and not state.average.net.weight.requires_grad


def test_the_average_is_kept_in_float32_and_shares_what_does_not_learn():
    objective = Parts().to(torch.bfloat16)
    state = State(objective, plan(), CPU)
    assert state.average.net.weight.dtype == torch.float32
    assert state.average.frozen.weight is objective.frozen.weight
    assert not any("frozen" in name for name in state.tensors())
    assert State(Parts().double(), plan(), CPU).average.net.weight.dtype == torch.float64


def test_without_memory_the_average_is_the_weights_themselves():
    state = State(Parts(), plan(ema=0.0), CPU)
    assert state.average.net.weight is state.objective.net.weight and state.average.seen is state.objective.seen
    assert state.objective.net.weight.requires_grad and not state.average.training and state.objective.training


def test_only_what_an_objective_names_is_averaged():
    objective = Parts()
    objective.averaged = ("net",)
    state = State(objective, plan(), CPU)
    assert [name for name, _ in state.average.named_parameters()] == ["net.weight", "net.bias"]
    assert {"model/critic.weight", "average/net.weight"} < state.tensors().keys()
    assert "average/critic.weight" not in state.tensors()


def test_momentum_that_faded_becomes_nothing_before_it_is_denormal():
    """As where a unit no longer fires: its gradient is 0 for good."""
    told, objective = plan(batch_size=1, steps=1200, weight_decay=0.0), Grouped()
    state = State(objective, told, CPU)
    for step in range(told.steps):
        for parameter in objective.parameters():
            parameter.grad = torch.ones_like(parameter) if step == 0 else torch.zeros_like(parameter)
        state.optimizer.step()
        if step % SETTLE_EVERY == 0:
            state.settle()
        momenta = [slots["exp_avg"] for slots in state.optimizer.state.values()]
        assert all((momentum == 0).all() or momentum.min() > torch.finfo(torch.float32).tiny for momentum in momenta)
    assert momenta and all((momentum == 0).all() for momentum in momenta)


# ---- a step ----


def reference(steps, told, dtype=torch.float64):
    """The same training, written out for one process."""
    model, data = Tiny(dtype), _Samples(Points(dtype), told.seed)
    average = Tiny(dtype).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=told.weight_decay)
    for step, batch in enumerate(taken(batches(len(data.data), told.batch_size, told.seed), steps)):
        x, y = (torch.stack(column) for column in zip(*(data[place][1] for place in batch)))
        noise = gaussian(streams(told.seed, batch), (4,))
        optimizer.zero_grad()
        (model.net(x + 0.1 * noise.to(dtype)) - y).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), told.clip)
        optimizer.param_groups[0]["lr"] = told.learning_rate_at(step)
        optimizer.step()
        decay = min(told.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters()):
                slow.copy_(decay * slow + (1 - decay) * fast)
    return model, average


@pytest.mark.parametrize("accumulation", [1, 3, 8])
@pytest.mark.parametrize("rest", [{"clip": 0.2}, {"clip": math.inf, "ema": 0.0}], ids=str)
def test_a_run_is_a_plain_loop_however_its_batches_are_parted(tmp_path, accumulation, rest):
    told = plan(accumulation=accumulation, **rest)
    objective = Tiny(torch.float64)
    average = fit(objective, Points(torch.float64), told, tmp_path)
    model, expected = reference(told.steps, told)
    for found, wanted in ((objective, model), (average, expected)):
        for name, value in wanted.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(average.net[0].weight, Tiny(torch.float64).net[0].weight)  # it has moved


def test_workers_change_nothing(tmp_path):
    for workers in (0, 2):
        fit(Tiny(), Points(), plan(workers=workers, save_every=12), tmp_path / str(workers))
    assert runs.differences(*(runs.final(tmp_path / str(workers)) for workers in (0, 2))) == []


class Grouped(Tiny):
    """The last layer learns at half the rate; the step is wanted, and what modules draw by themselves."""

    step = -1

    def __init__(self):
        super().__init__()
        self.steps, self.drawn, self.compiled = [], [], 0

    def groups(self):
        return [{"params": self.net[:2].parameters()}, {"params": self.net[2].parameters(), "lr_scale": 0.5}]

    def compile(self):
        self.compiled += 1

    def forward(self, batch, generators):
        self.steps.append(self.step)
        self.drawn.append(torch.rand(1).item())
        return super().forward(batch, generators)


@pytest.mark.parametrize("kind", ["vae", "unet"])
def test_the_optimiser_is_plain_adamw_on_networks_of_convolutions(kind):
    """The fused one is only right where weight, gradient and moments lie in memory alike."""
    told, batch = plan(batch_size=2, clip=1e9), [(0, 0), (0, 1)]
    if kind == "vae":
        vae, given = autoencoder((8, 16)), torch.rand(2, 3, 16, 16, dtype=torch.float64)
        objective = VAEObjective(vae, Recipe(equivariance=0.5, adversarial=0.5)).double()
    else:
        network = unet(PRESETS["tiny"], 8, doors=Doors(text=False))
        objective = DiffusionObjective(network, Diffusion.from_config(SCHEDULER), Conditions()).double()
        given = Batch(torch.rand(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
    twin = copy.deepcopy(objective)
    state, plain = State(objective, told, CPU), None
    for step in range(3):
        advance(state, objective, [(batch, given)], told)
        groups = twin.groups() if kind == "vae" else [{"params": twin.parameters()}]
        plain = plain or torch.optim.AdamW(groups, weight_decay=told.weight_decay, foreach=False, fused=False)
        for group in plain.param_groups:
            group["lr"] = told.learning_rate_at(step)
        twin(given, streams(told.seed, batch))["loss"].backward()
        plain.step()
        plain.zero_grad()
    for (name, found), wanted in zip(objective.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7, msg=name)


def test_groups_have_their_own_rates_and_the_step_is_told(tmp_path):
    """Adam's first step has the size of the rate."""
    objective, before = Grouped(), Grouped()
    fit(objective, Points(), plan(steps=1, warmup=0, weight_decay=0.0), tmp_path)
    moved = [(a - b).abs().max().item() for a, b in zip(objective.parameters(), before.parameters())]
    assert moved == pytest.approx([0.01, 0.01, 0.005, 0.005], rel=1e-3)
    assert objective.steps == [0]


def test_what_modules_draw_by_themselves_is_drawn_again_after_a_restart(tmp_path):
    whole = Grouped()
    fit(whole, Points(), plan(), tmp_path)
    (tmp_path / "checkpoint-00000012.safetensors").unlink()
    torch.manual_seed(99)
    again = Grouped()
    fit(again, Points(), plan(), tmp_path)
    assert again.steps == [9, 10, 11] and again.drawn == whole.drawn[9:] and len(set(whole.drawn)) == 12


def test_compilation_is_the_objectives_own(tmp_path):
    for told in (False, True):
        objective = Grouped()
        fit(objective, Points(), plan(steps=1, compile=told), tmp_path / str(told))
        assert objective.compiled == told


class Autoencoding(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, generators):
        return {"loss": (self.net(x).sample - x).square().mean()}


class Noise:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.randn(3, 16, 16, generator=keyed(0, index))


def test_gradient_checkpointing_changes_no_weight(tmp_path):
    from diffusers import AutoencoderKL

    for told in (False, True):
        torch.manual_seed(0)
        net = AutoencoderKL(norm_num_groups=4, block_out_channels=[8]).double()
        data = [Noise()[index].double() for index in range(4)]
        told = plan(steps=2, batch_size=2, gradient_checkpointing=told, save_every=2)
        fit(Autoencoding(net), data, told, tmp_path / str(told.gradient_checkpointing))
        assert net.encoder.gradient_checkpointing == told.gradient_checkpointing
    one, other = (runs.final(tmp_path / name, 2) for name in ("False", "True"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        fit(Tiny(), Points(), plan(gradient_checkpointing=True), tmp_path / "none")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_keeps_float32_weights(tmp_path, precision):
    class Listener(Tiny):
        def forward(self, batch, generators):
            self.dtype = self.net(batch[0]).dtype
            return super().forward(batch, generators)

    objective, exact = Listener(), Tiny()
    fit(objective, Points(), plan(mixed_precision=precision), tmp_path / "mixed")
    fit(exact, Points(), plan(), tmp_path / "exact")
    assert objective.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    for a, b in zip(objective.parameters(), exact.parameters()):
        assert a.dtype == torch.float32 and not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.01)


# ---- several processes ----


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_two_and_four_processes_learn_what_one_does(tmp_path):
    """The same global batch in float64, 20 steps: losses to 1e-8; the same rates, the same average."""
    for count in (1, 2, 4):
        started = runs.start(tmp_path / str(count), count, double=True, steps=20, save_every=20)
        assert runs.ended(started) == [0] * count, (tmp_path / f"{count}-0.txt").read_text()
    one = rows(tmp_path / "1")
    assert [row["step"] for row in one] == list(range(1, 21)) and one[-1]["loss"] != one[0]["loss"]
    for count in (2, 4):
        several = rows(tmp_path / str(count))
        assert {row["processes"] for row in several} == {count}
        for name, tolerance in (("loss", 1e-8), ("size", 1e-8), ("gradient_norm", 1e-8), ("learning_rate", 0)):
            assert [row[name] for row in several] == pytest.approx([row[name] for row in one], abs=tolerance, rel=0)
        found, wanted = runs.final(tmp_path / str(count), 20), runs.final(tmp_path / "1", 20)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10)
    told = plan(steps=20)
    assert [row["learning_rate"] for row in one] == [told.learning_rate_at(step) for step in range(20)]
    assert one[-1]["learning_rate"] < 0.01 * told.learning_rate


def test_torchrun_starts_as_many_processes_as_asked(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", runs.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([*command, tmp_path], capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert {row["processes"] for row in rows(tmp_path)} == {2}


def test_a_process_that_knows_no_others_does_not_train_alone(monkeypatch):
    assert processes.here().num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes were started, but 1"):
        processes.here()


def test_a_process_that_was_joined_with_no_others_ends_as_any_other_does(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # a share of a job that needs no joining, such as ldm encode's
    with pytest.raises(SystemExit) as ended:
        processes.leave(2)
    assert ended.value.code == 2


def test_what_the_main_process_finds_wrong_is_raised():
    def wrong():
        raise ValueError("so")

    assert processes.told_by_main(lambda: 5) == 5
    with pytest.raises(ValueError, match="so"):
        processes.told_by_main(wrong)


# ---- what is not finite ----


def batch_of(told, step):
    return sorted(index for _, index in next(batches(25, told.batch_size, told.seed, step)))


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    told = plan(steps=3, batch_size=4, save_every=1, keep=9, warmup=0)
    damaged = [index for index in batch_of(told, 1) if index not in batch_of(told, 0) + batch_of(told, 2)]
    fit(Tiny(), Points(nan=damaged[:1]), told, tmp_path)
    first, second, third = (runs.final(tmp_path, step) for step in (1, 2, 3))
    assert runs.differences(first, second) == [] and len(runs.differences(second, third)) == len(first)
    skipped = [row for row in rows(tmp_path) if "skipped" in row]
    assert skipped == [
        {"step": 2, "skipped": {"gradient_norm": "nan", "loss": "nan", "size": skipped[0]["skipped"]["size"]},
         "samples": batch_of(told, 1)}
    ]  # fmt: skip
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 3]


class Steep(Tiny):
    """A loss that is finite, with a gradient that is not."""

    def forward(self, batch, generators):
        loss = (self.net[2].bias - self.net[2].bias.detach()).abs().sqrt().mean()
        return {"loss": super().forward(batch, generators)["loss"] + loss}


def test_a_gradient_that_is_not_finite_is_a_skipped_step(tmp_path):
    with pytest.raises(FloatingPointError, match="step 2: .* 2 times in a row"):
        fit(Steep(), Points(), plan(steps=2, save_every=1), tmp_path)
    assert runs.differences(runs.final(tmp_path, 0), runs.final(tmp_path, 1)) == []


def test_after_so_many_in_a_row_the_run_stops_and_says_where(tmp_path):
    told = plan(steps=9, patience=3, save_every=1)
    with pytest.raises(FloatingPointError) as caught:
        fit(Tiny(), Points(nan=range(25)), told, tmp_path)
    assert str(caught.value).startswith("step 3: the loss or its gradient was not finite 3 times in a row")
    assert str(batch_of(told, 2)) in str(caught.value) and "\n" not in str(caught.value)


def test_skipped_steps_in_a_row_are_counted_across_a_restart(tmp_path):
    told = plan(steps=9, patience=3, save_every=1)
    for _ in range(2):  # the second run begins after step 2, with two skipped already
        with pytest.raises(FloatingPointError, match="step 3: .* 3 times"):
            fit(Tiny(), Points(nan=range(25)), told, tmp_path)
        (tmp_path / "checkpoint-00000003.safetensors").unlink()


def test_a_scaler_that_overflows_searches_its_scale(tmp_path):
    """fp16: a gradient past 65504 is skipped, the scale halves, and the steps after it count again."""

    class Loud(Tiny):
        def forward(self, batch, generators):
            return {"loss": super().forward(batch, generators)["loss"] * 2.0**5}

    told = plan(steps=40, mixed_precision="fp16", patience=20, save_every=40, clip=math.inf)
    fit(Loud(), Points(), told, tmp_path)
    skipped = [row["step"] for row in rows(tmp_path) if "skipped" in row]
    assert skipped[:2] == [1, 2] and len(skipped) < 10
    scaler = checkpoint.read(tmp_path / "checkpoint-00000040.safetensors").facts["scaler"]
    assert scaler["scale"] == 2.0 ** (16 - len(skipped)) and scaler["_growth_tracker"] == 40 - skipped[-1]


# ---- the report ----


def test_rows_are_means_and_the_curves_are_drawn(tmp_path):
    fine, coarse = tmp_path / "fine", tmp_path / "coarse"
    fit(Tiny(), Points(), plan(), fine)
    fit(Tiny(), Points(), plan(log_every=4), coarse)
    assert [row["step"] for row in rows(coarse)] == [4, 8, 12]
    for name in ("loss", "size", "gradient_norm"):
        means = [sum(row[name] for row in rows(fine)[i : i + 4]) / 4 for i in (0, 4, 8)]
        assert [row[name] for row in rows(coarse)] == pytest.approx(means, rel=1e-8)
    assert {"learning_rate", "images_per_second", "peak_memory_mib", "processes"} < rows(fine)[0].keys()
    assert all(row["images_per_second"] > 0 and row["peak_memory_mib"] > 50 for row in rows(fine))
    assert json.loads((fine / "settings.json").read_text())["batch_size"] == 8
    assert (fine / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_every_number_has_its_panel_and_rows_without_a_loss_none():
    pytest.importorskip("matplotlib")
    drawn = curves.figure([{"step": 2, "loss": 1.0, "kl": 0.5}, {"step": 4, "loss": 0.5, "l1": 0.1}])
    assert [panel.get_title() for panel in drawn.axes] == ["loss", "kl", "l1"]
    assert list(drawn.axes[0].lines[0].get_xdata()) == [2, 4] and drawn.axes[0].get_yscale() == "log"


def test_without_matplotlib_a_line_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    curves._able.cache_clear()
    fit(Tiny(), Points(), plan(), tmp_path)
    curves._able.cache_clear()
    assert len(caplog.messages) == 1 and "matplotlib is not installed" in caplog.text
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("wanted, lines", [(None, 0), (False, 0), (True, 1)])
def test_tensorboard_is_missed_only_if_asked_for(tmp_path, monkeypatch, caplog, wanted, lines):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(log, "find_spec", lambda name: None if name == "tensorboard" else True)
    with caplog.at_level(logging.WARNING):
        fit(Tiny(), Points(), plan(steps=2, tensorboard=wanted), tmp_path)
    assert len(caplog.messages) == lines and ("pip install tensorboard" in caplog.text) == bool(lines)


def test_tensorboard_has_the_rows_and_the_samples(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(Tiny(), Points(), plan(tensorboard=True), tmp_path, preview=Preview(tmp_path))
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in rows(tmp_path) if "loss" in row]
    assert [event.step for event in found.Images("samples")] == [3, 6, 9, 12]


class Preview:
    """Draws the average's answer to 0 as a grey."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, []

    def __call__(self, average, step):
        from PIL import Image

        self.seen.append((step, average.net[0].weight.clone(), average.training))
        path = self.folder / f"samples-{step}.png"
        Image.new("L", (4, 4), 100).save(path)
        return path


def test_samples_are_drawn_from_the_average_with_every_checkpoint(tmp_path):
    preview = Preview(tmp_path)
    average = fit(Tiny(), Points(), plan(keep=9), tmp_path, preview=preview)
    assert [step for step, *_ in preview.seen] == [3, 6, 9, 12] and not any(training for *_, training in preview.seen)
    for step, weight, _ in preview.seen:
        assert torch.equal(weight, runs.final(tmp_path, step)["average/net.0.weight"])
    assert torch.equal(preview.seen[-1][1], average.net[0].weight)
    pictures = [row for row in rows(tmp_path) if "picture" in row]
    assert pictures == [{"step": step, "picture": f"samples-{step}.png"} for step in (3, 6, 9, 12)]


def test_progress_goes_to_a_terminal_only(tmp_path, capsys):
    fit(Tiny(), Points(), plan(), tmp_path)
    assert capsys.readouterr() == ("", "")


# ---- the command line ----


def called(*words):
    """A command that shows its plan, called with these words."""
    import typer
    from typer.testing import CliRunner

    from ldm.cli.train.plan import Out, planned

    app, seen = typer.Typer(), []

    @app.command()
    @planned(steps=7, batch_size=5, ema=0.5)
    def train(out: Out, plan: Plan, side: int = 3) -> None:
        """Trains."""
        seen.append((out, plan, side))

    return CliRunner().invoke(app, [str(word) for word in words]), seen


def test_a_commands_plan_is_made_of_its_options():
    assert called("-o", "a")[1] == [(Path("a"), Plan(steps=7, batch_size=5, ema=0.5), 3)]
    words = ("-o", "a", "--side", 4, "--steps", 9, "--gradient-checkpointing", "--no-tensorboard", "--clip", "inf")
    wanted = Plan(steps=9, batch_size=5, ema=0.5, gradient_checkpointing=True, tensorboard=False, clip=math.inf)
    assert called(*words)[1] == [(Path("a"), wanted, 4)]


def test_every_part_of_a_plan_is_an_option_and_a_wrong_one_is_named_as_written():
    from dataclasses import fields

    from ldm.cli.train.plan import OPTIONS

    assert set(OPTIONS) == {field.name for field in fields(Plan)}
    for words, message in (
        (("--batch-size", 0), "--batch-size 0: expected"),
        (("--clip", -1), "--clip -1.0: expected"),
    ):
        refused, seen = called("-o", "a", *words)
        assert str(refused.exception).startswith(message) and not seen


@pytest.mark.parametrize("facts", ["[]", "{}", '{"step": "1"}', "[" * 100_000, "nonsense"])
def test_a_checkpoint_whose_facts_say_no_step_is_one_line(tmp_path, facts):
    path = tmp_path / "checkpoint-00000001.safetensors"
    save_file({"a": torch.ones(2)}, path, {"facts": facts, "settings": "{}", "crc32": "0"})
    with pytest.raises(ValueError, match="checkpoint-00000001.safetensors is damaged") as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value)


def test_facts_and_tensors_of_another_state_are_refused():
    state = State(Tiny(), plan(), torch.device("cpu"))
    with pytest.raises(ValueError, match="its optimiser or scaler"):
        state.restore(state.tensors(), {"step": 1})
    with pytest.raises(ValueError, match="its optimiser or scaler"):
        state.restore(state.tensors() | {"optimizer/99/step": torch.ones(())}, state.facts())


def test_lines_of_a_log_that_are_no_rows_are_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n5\n[]\n{"loss": 2}\n{"step": "a"}\n{"st\n' + "[" * 100_000 + "\n")
    assert log.rows(tmp_path / "log.jsonl") == [{"step": 1}]
