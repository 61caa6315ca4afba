"""The free photographs that Python packages carry: scikit-image's to learn from, scikit-learn's two to be tried on.

What scikit-image 0.26 has in its wheel and calls free of restrictions, as its own documentation of each says:

    astronaut          NASA                                             public domain
    brick              CC0Textures                                      CC0
    camera             Lav Varshney                                     CC0
    chelsea            Stefan van der Walt                              CC0
    coffee             Rachel Michetti, courtesy of Pikolo Espresso     CC0
    coins              Brooklyn Museum                                  no known copyright restrictions
    grass              linolafett, on DeviantArt                        CC0
    gravel             CC0Textures                                      CC0
    hubble_deep_field  NASA                                             public domain
    ihc                Center for Microscopy And Molecular Imaging      no known copyright restrictions
    retina             Mikael Häggström                                 CC0
    rocket             SpaceX                                           public domain

What it carries without saying whose it is (moon, page, motorcycle) is left out, and so is what is no photograph.
scikit-learn's china and flower are of Creative Commons, by attribution (danielbuechele, vultilion); no training sees
them.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ldm import images
from ldm.data.items import Item, digest
from ldm.data.procedural import Procedural

COLOURED = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
GREY = ("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png")
RARE = {"hubble_deep_field.jpg": 0.3, "ihc.png": 0.5, "retina.jpg": 0.5, **dict.fromkeys(GREY, 0.4)}  # else 1
UNSEEN = ("china.jpg", "flower.jpg")  # of scikit-learn
GAIN = 0.2  # how much stronger or weaker each colour may be made


class Photographs(Procedural):
    """An indexable stream of (part of a photograph, "") in which item i depends on (seed, i) alone.

    ModuleNotFoundError without scikit-image, FileNotFoundError for one that has other photographs.
    """

    def __init__(self, side: int = 64, seed: int = 0, length: int = 1_000_000):
        super().__init__("photographs", cut, side, seed, length)
        files = [file("skimage", "scikit-image", name) for name in (*COLOURED, *GREY)]
        self.content = digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "content": self.content}


class UnseenPhotographs:
    """scikit-learn's two photographs, cut into squares of `side` on a grid in their middle, as (picture, "").

    ModuleNotFoundError without scikit-learn, ValueError for a side that is too large or a count out of range.
    """

    classes: list[str] = []

    def __init__(self, side: int = 256, count: int | None = None):
        found = [images.load(file("sklearn", "scikit-learn", name)) for name in UNSEEN]
        if not 1 <= side <= (largest := min(min(picture.size) for picture in found)):
            raise ValueError(f"side {side}: expected 1 to {largest}, as large as the photographs are")
        self.side, self.items = side, [Item(part, "") for picture in found for part in grid(picture, side)][:count]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Item:
        return self.items[i]

    def identity(self) -> dict[str, Any]:
        """What the items are, in JSON."""
        return {"kind": "photographs", "split": "test", "side": self.side, "pictures": len(self)}


def grid(picture: Image.Image, side: int) -> list[Image.Image]:
    """A picture -> the squares of `side` that lie in it side by side, row by row, with an even margin around all."""
    columns, rows = picture.width // side, picture.height // side
    left, top = (picture.width - columns * side) // 2, (picture.height - rows * side) // 2
    corners = [(left + column * side, top + row * side) for row in range(rows) for column in range(columns)]
    return [picture.crop((x, y, x + side, y + side)) for x, y in corners]


def cut(rng: np.random.Generator, side: int) -> Image.Image:
    """RGB picture, `side` x `side`: a part of a photograph at any scale down to its own, maybe mirrored.

    Half of them in other colours: the channels exchanged, each a little stronger or weaker.
    """
    names = (*COLOURED, *GREY)
    shares = np.array([RARE.get(name, 1.0) for name in names])
    photograph = loaded(names[rng.choice(len(names), p=shares / shares.sum())])
    largest = min(photograph.size)
    width = largest * (min(side, largest) / largest) ** rng.random()
    left, top = rng.random(2) * (np.array(photograph.size) - width)
    box = (left, top, left + width, top + width)
    picture = photograph.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
    picture = ImageOps.mirror(picture) if rng.random() < 0.5 else picture
    return picture.convert("RGB", recoloured(rng)) if rng.random() < 0.5 else picture


def recoloured(rng: np.random.Generator) -> tuple[float, ...]:
    """A matrix for Pillow, 3 rows of 4: which channel becomes which, and how strong."""
    exchanged = np.eye(3)[rng.permutation(3)] * rng.uniform(1 - GAIN, 1 + GAIN, (3, 1))
    return tuple(np.column_stack([exchanged, np.zeros(3)]).ravel().tolist())


@cache
def loaded(name: str) -> Image.Image:
    return images.load(file("skimage", "scikit-image", name))


def file(module: str, package: str, name: str) -> Path:
    """Where an installed package keeps a photograph; the package itself, slow to import, is not.

    ModuleNotFoundError where the package is not installed, FileNotFoundError where it has no such file.
    """
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"photographs are {package}'s: pip install {package}", name=package)
    folder = Path(found.submodule_search_locations[0])
    path = folder / {"skimage": "data", "sklearn": "datasets/images"}[module] / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this version of {package} does not carry it; see constraints.txt for one")
    return path
