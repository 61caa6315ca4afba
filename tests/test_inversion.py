"""A learnt word expands to its vectors, in whichever layout it was published."""

import pytest
import torch
from conftest import CAPTIONS
from safetensors.torch import save_file
from torch import nn

from ldm import inversion
from ldm.checkpoints.faults import CheckpointError
from ldm.text import TextEncoder
from ldm.training.diffusion import PRESETS, text_model
from ldm.training.tokenizer import train_tokenizer

VECTORS = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, size=600, length=16)
    return TextEncoder(text_model(PRESETS["tiny"], tokenizer).eval(), tokenizer)


def a1111(vectors):
    """What AUTOMATIC1111 writes beside the vectors, too."""
    told = {"name": "other", "step": 5, "sd_checkpoint": "0123", "sd_checkpoint_name": "model"}
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": nn.Parameter(vectors)}, **told}


def as_written(layout, folder):
    path = folder / f"cat-toy.{'safetensors' if 'safetensors' in layout else 'pt'}"
    match layout:
        case "a1111":
            torch.save(a1111(VECTORS), path)
        case "original":
            kept = nn.ParameterDict({"*": nn.Parameter(VECTORS)})
            torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": kept}, path)
        case "original of torch 1.11":
            kept = nn.ParameterDict({"*": nn.Parameter(VECTORS)})
            del kept.__dict__["_keys"]
            torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": kept}, path)
        case "a1111 safetensors":
            save_file({"emb_params": VECTORS}, path)
        case "diffusers":
            torch.save({"<toy>": VECTORS}, path)
        case "diffusers safetensors":
            save_file({"<toy>": VECTORS}, path)
    return path


def lookup(encoder: TextEncoder, prompt: str) -> torch.Tensor:
    """The embeddings that go into the encoder, of the tokens between start and end."""
    ids = [token.id for chunk in encoder.tokenizer.chunks(prompt) for token in chunk]
    return encoder.model.get_input_embeddings()(torch.tensor(ids))


