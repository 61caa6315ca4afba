"""drawing: the same pictures whatever the batch, the memory and the company of other prompts."""

import logging

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from diffusers.models.unets.unet_2d import UNet2DModel

from ldm.denoising import Denoiser
from ldm.latents import LatentSpace
from ldm.noising import Diffusion
from ldm.pipeline import LatentDiffusion
from ldm.training.vae import autoencoder

LONG = ", ".join(["a red apple on a blue background"] * 6)
PROMPTS = ["a red apple", LONG, "three green pears", LONG + ", three green pears"]


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def test_a_short_prompt_does_not_depend_on_a_long_neighbour(pipeline):
    told = {"num_inference_steps": 4, "guidance_scale": 3.0}
    together = pipeline.text_to_image(PROMPTS, seed=[1, 2, 3, 4], negative_prompt=["", "", LONG, "x"], **told)
    for row, negative in enumerate(["", "", LONG, "x"]):
        alone = pipeline.text_to_image(PROMPTS[row], seed=row + 1, negative_prompt=negative, **told)
        assert np.abs(pixels(alone) - pixels(together[row : row + 1])).max() <= 1
        assert together[row].info["ldm"]["prompt"] == PROMPTS[row]


def test_embeds_of_several_chunks_go_with_a_short_negative_prompt(pipeline):
    told = {"num_inference_steps": 2, "output": "latent", "guidance_scale": 3.0}
    z = pipeline.text_to_image("", prompt_embeds=pipeline.text(LONG), **told)
    assert torch.allclose(z, pipeline.text_to_image(LONG, **told), atol=1e-5)


class Small(torch.nn.Module):
    """A device on which only so many rows fit into memory."""

    def __init__(self, unet, rows):
        super().__init__()
        self.unet, self.rows, self.config = unet, rows, unet.config

    def forward(self, x, *args, **kwargs):
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("out of memory")
        return self.unet(x, *args, **kwargs)


@pytest.mark.parametrize("sampler", ["ddpm", "euler_a", "dpm++2m_sde"])
def test_out_of_memory_draws_by_halves_and_says_so(pipeline, sampler, caplog):
    told = {"num_inference_steps": 3, "sampler": sampler, "num_images_per_prompt": 5, "guidance_scale": 3.0}
    small = LatentDiffusion(
        pipeline.latents, Denoiser(Small(pipeline.denoiser.unet, rows=6), pipeline.process), pipeline.text
    )
    small.scheduler = pipeline.scheduler
    with caplog.at_level(logging.WARNING, logger="ldm"):
        images = small.text_to_image("a red apple", **told)
        small.text_to_image("a red apple", **told)  # remembers, and says it once
    said = [record.getMessage() for record in caplog.records]
    assert said == ["out of memory: from here on no more than 3 pictures are drawn at once"]
    assert np.abs(pixels(images) - pixels(pipeline.text_to_image("a red apple", **told))).max() <= 1


def test_one_picture_that_does_not_fit_is_an_error(pipeline):
    small = LatentDiffusion(
        pipeline.latents, Denoiser(Small(pipeline.denoiser.unet, 1), pipeline.process), pipeline.text
    )
    with pytest.raises(torch.OutOfMemoryError):
        small.text_to_image("a red apple", num_inference_steps=2)


@pytest.mark.parametrize("memory, left", [("low", {"text"}), ("min", {"text", "latents", "denoiser"})])
def test_where_memory_is_short_parts_leave_and_the_pictures_are_the_same(folder, monkeypatch, memory, left):
    told = {"num_inference_steps": 2, "guidance_scale": 3.0}
    plain = LatentDiffusion.from_pretrained(folder).text_to_image(PROMPTS[:2], **told)
    short = LatentDiffusion.from_pretrained(folder, memory=memory)
    moved = {}
    for name in ("text", "latents", "denoiser"):
        part = getattr(short, name)
        monkeypatch.setattr(part, "to", lambda device, name=name: moved.setdefault(name, []).append(str(device)))
    assert np.abs(pixels(short.text_to_image(PROMPTS[:2], **told)) - pixels(plain)).max() <= 1
    assert set(moved) == left
    assert all(places[0] == str(short.device) and places[-1] == "cpu" for places in moved.values())


def test_another_memory_is_named(folder):
    with pytest.raises(ValueError, match="'tiny'"):
        LatentDiffusion.from_pretrained(folder, memory="tiny")


