"""Key points of a person: from OpenPose's JSON or DressCode's, and drawn as a skeleton.

Points are (18,2): x and y in shares of the picture's width and height, NaN where a point was not seen. Their order is
OpenPose's for COCO:

     0 nose   1 neck   2-4 right shoulder, elbow, wrist   5-7 left   8-10 right hip, knee, ankle   11-13 left
    14 right eye   15 left eye   16 right ear   17 left ear
"""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ldm.data.tryon.written import json_object

BODY_25 = [*range(8), *range(9, 19)]  # where the 18 stand among OpenPose's 25: without the middle of the hips, and feet
DRESSCODE_SIZE = (384, 512)  # (W, H) that DressCode's coordinates mean, whatever its pictures measure
SLACK = 0.05  # of a side, how far a point may lie outside of the picture before it is taken to be of another size

LIMBS = [
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
]  # fmt: skip
COLOURS = [
    tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i / len(LIMBS), 1, 1)) for i in range(len(LIMBS))
]  # as in OpenPose, the hue tells which limb
DRAWN_HEIGHT = 512  # smaller skeletons are drawn about so high, then reduced, which smooths them


def read(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A JSON file, (W, H) of the person's picture -> points (18,2).

    OpenPose's coordinates ("people": the first counts; 25 or 18 points) are pixels of that picture, DressCode's
    ("keypoints") of one of 384 x 512. FileNotFoundError, or ValueError of one line that names the file.
    """
    said = json_object(path)
    if "people" in said:
        points = _openpose(said["people"], path) / size
    elif "keypoints" in said:
        points = _dresscode(said["keypoints"], path) / DRESSCODE_SIZE
    else:
        raise ValueError(f'{path}: neither "people" nor "keypoints" in it, expected OpenPose\'s or DressCode\'s JSON')
    if np.isnan(points).all():
        raise ValueError(f"{path}: no key point was seen")
    if np.nanmax(points) > 1 + SLACK:
        raise ValueError(f"{path}: key points lie outside of the picture, which is {size[0]}x{size[1]}")
    return points


def _openpose(people: Any, path: Path) -> np.ndarray:
    """OpenPose's people -> points (18,2) in pixels; what has no confidence was not seen."""
    if not isinstance(people, list) or not people or not isinstance(people[0], dict):
        raise ValueError(f"{path}: nobody in it, expected one person in people")
    rows = _numbers(people[0].get("pose_keypoints_2d"), 3, path)
    if len(rows) not in (18, 25):
        raise ValueError(f"{path}: {len(rows)} key points, expected 25 or 18")
    rows = rows[BODY_25] if len(rows) == 25 else rows
    return np.where(rows[:, 2:] > 0, rows[:, :2], np.nan)


def _dresscode(points: Any, path: Path) -> np.ndarray:
    """DressCode's points, (x, y, confidence, number) each -> points (18,2); those in the corner were not seen."""
    rows = _numbers(points, 4, path)
    if len(rows) != 18:
        raise ValueError(f"{path}: {len(rows)} key points, expected 18")
    return np.where((rows[:, :2] > 1).all(1, keepdims=True), rows[:, :2], np.nan)


def _numbers(values: Any, columns: int, path: Path) -> np.ndarray:
    """A list of numbers, or of rows of them -> (N,columns), finite."""
    try:
        rows = np.asarray(values, np.float64).reshape(-1, columns)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: key points are no numbers in groups of {columns}") from None
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: key points that are not finite")
    return rows


def skeleton(points: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """points (18,2), (H, W) -> RGB picture: a coloured stick for each limb both of whose ends were seen, on black."""
    finer = max(1, round(DRAWN_HEIGHT / size[0]))
    canvas = Image.new("RGB", (finer * size[1], finer * size[0]))
    draw, placed = ImageDraw.Draw(canvas), points * canvas.size
    for limb, colour in zip(LIMBS, COLOURS, strict=True):
        sticks(draw, placed[list(limb)], canvas.height / 128, colour)
    return canvas.reduce(finer)


def sticks(draw: ImageDraw.ImageDraw, placed: np.ndarray, radius: float, fill: Any) -> None:
    """points (N,2) in pixels -> sticks with round ends from each to the next; none where a point was not seen."""
    for a, b in zip(placed, placed[1:]):
        if np.isfinite([a, b]).all():
            draw.line([*a, *b], fill, max(1, round(2 * radius)))
            draw.circle(tuple(a), radius, fill)
            draw.circle(tuple(b), radius, fill)
