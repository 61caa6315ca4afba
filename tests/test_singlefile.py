"""Single files: written here in the published names, they give the same modules as the folder that diffusers makes.

The names come from a small model of CompVis' own constructors, below, and are anchored by a list of published ones; the
folder comes from diffusers' own conversion of the same tensors. Neither knows the code under test.
"""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import CAPTIONS
from safetensors.torch import load_file, save_file

from ldm import checkpoints
from ldm.checkpoints import CheckpointError
from ldm.text import Tokenizer
from ldm.training.tokenizer import train_tokenizer

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
LENGTH, FEATURES, LAYERS = 12, 64, 2

# ---- CompVis' constructors, as shapes by name ----


def linear(name, out, into, bias=True):
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def conv(name, out, into, side):
    return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def resblock(name, into, out, time):
    shapes = norm(f"{name}.in_layers.0", into) | conv(f"{name}.in_layers.2", out, into, 3)
    shapes |= linear(f"{name}.emb_layers.1", out, time)
    shapes |= norm(f"{name}.out_layers.0", out) | conv(f"{name}.out_layers.3", out, out, 3)
    return shapes | (conv(f"{name}.skip_connection", out, into, 1) if into != out else {})


def transformer(name, width, context, flat):
    block, project = f"{name}.transformer_blocks.0", linear if flat else lambda name, a, b: conv(name, a, b, 1)
    shapes = norm(f"{name}.norm", width) | project(f"{name}.proj_in", width, width)
    for attention, features in (("attn1", width), ("attn2", context)):
        shapes |= linear(f"{block}.{attention}.to_q", width, width, bias=False)
        for part in ("to_k", "to_v"):
            shapes |= linear(f"{block}.{attention}.{part}", width, features, bias=False)
        shapes |= linear(f"{block}.{attention}.to_out.0", width, width)
    shapes |= linear(f"{block}.ff.net.0.proj", 8 * width, width) | linear(f"{block}.ff.net.2", width, 4 * width)
    for i in (1, 2, 3):
        shapes |= norm(f"{block}.norm{i}", width)
    return shapes | project(f"{name}.proj_out", width, width)


def compvis_unet(widths, layers, attended, context, channels, flat):
    time, stack, block = 4 * widths[0], [widths[0]], 1
    shapes = linear("time_embed.0", time, widths[0]) | linear("time_embed.2", time, time)
    shapes |= conv("input_blocks.0.0", widths[0], channels, 3)
    into = widths[0]
    for level, width in enumerate(widths):
        for _ in range(layers):
            shapes |= resblock(f"input_blocks.{block}.0", into, width, time)
            shapes |= transformer(f"input_blocks.{block}.1", width, context, flat) if attended[level] else {}
            stack, into, block = [*stack, width], width, block + 1
        if level < len(widths) - 1:
            shapes |= conv(f"input_blocks.{block}.0.op", width, width, 3)
            stack, block = [*stack, width], block + 1
    shapes |= resblock("middle_block.0", into, into, time) | transformer("middle_block.1", into, context, flat)
    shapes |= resblock("middle_block.2", into, into, time)
    block = 0
    for level in reversed(range(len(widths))):
        for i in range(layers + 1):
            shapes |= resblock(f"output_blocks.{block}.0", into + stack.pop(), widths[level], time)
            into, place = widths[level], 1
            if attended[level]:
                shapes |= transformer(f"output_blocks.{block}.1", into, context, flat)
                place = 2
            if level and i == layers:
                shapes |= conv(f"output_blocks.{block}.{place}.conv", into, into, 3)
            block += 1
    return shapes | norm("out.0", into) | conv("out.2", 4, into, 3)


