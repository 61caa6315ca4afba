"""A byte-pair vocabulary in CLIP's form, learnt from captions (Sennrich et al. 2016)."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import pre_tokenizers

from ldm.text import BOS, EOS, Tokenizer, byte_pairs

Pair = tuple[str, str]


def train_tokenizer(captions: Iterable[str], size: int = 2000, length: int = 32) -> Tokenizer:
    """Captions -> a Tokenizer of at most `size` entries that can spell anything (512 of them are the bytes).

    `length` is the number of ids of a prompt, start and end included. The same captions give the same tokenizer: ties
    are broken by spelling, where the tokenizers library's own trainer leaves them to chance.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(words(captions), size - 2 * len(letters) - 2)
    entries = letters + [f"{letter}</w>" for letter in letters] + [a + b for a, b in merges] + [BOS, EOS]
    return Tokenizer({entry: i for i, entry in enumerate(dict.fromkeys(entries))}, merges, length)


def words(captions: Iterable[str]) -> Counter[str]:
    """How often each word stands in the captions, spelt in the byte alphabet."""
    splitter = byte_pairs({}, [])
    counts: Counter[str] = Counter()
    for caption, times in Counter(captions).items():
        for word, _ in splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(caption)):
            counts[word] += times
    return counts


def learn_merges(words: Counter[str], most: int) -> list[Pair]:
    """Joins the most frequent pair of neighbours, `most` times or until no pair stands twice."""
    spelt = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[Pair] = []
    while len(merges) < most:
        pairs: Counter[Pair] = Counter()
        for word, pieces in spelt.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        spelt = {word: joined(pieces, best) for word, pieces in spelt.items()}
    return merges


def joined(pieces: list[str], pair: Pair) -> list[str]:
    """["l", "e", "f", "t</w>"], ("l", "e") -> ["le", "f", "t</w>"]."""
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result
