"""Folders and files of a set, under any of the names that its copies give them."""

from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def folder(parent: Path, *names: str) -> Path | None:
    """The first folder of these names that is there, spelled with hyphens, with underscores or as it stands here."""
    spelled = (s for name in names for s in (name, name.replace("-", "_"), name.replace("_", "-")))
    return next((parent / name for name in spelled if (parent / name).is_dir()), None)


def needed_folder(parent: Path, *names: str) -> Path:
    """The same; ValueError where none is there."""
    found = folder(parent, *names)
    if found is None:
        raise ValueError(f"{parent}: no folder {' or '.join(names)} in it")
    return found


def picture(place: Path | None, *stems: str) -> Path | None:
    """The first picture of these stems in a folder, whatever its format; None where there is none, or no folder."""
    if place is None:
        return None
    paths = (place / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
