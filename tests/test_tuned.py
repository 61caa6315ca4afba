"""Torch at its fastest: the same picture in the same format, keys and values once, and what fails runs without."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from PIL import Image

from ldm.denoising import Condition, Denoiser, Last, guided, stacked
from ldm.engines import probing, tuned
from ldm.engines.probing import Choice, fastest
from ldm.noising import Diffusion

PROMPT = "a red apple on a blue background"
FEW = {"num_inference_steps": 3}


def levels(a, b):
    return max(np.abs(np.asarray(x).astype(int) - np.asarray(y)).max() for x, y in zip(a, b, strict=True))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Of a probe of this machine nothing else here depends."""
    monkeypatch.setattr(probing, "probe", lambda device, choice: 1.0)
    fastest.cache_clear()
    yield
    fastest.cache_clear()


@pytest.fixture
def fast():
    model = tiny_pipeline()
    model.tune()
    return model


# ---- the choice ----


@pytest.mark.parametrize(
    "seconds, chosen",
    [
        ({}, Choice()),
        ({torch.bfloat16: 0.95}, Choice()),  # nearly as fast: the more exact
        ({torch.bfloat16: 0.5}, Choice(torch.bfloat16, torch.channels_last)),
    ],
)
def test_the_fastest_is_chosen_and_the_more_exact_of_equals(monkeypatch, seconds, chosen):
    monkeypatch.setattr(probing, "probe", lambda device, choice: seconds.get(choice.dtype, 1.0))
    assert fastest("cpu") == chosen


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_dtype_that_is_given_is_taken(device, dtype):
    assert fastest(device, dtype).dtype == dtype


def test_a_probe_takes_time_and_leaves_the_random_numbers_alone(monkeypatch):
    monkeypatch.undo()
    state = torch.random.get_rng_state()
    assert probing.probe("cpu", Choice()) > 0
    assert torch.equal(state, torch.random.get_rng_state())


# ---- the same picture ----


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "heun", "dpm++2m_sde"])
def test_tuned_draws_what_torch_draws(pipeline, fast, sampler):
    for settings in ({}, {"guidance_interval": (0.3, 0.7)}, {"guidance_scale": 1.0}, {"height": 32, "width": 48}):
        asked = {**FEW, "sampler": sampler, **settings}
        assert levels(pipeline.text_to_image([PROMPT, ""], **asked), fast.text_to_image([PROMPT, ""], **asked)) <= 1


def test_models_of_other_doors_are_tuned_too():
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    for channels, task in ((9, partial(_inpainted, image=image)), (8, partial(_instructed, image=image))):
        plain, fast = tiny_pipeline(in_channels=channels), tiny_pipeline(in_channels=channels)
        fast.tune()
        assert levels(task(plain), task(fast)) <= 1


def _inpainted(model, image):
    return model.inpaint(PROMPT, image, image.convert("L"), **FEW)


def _instructed(model, image):
    return model.instruct(PROMPT, image, **FEW)


def test_classes_without_words():
    from ldm.training.presets import PRESETS, Doors, unet

    torch.manual_seed(0)
    network = unet(PRESETS["tiny"], 8, doors=Doors(text=False, classes=4)).eval()
    z, label, denoiser = torch.randn(2, 4, 8, 8), torch.tensor([0, 3]), Denoiser(network, Diffusion())
    expected = denoiser.output(z, 7, Condition(label=label)).detach()
    denoiser.unet = tuned.TunedUNet(network, Choice())
    torch.testing.assert_close(denoiser.output(z, 7, Condition(label=label)), expected)


def test_a_coarser_format_is_near_and_told(pipeline):
    model = tiny_pipeline()
    model.tune(torch.bfloat16)
    [image] = model.text_to_image(PROMPT, **FEW)
    assert image.info["ldm"]["engine"] == "tuned, bfloat16, channels_last"
    [expected] = pipeline.text_to_image(PROMPT, **FEW)
    assert 0 < levels([image], [expected]) and "engine" not in expected.info["ldm"]
    difference = np.asarray(image).astype(float) - np.asarray(expected)
    assert np.sqrt((difference**2).mean()) < 12  # of 255; the tiny model has loud random weights


def test_loras_of_before_stay_and_later_ones_are_refused(tmp_path):
    from safetensors.torch import save_file

    before, fast = tiny_pipeline(), tiny_pipeline()
    name = next(name for name in before.loras.sites if name.endswith("attn2_to_k"))
    wide, deep = before.loras.sites[name].weight.shape
    path = tmp_path / "lora.safetensors"
    ends = {"up": torch.ones(wide, 1), "down": torch.ones(1, deep)}
    save_file({f"lora_{name}.lora_{end}.weight": weight for end, weight in ends.items()}, path)
    for model in (before, fast):
        model.load_lora(path)
    fast.tune()
    assert levels(before.text_to_image(PROMPT, **FEW), fast.text_to_image(PROMPT, **FEW)) <= 1
    other = tiny_pipeline()
    other.tune()
    with pytest.raises(ValueError):
        other.load_lora(path)


