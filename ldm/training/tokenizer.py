"""A byte-pair vocabulary in CLIP's form, learnt from captions (Sennrich et al. 2016)."""

import json
from collections.abc import Iterable

from ldm.text import BOS, EOS, Tokenizer, byte_pairs


def train_tokenizer(captions: Iterable[str], size: int = 2000, length: int = 32) -> Tokenizer:
    """Captions -> a Tokenizer of at most `size` entries that can spell anything (512 of them are the bytes).

    `length` is the number of ids of a prompt, start and end included.
    """
    from tokenizers import models, pre_tokenizers, trainers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = byte_pairs({}, [])
    learner.model = models.BPE(end_of_word_suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(letters) - 2, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    entries = letters + [f"{letter}</w>" for letter in letters] + [a + b for a, b in merges] + [BOS, EOS]
    return Tokenizer({entry: i for i, entry in enumerate(dict.fromkeys(entries))}, merges, length)
