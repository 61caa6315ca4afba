"""Textual inversion (Gal et al. 2022): vectors (n,D) learnt for a new word -> n new tokens of a text encoder.

    file --read--> word, vectors --load--> the word in a prompt stands for its n tokens, which no chunk parts

Three layouts are read, as safetensors or as a pickle of tensors: A1111's string_to_param, A1111's emb_params, and
diffusers' {token: vectors}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoints.faults import CheckpointError, some
from ldm.checkpoints.modules import finite
from ldm.checkpoints.pickles import read_pickle
from ldm.checkpoints.tensors import kind, read_tensors
from ldm.text import TextEncoder


def read(path: str | Path) -> tuple[str, Tensor]:
    """A file -> its word and its vectors (n,D): diffusers' files name the word, for the others it is the file's name.

    CheckpointError for a file with anything but one embedding, FileNotFoundError where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no embedding {path}")
    found = {str(key): value for key, value in _content(path).items() if isinstance(value, Tensor)}
    if len(found) != 1:
        raise CheckpointError(f"{path}: expected one embedding, found {len(found)}: {some(found) or 'no tensors'}")
    [(token, vectors)] = found.items()
    vectors = vectors.detach()[None] if vectors.ndim == 1 else vectors.detach()
    if vectors.ndim != 2 or not vectors.is_floating_point() or not len(vectors):
        raise CheckpointError(f"{path}: an embedding of shape {tuple(vectors.shape)}; expected (vectors, features)")
    finite(vectors.float(), some([token]), str(path))
    return path.stem if token in ("*", "emb_params") else token, vectors


def _content(path: Path) -> Mapping[Any, Any]:
    """What a file holds, as {token: vectors}; A1111's token is "*" or "emb_params", whatever the file is called."""
    if kind(path) != "pickle":
        return read_tensors(path).tensors
    with torch.serialization.safe_globals([nn.ParameterDict]):  # where Gal et al.'s own program keeps its vectors
        content, _ = read_pickle(path)
    found = content.get("string_to_param", content) if isinstance(content, Mapping) else {}
    if isinstance(found, nn.ParameterDict):  # its keys are found in another place in every version of torch
        return dict(found.named_parameters())
    return found if isinstance(found, Mapping) else {}


def load(text: TextEncoder, path: str | Path, token: str | None = None) -> str:
    """Adds an embedding to a text encoder -> the word that stands for it in prompts: `token`, or the file's.

    Embeddings of other words stay as they are, bit for bit. Raises FileNotFoundError; CheckpointError for a file that
    is no embedding, or of another width than the encoder's, or with more vectors than a chunk holds; ValueError for a
    word that is a token already. The encoder is then as it was.
    """
    found, vectors = read(path)
    count, features = vectors.shape
    room = text.tokenizer.length - 2
    if features != text.features:
        raise CheckpointError(f"{path}: vectors of {features} features; the text encoder has {text.features}")
    if count > room:
        raise CheckpointError(f"{path}: {count} vectors; a chunk of the text encoder holds {room}")
    first = text.model.get_input_embeddings().num_embeddings
    try:
        text.tokenizer.add(token or found, range(first, first + count))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _extend(text.model, vectors)
    return token or found


def _extend(model: Any, vectors: Tensor) -> None:
    """Puts vectors (n,D) behind the last row of a model's table of embeddings."""
    table = model.get_input_embeddings().weight
    rows = torch.cat([table.detach(), vectors.to(table)])
    model.set_input_embeddings(nn.Embedding.from_pretrained(rows, freeze=not table.requires_grad))
    model.config.vocab_size = len(rows)
