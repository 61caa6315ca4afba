"""VITON-HD's layout: a folder for each split, in it a folder for each kind of picture, with hyphens or underscores.

    train_pairs.txt  test_pairs.txt     person.jpg garment.jpg; the paired garment has the person's name
    train/  test/
        image/NAME.jpg                  cloth/NAME.jpg                      cloth-mask/NAME.jpg
        image-parse-v3/NAME.png         openpose-json/NAME_keypoints.json   openpose-img/NAME_rendered.png
        agnostic-v3.2/NAME.jpg          agnostic-mask/NAME_mask.png

Needed are image, cloth, a parse map (image-parse in the first release), and key points where there is no pose or no
agnostic mask.
"""

from collections.abc import Callable
from pathlib import Path

from ldm.data.tryon import parsing, written
from ldm.data.tryon.look import Files
from ldm.data.tryon.places import folder, needed_folder, picture
from ldm.data.tryon.written import Pair

SPLITS = ("train", "test")


def is_here(root: Path) -> bool:
    return any((root / split / "image").is_dir() for split in SPLITS)


class VitonHD:
    """The pairs of a split, and their files. Paired, each person wears the garment of the same name."""

    def __init__(
        self,
        root: Path,
        split: str,
        paired: bool,
        category: str | None,
        unusable: Callable[[str, Exception], None],
    ):
        if category not in (None, "upper_body"):
            raise ValueError(f"category {category!r}: VITON-HD's layout has upper_body only")
        self.place = place = root / split
        found = written.pairs(root / f"{split}_pairs.txt", unusable)
        self.pairs = [Pair(pair.person, pair.person if paired else pair.garment, "upper_body") for pair in found]
        self.people, self.garments = needed_folder(place, "image"), needed_folder(place, "cloth")
        self.parses = needed_folder(place, "image-parse-v3", "image-parse")
        self.garment_masks, self.poses = folder(place, "cloth-mask"), folder(place, "openpose-img")
        self.agnostics, self.masks = folder(place, "agnostic-v3.2", "agnostic"), folder(place, "agnostic-mask")
        self.keypoints = folder(place, "openpose-json") or place / "openpose_json"

    def list_of(self, pair: Pair) -> Path:
        """The list that a pair belongs in."""
        return self.place.parent / f"{self.place.name}_pairs.txt"

    def files(self, pair: Pair) -> Files:
        """Where the parts of a pair lie."""
        name, garment = Path(pair.person).stem, Path(pair.garment).stem
        return Files(
            pair.person,
            pair.garment,
            person=self.people / pair.person,
            garment=self.garments / pair.garment,
            parse=picture(self.parses, name) or self.parses / f"{name}.png",
            keypoints=self.keypoints / f"{name}_keypoints.json",
            garment_mask=picture(self.garment_masks, garment),
            agnostic=picture(self.agnostics, name),
            agnostic_mask=picture(self.masks, f"{name}_mask", name),
            pose=picture(self.poses, f"{name}_rendered", name),
            labels=parsing.CIHP,
            category="upper_body",
            paired=name == garment,
        )
