"""prompts -> ids (B,L) -> cond (B,L,D): CLIP's tokenizer and text encoder (Radford et al. 2021).

    prompt --parse--> fragments --split--> words --chunked--> chunks --model--> hidden states --weighted--> cond

The last hidden state is the condition (Rombach et al. 2022, section 3.3); "" is the null condition. A prompt longer
than the encoder is read in chunks, each with its own start and end, whose conditions stand one after another. One that
fits and has no weights is encoded as CLIP does it, bit for bit.
"""

import json
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tokenizers

from ldm.files import write_json
from ldm.prompts import Fragment, parse

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger("ldm")

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
# CLIP's own pattern: contractions, runs of letters, single digits, runs of anything else
WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
COMMA = ",</w>"
NEAR = 20 / 75  # of a chunk: it ends at a comma if its last one stands within that many tokens of the overflow (A1111)


class Word(NamedTuple):
    """Ids that belong together, and where in the text they begin."""

    ids: list[int]
    start: int


class Token(NamedTuple):
    """An id and what its hidden state is multiplied by."""

    id: int
    weight: float = 1.0


class Tokenizer:
    """prompts -> ids (B,L), each <start> words <end>, padded to L = `length`."""

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], length: int = 77, pad: str = EOS):
        if length < 3:
            raise ValueError(f"length {length}: expected 3 tokens or more, a start and an end among them")
        self.vocabulary, self.merges, self.length = vocabulary, list(merges), length
        self.start, self.end, self.pad = (vocabulary[token] for token in (BOS, EOS, pad))
        self.pad_token = pad
        self.words = byte_pairs(vocabulary, self.merges)
        self.names: dict[str, list[int]] = {}  # what was added, and the ids that each stands for

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Tokenizer":
        """Reads vocab.json with merges.txt, or tokenizer.json; FileNotFoundError where neither is there."""
        folder = Path(folder)
        config = _settings(folder)
        length = min(int(config.get("model_max_length", 77)), 10_000)
        pad = config.get("pad_token", EOS)
        pad = pad["content"] if isinstance(pad, dict) else pad
        if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines) if b and a != "#version:"]
        elif (folder / "tokenizer.json").exists():
            model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
            vocabulary = model["vocab"]
            merges = [(a, b) for a, b in (m.split(" ") if isinstance(m, str) else m for m in model["merges"])]
        else:
            raise FileNotFoundError(f"{folder} holds no tokenizer: vocab.json with merges.txt, or tokenizer.json")
        return cls(vocabulary, merges, length, pad)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the layout of the published CLIP tokenizers, which every version of transformers reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.names:
            log.warning("%s: the added tokens are not written: %s", folder, ", ".join(self.names))
        merges = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in self.merges)]) + "\n"
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": self.pad_token}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length, "do_lower_case": True, **special}
        write_json(folder / "vocab.json", self.vocabulary)
        (folder / "merges.txt").write_text(merges, encoding="utf-8")
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", special)

    def __call__(self, prompts: str | Sequence[str]) -> list[list[int]]:
        """Ids of each prompt, taken literally, `length` of them; the log says which words did not fit and were cut."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return [self._cut(prompt) for prompt in prompts]

    def _cut(self, prompt: str) -> list[int]:
        words = self.split(prompt)
        tokens = [Token(id) for word in words for id in word.ids]
        room = self.length - 2
        if len(tokens) > room:
            start = [word.start for word in words for _ in word.ids][room]
            dropped = prompt[start:].strip()
            shown = dropped if len(dropped) <= 80 else f"{dropped[:77]}..."
            log.warning("the prompt has %d tokens, %d fit; cut: %r", len(tokens), room, shown)
        return [token.id for token in self.padded(tokens[:room])]

    def split(self, text: str) -> list[Word]:
        """Literal text -> its words; an added name counts as one."""
        encoding = self.words.encode(text)
        pieces = zip(encoding.word_ids, encoding.tokens, encoding.ids, encoding.offsets)
        words = [list(word) for _, word in groupby(pieces, key=lambda piece: piece[0])]
        return [
            Word([i for _, name, id, _ in word for i in self.names.get(name, [id])], start=word[0][3][0])
            for word in words
        ]

    def chunks(self, prompt: str, weights: bool = True) -> list[list[Token]]:
        """Prompt -> its chunks, at least one, of at most `length` - 2 tokens each; weights=False takes it literally."""
        sections = parse(prompt) if weights else [[Fragment(prompt, 1.0)]]
        chunks: list[list[Token]] = []
        for section in sections:
            words = [[Token(id, weight) for id in word.ids] for text, weight in section for word in self.split(text)]
            chunks += chunked(words, self.length - 2, self.vocabulary.get(COMMA))
        return chunks

    def padded(self, chunk: Sequence[Token]) -> list[Token]:
        """A chunk between start and end, padded to `length`."""
        row = [Token(self.start), *chunk, Token(self.end)]
        return row + [Token(self.pad)] * (self.length - len(row))

    def add(self, name: str, ids: Sequence[int]) -> None:
        """From now on `name` in a prompt, upper or lower case, stands for `ids`.

        One that begins or ends in a letter must stand as a word of its own. ValueError where it is a token already.
        """
        spelt = self.words.normalizer.normalize_str(name).strip()
        if not spelt or any(self.words.token_to_id(token) is not None for token in (spelt, f"{spelt}</w>")):
            raise ValueError(f"token {name!r}: expected a name that is no token yet")
        whole = spelt[0].isalnum() or spelt[-1].isalnum()
        self.words.add_tokens([tokenizers.AddedToken(spelt, single_word=whole, normalized=True)])
        self.names[spelt] = list(ids)


def chunked(words: Sequence[list[Token]], room: int, comma: int | None) -> list[list[Token]]:
    """Words -> chunks of at most `room` tokens, in order; no word is parted unless it alone is longer than a chunk."""
    chunks: list[list[Token]] = []
    current: list[list[Token]] = []
    fitting = (word[i : i + room] for word in words for i in range(0, len(word), room))
    for word in fitting:
        if sum(map(len, current)) + len(word) > room:
            end = _phrase_end(current, min(NEAR * room, room - len(word)), comma)
            chunks.append(sum(current[:end], []))
            current = current[end:]
        current.append(word)
    return [*chunks, sum(current, [])]


def _phrase_end(words: Sequence[list[Token]], near: float, comma: int | None) -> int:
    """How many words to keep: up to the last comma if at most `near` tokens follow it, else all."""
    following = 0
    for i in range(len(words), 0, -1):
        if words[i - 1][-1].id == comma and following <= near:
            return i
        following += len(words[i - 1])
    return len(words)


def byte_pairs(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's byte-pair encoding: lower case, split by WORDS, bytes, "</w>" at the end of a word; nothing added."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    model = models.BPE(vocabulary, merges, unk_token=EOS, end_of_word_suffix="</w>")
    words = tokenizers.Tokenizer(model)
    words.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    words.add_special_tokens([token for token in (BOS, EOS) if token in vocabulary])
    return words


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
    return settings


class TextEncoder:
    """prompts -> cond (B,L,D): `model` is transformers' CLIPTextModel, or any module with `last_hidden_state`."""

    def __init__(self, model: Any, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def __call__(
        self,
        prompts: str | Sequence[str],
        clip_skip: int | None = 0,
        weights: bool = True,
        chunks: int | None = None,
    ) -> "Tensor":
        """One prompt or several -> (B, chunks * length, D) in the model's dtype, on its device.

        The last `clip_skip` layers are left out, as diffusers counts: 0 or None is the last hidden state, 1 the one
        before (A1111's "clip skip 2"). `weights` reads the syntax of `ldm.prompts`; without it a prompt is literal.
        All prompts are padded, with empty chunks, to as many as the longest needs and no fewer than `chunks`: the
        prompts of several calls match where each is given `self.chunks(all of them)`. ValueError for a clip_skip that
        leaves no layer.
        """
        import torch

        prompts = [prompts] if isinstance(prompts, str) else prompts
        rows = [self.tokenizer.chunks(prompt, weights) for prompt in prompts]
        count = max([chunks or 1, *map(len, rows)])
        tokens = [self.tokenizer.padded(chunk) for row in rows for chunk in [*row, *[[]] * (count - len(row))]]
        device = next(self.model.parameters()).device
        ids = torch.tensor([[token.id for token in row] for row in tokens], device=device)
        factors = torch.tensor([[token.weight for token in row] for row in tokens], device=device)
        with torch.no_grad():
            hidden = weighted(self.encode(ids, clip_skip), factors)
        return hidden.reshape(len(prompts), -1, hidden.shape[-1])

    def chunks(self, prompts: str | Sequence[str], weights: bool = True) -> int:
        """How many chunks the longest of the prompts needs."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return max(len(self.tokenizer.chunks(prompt, weights)) for prompt in prompts)

    @property
    def features(self) -> int:
        """D of the condition."""
        return self.model.config.hidden_size

    def encode(self, ids: "Tensor", clip_skip: int | None = 0) -> "Tensor":
        """ids (B,L) -> cond (B,L,D), with gradients; the final layer norm follows whichever layer is the last."""
        if not clip_skip:
            return self.model(ids).last_hidden_state
        layers = self.model.config.num_hidden_layers
        if not 0 < clip_skip < layers:
            raise ValueError(f"clip_skip {clip_skip}: expected 0 to {layers - 1}, the text encoder has {layers} layers")
        hidden = self.model(ids, output_hidden_states=True).hidden_states[-1 - clip_skip]
        return getattr(self.model, "text_model", self.model).final_layer_norm(hidden)

    def null(self, batch: int = 1) -> "Tensor":
        """The empty prompt's condition, `batch` times."""
        return self("").expand(batch, -1, -1)

    def to(self, device: "torch.device | str | None" = None, dtype: "torch.dtype | None" = None) -> "TextEncoder":
        """Moves the model; returns this encoder."""
        self.model.to(device=device, dtype=dtype)
        return self


def weighted(hidden: "Tensor", factors: "Tensor") -> "Tensor":
    """hidden (N,L,D), factors (N,L) -> hidden states times their factors, the mean of each chunk as it was.

    That is A1111's weighting of a single prompt. Chunks without weights pass as they are.
    """
    touched = (factors != 1).any(dim=1)
    if not touched.any():
        return hidden
    before, factors = hidden[touched].float(), factors[touched]
    after = before * factors[:, :, None]
    hidden = hidden.clone()
    hidden[touched] = (after * _restoring(before, after, factors)[:, None, None]).to(hidden.dtype)
    return hidden


def _restoring(before: "Tensor", after: "Tensor", factors: "Tensor") -> "Tensor":
    """What to multiply each chunk (L,D) by to restore its mean -> (N,).

    Never more than would undo the largest factor or the smallest, which is no limit where the tokens' means agree in
    sign, as they do in the published encoders. Nothing is restored where the mean is below 1 % of the root mean square:
    an encoder whose layer norm has no bias has no mean to speak of, and the ratio would be noise.
    """
    import torch

    old, new = before.mean(dim=(1, 2)), after.mean(dim=(1, 2))
    sizes = factors.abs().clamp(0.1, 10)
    ratio = (old / new).nan_to_num(1.0).clamp(1 / sizes.amax(dim=1), 1 / sizes.amin(dim=1))
    return torch.where(old.abs() > 0.01 * before.square().mean(dim=(1, 2)).sqrt(), ratio, 1.0)
