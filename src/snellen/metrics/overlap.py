"""How far two objects are one: intersection over union of boxes and of masks.

A crowd is a region of many objects that nobody told apart. What is found in it is judged by how much of it lies there:
intersection over the area of what was found, whatever the size of the crowd (COCO's rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Rle

Floats = NDArray[np.float64]


def box_areas(boxes: NDArray[Any]) -> Floats:
    """Areas [n] of boxes [n, 4] (x0, y0, x1, y1), in square pixels; 0 where a box is turned inside out."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    return np.asarray(sides.prod(axis=1))


def box_iou(found: NDArray[Any], true: NDArray[Any], crowd: NDArray[np.bool_] | None = None) -> Floats:
    """IoU of boxes [n, 4] and [m, 4] (x0, y0, x1, y1) -> [n, m], 0..1.

    crowd  bool [m]: for these, the intersection as a share of the found box
    """
    found, true = found.astype(np.float64), true.astype(np.float64)
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=2)
    return _shares(intersection, box_areas(found), box_areas(true), crowd)


def mask_areas(masks: Sequence[Rle]) -> Floats:
    """How many pixels each mask has, [n]."""
    return np.array([sum(mask.counts[1::2]) for mask in masks], np.float64)


def mask_iou(found: Sequence[Rle], true: Sequence[Rle], crowd: NDArray[np.bool_] | None = None) -> Floats:
    """IoU of n and m masks of one image -> [n, m], 0..1; ``crowd`` as in ``box_iou``.

    No mask is decoded. The number of a mask's pixels before a place, as the runs are counted, is a line that rises in
    its runs and is level between them; where another mask has a run, the line rises by what they share.
    """
    sizes = {mask.size for mask in (*found, *true)}
    if len(sizes) > 1:
        raise ValueError(f"masks of one image must be of one size, got {sorted(sizes)}")
    edges = [np.concatenate([[0], np.cumsum(mask.counts)]) for mask in found]
    # A run of the mask begins at each odd place and ends at the next; an odd last place is only the image's end.
    starts = np.concatenate([each[1 : each.size - 1 : 2] for each in edges] or [np.zeros(0)])
    ends = np.concatenate([each[2::2] for each in edges] or [np.zeros(0)])
    owner = np.repeat(np.arange(len(found)), [each[2::2].size for each in edges])
    intersection = np.zeros((len(found), len(true)))
    for column, mask in enumerate(true):
        runs = np.array(mask.counts)
        pixels = np.where(np.arange(runs.size) % 2, runs, 0)
        place, before = np.cumsum(runs), np.cumsum(pixels)
        shared = np.interp(ends, place, before) - np.interp(starts, place, before)
        intersection[:, column] = np.bincount(owner, shared, minlength=len(found))
    return _shares(intersection, mask_areas(found), mask_areas(true), crowd)


def _shares(intersection: Floats, found: Floats, true: Floats, crowd: NDArray[np.bool_] | None) -> Floats:
    """Intersections [n, m] over unions, or over what was found; 0 where both are empty."""
    union = found[:, None] + true[None] - intersection
    if crowd is not None and crowd.any():
        union[:, crowd] = found[:, None]
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
