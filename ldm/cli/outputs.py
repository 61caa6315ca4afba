"""Where pictures go, and the bar that tells how far the drawing is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from itertools import count as count_from
from pathlib import Path
from typing import Any

from ldm.cli import options


def paths_of(out: Path | None, names: Sequence[str], count: int, seed: int) -> list[Path]:
    """Where `count` pictures of each name go, name by name, all of them checked before anything is drawn.

    `out` is a folder, or a picture's file, which several pictures number. A folder's pictures are called name-seed.
    """
    out = out or Path()
    if is_folder(out):
        paths = [out / f"{name}-{seed + j}.png" for name in unlike(names) for j in range(count)]
    elif len(names) * count == 1:
        paths = [out]
    else:
        paths = [out.with_stem(f"{out.stem}-{i}") for i in range(len(names) * count)]
    return [options.writable_picture(path) for path in paths]


def is_folder(out: Path) -> bool:
    """Whether several pictures go into it, there already or not."""
    return out.is_dir() or not out.suffix


def unlike(names: Sequence[str]) -> list[str]:
    """Names made different by a number where they repeat."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}-{i}" for i in count_from(2))
        taken.append(next(n for n in chain([name], numbered) if n not in taken))
    return taken


def save_all(images: Sequence[Any], paths: Sequence[Path], metadata: bool) -> None:
    """Writes each picture and prints its path."""
    from ldm.metadata import save

    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(exist_ok=True)
        save(image, path, metadata=metadata)
        print(path)


@contextmanager
def stepping(batches: int = 1) -> Iterator[Callable[..., None]]:
    """A callback for drawing, under one progress bar over `batches` of it."""
    from tqdm import tqdm

    with tqdm(unit="step", disable=None, delay=2) as bar:

        def shown(step: int, total: int, t: float, z_0: Any) -> None:
            bar.total = total * batches
            bar.update()

        yield shown
