"""What can be wrong with a checkpoint, each in one line that names the file."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what was expected."""


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Turns whatever a reader raises into one line that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"missing: {error.filename}" if error.filename else str(error).splitlines()[0]
        ) from None
    except Exception as error:  # readers of damaged files raise nearly every kind
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns whatever a full disk or a forbidden folder raises into one line that names what was to be written."""
    from safetensors import SafetensorError

    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError names the file where it is missing or no JSON."""
    with named(path):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def some(names: Collection[str]) -> str:
    """Many names -> the first three of them."""
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")
