"""How well boxes lie on the edges of an image: just inside of each side against just outside of it.

Textures have gradients everywhere and smooth skies nowhere, so the energy along a line says what it crosses and not
whether it was put there. What lies inside of a box against what lies outside of it does: round an object there is more
gradient along its outline, and within it, than in front of it; round a box that was put anywhere the two sides of the
line are alike, whatever the texture. On BCCD and CamVid right boxes score 0.25 to 0.34 in the mean, and better than 0
in every image; mirrored, transposed and misread ones -0.04 to 0.05.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snellen.data.image import Pixels

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

_INSIDE = (-0.5, 5.5)  # pixels inward of the line: boxes drawn by hand are loose, and the outline a little inside
_OUTSIDE = (-8.5, -2.5)  # not nearer: the outline's own blur
_FULL = 16  # pixels of a box's side, from which these distances hold; shorter boxes are looked at more narrowly
_NARROWEST = 0.5
_MIDDLE = 0.6  # of a side's length is looked at: round objects touch their boxes in the middle
SHORTEST = 8  # pixels of a box's side that can be judged


class EdgeMap:
    """The gradients of a grey image, uint8 [h, w], summed so that their mean in a rectangle costs four look-ups.

    Coordinates are continuous pixels of that image.
    """

    def __init__(self, grey: Pixels) -> None:
        values = grey.astype(np.int32)
        self._upright = _integral(np.abs(np.diff(values, axis=1)))  # along vertical lines: [h + 1, w]
        self._level = _integral(np.abs(np.diff(values.T, axis=1)))  # along horizontal ones: [w + 1, h]

    def side_scores(self, boxes: Floats) -> Floats:
        """Scores [n, 4] of the sides of boxes [n, 4] (x0, y0, x1, y1), in their order, each -1 to 1.

        (gradient inside - gradient outside) / (their sum). NaN where the box is not known (NaN) or too small, or there
        is too little image on either side of the line.
        """
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        usable = np.isfinite(boxes).all(axis=1) & (np.minimum(width, height) >= SHORTEST)
        rows = np.flatnonzero(usable)
        x0, y0, x1, y1 = boxes[rows].T
        width, height = width[rows], height[rows]
        across, down = np.clip(width / _FULL, _NARROWEST, 1.0), np.clip(height / _FULL, _NARROWEST, 1.0)
        margin_x, margin_y = width * (1 - _MIDDLE) / 2, height * (1 - _MIDDLE) / 2
        along_y, along_x = (y0 + margin_y, y1 - margin_y), (x0 + margin_x, x1 - margin_x)
        scores = np.full(boxes.shape, np.nan)
        scores[rows, 0] = _scores(self._upright, x0, along_y, across)
        scores[rows, 1] = _scores(self._level, y0, along_x, down)
        scores[rows, 2] = _scores(self._upright, x1, along_y, -across)
        scores[rows, 3] = _scores(self._level, y1, along_x, -down)
        return scores


def _integral(steps: Counts) -> Counts:
    sums = np.zeros((steps.shape[0] + 1, steps.shape[1] + 1), np.int32)
    np.cumsum(steps, axis=0, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    return sums


def _scores(sums: Counts, place: Floats, span: tuple[Floats, Floats], inward: Floats) -> Floats:
    """Of lines at ``place`` along ``span``, all [n], whose box lies in the direction of ``inward`` (pixels a pixel)."""
    inside, outside = (_mean(sums, place, span, inward, band) for band in (_INSIDE, _OUTSIDE))
    total = inside + outside
    return np.asarray(np.divide(inside - outside, total, out=np.full(len(place), np.nan), where=total > 0))


def _mean(
    sums: Counts, place: Floats, span: tuple[Floats, Floats], inward: Floats, band: tuple[float, float]
) -> Floats:
    """The mean gradient in a band beside each line; NaN where less than half of the band is in the image."""
    along, across = sums.shape[0] - 1, sums.shape[1] - 1
    first, last = (np.clip(np.rint(end), 0, along).astype(np.intp) for end in span)
    ends = [place + inward * end - 0.5 for end in band]  # the step from pixel 0 to 1 is the cell from 0.5 to 1.5
    low, high = (np.rint(each(*ends)) for each in (np.minimum, np.maximum))
    start, stop = (np.clip(each, 0, across).astype(np.intp) for each in (low, high))
    area = (last - first) * (stop - start)
    whole = sums[last, stop] - sums[last, start] - sums[first, stop] + sums[first, start]
    enough = (area > 0) & (stop - start >= (high - low) / 2)
    return np.asarray(np.divide(whole, area, out=np.full(len(place), np.nan), where=enough))
