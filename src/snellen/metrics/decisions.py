"""From probabilities to decisions: a factor on each class, or a threshold for each label.

The probabilities themselves stay as they are: what is decided may follow the cost of mistakes, or how rare a class is,
while what is shown stays the chance of being right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5  # probability from which a label counts as present, where nothing else is decided


def class_decisions(scores: NDArray[Any], factors: Sequence[float] = ()) -> NDArray[np.intp]:
    """The class whose probability times its factor is largest, [n], for ``scores`` [n, k]; no factors: all 1."""
    weighted = scores * np.asarray(factors, scores.dtype) if len(factors) else scores
    return np.asarray(weighted.argmax(axis=1))


def label_decisions(scores: NDArray[Any], thresholds: Sequence[float] = ()) -> NDArray[np.bool_]:
    """Which labels are present, [n, k]: those at or above their threshold; no thresholds: 0.5 for all."""
    found: NDArray[np.bool_] = scores >= (np.asarray(thresholds, scores.dtype) if len(thresholds) else THRESHOLD)
    return found
