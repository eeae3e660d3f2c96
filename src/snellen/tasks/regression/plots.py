"""The pictures of how a regression answers: predicted against true, and the errors over the range of the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.draw.chart import Chart
from snellen.draw.scatter import Points, scatter

MAX_OUTPUTS = 6  # of more the first are drawn

Array = NDArray[Any]


def charts(truth: Array, predicted: Array, names: Sequence[str]) -> list[Chart]:
    """Two charts for each output; truth and predicted float [n, k]. Rows that are not finite are left out.

    Nothing to show gives an empty list. Raises ValueError for shapes that do not fit together.
    """
    if truth.shape != predicted.shape or truth.ndim != 2 or truth.shape[1] != len(names):
        raise ValueError(
            f"{len(names)} outputs, truth {list(truth.shape)}, predicted {list(predicted.shape)} do not fit"
        )
    usable = np.isfinite(truth).all(axis=1) & np.isfinite(predicted).all(axis=1)
    if not usable.any():
        return []
    true, said = truth[usable].astype(np.float64), predicted[usable].astype(np.float64)
    return [chart for i, name in enumerate(names[:MAX_OUTPUTS]) for chart in _of_output(true[:, i], said[:, i], name)]


def _of_output(true: Array, said: Array, name: str) -> Iterator[Chart]:
    error = said - true
    far = np.abs(error)
    yield scatter(
        f"Predicted {name}",
        f"A dot for each of {len(true):,} images; on the dotted line predicted and true are the same. Ringed: the "
        "largest errors.",
        Points(true, said, far, f"true {name}", f"predicted {name}"),
        diagonal=True,
    )
    yield scatter(
        f"Errors of {name}",
        f"Predicted less true, over the true {name}: 0 is right. A slope means that the model keeps to the middle, "
        "too high where the truth is low and too low where it is high." + _slope(true, error),
        Points(true, error, far, f"true {name}", "predicted less true"),
        diagonal=False,
    )


def _slope(true: Array, error: Array) -> str:
    """How much of a step in the truth the predictions leave out, where that can be said."""
    spread = float(np.var(true))
    if len(true) < 3 or spread == 0:
        return ""
    slope = float(np.mean((true - true.mean()) * error)) / spread
    return f" Here a step of 1 in the truth is a step of {1 + slope:.2f} in the prediction."
