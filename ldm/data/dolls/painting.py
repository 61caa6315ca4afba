"""Pictures of garments by themselves and of people who wear them.

    garment, cloth --product--> picture on white, its mask
    figure --undressed--> canvas --wear(garment, cloth)--> person and labels

A garment is drawn by one function, `wear`, on whatever frame: HANGER's for the product view, a figure's on the person.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

from ldm.data.dolls.canvas import NO_CREASES, Canvas, Paint, on_bone, on_torso
from ldm.data.dolls.figure import FINE, SIZE, Arm, Colour, Figure, Frame
from ldm.data.dolls.garments import HANGER, Garment
from ldm.data.dolls.parsing import LABELS, where
from ldm.data.dolls.pose import on_head

ROUND = np.linspace(0, np.pi, 9)  # angles of a half circle's corners
TOP = 1.02  # height s at which a neckline begins
ARM_LABELS = (LABELS["right arm"], LABELS["left arm"])  # of the picture's left and right one
LEG_LABELS = (LABELS["right leg"], LABELS["left leg"])
LIPS: Colour = (178, 70, 74)
DARK: Colour = (38, 30, 30)
CUFF = 4.0  # pixels of an edge in the trim's colour


# ---- garments ----


def product(garment: Garment, cloth: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A garment by itself on white (RGB), and its mask (L), 255 where it is; `cloth` is garments.cloth of it."""
    canvas = Canvas(Image.new("RGB", cloth.size, (255, 255, 255)))
    if garment.neck != "high":
        back = np.vstack([_neckline(garment.neck), [(0.3, TOP + 0.005), (0.0, TOP - 0.025), (-0.3, TOP + 0.005)]])
        inside = _blend(garment.pattern.colours[0], (0, 0, 0), 0.4)
        canvas.lay(HANGER.eased(garment.ease).place(back), inside, LABELS["upper clothes"], 0.2)
    wear(canvas, HANGER, garment, cloth)
    picture, labels = canvas.finished()
    return picture, where(labels, "upper clothes")


def wear(
    canvas: Canvas,
    frame: Frame,
    garment: Garment,
    cloth: Image.Image,
    skin: Colour | None = None,
    creases: np.ndarray = NO_CREASES,
) -> None:
    """Draws the garment on a frame, and the arms if they have a skin: these lie before the torso.

    `creases` (K,4) are strokes on the torso, from (d, s) to (d, s).
    """
    loose, upper = frame.eased(garment.ease), LABELS["upper clothes"]
    strokes = frame.place(creases.reshape(-1, 2)).reshape(-1, 4)
    canvas.lay(loose.place(_front(garment)), on_torso(cloth, loose), upper, 0.42, strokes)
    canvas.lay(loose.place(_ribbon(garment.neck)), garment.trim, upper, 0.12)
    for side, arm in enumerate(frame.arms):
        if skin:
            _bare_arm(canvas, arm, skin, ARM_LABELS[side])
        _sleeve(canvas, frame, side, garment, cloth)


def _front(garment: Garment) -> np.ndarray:
    """The outline of the torso's part, points (d, s)."""
    armhole = [(0.74, 0.955), (0.72, 0.85), (0.9, 0.68)] if garment.sleeve == 0 else [(0.97, 0.925), (0.93, 0.68)]
    right = np.array([*armhole, (0.95, 0.38), (0.98, min(garment.hem + 0.04, 0.3)), (0.98, garment.hem)])
    left = (right * (-1, 1))[::-1]
    bottom = np.array([(0.5, garment.hem - 0.015), (0.0, garment.hem - 0.022), (-0.5, garment.hem - 0.015)])
    return np.vstack([_neckline(garment.neck), right, bottom, left])


def _neckline(kind: str) -> np.ndarray:
    """Points (d, s) of the edge about the neck, from left to right."""
    if kind == "v":
        return np.array([(-0.34, TOP), (0.0, 0.76), (0.34, TOP)])
    if kind == "square":
        return np.array([(-0.4, TOP), (-0.38, 0.84), (0.38, 0.84), (0.4, TOP)])
    if kind == "high":
        return np.array([(-0.34, TOP), (-0.3, 1.085), (0.3, 1.085), (0.34, TOP)])
    width, depth = {"crew": (0.36, 0.1), "scoop": (0.44, 0.22), "boat": (0.58, 0.07)}[kind]
    return np.stack([-width * np.cos(ROUND), TOP - depth * np.sin(ROUND)], -1)


