"""One visitor's pictures, newest first, as files that say how they were made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ldm import metadata
from ldm.files import slug

if TYPE_CHECKING:
    from PIL import Image

ROOM = 24  # pictures; beyond that the oldest go


@dataclass
class Shelf:
    """Files in a folder that others may share: names are unlike, and cannot be guessed."""

    folder: Path
    paths: list[Path] = field(default_factory=list)

    def add(self, image: Image.Image) -> Path:
        """image -> its file, a PNG with all of its parameters."""
        told = image.info["ldm"]
        path = self.folder / f"{slug(told['prompt'])}-{told['seed']}-{uuid4().hex[:8]}.png"
        metadata.save(image, path)
        self.paths.insert(0, path)
        for old in self.paths[ROOM:]:
            old.unlink(missing_ok=True)
        del self.paths[ROOM:]
        return path

    def told(self, name: str | None) -> dict[str, Any]:
        """A picture's file name -> its parameters. ValueError where it is not here any more."""
        return metadata.told(self.path(name))

    def path(self, name: str | None) -> Path:
        """A picture's file name -> its file. ValueError where none is chosen, or it is not here any more."""
        if not name:
            raise ValueError("no picture is chosen: choose one in the gallery")
        found = next((path for path in self.paths if path.name == name), None)
        if found is None:
            raise ValueError(f"{name}: not in the gallery any more")
        return found

    def clear(self) -> None:
        """Takes all pictures away."""
        while self.paths:
            self.paths.pop().unlink(missing_ok=True)
