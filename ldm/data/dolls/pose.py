"""Key points of a figure, in the order of tryon.pose: OpenPose's for COCO.

Figure --key_points--> (18, 2) pixels, NaN where a point is outside of the picture --body_25--> OpenPose's JSON
"""

from typing import Any

import numpy as np

from ldm.data.dolls.figure import SIZE, Figure


def key_points(figure: Figure) -> np.ndarray:
    """(18, 2) pixels (x, y); NaN for a point outside of the picture."""
    right, left = figure.frame.arms
    hips = figure.frame.place(np.array([(-0.55, 0.0), (0.55, 0.0)]))
    face = on_head(figure, np.array([(0, 0.12), (-0.42, -0.1), (0.42, -0.1), (-0.95, 0), (0.95, 0)]))
    neck = np.mean([right.joints[0], left.joints[0]], axis=0)
    ankle = (np.nan, np.nan)  # below the picture's edge
    legs = [hips[0], figure.knees[0], ankle, hips[1], figure.knees[1], ankle]
    points = np.array([face[0], neck, *right.joints, *left.joints, *legs, *face[1:]])
    inside = ((points >= 0) & (points < SIZE)).all(1, keepdims=True)
    return np.where(inside, points, np.nan)


def on_head(figure: Figure, points: np.ndarray) -> np.ndarray:
    """(N,2) points of the head, 1 its edges to the right and below -> (N,2) pixels."""
    cos, sin = np.cos(figure.tilt), np.sin(figure.tilt)
    radii = np.array([15.0, 19.5]) * figure.scale
    return np.asarray(figure.head) + (np.asarray(points, float) * radii) @ np.array([[cos, sin], [-sin, cos]])


def body_25(points: np.ndarray) -> dict[str, Any]:
    """Key points (18, 2) -> OpenPose's JSON with the 25 points of its model BODY_25, which VITON-HD was made with."""
    hips = points[[8, 11]].mean(0, keepdims=True)
    feet = np.full((6, 2), np.nan)  # a doll's are never in the picture
    rows = np.vstack([points[:8], hips, points[8:], feet])
    numbers = np.column_stack([rows, np.ones(len(rows))])
    numbers[np.isnan(rows).any(1)] = 0
    return {"version": 1.3, "people": [{"pose_keypoints_2d": numbers.round(3).ravel().tolist()}]}
