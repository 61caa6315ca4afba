"""The structure of a scene: what there is, where it stands, what it is called in the books."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ldm.data.scenes import captions, painting

ROLES = {
    None: ("object",),
    "left of": ("left", "right"),
    "above": ("top", "bottom"),
    "row": ("left", "middle", "right"),
}  # relation: the part that each object plays in it
SIZES = {"small": (0.34, 0.44), None: (0.62, 0.74), "large": (0.86, 0.96)}  # of the picture's side
FILL = (0.78, 0.94)  # of its cell, where each of several objects has one
JITTER = 0.04  # how far an object's centre may lie from its cell's, of the picture's side; it never leaves the cell
LAYOUTS = {
    ("left of", 1): (1 / 2, [(1 / 4, 1 / 2), (3 / 4, 1 / 2)]),
    ("above", 1): (1 / 2, [(1 / 2, 1 / 4), (1 / 2, 3 / 4)]),
    ("row", 1): (1 / 3, [(1 / 6, 1 / 2), (1 / 2, 1 / 2), (5 / 6, 1 / 2)]),
    (None, 1): (1, [(1 / 2, 1 / 2)]),
    (None, 2): (1 / 2, [(1 / 4, 1 / 2), (3 / 4, 1 / 2)]),
    (None, 3): (1 / 2, [(1 / 2, 1 / 4), (1 / 4, 3 / 4), (3 / 4, 3 / 4)]),
    (None, 4): (1 / 2, [(1 / 4, 1 / 4), (3 / 4, 1 / 4), (1 / 4, 3 / 4), (3 / 4, 3 / 4)]),
    (None, 5): (1 / 3, [(1 / 6, 1 / 6), (5 / 6, 1 / 6), (1 / 2, 1 / 2), (1 / 6, 5 / 6), (5 / 6, 5 / 6)]),
}  # relation and count: the side of a cell and the cells' centres (x, y), of the picture's side


@dataclass(frozen=True)
class Placed:
    """A sprite, its tint, its width, and the place of its centre, in fractions of the picture's side."""

    name: str
    tint: str | None
    width: float
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """One object, `count` of them up to five, or several in a relation; on a background colour or in a setting.

    `relation` is None, "left of" or "above" for two objects, the first left of or above the second, or "row" for three
    from left to right. The others ("below", "between" ...) are these, said from another object.
    `size` is None, "small" or "large" and goes with a single object; `setting` is one of `settings.SETTINGS` and goes
    with a white background. `tints` has a colour or None for each object; () is None for all.
    """

    objects: tuple[str, ...]
    relation: str | None = None
    count: int = 1
    size: str | None = None
    background: str = "white"
    setting: str | None = None
    tints: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tints", self.tints or (None,) * len(self.objects))
        if not len(self.objects) == len(self.tints) == len(ROLES[self.relation]):
            raise ValueError(f"objects {self.objects} with tints {self.tints}: expected {len(ROLES[self.relation])}")
        if self.setting and self.background != "white":
            raise ValueError(f"setting {self.setting!r} on {self.background}: expected one of the two")

    @property
    def key(self) -> str:
        """The canonical name: `part:value` for each part that is not the default, sorted, joined by "; "."""
        roles = ROLES[self.relation]
        parts = [f"{role}:{name}" for role, name in zip(roles, self.objects, strict=True)]
        parts += [f"{role} tint:{tint}" for role, tint in zip(roles, self.tints, strict=True) if tint]
        parts += [f"background:{self.background}"] if self.background != "white" else []
        parts += [f"count:{self.count}"] if self.count > 1 else []
        parts += [f"setting:{self.setting}"] if self.setting else []
        parts += [f"size:{self.size}"] if self.size else []
        return "; ".join(sorted(parts))

    @property
    def composed(self) -> bool:
        """Whether it is more than one emoji as it is, of whatever size, on white."""
        return self != Scene(self.objects[:1], size=self.size)

    @property
    def held_out(self) -> bool:
        """Whether no training may see this scene: about a tenth of the composed ones."""
        return self.composed and int(hashlib.sha256(self.key.encode()).hexdigest()[:2], 16) < 26

    def caption(self, rng: np.random.Generator) -> str:
        """One of the scene's wordings."""
        return captions.caption(self, rng)

    def place(self, rng: np.random.Generator) -> tuple[Placed, ...]:
        """Where the objects stand, with jitter in place and size; none overlaps another or leaves the picture."""
        cell, centres = LAYOUTS[self.relation, self.count]
        low, high = SIZES[self.size] if len(centres) == 1 else (cell * fill for fill in FILL)
        placed = []
        for name, tint, (x, y) in zip(self.objects * self.count, self.tints * self.count, centres, strict=True):
            width = rng.uniform(low, high)
            room = min(JITTER, (cell - width) / 2)
            dx, dy = rng.uniform(-room, room, 2)
            placed.append(Placed(name, tint, width, x + dx, y + dy))
        return tuple(placed)

    def paint(self, placed: tuple[Placed, ...], side: int = 64) -> Image.Image:
        """RGB picture, `side` x `side`, of these objects on this scene's ground."""
        return painting.paint(painting.ground(self.background, self.setting, side), placed)

    def draw(self, rng: np.random.Generator, side: int = 64) -> Image.Image:
        """RGB picture, `side` x `side`."""
        return self.paint(self.place(rng), side)