def _ribbon(kind: str) -> np.ndarray:
    """Points (d, s) of the trimmed edge about the neck: a stripe along the neckline, or a collar."""
    edge = _neckline(kind)
    if kind == "high":
        return np.vstack([edge, [(0.2, 0.985), (-0.2, 0.985)]])
    return np.vstack([edge, ((edge - (0, TOP)) * (1.13, 1.08) + (0, TOP - 0.022))[::-1]])


def _sleeve(canvas: Canvas, frame: Frame, side: int, garment: Garment, cloth: Image.Image) -> None:
    """One sleeve: a piece on the upper arm and, if it is so long, one on the forearm, and the cuff."""
    arm, ease = frame.arms[side], 0.2 + 0.3 * garment.ease
    lengths = [float(np.hypot(*np.subtract(arm.joints[k + 1], arm.joints[k]))) for k in (0, 1)]
    rest = garment.sleeve * sum(lengths)
    for bone, length in enumerate(lengths):
        if rest <= 0:
            break
        share = min(1.0, rest / length)
        paint: Paint = garment.sleeve_colour or on_bone(cloth, frame, side, bone)
        canvas.lay(_part(arm, bone, 0, share, ease, (True, share == 1)), paint, LABELS["upper clothes"], 0.4)
        if rest <= length:
            edge = _part(arm, bone, share - CUFF / length, share, ease + 0.04, (False, False))
            canvas.lay(edge, garment.trim, LABELS["upper clothes"], 0.3)
        rest -= length


def _bare_arm(canvas: Canvas, arm: Arm, skin: Colour, label: int) -> None:
    for bone in (0, 1):
        canvas.lay(_part(arm, bone, 0, 1), skin, label, 0.25)
    elbow, wrist = np.asarray(arm.joints[1]), np.asarray(arm.joints[2])
    along = (wrist - elbow) / np.hypot(*(wrist - elbow))
    width = arm.widths[2]
    canvas.lay(_tapered(wrist, wrist + 1.9 * width * along, width, 0.8 * width), skin, label, 0.2)


def _part(
    arm: Arm, bone: int, start: float, end: float, ease: float = 0.0, rounded: tuple[bool, bool] = (True, True)
) -> np.ndarray:
    """The outline of a part of an arm, from `start` to `end` of a bone; `ease` is how much wider than the arm.

    At the shoulder it is no wider, so that a sleeve lies flat there.
    """
    first, last = np.asarray(arm.joints[bone]), np.asarray(arm.joints[bone + 1])
    thin, thick = arm.widths[bone], arm.widths[bone + 1]
    widths = [(thin + t * (thick - thin)) * (1 + ease * min(1.0, bone + 3 * t)) for t in (start, end)]
    return _tapered(first + start * (last - first), first + end * (last - first), widths[0], widths[1], rounded)


def _tapered(
    start: np.ndarray, end: np.ndarray, first: float, last: float, rounded: tuple[bool, bool] = (True, True)
) -> np.ndarray:
    """The outline of a bar between two points, of half-widths `first` and `last`, with round or flat ends."""
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    turns = [ROUND if one else ROUND[[0, -1]] for one in rounded]
    back, ahead = (np.cos(turn)[:, None] * across - np.sin(turn)[:, None] * along for turn in turns)
    return np.vstack([start + first * back, end - last * ahead])


# ---- people ----


def undressed(figure: Figure) -> Canvas:
    """All of a person that a garment and the arms are drawn on; in the order in which they hide each other."""
    canvas = Canvas(_backdrop(figure.backdrop).copy())
    _hair_behind(canvas, figure)
    _legs(canvas, figure)
    _trunk(canvas, figure)
    _head(canvas, figure)
    return canvas