def test_the_command_line_tunes(folder, ldm, tmp_path):
    from ldm.metadata import told

    asked = ["generate", PROMPT, "--model", folder, "--steps", 2, "--device", "cpu"]
    status, _, err = ldm(*asked, "--engine", "tuned", "-o", tmp_path / "a.png")
    assert status == 0 and "runs tuned, float32, contiguous_format" in err
    assert ldm(*asked, "--engine", "torch", "-o", tmp_path / "b.png")[0] == 0
    assert told(tmp_path / "a.png")["engine"] == "tuned, float32, contiguous_format"
    assert levels([Image.open(tmp_path / "a.png")], [Image.open(tmp_path / "b.png")]) <= 1


# ---- once ----


def test_keys_and_values_are_computed_once_for_all_steps(fast):
    read = []
    for layer in fast.denoiser.unet.kept:
        layer.layer.register_forward_hook(lambda *_: read.append(1))
    layers = len(fast.denoiser.unet.kept)
    fast.text_to_image(PROMPT, num_inference_steps=7)
    assert layers and len(read) == layers
    fast.text_to_image("three green pears", num_inference_steps=7)
    assert len(read) == 2 * layers


def test_each_prompt_has_its_own(pipeline, fast):
    for prompt in (PROMPT, "three green pears", PROMPT, ""):
        assert levels(pipeline.text_to_image(prompt, **FEW), fast.text_to_image(prompt, **FEW)) <= 1


def test_what_was_answered_last_is_answered_again_until_something_changes():
    calls = []

    def joined(*conditions):
        calls.append(1)
        return stacked(*conditions)

    last, a, b = Last(joined), torch.zeros(1, 2, 3), Condition(torch.ones(1, 2, 3))
    with torch.no_grad():
        assert last(a, b) is last(a, b) and len(calls) == 1
        a += 1
        assert torch.equal(last(a, b).text[0], a[0]) and len(calls) == 2
        assert torch.equal(last(b, a).text[0], b.text[0]) and len(calls) == 3
    last(b, a)
    last(b, a)
    assert len(calls) == 5  # where gradients are wanted


def test_guidance_in_inference_mode_and_with_a_condition_changed_in_place():
    def network(x, t, encoder_hidden_states):
        return x + encoder_hidden_states.mean((1, 2)).reshape(-1, 1, 1, 1)

    denoiser = guided(Denoiser(network, Diffusion()), torch.zeros(1, 2, 3), 2.0)
    with torch.inference_mode():
        z, cond = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 3)
        assert denoiser.output(z, 5, cond).unique().tolist() == [2.0]
    with torch.no_grad():
        z, cond = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 3)
        assert denoiser.output(z, 5, cond).unique().tolist() == [2.0]
        cond *= 3
        assert denoiser.output(z, 5, cond).unique().tolist() == [6.0]


# ---- compiled and recorded ----


def test_compiled_blocks_draw_the_same(pipeline, fast, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    unet = fast.denoiser.unet
    seen = []

    def backend(graph, samples):
        seen.append(graph)
        return graph.forward

    tuned.compiled(unet.unet, backend)
    unet.call = unet._plain
    for size in (64, 32, 48):
        asked = {**FEW, "height": size, "width": size}
        assert levels(pipeline.text_to_image(PROMPT, **asked), fast.text_to_image(PROMPT, **asked)) <= 1
    assert seen


def test_what_cannot_be_compiled_or_recorded_runs_without_and_says_so(pipeline, fast, caplog):
    def broken(graph, samples):
        raise AssertionError("no compiler here")

    unet = fast.denoiser.unet
    tuned.compiled(unet.unet, broken)
    unet.call = tuned.Recorded(unet._plain)  # nor is CUDA
    for _ in range(2):
        assert levels(pipeline.text_to_image(PROMPT, **FEW), fast.text_to_image(PROMPT, **FEW)) <= 1
    assert len([record for record in caplog.records if "it runs without" in record.message]) == 1


def test_out_of_memory_is_no_reason_to_give_up_what_is_recorded(fast):
    def full(given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    fast.denoiser.unet.call = full
    with pytest.raises(torch.OutOfMemoryError):
        fast.text_to_image(PROMPT, **FEW)
    assert fast.denoiser.unet.call is full


def test_a_recording_for_each_kind_of_call_and_not_too_many(monkeypatch):
    made = []

    def recorded(function, samples, warming):
        made.append([sample.shape for sample in samples])
        return lambda *tensors: function(*tensors)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    call = tuned.Recorded(lambda given: given["sample"] * given["timestep"])
    for side in (8, 8, 4, 8):
        given = {"sample": torch.ones(1, 1, side, side), "timestep": torch.tensor([3])}
        answer = call(given)
        assert answer.unique().tolist() == [3.0] and answer.shape[-1] == side
    assert len(made) == 2
    call({"sample": torch.ones(1, 1, 8, 8), "timestep": torch.tensor([3.0])})
    assert len(made) == 3
    for side in range(1, 2 * tuned.RECORDINGS):
        call({"sample": torch.ones(1, 1, side, side), "timestep": torch.tensor([3])})
        assert len(call.graphs) <= tuned.RECORDINGS
