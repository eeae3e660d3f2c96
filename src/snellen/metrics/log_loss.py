"""The cost of misplaced certainty: minus the logarithm of the probability given to what was true, in nats.

Probabilities are clipped to [2**-23, 1 - 2**-23], the resolution of float32 (as scikit-learn does for float32 scores):
a model that is certain and wrong costs 15.9 on that image instead of infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP = 2.0**-23
_NUMBERS_AT_ONCE = 2**22


def log_losses(scores: NDArray[Any], truth: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Loss of each image, [n], for probabilities [n, k] that sum to 1 and class ids [n]. Its mean is the log loss."""
    given = np.take_along_axis(scores, truth[:, None].astype(np.intp), axis=1)[:, 0].astype(np.float64)
    return -np.log(np.clip(given, CLIP, 1 - CLIP))


def binary_log_losses(scores: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Loss of each image, [n], averaged over its k labels, for independent probabilities and truth [n, k]."""
    losses = np.empty(len(scores))
    rows_at_once = max(1, _NUMBERS_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows_at_once):
        rows = slice(start, start + rows_at_once)
        given = np.where(truth[rows], scores[rows], 1 - scores[rows].astype(np.float64))
        losses[rows] = -np.log(np.clip(given, CLIP, 1 - CLIP)).mean(axis=1)
    return losses