@lru_cache(maxsize=16)
def _backdrop(colour: Colour) -> Image.Image:
    """A studio's wall, a little darker towards the corners."""
    size = (SIZE[0] * FINE, SIZE[1] * FINE)
    dark = Image.radial_gradient("L").point([255 - value // 7 for value in range(256)]).resize(size)
    return ImageChops.multiply(Image.new("RGB", size, colour), Image.merge("RGB", [dark] * 3))


def _hair_behind(canvas: Canvas, figure: Figure) -> None:
    shapes = {
        "bob": np.vstack([_oval(0, -0.1, 1.3, 1.15)[14:], [(1.32, 0.95), (0.9, 1.15), (-0.9, 1.15), (-1.32, 0.95)]]),
        "long": np.vstack([_oval(0, -0.1, 1.3, 1.15)[14:], [(1.5, 1.9), (1.1, 2.5), (-1.1, 2.5), (-1.5, 1.9)]]),
        "bun": _oval(0, -1.3, 0.5, 0.42),
    }
    if figure.style in shapes:
        canvas.lay(on_head(figure, shapes[figure.style]), figure.hair, LABELS["hair"], 0.45)


def _legs(canvas: Canvas, figure: Figure) -> None:
    """Legs in trousers, or bare ones under a skirt."""
    hips = [[(-1.02, 0.02), (-0.03, -0.2)], [(0.03, -0.2), (1.02, 0.02)]]
    label = LABELS["skirt" if figure.skirt else "trousers"]
    for side, (x, y) in enumerate(figure.knees):
        low = np.array([(x + 13 * figure.scale, y), (x + 10 * figure.scale, y + 60),
                        (x - 10 * figure.scale, y + 60), (x - 13 * figure.scale, y)])  # fmt: skip
        leg = np.vstack([figure.frame.place(np.array(hips[side])), low])
        colour = figure.skin if figure.skirt else figure.lower
        canvas.lay(leg, colour, LEG_LABELS[side] if figure.skirt else label, 0.3)
    waist = [(-0.97, 0.16), (0.97, 0.16), (1.03, -0.05)]
    below = [(1.42, -0.66), (-1.42, -0.66)] if figure.skirt else [(0.5, -0.16), (0.0, -0.24), (-0.5, -0.16)]
    canvas.lay(figure.frame.place(np.array([*waist, *below, (-1.03, -0.05)])), figure.lower, label, 0.2)


def _trunk(canvas: Canvas, figure: Figure) -> None:
    """Skin from the neck to above the hips."""
    right = np.array([(0.24, 1.2), (0.26, 1.05), (0.36, 1.0), (0.84, 0.915), (0.91, 0.7), (0.93, 0.38), (0.95, 0.13)])
    outline = np.vstack([right, (right * (-1, 1))[::-1]])
    canvas.lay(figure.frame.place(outline), figure.skin, LABELS["torso"], 0.25)


def _head(canvas: Canvas, figure: Figure) -> None:
    skin, face = figure.skin, LABELS["face"]
    shapes: list[tuple[np.ndarray, Colour, float]] = [
        (_oval(-0.97, 0.05, 0.16, 0.22), skin, 0.3),
        (_oval(0.97, 0.05, 0.16, 0.22), skin, 0.3),
        (_face(), skin, 0.22),
        *[(_oval(x, 0.0, 0.18, 0.1), (250, 250, 248), 0.0) for x in (-0.4, 0.4)],
        *[(_oval(x, 0.0, 0.09, 0.1), DARK, 0.0) for x in (-0.4, 0.4)],
        *[(_oval(x, -0.2, 0.24, 0.035), _blend(figure.hair, DARK, 0.4), 0.0) for x in (-0.41, 0.41)],
        (_oval(0.03, 0.28, 0.1, 0.06), _blend(skin, (120, 50, 40), 0.28), 0.0),
        (_oval(0, 0.57, 0.27, 0.075), _blend(skin, LIPS, 0.7), 0.0),
    ]
    for shape, colour, depth in shapes:
        canvas.lay(on_head(figure, shape), colour, face, depth)
    canvas.lay(on_head(figure, _cap(figure.style)), figure.hair, LABELS["hair"], 0.3)


def _face() -> np.ndarray:
    oval = _oval(0, 0, 0.97, 1)
    return oval * np.stack([1 - 0.16 * np.clip(oval[:, 1], 0, 1) ** 2, np.ones(len(oval))], -1)


def _cap(style: str) -> np.ndarray:
    """Hair on top of the head, down to the hairline."""
    turn = np.linspace(np.pi * 1.02, 2 * np.pi * 0.99, 16)
    low = {"cropped": -0.25, "short": 0.02}.get(style, 0.1)
    over = np.stack([1.06 * np.cos(turn), -0.1 + (1.0 if style == "cropped" else 1.12) * np.sin(turn)], -1)
    hairline = [(1.02, low), (0.9, low - 0.12), (0.78, -0.42), (0.3, -0.62), (-0.3, -0.58), (-0.8, -0.4)]
    return np.vstack([over, hairline, [(-0.9, low - 0.12), (-1.02, low)]])


def _oval(x: float, y: float, width: float, height: float) -> np.ndarray:
    """28 corners about (x, y), from the right side downwards and round."""
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], -1)


def _blend(colour: Colour, other: Colour, share: float) -> Colour:
    mixed = [round(a + share * (b - a)) for a, b in zip(colour, other, strict=True)]
    return (mixed[0], mixed[1], mixed[2])
