"""The most similar images by their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """index [n, k] of the most similar images, the most similar first; distance [n]: to the last of them.

    Distances are Euclidean, in units in which those of two images at random have a mean square of 1. Infinite where
    there are not so many others.
    """

    index: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]
    distances: npt.NDArray[np.float64]  # [n, k]


def nearest(
    features: npt.NDArray[Any], units: Sequence[str], k: int, kinds: npt.NDArray[np.int64] | None = None
) -> Neighbours:
    """The ``k`` most similar images of other units, among those of the same kind where ``kinds`` [n] are given."""
    points = np.asarray(features, np.float32) - np.mean(features, axis=0, dtype=np.float64).astype(np.float32)
    points /= max(1e-12, float(np.sqrt(2 * np.square(points).sum(1).mean())))
    unit = np.unique(np.array(units, np.str_), return_inverse=True)[1]
    lengths = np.square(points).sum(1)
    index, squares = np.zeros((len(points), k), np.int64), np.full((len(points), k), np.inf)
    k = min(k, len(points))
    for start in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found = lengths[rows, None] + lengths - 2 * points[rows] @ points.T
        found[unit[rows, None] == unit] = np.inf
        if kinds is not None:
            found[kinds[rows, None] != kinds] = np.inf
        first = np.argpartition(found, k - 1, axis=1)[:, :k]
        first = np.take_along_axis(first, np.take_along_axis(found, first, 1).argsort(1, kind="stable"), 1)
        index[rows, :k], squares[rows, :k] = first, np.take_along_axis(found, first, 1)
    distances = np.sqrt(np.maximum(squares, 0))
    return Neighbours(index, distances[:, -1], distances)
