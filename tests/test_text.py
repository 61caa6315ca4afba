"""Prompts become the ids and the embeddings that CLIP's own tokenizer and encoder give."""

import logging

import pytest
import torch
from conftest import CAPTIONS

from ldm.text import TextEncoder, Tokenizer
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


def test_embeddings_are_clips_last_hidden_state(tokenizer):
    torch.manual_seed(0)
    encoder = TextEncoder(text_model(PRESETS["tiny"], tokenizer).eval(), tokenizer)
    cond = encoder(["a red apple", ""])
    assert cond.shape == (2, 16, 16) and not cond.requires_grad
    assert torch.equal(cond, encoder.model(torch.tensor(tokenizer(["a red apple", ""]))).last_hidden_state)
    assert torch.equal(encoder.null(3)[2], encoder("")[0])
