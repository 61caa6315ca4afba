"""DressCode's layout: a folder for each category, in it a folder for each kind of picture, which a digit tells.

upper_body/  lower_body/  dresses/
    train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt     person garment
    images/NUMBER_0.jpg (person)    images/NUMBER_1.jpg (garment)       masks/NUMBER_1.png
    keypoints/NUMBER_2.json         label_maps/NUMBER_4.png             skeletons/NUMBER_5.jpg
    agnostic/NUMBER_0.jpg           agnostic-mask/NUMBER_0.png          (of copies; the set has none)
train_pairs.txt ...                 in place of the categories' lists: person garment 0|1|2
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ldm.data.tryon import parsing, written
from ldm.data.tryon.agnostic import CATEGORIES  # in the order of their numbers in lists at the root
from ldm.data.tryon.look import Files
from ldm.data.tryon.places import folder, picture
from ldm.data.tryon.written import Pair

Tell = Callable[[str, Exception], None]


def is_here(root: Path) -> bool:
    return any((root / category / "images").is_dir() for category in CATEGORIES)


class DressCode:
    """The pairs of a split, of one category or of all that are there, and their files."""

    def __init__(self, root: Path, split: str, paired: bool, category: str | None, unusable: Tell):
        if category not in (None, *CATEGORIES):
            raise ValueError(f"category {category!r}: expected {', '.join(CATEGORIES)} or none for all")
        if split == "train" and not paired:
            raise ValueError(
                "split 'train': DressCode has no unpaired list of it, expected paired, or the split 'test'"
            )
        name = "train_pairs.txt" if split == "train" else f"{split}_pairs_{'paired' if paired else 'unpaired'}.txt"
        self.root, self.list = root, name
        self.pairs = self._pairs(name, [category] if category else list(CATEGORIES), unusable)

    def _pairs(self, name: str, categories: list[str], unusable: Tell) -> list[Pair]:
        """The lists of the categories, or those lines of the list at the root that are of these categories."""
        lists = {category: self.root / category / name for category in categories}
        there = {category: path for category, path in lists.items() if path.is_file()}
        if there:
            return [replace(pair, category=c) for c, path in there.items() for pair in written.pairs(path, unusable)]
        if not (self.root / name).is_file():
            raise FileNotFoundError(f"{self.root / name}: no such list, neither there nor in {' or '.join(categories)}")
        found = []
        for pair in written.pairs(self.root / name, unusable):
            try:
                found.append(replace(pair, category=self._category(pair)))
            except ValueError as error:
                unusable(f"{self.root / name}: {pair.person}", error)
        return [pair for pair in found if pair.category in categories]

    def _category(self, pair: Pair) -> str:
        """The category of a line of a list at the root: by its number, else by where the person's picture lies."""
        if pair.category is None:
            found = [c for c in CATEGORIES if (self.root / c / "images" / pair.person).is_file()]
            if not found:
                raise ValueError("its picture is in the images of no category")
            return found[0]
        if pair.category not in ("0", "1", "2"):
            raise ValueError(f"category {pair.category!r}, expected 0, 1 or 2")
        return CATEGORIES[int(pair.category)]

    def list_of(self, pair: Pair) -> Path:
        """The list that a pair belongs in, that of its category."""
        return self.root / str(pair.category) / self.list

    def files(self, pair: Pair) -> Files:
        """Where the parts of a pair lie."""
        assert pair.category is not None
        place = self.root / pair.category
        person, garment = Path(pair.person).stem, Path(pair.garment).stem
        number = person.removesuffix("_0")
        parses, masks = place / "label_maps", folder(place, "masks", "cloth-mask")
        return Files(
            pair.person,
            pair.garment,
            person=place / "images" / pair.person,
            garment=place / "images" / pair.garment,
            parse=picture(parses, f"{number}_4") or parses / f"{number}_4.png",
            keypoints=place / "keypoints" / f"{number}_2.json",
            garment_mask=picture(masks, garment),
            agnostic=picture(folder(place, "agnostic"), person),
            agnostic_mask=picture(folder(place, "agnostic-mask"), person, f"{person}_mask"),
            pose=picture(folder(place, "skeletons"), f"{number}_5"),
            labels=parsing.ATR,
            category=pair.category,
            paired=number == garment.removesuffix("_1"),
        )