def test_repeated_calls_do_not_grow(pipeline):
    import gc

    def tensors():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    pipeline.text_to_image("a red apple", num_inference_steps=2)
    before = tensors()
    for seed in range(3):
        pipeline.text_to_image("a red apple", num_inference_steps=2, seed=seed)
    assert tensors() <= before


def test_a_stopped_drawing_says_where(pipeline):
    told = {"num_inference_steps": 8, "callback": lambda step, total, t, z_0: step < 3}
    images = pipeline.text_to_image(PROMPTS[:2], **told)  # in two groups: the second stops at once
    assert [image.info["ldm"]["cancelled"] for image in images] == ["at step 3 of 8", "at step 1 of 8"]
    steps = iter([True] * 9)  # all of the first picture and one step of the second
    told |= {"callback": lambda step, total, t, z_0: next(steps, False)}
    images = pipeline.text_to_image(PROMPTS[:2], **told)
    assert [image.info["ldm"].get("cancelled") for image in images] == [None, "at step 2 of 8"]
    assert "cancelled" not in pipeline.text_to_image("x", num_inference_steps=2)[0].info["ldm"]


# Models without words.


def small_unet(**changes):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **changes,
    ).eval()


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    return LatentSpace(autoencoder((16, 16, 16)).eval())


def test_unconditional_pictures(space, tmp_path):
    pipe = LatentDiffusion(space, Denoiser(small_unet(), Diffusion()), name="plain")
    pipe.save_pretrained(tmp_path / "plain")
    images = pipe.unconditional(3, num_inference_steps=3)
    assert [image.info["ldm"]["seed"] for image in images] == [0, 1, 2]
    again = LatentDiffusion.from_pretrained(tmp_path / "plain").unconditional(num_inference_steps=3, seed=2)
    assert np.abs(pixels(images[2:]) - pixels(again)).max() <= 1
    edited = pipe.image_to_image("", images[0], num_inference_steps=3)
    assert edited[0].size == images[0].size


def test_a_model_without_words_says_so(space):
    pipe = LatentDiffusion(space, Denoiser(small_unet(), Diffusion()))
    for bad in ({"prompt": "a cat"}, {"prompt": "", "guidance_scale": 3.0}, {"prompt": "", "negative_prompt": "dog"}):
        with pytest.raises(ValueError, match="words"):
            pipe.text_to_image(**bad)
    with pytest.raises(ValueError, match="label 1: expected a model of classes"):
        pipe.class_to_image(1)


@pytest.mark.parametrize("guided", [False, True])
def test_classes(space, guided):
    unet = small_unet(num_class_embeds=4)
    pipe = LatentDiffusion(space, Denoiser(unet, Diffusion()), defaults={"null_label": 3} if guided else {})
    told = {"num_inference_steps": 3, **({"guidance_scale": 2.0} if guided else {})}
    a, _, b = pipe.class_to_image([0, 0, 2], **told)
    assert np.abs(pixels([a]) - pixels([b])).max() > 3
    alone = pipe.class_to_image(2, **told)
    for labels in (np.array([0, 0, 2]), torch.tensor([0, 0, 2])):
        assert np.array_equal(pipe.class_to_image(labels, **told)[2], b)
    assert np.abs(pixels(alone) - pixels([b])).max() <= 1
    assert b.info["ldm"]["label"] == 2
    with pytest.raises(ValueError, match="label 4: expected a class from 0 to 3"):
        pipe.class_to_image(4)


def test_guidance_of_classes_is_the_formula(space):
    pipe = LatentDiffusion(space, Denoiser(small_unet(num_class_embeds=4), Diffusion()), defaults={"null_label": 3})
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = {}

    def first(step, total, t, z_0):
        seen.setdefault("z_0", z_0)

    pipe.class_to_image(1, guidance_scale=3.0, noise=noise, num_inference_steps=2, callback=first, height=32, width=32)
    outputs = [pipe.denoiser.unet(noise, 500, torch.tensor([label])).sample.detach() for label in (3, 1)]
    expected = pipe.process.recover(noise, 501, outputs[0] + 3 * (outputs[1] - outputs[0]))
    assert torch.allclose(seen["z_0"], expected, atol=1e-4)


def test_an_inpainting_model_of_the_second_generation_draws_in_its_mask():
    pipe = tiny_pipeline("v_prediction", in_channels=9, use_linear_projection=True, attention_head_dim=[1, 2])
    white = np.full((24, 32), 255, np.uint8)
    assert pipe.inpaint("x", np.zeros((24, 32, 3), np.uint8), white, num_inference_steps=2)[0].size == (32, 24)
