"""Series of a history, made ready to be judged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def known(values: Floats) -> Floats:
    """The finite values of a series, in their order."""
    return values[np.isfinite(values)]


def both_known(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Two series at the places where both are finite; both empty where one is missing."""
    if len(first) != len(second):
        return first[:0], second[:0]
    kept = np.isfinite(first) & np.isfinite(second)
    return first[kept], second[kept]


def level_at_end(values: Floats) -> float:
    """The median of the last third."""
    return float(np.median(values[-max(1, len(values) // 3) :]))


def level_around(values: Floats, index: int) -> float:
    """The median of a value and its neighbours: a single lucky one is not believed."""
    start = int(np.clip(index - 1, 0, max(0, len(values) - 3)))
    return float(np.median(values[start : start + 3]))


def is_share(values: Floats) -> bool:
    """Whether scores lie within 0..1, as accuracies do."""
    return bool(len(values) and values.min() >= 0 and values.max() <= 1)


def as_words(value: float, share: bool) -> str:
    """A score as a percentage where it is a share, else as a number."""
    return f"{value:.1%}" if share else f"{value:.4g}"
