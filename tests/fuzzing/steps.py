"""Content -> damaged content. Places are counted modulo the length, so that any number is one."""

import json
from collections.abc import Callable, Iterator
from typing import Any

Value = Any  # of JSON
Path = tuple[Any, ...]  # keys and numbers from a document to one of its values
INSIDE = object()  # in a path: a string that is JSON itself
MARK = "fuzzed-here"


# ---- bytes ----


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return _put(content, place, bytes([_at(content, place) ^ 1 << bit]))


def cut(content: bytes, place: int) -> bytes:
    return content[: place % (len(content) + 1)]


def zeroed(content: bytes, place: int, length: int) -> bytes:
    return _put(content, place, bytes(length))


def written(content: bytes, place: int, block: bytes) -> bytes:
    return _put(content, place, block)


def numbered(content: bytes, place: int, number: int, width: int, order: str) -> bytes:
    """A number of 1, 2, 4 or 8 bytes in a head: a size, a count, an offset."""
    return _put(content, place, (number % 256**width).to_bytes(width, order))  # type: ignore[arg-type]


def inserted(content: bytes, place: int, block: bytes) -> bytes:
    place %= len(content) + 1
    return content[:place] + block + content[place:]


def removed(content: bytes, place: int, length: int) -> bytes:
    place %= len(content) + 1
    return content[:place] + content[place + length :]


def repeated(content: bytes, place: int, length: int, times: int) -> bytes:
    place %= len(content) + 1
    return content[:place] + content[place : place + length] * times + content[place + length :]


def swapped(content: bytes, place: int, length: int) -> bytes:
    """A block and the one behind it change places."""
    place %= len(content) + 1
    middle, end = place + length, place + 2 * length
    return content[:place] + content[middle:end] + content[place:middle] + content[end:]


def _at(content: bytes, place: int) -> int:
    return content[place % len(content)] if content else 0


def _put(content: bytes, place: int, block: bytes) -> bytes:
    """A block over what stands there, no further than the end."""
    place %= max(1, len(content))
    return (content[:place] + block + content[place + len(block) :])[: len(content)]


# ---- text ----


def recoded(content: bytes, encoding: str) -> bytes:
    """Text in another encoding than it was."""
    return content.decode("utf-8", "replace").encode(encoding, "replace")


# ---- JSON ----


def valued(content: bytes, place: int, text: str | None) -> bytes:
    """JSON, or a line of it, with another value in a place, as JSON text that need not be correct; None removes it."""
    return _edited(content, place, lambda value, spot, spots: _dumped(value, spot, text))


def borrowed(content: bytes, place: int, other: int) -> bytes:
    """The same with the value of another place, or its own the other way round where it is a list."""

    def edit(value: Value, spot: Path, spots: list[Path]) -> str:
        found = _found(value, spots[other % len(spots)])
        own = _found(value, spot)
        return _dumped(value, spot, json.dumps(own[::-1] if isinstance(own, list) and other % 2 else found))

    return _edited(content, place, edit)


def _edited(content: bytes, place: int, edit: Callable[[Value, Path, list[Path]], str]) -> bytes:
    """A document or one of its lines, and the path of a value in it; what is no JSON stays."""
    lines = [content] if _json(content) is not None else content.split(b"\n")
    number = place % len(lines)
    value = _json(lines[number])
    if value is None:
        return content
    spots = list(_spots(value))
    lines[number] = edit(value, spots[place // len(lines) % len(spots)], spots).encode()
    return b"\n".join(lines)


def _json(content: bytes) -> Value | None:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _dumped(value: Value, path: Path, text: str | None) -> str:
    """JSON with a text in the place of one of its values; None: without that value."""
    return json.dumps(_changed(value, path, text)).replace(f'"{MARK}"', text or "")


def _spots(value: Value, path: Path = ()) -> Iterator[Path]:
    """Paths to all values, itself among them; of a long list, to the first few."""
    yield path
    if isinstance(value, str) and isinstance(inner := _json(value.encode("utf-8", "replace")), (dict, list)):
        yield from _spots(inner, (*path, INSIDE))
    members = value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    for key, member in list(members)[:200]:
        yield from _spots(member, (*path, key))


def _found(value: Value, path: Path) -> Value:
    for key in path:
        value = json.loads(value) if key is INSIDE else value[key]
    return value


def _changed(value: Value, path: Path, text: str | None) -> Value:
    if not path:
        return MARK
    key, *rest = path
    if key is INSIDE:
        return _dumped(json.loads(value), tuple(rest), text)
    found = value.copy()
    if text is None and not rest:
        del found[key]
    else:
        found[key] = _changed(value[key], tuple(rest), text)
    return found


ALL = (flipped, cut, zeroed, written, numbered, inserted, removed, repeated, swapped, recoded, valued, borrowed)
STEPS: dict[str, Callable[..., bytes]] = {step.__name__: step for step in ALL}
