"""Prompts become the ids and the embeddings that CLIP's own tokenizer and encoder give."""

import logging
import random
from dataclasses import replace

import pytest
import torch
from conftest import CAPTIONS
from torch import nn

from ldm.text import TextEncoder, Token, Tokenizer, chunked, weighted
from ldm.training.diffusion import PRESETS, text_model
from ldm.training.tokenizer import train_tokenizer

TEXTS = [
    "a red apple",
    "",
    " A  Big,, DOG'S 12 café ☕ \n tree",
    "日本 🍎",
    "x <|endoftext|> y",
    "don't we'll",
    "\t",
    "a" * 500,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, size=600, length=16)


def test_ids_equal_transformers(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(TEXTS, padding="max_length", max_length=16, truncation=True).input_ids
    assert tokenizer(TEXTS) == expected
    assert theirs.model_max_length == 16


def test_both_layouts_load(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save_pretrained(tmp_path / "files")
    CLIPTokenizer.from_pretrained(str(tmp_path / "files")).save_pretrained(str(tmp_path / "json"))
    (tmp_path / "json" / "vocab.json").unlink(missing_ok=True)
    assert (tmp_path / "json" / "tokenizer.json").exists()
    for layout in ("files", "json"):
        assert Tokenizer.from_pretrained(tmp_path / layout)(TEXTS) == tokenizer(TEXTS)


def test_a_pad_token_of_its_own_is_used(tokenizer):
    padded = Tokenizer(tokenizer.vocabulary, tokenizer.merges, 16, pad="!")
    assert padded("a")[0][-1] == tokenizer.vocabulary["!"] != tokenizer("a")[0][-1]


def test_the_same_captions_give_the_same_tokenizer():
    first, again = (train_tokenizer(order, size=700) for order in (CAPTIONS, CAPTIONS[::-1]))
    assert first.merges == again.merges and first.vocabulary == again.vocabulary


def test_words_of_the_captions_are_single_tokens():
    learnt = train_tokenizer(CAPTIONS * 2, size=2000)
    assert learnt.words.encode("red apple").tokens == ["red</w>", "apple</w>"]
    assert len(learnt.vocabulary) <= 2000


def test_what_is_cut_is_said(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "ldm"):
        ids = tokenizer("a red apple " * 1000)[0]
    assert len(ids) == 16 and "cut: " in caplog.text and len(caplog.text) < 300


def test_nothing_is_said_of_a_prompt_that_fits(tokenizer, caplog):
    tokenizer("a red apple")
    assert not caplog.records


def test_no_tokenizer_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="vocab.json"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def encoder(tokenizer) -> TextEncoder:
    """Three layers, and a layer norm with a bias, as in the published encoders."""
    torch.manual_seed(0)
    size = replace(PRESETS["tiny"], text_layers=3)
    encoder = TextEncoder(text_model(size, tokenizer).eval(), tokenizer)
    nn.init.constant_(encoder.model.final_layer_norm.bias, -0.2)
    return encoder


class Older(nn.Module):
    """The layout of transformers 4, which diffusers' clip_skip asks for: a `text_model` inside."""

    dtype = torch.float32

    def __init__(self, text_model: nn.Module):
        super().__init__()
        self.text_model, self.config, self.forward = text_model, text_model.config, text_model.forward


@pytest.fixture(scope="module")
def peer(encoder, tmp_path_factory):
    """diffusers' pipeline with the same text encoder and tokenizer, and nothing else of a pipeline."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("peer")
    encoder.tokenizer.save_pretrained(folder)
    parts = {"vae": None, "unet": None, "scheduler": None, "safety_checker": None, "feature_extractor": None}
    theirs = CLIPTokenizer.from_pretrained(str(folder))
    return StableDiffusionPipeline(
        text_encoder=Older(encoder.model), tokenizer=theirs, requires_safety_checker=False, **parts
    ).encode_prompt


def rows(encoder: TextEncoder, chunks: list[list[Token]]) -> torch.Tensor:
    """Chunks -> (chunks,L,D) hidden states of plain CLIP, one chunk at a time."""
    padded = [[token.id for token in encoder.tokenizer.padded(chunk)] for chunk in chunks]
    with torch.no_grad():
        return torch.cat([encoder.model(torch.tensor([ids])).last_hidden_state for ids in padded])


def words(chunk: list[Token], tokenizer: Tokenizer) -> str:
    spelt = {id: token for token, id in tokenizer.vocabulary.items()}
    return "".join(spelt[token.id] for token in chunk).replace("</w>", " ").strip()


def test_embeddings_are_clips_last_hidden_state(encoder, tokenizer):
    cond = encoder(["a red apple", ""])
    assert cond.shape == (2, 16, 16) and not cond.requires_grad
    assert torch.equal(cond, encoder.model(torch.tensor(tokenizer(["a red apple", ""]))).last_hidden_state)
    assert torch.equal(encoder.null(3)[2], encoder("")[0])


@pytest.mark.parametrize("clip_skip", [None, 0, 1, 2])
@pytest.mark.parametrize("prompts", [["a red apple"], ["three green pears, 12 cats", ""]], ids=["one", "two"])
def test_a_short_plain_prompt_equals_diffusers_exactly(encoder, peer, prompts, clip_skip):
    expected, _ = peer(prompts, "cpu", 1, False, clip_skip=clip_skip)
    assert torch.equal(encoder(prompts, clip_skip=clip_skip), expected)


def test_every_clip_skip_is_another_layer(encoder):
    conds = [encoder("a red apple", clip_skip=n) for n in range(3)]
    assert min((conds[i] - conds[j]).abs().max() for i, j in [(0, 1), (0, 2), (1, 2)]) > 0.01


@pytest.mark.parametrize("clip_skip", [-1, 3, 12])
def test_a_clip_skip_without_a_layer_is_refused(encoder, clip_skip):
    with pytest.raises(ValueError, match=f"clip_skip {clip_skip}: expected 0 to 2"):
        encoder("a red apple", clip_skip=clip_skip)


def test_clip_skip_in_the_layout_of_transformers_4(encoder):
    older = TextEncoder(Older(encoder.model), encoder.tokenizer)
    assert torch.equal(older("a red apple", clip_skip=1), encoder("a red apple", clip_skip=1))


def test_a_long_prompt_is_read_in_chunks_and_none_of_it_is_lost(encoder, tokenizer, caplog):
    prompt = "a red apple on a blue background to the left of three green pears on a red cat face"
    chunks = tokenizer.chunks(prompt)
    assert " ".join(words(chunk, tokenizer) for chunk in chunks) == prompt
    assert encoder.chunks(["", prompt]) == len(chunks) == 2 and encoder.chunks("a") == 1
    cond = encoder(prompt)
    assert cond.shape == (1, 32, 16) and torch.equal(cond, rows(encoder, chunks).reshape(1, 32, 16))
    assert not caplog.records


def test_all_prompts_are_padded_to_as_many_chunks(encoder):
    prompts = ["a red apple " * 10, "a cat face"]
    count = encoder.chunks(prompts)
    together, padded = encoder(prompts), encoder(prompts[1], chunks=count)
    assert together.shape == (2, 16 * count, 16) and count == 3
    assert torch.equal(padded, torch.cat([encoder("a cat face"), encoder(""), encoder("")], dim=1))
    assert torch.allclose(together[1:], padded, atol=1e-6)
    assert torch.equal(encoder(prompts[0], chunks=1), encoder(prompts[0]))


def test_a_full_chunk_stays_one(encoder, tokenizer):
    full = " ".join("a" for _ in range(14))
    assert encoder.chunks(full) == 1 and encoder.chunks(f"{full} a") == 2
    assert torch.equal(encoder(full), encoder.model(torch.tensor(tokenizer(full))).last_hidden_state)


def tokens(*lengths: int) -> list[list[Token]]:
    """Words of that many tokens each, numbered from 1; 0 stands for a comma, whose id is 0."""
    ids = iter(range(1, 1000))
    return [[Token(next(ids)) for _ in range(length)] if length else [Token(0)] for length in lengths]


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ((), [0]),
        ((75,), [75]),
        ((1,) * 76, [75, 1]),
        ((70, 6), [70, 6]),  # a word is not parted
        ((50, 0, 20, 10), [51, 30]),  # the comma is 20 tokens before the overflow
        ((50, 0, 21, 10), [72, 10]),  # 21
        ((60, 0, 5, 0, 5, 10), [67, 15]),  # the last comma counts
        ((60, 0, 14, 70), [75, 70]),  # the phrase would not fit with the next word, so nothing is gained
        ((160, 5), [75, 75, 15]),  # a word longer than a chunk
        ((70, 160), [70, 75, 75, 10]),
    ],
)
def test_where_chunks_end(lengths, expected):
    words = tokens(*lengths)
    chunks = chunked(words, 75, comma=0)
    assert [len(chunk) for chunk in chunks] == expected
    assert sum(chunks, []) == sum(words, [])


@pytest.mark.parametrize("seed", range(50))
def test_chunks_keep_order_and_words(seed):
    rng = random.Random(seed)
    words = tokens(*(rng.choice([0, 1, 1, 2, 7, 14]) for _ in range(rng.randrange(1, 60))))
    room = rng.choice([14, 22, 75])
    chunks = chunked(words, room, comma=0)
    assert sum(chunks, []) == sum(words, []) and all(0 < len(chunk) <= room for chunk in chunks)
    starts = {sum(map(len, words[:i])) for i in range(len(words) + 1)}
    assert all(sum(map(len, chunks[:i])) in starts for i in range(len(chunks)))


def test_break_fills_the_chunk(encoder, tokenizer):
    cond = encoder("a red apple BREAK (three green pears:1)")
    assert torch.equal(cond, torch.cat([encoder("a red apple"), encoder("three green pears")], dim=1))


def test_weights_multiply_and_the_mean_of_each_chunk_is_restored(encoder, tokenizer):
    """A1111's formula by hand, a chunk at a time."""
    cond = encoder("a (red:1.5) [apple] BREAK a cat")
    plain = rows(encoder, tokenizer.chunks("a red apple BREAK a cat"))
    scaled = plain[0].clone()
    scaled[2] *= 1.5
    scaled[3] /= 1.1
    expected = scaled * (plain[0].mean() / scaled.mean())
    assert (cond[0, :16] - plain[0]).abs().max() > 0.1
    assert torch.allclose(cond[0, :16], expected, atol=1e-6)
    assert torch.allclose(cond[0, :16].mean(), plain[0].mean(), atol=1e-6)
    assert torch.equal(cond[0, 16:], plain[1])


def test_weights_of_one_prompt_leave_the_others_alone(encoder):
    prompts = ["a (red:2) apple", "a cat face"]
    both, plain = encoder(prompts), encoder(["a red apple", "a cat face"])
    assert torch.equal(both[1], plain[1]) and not torch.allclose(both[0], plain[0], atol=0.1)
    assert torch.allclose(both[:1], encoder(prompts[0]), atol=1e-6)


def test_a_weight_of_one_changes_nothing(encoder):
    assert torch.equal(encoder("(a red apple:1)"), encoder("a red apple"))


def test_without_weights_the_text_is_literal(encoder, tokenizer):
    prompt = "a (red:1.5) BREAK"
    literal = encoder(prompt, weights=False)
    assert torch.equal(literal, encoder.model(torch.tensor(tokenizer(prompt))).last_hidden_state)
    assert encoder.chunks("a BREAK b") == 2 and encoder.chunks("a BREAK b", weights=False) == 1


def test_weighting_keeps_dtype_and_gives_finite_states_where_there_is_no_mean():
    hidden = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    hidden -= hidden.mean(dim=-1, keepdim=True)  # a layer norm without bias
    factors = torch.ones(2, 8)
    factors[0, 3], factors[1, 2:4] = 1.5, torch.tensor([0.0, -2.0])
    assert torch.allclose(weighted(hidden, factors), hidden * factors[..., None])
    assert weighted(hidden.half(), factors).dtype == torch.float16
    assert torch.isfinite(weighted(torch.zeros(2, 8, 6), factors)).all()


def test_restoring_the_mean_never_turns_the_states_round():
    hidden = torch.full((1, 4, 2), -1.0)
    hidden[0, 1] = 3.1  # the mean, 0.025, would change its sign
    factors = torch.tensor([[1.0, 0.5, 1.0, 1.0]])
    ratio = weighted(hidden, factors)[0, 0, 0] / hidden[0, 0, 0]
    assert 1 <= ratio <= 2


def test_the_embedded_model_reads_long_prompts():
    from ldm import checkpoints

    text = checkpoints.load_text(checkpoints.resolve("emoji"))
    prompt = "a (red apple:1.2) to the left of a dog face on a blue background, " * 4
    cond = text(prompt)
    assert cond.shape == (1, text.tokenizer.length * text.chunks(prompt), 160) and text.chunks(prompt) > 2
    assert torch.isfinite(cond).all()


def test_a_length_without_room_for_a_word_is_refused():
    tokenizer = train_tokenizer(CAPTIONS, size=600, length=16)
    with pytest.raises(ValueError, match="length 2: expected 3 tokens or more"):
        Tokenizer(tokenizer.vocabulary, tokenizer.merges, 2)
