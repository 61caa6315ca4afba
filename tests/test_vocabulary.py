"""A vocabulary learnt anew keeps what a text encoder knows of its words."""

import pytest
import torch
from conftest import CAPTIONS, tiny_pipeline

from ldm.text import TextEncoder
from ldm.training.cache import CachedLatents
from ldm.training.diffusion import PRESETS, Recipe, text_model, train_diffusion
from ldm.training.plan import Plan
from ldm.training.vocabulary import fitting, pieces_of, relearnt, spelt

PURPLE = ["a purple cat", "a purple dog on a purple table", "a cat left of a dog, and below both of them a purple cat"]


@pytest.fixture
def text() -> TextEncoder:
    torch.manual_seed(0)
    tokenizer = fitting(CAPTIONS)
    return TextEncoder(text_model(PRESETS["tiny"], tokenizer), tokenizer)


def test_the_same_captions_change_nothing(text):
    again = relearnt(text, CAPTIONS)
    assert again.tokenizer.vocabulary == text.tokenizer.vocabulary
    assert torch.equal(again(CAPTIONS), text(CAPTIONS))


def test_an_entry_begins_as_the_mean_of_its_pieces(text):
    new = relearnt(text, CAPTIONS + PURPLE * 2)
    old, found = (encoder.model.get_input_embeddings().weight for encoder in (text, new))
    for entry, row in new.tokenizer.vocabulary.items():
        if entry in text.tokenizer.vocabulary:
            assert torch.equal(found[row], old[text.tokenizer.vocabulary[entry]])
    ids = text.tokenizer.split("purple")[0].ids
    assert len(ids) > 1 and len(new.tokenizer.split("purple")[0].ids) == 1
    assert torch.allclose(found[new.tokenizer.vocabulary["purple</w>"]], old[ids].mean(0))


def test_what_is_not_of_words_stays_and_long_captions_fit(text):
    long = [" ".join(["purple"] * 40)] * 2
    new = relearnt(text, CAPTIONS + long)
    assert new.tokenizer.length == 42 and new(long).shape[1] == 42
    places = {}
    for name, value in new.model.state_dict().items():
        if name.endswith("position_embedding.weight"):
            places = {"old": text.model.state_dict()[name], "new": value}
        elif not name.endswith("token_embedding.weight"):
            assert torch.equal(value, text.model.state_dict()[name])
    assert torch.equal(places["new"][:24], places["old"])
    assert torch.equal(places["new"][24:], places["old"][-1:].expand(18, -1))


def test_pieces_are_those_that_the_old_tokenizer_reads(text):
    words = sorted({word for caption in PURPLE for word in caption.split()} - {"dog,"})
    for word in words:
        read = [text.tokenizer.vocabulary[piece] for piece in spelt(f"{word}</w>", text.tokenizer.merges)]
        assert read == [i for part in text.tokenizer.split(word) for i in part.ids]
    assert all(len(pieces) == 1 for pieces in pieces_of(text.tokenizer, text.tokenizer))


@pytest.fixture
def folder(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_trained_on_with_new_words(folder, tmp_path):
    side = tiny_pipeline().denoiser.unet.config["sample_size"]
    mean = torch.randn(6, 4, side, side, generator=torch.Generator().manual_seed(1)).half()
    data = CachedLatents(mean, torch.full_like(mean, -8.0), PURPLE * 2)
    plan = Plan(steps=2, batch_size=2, warmup=1, tensorboard=False)
    _, text = train_diffusion(tmp_path / "run", data, plan, init=folder, recipe=Recipe(new_vocabulary=True))
    assert text is not None and "purple</w>" in text.tokenizer.vocabulary
    with pytest.raises(ValueError, match="expected init"):
        train_diffusion(tmp_path / "new", data, plan, "tiny", recipe=Recipe(new_vocabulary=True))


def test_words_that_do_not_learn_are_refused():
    for told in ({"lora": 2}, {"train_text": False}):
        with pytest.raises(ValueError, match="new_vocabulary"):
            Recipe(new_vocabulary=True, **told)
