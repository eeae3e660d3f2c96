"""The mask of one object that several models, or several views of an image, have found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.tasks.instances.object_mask import ObjectMask, around

_STRIP = 2**22  # pixels voted about at a time: 32 MiB of votes


def voted(masks: Sequence[ObjectMask], weights: NDArray[np.float64]) -> ObjectMask:
    """Masks of one object and what each counts [k], above 0 -> the pixels that at least half of the weight shows.

    Only the box round all of them is looked at, a strip of its columns at a time.
    """
    if len(masks) == 1:
        return masks[0]
    x0, y0, x1, y1 = around(masks)
    columns = max(1, _STRIP // max(1, y1 - y0))
    strips = [np.zeros((y1 - y0, 0), np.bool_)]
    for left in range(x0, x1, columns):
        region = (left, y0, min(x1, left + columns), y1)
        votes = np.zeros((y1 - y0, region[2] - left))
        for mask, weight in zip(masks, weights.tolist(), strict=True):
            (a, b, c, d), pixels = mask.piece(region)
            votes[b - y0 : d - y0, a - left : c - left] += weight * pixels
        strips.append(2 * votes >= weights.sum())
    return ObjectMask.of(np.concatenate(strips, axis=1), x0, y0)
