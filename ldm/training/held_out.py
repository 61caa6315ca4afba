"""Pictures that are kept from a training, to try on them what it gives."""

from collections.abc import Sequence
from typing import Any

from ldm.data.items import Record, RecordSource, digest


class Part:
    """Some records of a source, as a source."""

    def __init__(self, source: RecordSource, indices: Sequence[int]):
        self.source, self.indices, self.classes = source, indices, source.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Record:
        return self.source[self.indices[index]]

    def identity(self) -> dict[str, Any]:
        """What the whole is, and which records of it."""
        return {**self.source.identity(), "part": digest(self.indices)}


def kept_apart(source: RecordSource, count: int) -> tuple[Part, Part]:
    """A source -> what is left to learn from, and `count` records spread evenly over it.

    ValueError where more than half would be kept.
    """
    total = len(source)
    if not 1 <= count <= total // 2:
        raise ValueError(f"{count} pictures to be kept from training: expected 1 to {total // 2}, of {total}")
    kept = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    others = set(range(total)) - set(kept)
    return Part(source, sorted(others)), Part(source, kept)