LAYOUTS = ["a1111", "original", "original of torch 1.11", "a1111 safetensors", "diffusers", "diffusers safetensors"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(encoder, tmp_path, layout):
    before = encoder("a red apple")
    word = inversion.load(encoder, as_written(layout, tmp_path))
    assert word == ("<toy>" if "diffusers" in layout else "cat-toy")
    a, apple = lookup(encoder, "a apple")
    expected = torch.cat([a[None], VECTORS, apple[None]])
    assert torch.equal(lookup(encoder, f"a {word} apple"), expected)
    assert torch.equal(encoder("a red apple"), before)
    cond = encoder(f"a ({word}:1.2) apple")
    assert torch.isfinite(cond).all() and (cond - encoder("a apple")).abs().max() > 0.01


def test_equals_diffusers(encoder, tmp_path):
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    encoder.tokenizer.save_pretrained(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(str(tmp_path))
    torch.manual_seed(0)
    model = text_model(PRESETS["tiny"], encoder.tokenizer).eval()
    parts = {"vae": None, "unet": None, "scheduler": None, "safety_checker": None, "feature_extractor": None}
    peer = StableDiffusionPipeline(text_encoder=model, tokenizer=theirs, requires_safety_checker=False, **parts)
    path = as_written("diffusers", tmp_path)
    peer.load_textual_inversion(path)
    inversion.load(encoder, path)
    prompts = ["a <toy>, red apple", "<toy><toy>"]
    expected, _ = peer.encode_prompt(prompts, "cpu", 1, False)
    assert torch.equal(encoder(prompts), expected)


def test_one_vector_without_an_axis_for_it(encoder, tmp_path):
    torch.save({"<toy>": VECTORS[0]}, tmp_path / "a.bin")
    inversion.load(encoder, tmp_path / "a.bin")
    assert torch.equal(lookup(encoder, "<toy>"), VECTORS[:1])


def test_a_name_of_ones_own_in_upper_or_lower_case(encoder, tmp_path):
    assert inversion.load(encoder, as_written("a1111", tmp_path), "EasyApple") == "EasyApple"
    for prompt in ("EasyApple", "easyapple,", "[EASYAPPLE]", "(easyapple:1.3)"):
        assert torch.equal(lookup(encoder, prompt)[:3], VECTORS)
    assert not torch.equal(lookup(encoder, "easyapples")[:3], VECTORS)


def test_two_embeddings_side_by_side(encoder, tmp_path):
    inversion.load(encoder, as_written("diffusers", tmp_path))
    inversion.load(encoder, as_written("a1111", tmp_path), "second")
    torch.save({"third": -VECTORS[:2]}, tmp_path / "third.pt")
    inversion.load(encoder, tmp_path / "third.pt")
    assert torch.equal(lookup(encoder, "third <toy>second"), torch.cat([-VECTORS[:2], VECTORS, VECTORS]))
    assert encoder.model.config.vocab_size == len(encoder.tokenizer.vocabulary) + 8


def test_its_vectors_stay_together_in_one_chunk(encoder, tmp_path):
    inversion.load(encoder, as_written("diffusers", tmp_path))
    chunks = encoder.tokenizer.chunks("a " * 13 + "<toy> apple")
    assert [len(chunk) for chunk in chunks] == [13, 4]


def test_captions_taken_literally_know_it_too(encoder, tmp_path):
    inversion.load(encoder, as_written("diffusers", tmp_path))
    first = len(encoder.tokenizer.vocabulary)
    assert encoder.tokenizer("<toy>")[0][1:4] == [first, first + 1, first + 2]


def test_half_precision_stays(encoder, tmp_path):
    encoder.to(dtype=torch.float16)
    inversion.load(encoder, as_written("a1111", tmp_path))
    assert encoder.model.get_input_embeddings().weight.dtype == torch.float16
    assert encoder("cat-toy").dtype == torch.float16


def test_saving_says_what_is_not_saved(encoder, tmp_path, caplog):
    inversion.load(encoder, as_written("diffusers", tmp_path))
    encoder.tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert "<toy>" in caplog.text


@pytest.mark.parametrize(
    "content, said",
    [
        ({"<toy>": torch.ones(2, 99)}, "99 features; the text encoder has 16"),
        ({"<toy>": torch.ones(15, 16)}, "15 vectors; a chunk of the text encoder holds 14"),
        ({"<toy>": torch.ones(2, 2, 16)}, r"shape \(2, 2, 16\)"),
        ({"<toy>": torch.ones(0, 16)}, r"shape \(0, 16\)"),
        ({"<toy>": torch.ones(2, 16, dtype=torch.int64)}, "expected"),
        ({"clip_g": torch.ones(1, 16), "clip_l": torch.ones(1, 16)}, "found 2: clip_g, clip_l"),
        ({"string_to_param": {}}, "found 0"),
        ({"string_to_param": 3}, "found 0"),
        ([1, 2], "found 0: no tensors"),
        ({"apple": torch.ones(1, 16)}, "token 'apple': expected a name that is no token yet"),
        ({"Apple": torch.ones(1, 16)}, "token 'Apple'"),
        ({"<|endoftext|>": torch.ones(1, 16)}, "endoftext"),
        ({" ": torch.ones(1, 16)}, "token ' '"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(encoder, tmp_path, content, said):
    torch.save(content, tmp_path / "a.pt")
    before = encoder("a red apple")
    with pytest.raises(ValueError, match=said) as error:
        inversion.load(encoder, tmp_path / "a.pt")
    assert "\n" not in str(error.value)
    assert not encoder.tokenizer.names and encoder.model.config.vocab_size == len(encoder.tokenizer.vocabulary)
    assert torch.equal(encoder("a red apple"), before)


def test_a_word_that_is_loaded_already_is_refused(encoder, tmp_path):
    path = as_written("a1111", tmp_path)
    inversion.load(encoder, path)
    with pytest.raises(ValueError, match="'CAT-TOY'"):
        inversion.load(encoder, path, "CAT-TOY")


def test_no_file_and_no_embedding(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no embedding .*a.pt"):
        inversion.load(encoder, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="a.pt"):
        inversion.load(encoder, tmp_path / "a.pt")


def test_a_pickle_does_not_run_anything(encoder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save(a1111(VECTORS) | {"evil": Evil()}, tmp_path / "toy.pt")
    assert inversion.load(encoder, tmp_path / "toy.pt") == "toy"
    assert torch.equal(lookup(encoder, "toy"), VECTORS)
    assert not (tmp_path / "ran").exists()


def test_a_word_that_is_taken_and_numbers_that_are_none_are_said_of_the_file(encoder, tmp_path):
    save_file({"apple": VECTORS}, tmp_path / "taken.safetensors")
    with pytest.raises(ValueError, match="taken.safetensors: token 'apple'"):
        inversion.load(encoder, tmp_path / "taken.safetensors")
    save_file({"<toy>": VECTORS / 0}, tmp_path / "infinite.safetensors")
    with pytest.raises(CheckpointError, match="infinite.safetensors: <toy> holds NaN"):
        inversion.load(encoder, tmp_path / "infinite.safetensors")
