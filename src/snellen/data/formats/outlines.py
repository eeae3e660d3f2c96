"""Shapes that some tools tell by a few numbers, as outlines and back."""

from __future__ import annotations

import math

import numpy as np

from snellen.core.annotation import Polygon
from snellen.core.geometry import rotated_box_corners

_CORNERS = 64  # of an ellipse: its area is then 0.16 % too small
_SAME = 1e-3  # pixels


def ellipse(x: float, y: float, radius_x: float, radius_y: float, radians: float = 0.0) -> Polygon:
    """The outline of an ellipse about (x, y), turned clockwise on the screen by ``radians``."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    along, across = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cos, sin = math.cos(radians), math.sin(radians)
    points = np.stack([x + cos * along - sin * across, y + sin * along + cos * across], axis=1)
    return tuple(points.ravel().tolist())


def corners_of(x: float, y: float, width: float, height: float, radians: float) -> Polygon:
    """The corners of a rectangle about (x, y), turned clockwise on the screen by ``radians``."""
    return tuple(rotated_box_corners([(x, y, width, height, radians)]).ravel().tolist())


def as_rectangle(corners: Polygon) -> tuple[float, float, float, float, float] | None:
    """What ``corners_of`` makes such corners from; None when they are not those of a rectangle."""
    x0, y0, x1, y1, x2, y2 = corners[:6]
    width, height, angle = math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x1, y2 - y1), math.atan2(y1 - y0, x1 - x0)
    values = ((x0 + x2) / 2, (y0 + y2) / 2, width, height, angle)
    same = zip(corners_of(*values), corners, strict=True)
    return values if all(math.isclose(a, b, abs_tol=_SAME) for a, b in same) else None
