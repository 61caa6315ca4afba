"""The words of a model: a tokenizer that captions fit in, and a new one for a text encoder that has learnt already."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ldm.text import TextEncoder, Tokenizer
from ldm.training.tokenizer import Pair, joined, train_tokenizer

LEAST, MOST = 24, 77  # ids of a prompt


def fitting(captions: Sequence[str]) -> Tokenizer:
    """Captions -> a tokenizer that reads each of them whole, as far as CLIP's 77 ids go."""
    tokenizer = train_tokenizer(captions, length=LEAST)
    longest = max(sum(len(word.ids) for word in tokenizer.split(caption)) for caption in set(captions))
    tokenizer.length = min(MOST, max(LEAST, 2 + longest))
    return tokenizer


@torch.no_grad()
def relearnt(text: TextEncoder, captions: Sequence[str]) -> TextEncoder:
    """A text encoder -> the same with a vocabulary and a length for other captions.

    Each new entry begins as the mean of the embeddings of the pieces that it was read as (Gee et al. 2022, Fast
    Vocabulary Transfer), each new place as the last one.
    """
    old, new = text.tokenizer, fitting(captions)
    config = CLIPTextConfig.from_dict(
        text.model.config.to_dict()
        | {"vocab_size": len(new.vocabulary), "max_position_embeddings": new.length}
        | {"bos_token_id": new.start, "eos_token_id": new.end, "pad_token_id": new.pad}
    )
    state = dict(text.model.state_dict())
    embeddings = text.model.get_input_embeddings().weight
    for name, value in state.items():
        if name.endswith("token_embedding.weight"):
            state[name] = torch.stack([embeddings[pieces].mean(0) for pieces in pieces_of(new, old)])
        elif name.endswith("position_embedding.weight"):
            state[name] = _lengthened(value, new.length)
    model = CLIPTextModel(config)
    model.load_state_dict(state)
    return TextEncoder(model.to(embeddings.device).train(text.model.training), new)


def pieces_of(new: Tokenizer, old: Tokenizer) -> Iterable[list[int]]:
    """For each entry of `new`, in the order of ids: the ids of the pieces that `old` reads it as."""
    for entry in sorted(new.vocabulary, key=new.vocabulary.__getitem__):
        found = [entry] if entry in old.vocabulary else spelt(entry, old.merges)
        yield [old.vocabulary[piece] for piece in found]


def spelt(entry: str, merges: Iterable[Pair]) -> list[str]:
    """ "left</w>" -> its letters, joined as far as `merges` go: ["le", "ft</w>"]."""
    stem, end = (entry[:-4], "</w>") if entry.endswith("</w>") else (entry, "")
    pieces = [*stem[:-1], stem[-1] + end]
    for pair in merges:
        pieces = joined(pieces, pair)
    return pieces


def _lengthened(places: Tensor, length: int) -> Tensor:
    """Position embeddings (L,D) -> (length,D): cut, or the last one repeated."""
    return places[torch.arange(length).clamp(max=len(places) - 1)]
