"""The tasks that begin at a picture: equal to diffusers' on the same weights and noise; what they keep and refuse."""

import diffusers
import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from PIL import Image

from ldm.pipeline import LatentDiffusion
from ldm.samplers import SAMPLERS

PROMPTS = ["a red apple", "three green pears on a blue background"]
NAMES = {name: (sampler.scheduler, dict(sampler.settings)) for name, sampler in SAMPLERS.items()}
NAMES["ddim"] = ("DDIMScheduler", {})
FAMILIES = {
    "1.x": {},
    "2.x": {"prediction_type": "v_prediction", "use_linear_projection": True, "attention_head_dim": [1, 2]},
    "inpainting": {"in_channels": 9},
    "pix2pix": {"in_channels": 8},
}
PICTURE = Image.fromarray((np.indices((32, 24)).sum(0)[..., None] * [4, 3, 2] + [10, 60, 90]).astype(np.uint8))
MASK = Image.new("L", (24, 32))
MASK.paste(255, (4, 8, 16, 24))


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Family -> our pipeline and its folder."""
    made = {}

    def family(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("families") / name
            tiny_pipeline(**FAMILIES[name]).save_pretrained(folder)
            made[name] = LatentDiffusion.from_pretrained(folder), folder
        return made[name]

    return family


def peer(folder, kind, sampler):
    """One of diffusers' pipelines, from the same folder."""
    pipe = kind.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    name, settings = NAMES[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings)
    return pipe


def seeded():
    return [torch.Generator().manual_seed(seed) for seed in (5, 6)]


def assert_same(ours, theirs, told, asked, **given):
    """z_0 within 1e-4 and pixels within 1 of 255, from the same seeds."""
    z = ours(PROMPTS, seed=[5, 6], output="latent", **told, **asked, **given)
    expected = theirs(PROMPTS, generator=seeded(), output_type="latent", **told, **given).images
    assert z.std() > 0.1
    assert torch.allclose(z, expected, atol=1e-4, rtol=0)
    images = ours(PROMPTS, seed=[5, 6], **told, **asked, **given)
    assert np.abs(pixels(images) - pixels(theirs(PROMPTS, generator=seeded(), **told, **given).images)).max() <= 1


TOLD = {"num_inference_steps": 10, "guidance_scale": 3.0, "negative_prompt": ["green", ""]}


