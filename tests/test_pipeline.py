"""The pipeline: equal to diffusers' on the same weights and noise, independent of the batch, clear about bad input."""

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline

from ldm import checkpoints
from ldm.pipeline import LatentDiffusion

SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}
PROMPTS = ["a red apple", "three green pears on a blue background"]


def peer(folder, sampler):
    """diffusers' own pipeline from the same folder."""
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    name, settings = SCHEDULERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings)
    return pipe


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity") / request.param
    tiny_pipeline(request.param).save_pretrained(folder)
    return LatentDiffusion.from_pretrained(folder), folder


@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_equals_diffusers(pair, sampler, guidance):
    ours, folder = pair
    theirs = peer(folder, sampler)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    told = {"num_inference_steps": 9, "guidance_scale": guidance, "negative_prompt": ["green", ""]}
    z = ours.text_to_image(PROMPTS, sampler=sampler, noise=noise, output="latent", **told)
    expected = theirs(PROMPTS, latents=noise, output_type="latent", **told).images
    assert z.std() > 0.1
    assert torch.allclose(z, expected, atol=1e-4, rtol=0)
    images = ours.text_to_image(PROMPTS, sampler=sampler, noise=noise, **told)
    assert np.abs(pixels(images) - pixels(theirs(PROMPTS, latents=noise, **told).images)).max() <= 1


def test_the_comparison_would_notice_a_time_that_is_off_by_one(pair):
    ours, _ = pair
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cond = ours.text("a red apple")
    assert (ours.denoiser.output(z, 500, cond) - ours.denoiser.output(z, 501, cond)).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler_a", "dpm++2m_sde", "lcm"])
def test_a_picture_does_not_depend_on_its_neighbours(pipeline, sampler):
    told = {"num_inference_steps": 6, "sampler": sampler}
    together = pipeline.text_to_image(PROMPTS, seed=3, num_images_per_prompt=3, **told)
    alone = pipeline.text_to_image(PROMPTS[1], seed=4, **told)
    assert np.abs(pixels(alone) - pixels(together[4:5])).max() <= 1
    listed = pipeline.text_to_image(PROMPTS, seed=[9, 4], **told)
    assert np.abs(pixels(alone) - pixels(listed[1:])).max() <= 1


def test_another_seed_is_another_picture(pipeline):
    a, b = pipeline.text_to_image("a red apple", num_images_per_prompt=2, num_inference_steps=3)
    assert np.abs(pixels([a]) - pixels([b])).max() > 10


