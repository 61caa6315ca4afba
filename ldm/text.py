"""prompts -> ids (B,L) -> cond (B,L,D): CLIP's tokenizer and text encoder (Radford et al. 2021).

The last hidden state is the condition (Rombach et al. 2022, section 3.3); "" is the null condition.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from ldm.files import write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger("ldm")

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
# CLIP's own pattern: contractions, runs of letters, single digits, runs of anything else
WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class Tokenizer:
    """prompts -> ids (B,L), each <start> words <end>, padded to L = `length`."""

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], length: int = 77, pad: str = EOS):
        self.vocabulary, self.merges, self.length = vocabulary, list(merges), length
        self.start, self.end, self.pad = (vocabulary[token] for token in (BOS, EOS, pad))
        self.pad_token = pad
        self.words = byte_pairs(vocabulary, self.merges)

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
        merges = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in self.merges)]) + "\n"
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": self.pad_token}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length, "do_lower_case": True, **special}
        write_json(folder / "vocab.json", self.vocabulary)
        (folder / "merges.txt").write_text(merges, encoding="utf-8")
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", special)

    def __call__(self, prompts: str | Sequence[str]) -> list[list[int]]:
        """Ids of each prompt, `length` of them; what does not fit is cut, and the log says which words."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return [self._padded(prompt) for prompt in prompts]

    def _padded(self, prompt: str) -> list[int]:
        encoding = self.words.encode(prompt)
        room = self.length - 2
        if len(encoding.ids) > room:
            dropped = prompt[encoding.offsets[room][0] :].strip()
            shown = dropped if len(dropped) <= 80 else f"{dropped[:77]}..."
            log.warning("the prompt has %d tokens, %d fit; cut: %r", len(encoding.ids), room, shown)
        ids = [self.start, *encoding.ids[:room], self.end]
        return ids + [self.pad] * (self.length - len(ids))


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

    def __call__(self, prompts: str | Sequence[str]) -> "Tensor":
        """One prompt or several -> (B,L,D) in the model's dtype, on its device."""
        import torch

        ids = torch.tensor(self.tokenizer(prompts), device=next(self.model.parameters()).device)
        with torch.no_grad():
            return self.encode(ids)

    @property
    def features(self) -> int:
        """D of the condition."""
        return self.model.config.hidden_size

    def encode(self, ids: "Tensor") -> "Tensor":
        """ids (B,L) -> cond (B,L,D), with gradients."""
        return self.model(ids).last_hidden_state

    def null(self, batch: int = 1) -> "Tensor":
        """The empty prompt's condition, `batch` times."""
        return self("").expand(batch, -1, -1)

    def to(self, device: "torch.device | str | None" = None, dtype: "torch.dtype | None" = None) -> "TextEncoder":
        self.model.to(device=device, dtype=dtype)
        return self