@pytest.mark.parametrize("family", ["1.x", "2.x"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_text_to_image_equals_diffusers(models, family, sampler):
    ours, folder = models(family)
    theirs = peer(folder, diffusers.StableDiffusionPipeline, sampler)
    assert_same(ours.text_to_image, theirs, TOLD, {"sampler": sampler}, height=32, width=24)


@pytest.mark.parametrize("family", ["1.x", "2.x"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_image_to_image_equals_diffusers(models, family, sampler, strength):
    ours, folder = models(family)
    theirs = peer(folder, diffusers.StableDiffusionImg2ImgPipeline, sampler)
    told = {**TOLD, "guidance_scale": 1.5}
    asked = {"sampler": sampler, "as_diffusers": True}
    assert_same(ours.image_to_image, theirs, told, asked, image=PICTURE, strength=strength)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_the_steps_of_diffusers_are_rounded_down_in_floating_point(models, sampler):
    ours, folder = models("1.x")
    theirs = peer(folder, diffusers.StableDiffusionImg2ImgPipeline, sampler)
    told = {**TOLD, "num_inference_steps": 50, "guidance_scale": 1.0}
    asked = {"sampler": sampler, "as_diffusers": True}
    assert_same(ours.image_to_image, theirs, told, asked, image=PICTURE, strength=0.58)  # 28 steps, not 29


@pytest.mark.parametrize("family", ["1.x", "2.x", "inpainting"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_inpainting_equals_diffusers(models, family, sampler, strength):
    ours, folder = models(family)
    theirs = peer(folder, diffusers.StableDiffusionInpaintPipeline, sampler)

    def sized(prompt, mask, **told):  # it stretches pictures to squares unless told
        return theirs(prompt, mask_image=mask, height=32, width=24, **told)

    asked = {"sampler": sampler, "as_diffusers": True, "keep": False}
    told = {**TOLD, "guidance_scale": 1.5}
    given = {"image": [PICTURE] * 2, "mask": [MASK] * 2, "strength": strength}
    assert_same(ours.inpaint, sized, told, asked, **given)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guidance, image_guidance", [(1.5, 1.2), (1.2, 1.0)])
def test_an_editing_model_equals_diffusers(models, sampler, guidance, image_guidance):
    ours, folder = models("pix2pix")
    theirs = peer(folder, diffusers.StableDiffusionInstructPix2PixPipeline, sampler)
    told = {**TOLD, "guidance_scale": guidance, "image_guidance_scale": image_guidance}

    def repeated(prompt, image, **told):
        return theirs(prompt, [image] * 2, **told)

    assert_same(ours.instruct, repeated, told, {"sampler": sampler}, image=PICTURE)


@pytest.mark.parametrize(
    "family, task",
    [("2.x", "image_to_image"), ("1.x", "image_to_image"), ("inpainting", "inpaint"), ("pix2pix", "instruct")],
)
def test_the_comparison_would_notice_a_time_that_is_off_by_one(models, monkeypatch, family, task):
    ours, _ = models(family)
    more = {"mask": MASK} if task == "inpaint" else {}

    def drawn():
        told = {"num_inference_steps": 10, "guidance_scale": 1.5, "output": "latent", **more}
        return getattr(ours, task)("a red apple", image=PICTURE, **told)

    z, output = drawn(), type(ours.denoiser).output
    monkeypatch.setattr(type(ours.denoiser), "output", lambda self, z, t, cond: output(self, z, t - 1, cond))
    assert (drawn() - z).abs().max() > 1e-3


# What a picture keeps.


def photo(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(32, 32), (33, 18), (1, 1), (5, 70)])
@pytest.mark.parametrize("strength", [0.0, 0.01, 0.6, 1.0])
def test_an_edit_has_the_size_of_what_went_in(pipeline, size, strength):
    image = pipeline.image_to_image("a red apple", photo(*size), strength, num_inference_steps=3)[0]
    assert image.size == size
    assert (image.info["ldm"]["width"], image.info["ldm"]["height"]) == size


def test_strength_0_is_the_round_trip(pipeline):
    picture = photo(33, 18)
    image = pipeline.image_to_image("a red apple", picture, strength=0)[0]
    assert np.array_equal(image, pipeline.reconstruct(picture)[0])


def test_strength_1_does_not_see_the_picture(pipeline):
    told = {"strength": 1, "num_inference_steps": 3}
    a, b = (pipeline.image_to_image("x", photo(32, 32, seed), **told)[0] for seed in (0, 1))
    assert np.array_equal(a, b)
    assert np.array_equal(a, pipeline.text_to_image("x", num_inference_steps=3)[0])


@pytest.mark.parametrize("exact, steps, walked", [(False, 10, 3), (True, 10, 10), (True, 1, 1)])
def test_the_steps_that_are_run(pipeline, exact, steps, walked):
    seen = []
    told = {"num_inference_steps": steps, "callback": lambda step, total, t, z_0: seen.append((step, total))}
    image = pipeline.image_to_image("x", PICTURE, 0.3, exact_steps=exact, **told)[0]
    assert seen == [(step, walked) for step in range(1, walked + 1)]
    assert image.info["ldm"]["num_inference_steps"] == steps
    assert image.info["ldm"]["executed_steps"] == walked


@pytest.mark.parametrize("sampler", ["ddim", "euler", "pndm"])
@pytest.mark.parametrize("strength", [0.3, 0.55])
def test_exact_steps_begin_at_the_noise_that_strength_names(pipeline, sampler, strength):
    seen = []
    told = {"num_inference_steps": 50, "sampler": sampler, "callback": lambda step, total, t, z_0: seen.append(t)}
    pipeline.image_to_image("x", PICTURE, strength, exact_steps=True, guidance_scale=1.0, **told)
    assert seen[0] == pytest.approx(strength * 1000, abs=8)


def test_one_picture_serves_all_prompts_and_one_prompt_all_pictures(pipeline):
    told = {"num_inference_steps": 3, "seed": 4}
    together = pipeline.image_to_image(PROMPTS, PICTURE, num_images_per_prompt=2, **told)
    alone = pipeline.image_to_image(PROMPTS[1], PICTURE, **told)
    assert np.abs(pixels(together[2:3]) - pixels(alone)).max() <= 1
    others = pipeline.image_to_image(PROMPTS[1], [PICTURE, photo(24, 32)], **told)
    assert np.abs(pixels(others[:1]) - pixels(alone)).max() <= 1


@pytest.mark.parametrize("family", ["1.x", "inpainting"])
@pytest.mark.parametrize("size", [(32, 32), (37, 21)])
@pytest.mark.parametrize("feather", [0, 1, 6])
def test_pixels_outside_of_the_mask_are_kept_to_the_last_bit(models, family, size, feather):
    picture, mask = photo(*size), Image.new("L", size)
    mask.paste(255, (10, 8, 20, 14))
    image = models(family)[0].inpaint("x", picture, mask, feather=feather, num_inference_steps=3)[0]
    near = np.zeros(size[::-1], bool)
    near[8 - feather : 14 + feather, 10 - feather : 20 + feather] = True
    assert np.array_equal(np.asarray(image)[~near], np.asarray(picture)[~near])
    assert not np.array_equal(np.asarray(image)[near], np.asarray(picture)[near])


def test_what_is_drawn_in_the_mask_does_not_know_what_was_there(pipeline):
    """Away from the rim, whose latents the encoder mixes with their neighbours', and with the mask's own size."""
    pictures = [photo(64, 64)]
    pictures.append(pictures[0].copy())
    pictures[1].paste("red", (24, 24, 40, 40))
    mask = Image.new("1", (64, 64))
    mask.paste(1, (16, 16, 48, 48))
    told = {"num_inference_steps": 3, "output": "latent", "keep": False}
    a, b = (pipeline.inpaint("x", picture, mask, **told) for picture in pictures)
    assert torch.allclose(a, b, atol=0.15)  # what is outside sees the change through the encoder's normalisation
    assert (a - b).abs().mean() < (
        pipeline.latents.encode(pictures[0]) - pipeline.latents.encode(pictures[1])
    ).abs().mean()


def test_variations_come_from_their_own_seeds(pipeline):
    told = {"strength": 0.7, "num_inference_steps": 4, "seed": 3}
    several = pipeline.variations(PICTURE, count=3, **told)
    assert [image.info["ldm"]["seed"] for image in several] == [3, 4, 5]
    assert np.abs(pixels(several[:1]) - pixels(several[1:2])).max() > 10
    alone = pipeline.variations(PICTURE, count=1, **{**told, "seed": 4})
    assert np.abs(pixels(alone) - pixels(several[1:2])).max() <= 1


# From one to another.


def test_the_ends_of_a_walk_are_the_pictures_themselves(pipeline):
    told = {"num_inference_steps": 4, "guidance_scale": 2.0}
    frames = pipeline.interpolate(*PROMPTS, frames=4, seed=3, seed_b=8, **told)
    for frame, prompt, seed in ((frames[0], PROMPTS[0], 3), (frames[3], PROMPTS[1], 8)):
        picture = pipeline.text_to_image(prompt, seed=seed, **told)
        assert np.abs(pixels([frame]) - pixels(picture)).max() <= 1
    assert [frame.info["ldm"]["share"] for frame in frames] == [0.0, 0.3333, 0.6667, 1.0]
    step = [np.abs(pixels([a]) - pixels([b])).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert max(step) < np.abs(pixels(frames[:1]) - pixels(frames[3:])).mean()


def test_a_walk_between_two_pictures(pipeline):
    pictures = [photo(33, 18, 0), photo(33, 18, 1)]
    frames = pipeline.interpolate("", "", frames=3, image_a=pictures[0], image_b=pictures[1], strength=0)
    for frame, picture in zip((frames[0], frames[2]), pictures, strict=True):
        assert np.abs(pixels([frame]) - pixels(pipeline.reconstruct(picture))).max() <= 1
    assert frames[1].size == (33, 18)


def test_a_walk_with_prompts_of_different_lengths(pipeline):
    frames = pipeline.interpolate("x", "a red apple, " * 12, frames=2, num_inference_steps=2)
    assert len(frames) == 2


# What is refused.


@pytest.mark.parametrize(
    "task, bad, said",
    [
        ("image_to_image", {"strength": 1.5}, "strength 1.5"),
        ("image_to_image", {"strength": float("nan")}, "strength nan"),
        ("image_to_image", {"strength": 0.01, "exact_steps": True, "num_inference_steps": 20}, "strength of 0.02"),
        ("image_to_image", {"image": [PICTURE] * 3}, "3 pictures for 2 prompts"),
        ("image_to_image", {"height": 32}, "expected both"),
        ("image_to_image", {"seed": -4}, "-4"),
        ("image_to_image", {"image": "nothing.png"}, "nothing.png"),
        ("inpaint", {"mask": Image.new("L", (24, 32))}, "black all over"),
        ("inpaint", {"mask": Image.new("L", (32, 24), 255)}, "32x24"),
        ("inpaint", {"mask": MASK, "feather": -1}, "feather -1"),
        ("instruct", {}, "channels"),
    ],
)
def test_bad_arguments_are_named(pipeline, task, bad, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        getattr(pipeline, task)(PROMPTS, **{"image": PICTURE, **bad})


def test_an_unknown_argument_is_named(pipeline):
    with pytest.raises(TypeError, match="'guidance'"):
        pipeline.image_to_image("x", PICTURE, guidance=3)


@pytest.mark.parametrize("bad", [{"frames": 0}, {"image_a": PICTURE}, {"seed": [1, 2]}, {"num_images_per_prompt": 2}])
def test_walks_that_make_no_sense_are_refused(pipeline, bad):
    with pytest.raises(ValueError, match="frames|pictures|seeds|num_images_per_prompt"):
        pipeline.interpolate("a", "b", **bad)


def test_seeds_of_any_kind(pipeline):
    assert len(pipeline.interpolate("a", "b", frames=2, seed=np.int64(3), num_inference_steps=1)) == 2
    assert len(pipeline.interpolate("a", "b", frames=2, seed=None, num_inference_steps=1)) == 2


@pytest.mark.parametrize("task, bad", [("unconditional", "guidance_scale"), ("unconditional", "num_images_per_prompt")])
def test_what_a_task_would_not_heed_is_refused(pipeline, task, bad):
    with pytest.raises(ValueError, match=bad):
        getattr(pipeline, task)(**{bad: 2})


@pytest.mark.parametrize(
    "family, task, use", [("inpainting", "text_to_image", "inpaint"), ("pix2pix", "image_to_image", "instruct")]
)
def test_a_model_that_needs_a_picture_says_which_task_gives_it(models, family, task, use):
    more = {"image": PICTURE} if task == "image_to_image" else {}
    with pytest.raises(ValueError, match=f"that is for {use}"):
        getattr(models(family)[0], task)("x", **more)