def compvis_vae(widths, layers, latents=4):
    def block(name, into, out):
        shapes = norm(f"{name}.norm1", into) | conv(f"{name}.conv1", out, into, 3)
        shapes |= norm(f"{name}.norm2", out) | conv(f"{name}.conv2", out, out, 3)
        return shapes | (conv(f"{name}.nin_shortcut", out, into, 1) if into != out else {})

    def middle(side, width):
        shapes = block(f"{side}.mid.block_1", width, width) | norm(f"{side}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            shapes |= conv(f"{side}.mid.attn_1.{part}", width, width, 1)
        return shapes | block(f"{side}.mid.block_2", width, width)

    last, into = widths[-1], widths[0]
    shapes = conv("encoder.conv_in", widths[0], 3, 3)
    for level, width in enumerate(widths):
        for i in range(layers):
            shapes |= block(f"encoder.down.{level}.block.{i}", into, width)
            into = width
        if level < len(widths) - 1:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
    shapes |= middle("encoder", last) | norm("encoder.norm_out", last) | conv("encoder.conv_out", 2 * latents, last, 3)
    shapes |= conv("decoder.conv_in", last, latents, 3) | middle("decoder", last)
    into = last
    for level in reversed(range(len(widths))):
        for i in range(layers + 1):
            shapes |= block(f"decoder.up.{level}.block.{i}", into, widths[level])
            into = widths[level]
        if level:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", into, into, 3)
    shapes |= norm("decoder.norm_out", into) | conv("decoder.conv_out", 3, into, 3)
    return shapes | conv("quant_conv", 2 * latents, 2 * latents, 1) | conv("post_quant_conv", latents, latents, 1)


def clip(entries, length, width, layers):
    shapes = {"embeddings.token_embedding.weight": (entries, width)}
    shapes |= {"embeddings.position_embedding.weight": (length, width)}
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{part}", width, width)
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        shapes |= linear(f"{layer}.mlp.fc1", 4 * width, width) | linear(f"{layer}.mlp.fc2", width, 4 * width)
    return shapes | norm("final_layer_norm", width)


def open_clip(entries, length, width, layers):
    shapes = {"positional_embedding": (length, width), "text_projection": (width, width), "logit_scale": ()}
    shapes |= {"token_embedding.weight": (entries, width)}
    for i in range(layers):
        layer = f"transformer.resblocks.{i}"
        shapes |= norm(f"{layer}.ln_1", width) | norm(f"{layer}.ln_2", width)
        shapes |= {f"{layer}.attn.in_proj_weight": (3 * width, width), f"{layer}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{layer}.attn.out_proj", width, width)
        shapes |= linear(f"{layer}.mlp.c_fc", 4 * width, width) | linear(f"{layer}.mlp.c_proj", width, 4 * width)
    return shapes | norm("ln_final", width)


# ---- tiny models of each layout ----

TOKENIZER = train_tokenizer(CAPTIONS, size=600, length=LENGTH)
ENTRIES = len(TOKENIZER.vocabulary)
LAYOUTS = {  # the U-Net's input channels, and whether it is of 2.x
    "1.x": (4, False),
    "1.x inpainting": (9, False),
    "InstructPix2Pix": (8, False),
    "2.x": (4, True),
    "2.x inpainting": (9, True),
}
WIDTHS = {False: (32, 64), True: (64, 128)}  # the heads of 2.x are 64 wide
VAE_WIDTHS = (32, 64, 64)


def numbers(shapes, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    return {name: (value + (name.endswith("norm.weight"))).to(dtype) for name, value in made.items()}


def under(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def published(layout, dtype=torch.float32, extra=True):
    """The state dict of a tiny model as it would have been published, with what published files hold besides."""
    channels, second = LAYOUTS[layout]
    shapes = under(UNET, compvis_unet(WIDTHS[second], 2, (True, False), FEATURES, channels, flat=second))
    shapes |= under(VAE, compvis_vae(VAE_WIDTHS, 1))
    if second:
        shapes |= under(OPEN_CLIP, open_clip(ENTRIES, LENGTH, FEATURES, LAYERS + 1))
    else:
        shapes |= under(CLIP, clip(ENTRIES, LENGTH, FEATURES, LAYERS))
    state = numbers(shapes, dtype=dtype)
    if extra:
        table = torch.linspace(1, 0.1, 1000)
        state |= {"betas": table, "alphas_cumprod": table.clone(), "sqrt_recip_alphas_cumprod": table.clone()}
        state |= {
            "logvar": table.clone(),
            "model_ema.decay": torch.tensor(0.9999),
            "model_ema.num_updates": torch.ones(1),
        }
        state |= {"model_ema.diffusion_modeltime_embed0weight": torch.ones(2, 2)}
        state |= {} if second else {CLIP + "embeddings.position_ids": torch.arange(LENGTH)[None]}
    return state


UNET_CONFIG = {"layers_per_block": 2, "cross_attention_dim": FEATURES, 
               "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
               "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip
VAE_CONFIG = {"block_out_channels": VAE_WIDTHS, "layers_per_block": 1, "norm_num_groups": 32, "latent_channels": 4,
              "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}  # fmt: skip


def by_diffusers(layout, folder, dtype=torch.float32, prediction_type="epsilon"):
    """The same model in diffusers' layout, by diffusers' and transformers' own code alone."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
        convert_open_clip_checkpoint,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    channels, second = LAYOUTS[layout]
    state = published(layout, extra=False)
    heads = {"attention_head_dim": [1, 2], "use_linear_projection": True} if second else {"attention_head_dim": 8}
    unet = UNet2DConditionModel(**UNET_CONFIG, **heads, block_out_channels=WIDTHS[second], in_channels=channels)
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(state), unet.config))
    vae = AutoencoderKL(**VAE_CONFIG, scaling_factor=0.18215)
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(state), vae.config))
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=ENTRIES, hidden_size=FEATURES, intermediate_size=4 * FEATURES,
                       num_hidden_layers=LAYERS, num_attention_heads=1, max_position_embeddings=LENGTH,
                       hidden_act="gelu" if second else "quick_gelu")
    )  # fmt: skip
    if second:
        own = {name: value for name, value in state.items() if f"resblocks.{LAYERS}." not in name}
        converted = convert_open_clip_checkpoint(text, own)
        converted.pop("text_projection.weight", None)
    else:
        converted = convert_ldm_clip_checkpoint(state)
    text.load_state_dict({name.removeprefix("text_model."): value for name, value in converted.items()})
    for part, module in {"unet": unet, "vae": vae, "text_encoder": text}.items():
        module.to(dtype).save_pretrained(folder / part)
    pad = "!" if second else "<|endoftext|>"  # as published
    Tokenizer(TOKENIZER.vocabulary, TOKENIZER.merges, LENGTH, pad).save_pretrained(folder / "tokenizer")
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction_type,
                  clip_sample=False, steps_offset=1).save_pretrained(folder / "scheduler")  # fmt: skip
    return folder


def write(state, path, metadata=None):
    """A file of tensors with the tokenizer beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt", **(metadata or {})})
    else:
        torch.save({"state_dict": state, "global_step": 1}, path)
    TOKENIZER.save_pretrained(path.parent / "tokenizer")
    return path


def state_of(parts):
    modules = {"vae": parts.vae, "unet": parts.unet, "text": parts.text.model}
    return {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}


@pytest.fixture
def file(tmp_path):
    return write(published("1.x"), tmp_path / "files" / "model.safetensors")


# ---- the same as the folder ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_single_file_and_the_folder_are_the_same(tmp_path, layout, ending):
    file = write(published(layout), tmp_path / "files" / f"model{ending}")
    one = checkpoints.load(file)
    two = checkpoints.load(by_diffusers(layout, tmp_path / "folder", prediction_type=one.scheduler["prediction_type"]))
    mine, theirs = state_of(one), state_of(two)
    assert mine.keys() == theirs.keys() and len(mine) > 200
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)

    for part in (one.unet, two.unet, one.vae, two.vae, one.text.model, two.text.model):
        for tensor in part.parameters():  # some processors round by where a weight lies in memory
            tensor.data = tensor.data.clone()
    # what tensors do not show is the same too: heads, groups, activations, padding
    z, channels = torch.randn(1, 4, 16, 16), LAYOUTS[layout][0]
    with torch.no_grad():
        cond = [parts.text("a red apple") for parts in (one, two)]
        x = torch.cat([z, torch.randn(1, channels - 4, 16, 16)], dim=1)
        outputs = [parts.unet(x, 500, encoder_hidden_states=cond[1]).sample for parts in (one, two)]
        images = [parts.vae.decode(z).sample for parts in (one, two)]
    assert torch.equal(*cond) and torch.equal(*outputs) and torch.equal(*images)
    assert one.text.tokenizer.pad_token == ("!" if LAYOUTS[layout][1] else "<|endoftext|>")
    assert one.vae.config["scaling_factor"] == 0.18215


def test_half_precision_is_read_as_it_is(tmp_path):
    contents = checkpoints.read(write(published("2.x", torch.float16), tmp_path / "half.safetensors"))
    dtypes = {tensor.dtype for own in contents.tensors.values() for tensor in own.values()}
    assert dtypes == {torch.float16}
    assert next(checkpoints.load(tmp_path / "half.safetensors").unet.parameters()).dtype == torch.float32


def test_early_names_of_the_text_encoder_are_the_same(file, tmp_path):
    state = {name.replace("transformer.text_model.", "transformer."): value for name, value in load_file(file).items()}
    early = checkpoints.load(write(state, tmp_path / "early" / "model.safetensors"))
    expected = state_of(checkpoints.load(file))
    assert all(torch.equal(value, expected[name]) for name, value in state_of(early).items())


def test_a_tower_without_its_unused_end_is_the_same(tmp_path):
    state = published("2.x")
    ends = (f"resblocks.{LAYERS}.", "text_projection", "logit_scale")
    short = {name: value for name, value in state.items() if not any(end in name for end in ends)}
    one = checkpoints.load(write(state, tmp_path / "whole.safetensors"))
    two = checkpoints.load(write(short, tmp_path / "short.safetensors"))
    assert state_of(one).keys() == state_of(two).keys()
    assert one.text.model.config.num_hidden_layers == LAYERS
    assert torch.equal(one.text("a red apple"), two.text("a red apple"))


# Published names with their shapes, of SD 1.5, 2.1 and its inpainting.
SD1 = {
    "model.diffusion_model.time_embed.0.weight": (1280, 320),
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (320, 320),
    "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
    "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    "model.diffusion_model.input_blocks.8.1.proj_in.weight": (1280, 1280, 1, 1),
    "model.diffusion_model.input_blocks.11.0.out_layers.3.bias": (1280,),
    "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
    "model.diffusion_model.middle_block.2.emb_layers.1.weight": (1280, 1280),
    "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
    "model.diffusion_model.output_blocks.5.2.conv.bias": (1280,),
    "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
    "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
    "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
    "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
    "first_stage_model.encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
    "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
    "first_stage_model.encoder.conv_out.weight": (8, 512, 3, 3),
    "first_stage_model.decoder.mid.block_1.norm1.weight": (512,),
    "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
    "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
    "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
    "first_stage_model.decoder.norm_out.bias": (128,),
    "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
    "first_stage_model.post_quant_conv.bias": (4,),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "cond_stage_model.transformer.text_model.encoder.layers.11.self_attn.q_proj.weight": (768, 768),
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
}
SD2 = {
    "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
    "cond_stage_model.model.positional_embedding": (77, 1024),
    "cond_stage_model.model.token_embedding.weight": (49408, 1024),
    "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": (3072, 1024),
    "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_bias": (3072,),
    "cond_stage_model.model.transformer.resblocks.22.attn.out_proj.weight": (1024, 1024),
    "cond_stage_model.model.transformer.resblocks.5.mlp.c_fc.weight": (4096, 1024),
    "cond_stage_model.model.transformer.resblocks.5.ln_2.bias": (1024,),
    "cond_stage_model.model.ln_final.weight": (1024,),
}


@pytest.mark.parametrize(("names", "second", "context"), [(SD1, False, 768), (SD2, True, 1024)])
def test_the_published_names_are_the_ones_made_here_and_the_ones_used(names, second, context):
    """At full size, without numbers: every published tensor is found, and none is used that is not published."""
    from ldm.checkpoints import architecture, modules, singlefile
    from ldm.checkpoints.tensors import File

    shapes = under(UNET, compvis_unet((320, 640, 1280, 1280), 2, (True, True, True, False), context, 4, flat=second))
    shapes |= under(VAE, compvis_vae((128, 256, 512, 512), 2))
    shapes |= under(OPEN_CLIP, open_clip(49408, 77, 1024, 24)) if second else under(CLIP, clip(49408, 77, 768, 12))
    assert {name: shapes[name] for name in names} == names
    assert len([name for name in shapes if name.startswith(UNET)]) == 686
    assert len([name for name in shapes if name.startswith(VAE)]) == 248
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    family = architecture.family_of(tensors, Path("a"))
    contents, used = singlefile._vae(File(Path("a"), tensors), family)
    for part, found in (("unet", architecture.unet_config), ("text_encoder", architecture.text_config)):
        contents.configs[part] = found(tensors, family)
        frame = modules.frame(contents, part).state_dict()
        places = singlefile._places(part, contents.configs, frame)
        own = singlefile._taken(File(Path("a"), tensors), places, part)
        modules.check({name: tuple(value.shape) for name, value in frame.items()}, own, part)
        used |= {place.name for place in places.values()}
    left = {name for name in shapes if name not in used}
    assert all(re.search(r"resblocks\.23\.|text_projection|logit_scale", name) for name in left)
    assert contents.configs["unet"].get("attention_head_dim") == ([5, 10, 20, 20] if second else 8)
    assert contents.configs["text_encoder"]["num_attention_heads"] == (16 if second else 12)
    assert contents.configs["text_encoder"]["num_hidden_layers"] == (23 if second else 12)


# ---- what is decided ----

V, EPS = "v_prediction", "epsilon"


@pytest.mark.parametrize(
    ("layout", "words", "task"),
    [
        ("1.x", "1.x", "text to image"),
        ("1.x inpainting", "1.x", "inpainting"),
        ("InstructPix2Pix", "1.x", "InstructPix2Pix"),
        ("2.x", "2.x", "text to image"),
        ("2.x inpainting", "2.x", "inpainting"),
    ],
)
def test_the_architecture_is_that_of_the_tensors(tmp_path, layout, words, task):
    contents = checkpoints.read(write(published(layout), tmp_path / "called-something-else.safetensors"))
    said = contents.decisions["architecture"].value
    assert words in said and task in said
    expected = V if layout == "2.x" else EPS
    decision = contents.decisions["prediction type"]
    assert contents.configs["unet"]["sample_size"] == (96 if layout == "2.x" else 64)  # 768 pixels or 512
    assert decision.value == expected == contents.configs["scheduler"]["prediction_type"] and not decision.sure
    assert "model_ema" in contents.decisions["left aside"].value


def decided(path, asked=None):
    decision = checkpoints.read(path, asked).decisions["prediction type"]
    return decision.value, decision.sure


def test_who_says_what_the_network_emits(tmp_path):
    state = published("1.x")
    plain = write(state, tmp_path / "plain.safetensors")
    assert decided(plain) == (EPS, False) and decided(plain, V) == (V, True)
    plain.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n    scale_factor: 0.5\n')
    assert decided(plain) == (V, True)
    assert checkpoints.read(plain).configs["vae"]["scaling_factor"] == 0.5
    spec = write(state, tmp_path / "spec.safetensors", {"modelspec.prediction_type": "v"})
    assert decided(spec) == (V, True)
    spec.with_suffix(".yaml").write_text("model:\n  params:\n    linear_start: 0.00085\n")
    assert decided(spec) == (V, True)  # the file's own word counts more than what lies beside it
    key = write(state | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tmp_path / "key.safetensors")
    assert decided(key) == (V, True) and decided(key, EPS) == (EPS, True)
    scheduler = checkpoints.read(key).configs["scheduler"]
    assert scheduler["rescale_betas_zero_snr"] and scheduler["timestep_spacing"] == "trailing"
    with pytest.raises(CheckpointError, match="'vpred'"):
        checkpoints.read(key, "vpred")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title: my notes\n", (V, False)),
        ("target: ldm.models.autoencoder.AutoencoderKL\n# linear_start: 0.1\n", (V, False)),
        ("parameterization: mine\n", (V, False)),
        ("model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n", (EPS, True)),
        ("model:\n  target: 'ldm.models.diffusion.ddpm.LatentInpaintDiffusion'\n", (EPS, True)),
        ("model:\n  params:\n    linear_start: 0.00085\n", (EPS, True)),
        ("model:\n  params:\n    linear_start: 0.00085\n    parameterization: v # 768\n", (V, True)),
    ],
)
def test_notes_beside_a_file_are_no_options(tmp_path, text, expected):
    path = write(published("2.x"), tmp_path / "m.safetensors")
    path.with_suffix(".yaml").write_text(text)
    assert decided(path) == expected


def test_the_steps_of_published_second_versions(tmp_path):
    state = published("2.x")
    for step, expected in ((875000, EPS), (110000, V), (12345, V)):
        path = write(state, tmp_path / "model.ckpt")
        torch.save({"state_dict": state, "global_step": step}, path)
        assert decided(path)[0] == expected


def test_the_scale_is_the_files_own_if_it_names_one(tmp_path):
    path = write(published("1.x") | {"scale_factor": torch.tensor(0.25)}, tmp_path / "model.safetensors")
    assert checkpoints.load(path).vae.config["scaling_factor"] == 0.25


# ---- the tokenizer ----


def test_the_tokenizer_lies_beside_the_file_or_in_the_cache(file, tmp_path, monkeypatch):
    contents = checkpoints.read(file)
    assert contents.tokenizer.vocabulary == TOKENIZER.vocabulary
    folder = file.parent / "tokenizer"
    for name in ("vocab.json", "merges.txt"):
        (folder / name).rename(file.parent / name)
    assert checkpoints.read(file).tokenizer.vocabulary == TOKENIZER.vocabulary
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (file.parent / name).rename(cache / name)

    def cached(repository, name):
        return str(cache / name) if repository == "openai/clip-vit-large-patch14" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert checkpoints.read(file).tokenizer.vocabulary == TOKENIZER.vocabulary


def test_a_file_without_its_tokenizer_says_what_to_put_where(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    other = train_tokenizer(CAPTIONS, size=520, length=LENGTH)
    other.save_pretrained(file.parent / "tokenizer")  # of another model
    with pytest.raises(FileNotFoundError, match="vocab.json and merges.txt.*tokenizer") as error:
        checkpoints.load(file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)
    assert checkpoints.read(file).decisions["architecture"]  # which `ldm info` shows all the same


# ---- an autoencoder alone ----


def diffusers_vae(tmp_path):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = AutoencoderKL(**VAE_CONFIG).eval()
    vae.load_state_dict(convert_ldm_vae_checkpoint(numbers(under(VAE, compvis_vae(VAE_WIDTHS, 1))), vae.config))
    return vae


@pytest.mark.parametrize("naming", ["plain", "first_stage_model.", "vae.", "diffusers", "early diffusers"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".ckpt"])
def test_an_autoencoder_alone(tmp_path, naming, ending):
    expected = diffusers_vae(tmp_path)
    if "diffusers" in naming:
        state = expected.state_dict()
        if naming.startswith("early"):
            for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
                state = {name.replace(f".{new}.", f".{old}."): value for name, value in state.items()}
    else:
        made = numbers(under(VAE, compvis_vae(VAE_WIDTHS, 1)))
        prefix = "" if naming == "plain" else naming
        state = {name.replace(VAE, prefix): value for name, value in made.items()}
        state |= {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.ones(())} if naming == "plain" else {}
    path = write(state, tmp_path / f"vae{ending}")
    with warnings.catch_warnings(action="error"):  # a scale that the caller knows is nothing to warn of
        vae = checkpoints.load_vae(path, scale=0.13025)
    assert vae.config["scaling_factor"] is None
    mine, theirs = vae.state_dict(), expected.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    z = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(vae.decode(z).sample, expected.decode(z).sample)


@pytest.mark.parametrize(("scale", "expected"), [(0.18215, 0.18215), (0.13025, 0.13025), (2.0, None)])
def test_a_scale_that_no_one_names_is_measured_and_said(tmp_path, scale, expected):
    """Of an autoencoder made so that its latents of pictures have the deviation 1 / scale."""
    from ldm.checkpoints.probe import raw_deviation

    vae = diffusers_vae(tmp_path)
    factor = 1 / scale / raw_deviation(vae)
    with torch.no_grad():
        vae.quant_conv.weight *= factor
        vae.quant_conv.bias *= factor
    path = tmp_path / "vae.safetensors"
    save_file(vae.state_dict(), path)
    with pytest.warns(UserWarning, match="names no scale.*give scale=.*0.18215.*0.13025"):
        found = checkpoints.load_vae(path).config["scaling_factor"]
    assert found == expected if expected else found == pytest.approx(scale, rel=1e-3)


def test_a_scale_that_is_no_number_is_refused(tmp_path):
    path = write(published("1.x"), tmp_path / "model.safetensors")
    path.with_suffix(".yaml").write_text("scale_factor: abc\n")
    with pytest.raises(CheckpointError, match="scale_factor of .*model.safetensors"):
        checkpoints.load(path)


def test_the_config_beside_a_file_names_its_scale(tmp_path):
    vae = diffusers_vae(tmp_path)
    vae.register_to_config(scaling_factor=0.3)
    vae.save_pretrained(tmp_path)
    with warnings.catch_warnings(action="error"):
        loaded = checkpoints.load_vae(tmp_path / "diffusion_pytorch_model.safetensors")
    assert loaded.config["scaling_factor"] == 0.3


def test_the_autoencoder_of_a_whole_file(file):
    with warnings.catch_warnings(action="error"):
        vae = checkpoints.load_vae(file)
    expected = checkpoints.load(file).vae.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in vae.state_dict().items())
    assert vae.config["scaling_factor"] == 0.18215


def test_an_autoencoder_is_no_model(tmp_path):
    save_file(diffusers_vae(tmp_path).state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="autoencoder alone"):
        checkpoints.load(tmp_path / "vae.safetensors")


# ---- what is wrong ----


def cut(path, state):
    path.write_bytes(path.read_bytes()[:-1000])


def flip_header(path, state):
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(bytes(content))


def flip_number(path, state):
    name = UNET + "out.2.bias"
    state[name].view(torch.int32)[0] = 0x7F800001  # a few bits away from any number: not a number
    write(state, path)


def drop(path, state):
    write({name: value for name, value in state.items() if "input_blocks.4.0.in_layers" not in name}, path)


def drop_first(path, state):
    del state[UNET + "input_blocks.0.0.weight"]
    write(state, path)


def add(path, state):
    write(state | {f"some.other.{i}": torch.ones(1) for i in range(5)}, path)


def reshape(path, state):
    state[UNET + "input_blocks.1.0.emb_layers.1.weight"] = torch.ones(32, 99)
    write(state, path)


def stranger(path, state):
    write({"conditioner.embedders.0.transformer.text_model.x": torch.ones(1), **state}, path)


def lora(path, state):
    write({"lora_unet_down_blocks_0.lora_down.weight": torch.ones(1, 2)}, path)


def nothing_known(path, state):
    write({"layer.weight": torch.ones(1)}, path)


WRONG = {
    cut: "model.safetensors",
    flip_header: "model.safetensors",
    flip_number: r"\(unet\): conv_out.bias holds NaN",
    drop: r"\(unet\) lacks 4 of \d+ tensors: model.diffusion_model.input_blocks.4.0.in_layers.0.bias",
    drop_first: "lacks tensors: model.diffusion_model.input_blocks.0.0.weight",
    add: r"holds 5 tensors that have no place here: some.other.0, some.other.1, some.other.2, \.\.\.",
    reshape: r"time_emb_proj.weight has the shape \(32, 99\), its config asks for \(32, 128\)",
    stranger: "a Stable Diffusion XL model",
    lora: "LoRA",
    nothing_known: "1 tensors, layer.weight",
}


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_what_is_wrong_is_one_line(file, damage):
    damage(file, load_file(file))
    with pytest.raises(CheckpointError, match=WRONG[damage]) as error:
        checkpoints.load(file)
    assert "\n" not in str(error.value) and "model.safetensors" in str(error.value)


def test_metadata_that_contradict_the_tensors_are_refused(file, tmp_path):
    out = tmp_path / "out.safetensors"
    checkpoints.convert(file, out)
    from safetensors import safe_open

    with safe_open(out, "pt") as opened:
        metadata = opened.metadata()
    told = json.loads(metadata["ldm"])
    told["unet"]["block_out_channels"][-1] = 96
    save_file(load_file(out), out, metadata=metadata | {"ldm": json.dumps(told)})
    with pytest.raises(CheckpointError, match=r"shape \(64,.*asks for \(96,"):
        checkpoints.load(out)
    for broken in ("{", "[]", '{"unet": 5}', '{"tokenizer": {}}', '{"vae": {"block_out_channels": "x"}}'):
        save_file(load_file(out), out, metadata=metadata | {"ldm": broken})
        with pytest.raises(CheckpointError, match="out.safetensors") as error:
            checkpoints.load(out)
        assert "\n" not in str(error.value)


def test_no_socket_is_opened(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    code = f"import offline; offline.block()\nfrom ldm import checkpoints; checkpoints.load({str(file)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="tests")
