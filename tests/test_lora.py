"""A LoRA, however its keys are spelt, changes the weights as its formula says, and leaves no trace when it goes."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ldm import lora
from ldm.checkpoints import adapters
from ldm.checkpoints.faults import CheckpointError
from ldm.lora import Fused
from ldm.text import Tokenizer
from ldm.training.diffusion import PRESETS, text_model, unet
from ldm.training.tokenizer import train_tokenizer

RANK, ALPHA = 2, 3.0
UNET = [  # one of each kind: linear, convolution 1 x 1 and 3 x 3
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "mid_block.attentions.0.proj_in",
    "up_blocks.0.resnets.0.conv_shortcut",
    "up_blocks.1.resnets.1.conv1",
    "down_blocks.0.resnets.0.time_emb_proj",
]
TEXT = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a red apple"] * 2, size=600, length=16)


def models(tokenizer: Tokenizer) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    size = replace(PRESETS["tiny"], text_layers=2)
    return unet(size, side=8).eval(), text_model(size, tokenizer).eval()


@pytest.fixture
def pair(tokenizer):
    return models(tokenizer)


def state(*modules: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{i}.{k}": v.clone() for i, module in enumerate(modules) for k, v in module.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def factors(module: nn.Module, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random A and B of a module, in the shapes that the published files have."""
    draw = torch.Generator().manual_seed(seed)
    out, *inner = module.weight.shape
    return torch.randn(RANK, *inner, generator=draw), torch.randn(out, RANK, *[1] * (len(inner) - 1), generator=draw)


def spell(style: str, part: str, name: str) -> tuple[str, str]:
    """A module -> what its A's and its B's keys begin with, in one of the styles of naming."""
    if style == "kohya":
        text = f"lora_te_text_model_{name}" if part == "text" else f"lora_unet_{name}"
        return f"{text.replace('.', '_')}.lora_down.weight", f"{text.replace('.', '_')}.lora_up.weight"
    full = {"unet": "", "text": "text_model."}[part] + name
    if style == "peft":
        return f"base_model.model.{full}.lora_A.weight", f"base_model.model.{full}.lora_B.weight"
    if style == "peft 5":  # transformers 5 has no text_model
        return f"base_model.model.{name}.lora_A.default.weight", f"base_model.model.{name}.lora_B.default.weight"
    full = {"unet": "unet.", "text": "text_encoder."}[part] + full
    if style == "diffusers":
        return f"{full}.lora_A.weight", f"{full}.lora_B.weight"
    if style == "diffusers 0.20":
        middle = ".lora_linear_layer" if part == "text" else ".lora"
        return f"{full}{middle}.down.weight", f"{full}{middle}.up.weight"
    full = (
        full.replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor.").replace("to_out.0", "to_out")
    )
    full = full.replace("q_proj", "to_q").replace("out_proj", "to_out")
    if "attn" not in full:
        middle = ".lora_linear_layer" if part == "text" else ".lora"
        return f"{full}{middle}.down.weight", f"{full}{middle}.up.weight"
    return f"{full}_lora.down.weight", f"{full}_lora.up.weight"


STYLES = ["kohya", "diffusers", "diffusers 0.20", "processors", "peft", "peft 5"]


def tensors(pair, style: str, seed: int = 0, alpha: float | None = ALPHA) -> dict[str, torch.Tensor]:
    """A LoRA for UNET and TEXT, in a style of naming."""
    found = {}
    chosen = [("unet", pair[0], name) for name in UNET] + [("text", pair[1], name) for name in TEXT]
    for i, (part, model, name) in enumerate(chosen):
        keys = spell(style, part, name)
        found |= dict(zip(keys, factors(model.get_submodule(name), 100 * seed + i)))
        if alpha is not None:
            stem = adapters.KEY.fullmatch(keys[0])["name"]
            found[f"{stem}.alpha"] = torch.tensor(alpha)
    return {key: tensor.contiguous() for key, tensor in found.items()}


def written(path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None):
    save_file(tensors, path, metadata)
    return path


def expected(pair, scale: float, seed: int = 0, alpha: float = ALPHA) -> dict[str, torch.Tensor]:
    """The formula by hand: what the model's state is with the LoRA in it."""
    found = state(*pair)
    chosen = [(0, name) for name in UNET] + [(1, name) for name in TEXT]
    for i, (part, name) in enumerate(chosen):
        weight = found[f"{part}.{name}.weight"]
        down, up = factors(pair[part].get_submodule(name), 100 * seed + i)
        if weight.ndim == 2:
            change = up @ down
        else:
            change = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
        weight += scale * alpha / RANK * change
    return found