def test_metadata_tell_how_to_repeat_the_picture(pipeline):
    first = pipeline.text_to_image(
        "a red apple", seed=5, num_images_per_prompt=2, num_inference_steps=4, guidance_scale=2
    )[1]
    told = first.info["ldm"]
    assert (told["prompt"], told["seed"], told["num_inference_steps"]) == ("a red apple", 6, 4)
    names = ("prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "sampler", "height", "width")
    again = pipeline.text_to_image(**{name: told[name] for name in names})[0]
    assert np.abs(pixels([first]) - pixels([again])).max() <= 1
    assert first.info["parameters"].startswith(
        "a red apple\nSteps: 4, Sampler: DDIM, CFG scale: 2, Seed: 6, Size: 32x32"
    )


def test_a_checkpoint_s_own_rescale_of_guidance_is_taken_unless_told_otherwise(pipeline, monkeypatch):
    told = {"num_inference_steps": 2, "guidance_scale": 6.0, "output": "latent"}
    plain, rescaled = (pipeline.text_to_image("x", guidance_rescale=share, **told) for share in (0.0, 0.7))
    assert torch.equal(pipeline.text_to_image("x", **told), plain)
    monkeypatch.setitem(pipeline.defaults, "guidance_rescale", 0.7)
    assert torch.equal(pipeline.text_to_image("x", **told), rescaled)
    assert torch.equal(pipeline.text_to_image("x", guidance_rescale=0.0, **told), plain)
    assert not torch.equal(plain, rescaled)


def test_sizes(pipeline):
    image = pipeline.text_to_image("a red apple", height=20, width=44, num_inference_steps=2)[0]
    assert image.size == (44, 20)


def test_prompt_embeds_stand_for_the_prompt(pipeline):
    embeds = pipeline.text(["a red apple"])
    told = {"num_inference_steps": 2, "output": "latent"}
    assert torch.equal(
        pipeline.text_to_image("", prompt_embeds=embeds, **told), pipeline.text_to_image("a red apple", **told)
    )


def test_a_callback_can_stop_and_an_interrupt_leaves_the_pipeline_usable(pipeline):
    seen = []
    pipeline.text_to_image(
        "x", num_inference_steps=8, callback=lambda step, total, t, z_0: seen.append((step, total)) or step < 3
    )
    assert seen == [(1, 8), (2, 8), (3, 8)]

    def interrupt(step, total, t, z_0):
        raise KeyboardInterrupt

    before = pipeline.text_to_image("x", num_inference_steps=2)
    with pytest.raises(KeyboardInterrupt):
        pipeline.text_to_image("x", num_inference_steps=2, callback=interrupt)
    assert np.array_equal(pixels(before), pixels(pipeline.text_to_image("x", num_inference_steps=2)))


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"num_inference_steps": 0}, "steps 0"),
        ({"num_inference_steps": 1001}, "1001"),
        ({"guidance_scale": -1.0}, "-1.0"),
        ({"guidance_scale": float("nan")}, "nan"),
        ({"height": 0}, "height 0"),
        ({"width": 7}, "width 7"),
        ({"sampler": "magic"}, "magic"),
        ({"seed": -1}, "-1"),
        ({"seed": [1, 2]}, "2 seeds"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt 0"),
        ({"output": "jpeg"}, "jpeg"),
        ({"negative_prompt": ["a", "b"]}, "2 negative"),
        ({"noise": torch.zeros(1, 4, 3, 3)}, "noise"),
        ({"noise": torch.full((1, 4, 8, 8), torch.nan)}, "noise"),
        ({"prompt_embeds": torch.zeros(1, 2, 3)}, "prompt_embeds"),
    ],
)
def test_bad_arguments_are_named_in_one_line(pipeline, bad, said):
    with pytest.raises(ValueError, match=said) as error:
        pipeline.text_to_image("a red apple", **bad)
    assert "\n" not in str(error.value)


def test_reconstruct_keeps_sizes(pipeline):
    from PIL import Image

    images = [Image.new("RGB", size, "teal") for size in ((1, 1), (33, 18))]
    assert [image.size for image in pipeline.reconstruct(images)] == [(1, 1), (33, 18)]


@pytest.fixture(scope="module")
def embedded():
    return LatentDiffusion.from_pretrained("emoji")


@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_embedded_model_equals_diffusers(embedded, sampler, guidance):
    theirs = peer(checkpoints.resolve("emoji"), sampler)
    shape = embedded.latent_shape(embedded.size(None, None))
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    told = {"num_inference_steps": 6, "guidance_scale": guidance}
    z = embedded.text_to_image("a red apple", noise=noise, output="latent", sampler=sampler, **told)
    expected = theirs("a red apple", latents=noise, output_type="latent", **told).images
    assert torch.allclose(z, expected, atol=1e-4, rtol=0)
    images = embedded.text_to_image("a red apple", noise=noise, sampler=sampler, **told)
    assert np.abs(pixels(images) - pixels(theirs("a red apple", latents=noise, **told).images)).max() <= 1


def test_the_embedded_model_in_four_steps_is_it_with_adapters(embedded):
    quick = LatentDiffusion.from_pretrained("emoji-lcm")
    image = quick.text_to_image("a red apple", seed=0)[0]
    told = image.info["ldm"]
    assert (told["num_inference_steps"], told["guidance_scale"], told["sampler"]) == (4, 1.0, "lcm")
    assert torch.equal(quick.text("a red apple"), embedded.text("a red apple"))
    ones, others = (model.denoiser.unet.state_dict() for model in (quick, embedded))
    assert ones.keys() == others.keys() and any(not torch.equal(ones[name], others[name]) for name in ones)
    slow = embedded.text_to_image("a red apple", seed=0)[0]
    assert np.abs(pixels([image]) - pixels([slow])).mean() < 40