def close(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], atol=1e-5) for key in a)


@pytest.mark.parametrize("style", STYLES)
def test_every_naming_gives_the_weights_of_the_formula(pair, tmp_path, style):
    original, wanted = state(*pair), expected(pair, scale=0.5)
    path = written(tmp_path / "a.safetensors", tensors(pair, style))
    fused = Fused(*pair)
    fused.load(path, scale=0.5)
    assert close(state(*pair), wanted) and fused.scales == {str(path): 0.5}
    changed = [key for key in wanted if not torch.equal(wanted[key], original[key])]
    assert len(changed) == len(UNET) + len(TEXT)
    fused.unload(path)
    assert same(state(*pair), original) and not fused.originals


def test_alpha_is_the_rank_where_nothing_is_said(pair, tmp_path):
    wanted = expected(pair, 1.0, alpha=RANK)
    Fused(*pair).load(written(tmp_path / "a.safetensors", tensors(pair, "diffusers", alpha=None)))
    assert close(state(*pair), wanted)


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_several_leave_no_trace_in_whichever_order_they_go(pair, tokenizer, tmp_path, order):
    original = state(*pair)
    paths = [written(tmp_path / f"{i}.safetensors", tensors(pair, "kohya", seed=i)) for i in range(3)]
    fused = Fused(*pair)
    for i, path in enumerate(paths):
        fused.load(path, scale=0.3 + i)
    left = list(paths)
    for i in order:
        fused.unload(paths[i])
        left.remove(paths[i])
        fresh = models(tokenizer)
        again = Fused(*fresh)
        for path in left:
            again.load(path, scale=0.3 + paths.index(path))
        assert same(state(*pair), state(*fresh))
    assert same(state(*pair), original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_exactly(pair, tmp_path, dtype):
    original = state(*(module.to(dtype) for module in pair))
    fused = Fused(*pair)
    fused.load(written(tmp_path / "a.safetensors", tensors(pair, "kohya")))
    assert not same(state(*pair), original)
    fused.unload()
    assert same(state(*pair), original)


def test_a_change_of_dtype_while_fused(pair, tokenizer, tmp_path):
    fused = Fused(*pair)
    fused.load(written(tmp_path / "a.safetensors", tensors(pair, "kohya")))
    for module in pair:
        module.half()
    fused.unload()
    assert same(state(*pair), state(*(module.half() for module in models(tokenizer))))


def test_loading_again_changes_the_scale(pair, tmp_path):
    path, fused = written(tmp_path / "a.safetensors", tensors(pair, "kohya")), Fused(*pair)
    wanted = expected(pair, 0.25)
    fused.load(path, 2.0)
    fused.load(path, 0.25)
    assert close(state(*pair), wanted) and fused.scales == {str(path): 0.25}


def test_names_of_kohya_equal_diffusers_own_conversion(pair):
    """Over every linear layer and convolution, not only those that are usual."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    places = lora.sites(*pair)
    for part, model in zip(("lora_unet_", "lora_te_text_model_"), pair):
        for name, module in model.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            stem = part + name.replace(".", "_")
            down, up = factors(module, 0)
            converted, _ = _convert_non_diffusers_lora_to_diffusers(
                {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            )
            spelt = {adapters.site(adapters.KEY.fullmatch(key)["name"]) for key in converted}
            assert spelt == {adapters.site(stem)} and places[adapters.site(stem)] is module


def test_the_layout_of_transformers_4_has_the_same_sites(pair):
    older = nn.Module()
    older.text_model = pair[1]
    assert lora.sites(pair[0], older) == lora.sites(*pair)


def forward(network: nn.Module) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    z, cond = torch.randn(1, 4, 8, 8, generator=draw), torch.randn(1, 5, 16, generator=draw)
    with torch.no_grad():
        return network(z, 500, cond).sample


@pytest.mark.parametrize(
    "settings",
    [{}, {"lora_alpha": 5}, {"lora_alpha": 5, "use_rslora": True}, {"alpha_pattern": {"attn2.to_k": 7, "conv1": 1}}],
)
@pytest.mark.parametrize("saver", ["diffusers", "peft"])
def test_equals_peft(pair, tokenizer, tmp_path, settings, saver):
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    targets = ["to_q", "to_k", "to_out.0", "ff.net.0.proj", "conv1", "proj_in"]
    config = peft.LoraConfig(r=RANK, target_modules=targets, init_lora_weights=False, **settings)
    theirs, _ = models(tokenizer)
    plain = forward(theirs)
    if saver == "peft":
        theirs = peft.get_peft_model(theirs, config)
        theirs.save_pretrained(tmp_path)
    else:
        theirs.add_adapter(config)
        layers = peft.get_peft_model_state_dict(theirs)
        told = {"unet_lora_adapter_metadata": theirs.peft_config["default"].to_dict()}
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, **told)
    Fused(*pair).load(tmp_path)
    assert (forward(pair[0]) - plain).abs().max() > 0.01
    assert torch.allclose(forward(pair[0]), forward(theirs), atol=1e-4)


def test_equals_diffusers_on_a_file_of_kohya(pair, tokenizer, tmp_path):
    pytest.importorskip("peft")
    found = {k: v for k, v in tensors(pair, "kohya").items() if "lora_unet" in k and "attn" in k}
    path = written(tmp_path / "a.safetensors", found)
    theirs, _ = models(tokenizer)
    from diffusers import StableDiffusionPipeline

    converted, alphas = StableDiffusionPipeline.lora_state_dict(path)
    StableDiffusionPipeline.load_lora_into_unet(converted, alphas, theirs)
    Fused(*pair).load(path)
    assert torch.allclose(forward(pair[0]), forward(theirs), atol=1e-4)


def test_a_middle_part_is_three_convolutions(pair, tmp_path):
    name, draw = "up_blocks.1.resnets.1.conv1", torch.Generator().manual_seed(0)
    module = pair[0].get_submodule(name)
    out, inner = module.weight.shape[:2]
    shapes = {"down": (3, inner, 1, 1), "mid": (3, 3, 3, 3), "up": (out, 3, 1, 1)}
    parts = {part: torch.randn(shape, generator=draw) for part, shape in shapes.items()}
    x = torch.randn(1, inner, 5, 5, generator=draw)
    wanted = module(x) + F.conv2d(F.conv2d(F.conv2d(x, parts["down"]), parts["mid"], padding=1), parts["up"])
    stem = f"lora_unet_{name.replace('.', '_')}"
    found = {f"{stem}.lora_{part}.weight": tensor for part, tensor in parts.items()}
    Fused(*pair).load(written(tmp_path / "a.safetensors", found))
    assert torch.allclose(module(x), wanted, atol=1e-4)


def test_a_convolution_1x1_takes_the_shapes_of_a_linear_layer(pair, tmp_path):
    name = "mid_block.attentions.0.proj_in"
    weight = pair[0].get_submodule(name).weight
    assert weight.shape[2:] == (1, 1)
    down, up = torch.randn(RANK, weight.shape[1]), torch.randn(len(weight), RANK)
    wanted = weight.detach().clone()
    wanted[:, :, 0, 0] += up @ down
    found = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    Fused(*pair).load(written(tmp_path / "a.safetensors", found))
    assert torch.allclose(weight, wanted, atol=1e-5)


def without(found: dict, fragment: str) -> dict:
    return {key: tensor for key, tensor in found.items() if fragment not in key}


STEM = "lora_unet_mid_block_attentions_0_proj_in"
FAULTS = {
    "1 of its 11 modules are not in this model: lora_unet_nowhere": lambda found: (
        found
        | {"lora_unet_nowhere.lora_down.weight": torch.ones(2, 8), "lora_unet_nowhere.lora_up.weight": torch.ones(8, 2)}
    ),
    "no module of it is in this model: lora_te2_a, lora_te2_b": lambda found: {
        f"lora_te2_{name}.lora_{part}.weight": torch.ones(2, 2) for name in "ab" for part in ("up", "down")
    },
    "1 of 31 keys are not a LoRA's: lora_unet_x.dora_scale": lambda found: (
        found | {"lora_unet_x.dora_scale": torch.ones(1)}
    ),
    "12 of 12 keys are not a LoRA's: m.0.hada_w1_a, m.1.hada_w1_a, m.10.hada_w1_a, ...": lambda found: {
        f"m.{i}.hada_w1_a": torch.ones(1) for i in range(12)
    },
    f"{STEM} lacks up": lambda found: without(found, f"{STEM}.lora_up"),
    f"{STEM} lacks down and up": lambda found: without(found, f"{STEM}.lora_"),
    f"{STEM} is made of shapes that do not fit each other: \\(3, 16, 1, 1\\), \\(16, 2, 1, 1\\)": lambda found: (
        found | {f"{STEM}.lora_down.weight": torch.ones(3, 16, 1, 1)}
    ),
    f"{STEM} is made of shapes that do not fit each other: \\(2, 16, 3, 3\\), \\(2, 2, 1, 1\\)": lambda found: (
        found | {f"{STEM}.lora_down.weight": torch.ones(2, 16, 3, 3), f"{STEM}.lora_mid.weight": torch.ones(2, 2, 1, 1)}
    ),
    f"{STEM} is made of shapes": lambda found: found | {f"{STEM}.lora_up.weight": torch.ones(16)},
    f"{STEM} is for a weight of shape \\(16, 99, 1, 1\\), here it is \\(16, 16, 1, 1\\)": lambda found: (
        found | {f"{STEM}.lora_down.weight": torch.ones(2, 99, 1, 1)}
    ),
    f"{STEM} is for a weight of shape \\(16, 16, 3, 3\\)": lambda found: (
        found | {f"{STEM}.lora_down.weight": torch.ones(2, 16, 3, 3)}
    ),
}


@pytest.mark.parametrize("said", FAULTS)
def test_what_does_not_fit_is_named_and_nothing_is_changed(pair, tmp_path, said):
    good = written(tmp_path / "good.safetensors", tensors(pair, "diffusers", seed=1))
    bad = written(tmp_path / "bad.safetensors", FAULTS[said](tensors(pair, "kohya")))
    fused = Fused(*pair)
    fused.load(good)
    before = state(*pair)
    with pytest.raises(CheckpointError, match=said) as error:
        fused.load(bad)
    assert "bad.safetensors" in str(error.value) and "\n" not in str(error.value)
    assert same(state(*pair), before) and list(fused.scales) == [str(good)]


def test_a_text_encoders_lora_needs_a_text_encoder(pair, tmp_path):
    path = written(tmp_path / "a.safetensors", tensors(pair, "kohya"))
    with pytest.raises(CheckpointError, match="3 of its 10 modules are not in this model: lora_te_"):
        Fused(pair[0]).load(path)


def test_other_bad_arguments(pair, tmp_path):
    path, fused = written(tmp_path / "a.safetensors", tensors(pair, "kohya")), Fused(*pair)
    with pytest.raises(ValueError, match="scale nan"):
        fused.load(path, float("nan"))
    with pytest.raises(ValueError, match="LoRA b is not loaded; loaded: none"):
        fused.unload("b")
    with pytest.raises(FileNotFoundError, match="no LoRA .*b.safetensors"):
        fused.load(tmp_path / "b.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="expected one of pytorch_lora_weights.safetensors"):
        fused.load(tmp_path / "empty")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="a.safetensors"):
        fused.load(path)
    fused.unload()


def test_diffusers_header_that_is_no_json(pair, tmp_path):
    found = tensors(pair, "diffusers", alpha=None)
    path = written(tmp_path / "a.safetensors", found, {"lora_adapter_metadata": json.dumps({"unet.r": 2})[:-3]})
    with pytest.raises(CheckpointError, match="a.safetensors cannot be read"):
        Fused(*pair).load(path)


def test_numbers_that_are_none_are_refused(pair, tmp_path):
    found = tensors(pair, "kohya")
    name = next(name for name in found if "lora_up" in name)
    found[name][0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=f"a.safetensors: {name} holds NaN"):
        Fused(*pair).load(written(tmp_path / "a.safetensors", found))


def test_a_lora_whose_folder_names_no_model_by_a_word_is_refused(tmp_path):
    from ldm import checkpoints

    written(tmp_path / "pytorch_lora_weights.safetensors", {"a": torch.ones(1)})
    (tmp_path / "ldm.json").write_text('{"model": ["emoji"]}')
    with pytest.raises(CheckpointError, match=r"ldm.json: model \['emoji'\], expected the name"):
        checkpoints.read(tmp_path)
