"""Right and wrong decisions per class, and the rates made from them.

One rule for what is undefined: a class that is not in the truth has no rates (NaN) and is left out of the macro mean,
whatever was predicted; the false alarms it caused still lower the precision and F1 of the pooled ("micro") rates, and
cost the true classes their recall. A class that is in the truth but was never predicted has precision 0, so that
never naming a hard class does not pay. scikit-learn gives the same numbers with
``labels=<classes in the truth>, zero_division=0``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Labels per matrix product in `label_counts`: bounds the float copy of the truth to n x 3 x this many numbers.
_LABELS_AT_ONCE = 32


class Counts(NamedTuple):
    """Per class: images rightly given it, images that have it, images given it. Each [..., k], whole numbers."""

    hits: NDArray[np.float64]
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]


def confusion_matrix(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    num_classes: int,
    weights: NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """How many images of true class i (row) were given class j (column), [k, k]. Class ids [n], 0 to k - 1."""
    pairs = truth.astype(np.int64) * num_classes + predicted
    counted = np.bincount(pairs, weights=weights, minlength=num_classes**2)
    return counted.astype(np.int64).reshape(num_classes, num_classes)


def best_renaming(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], num_classes: int
) -> NDArray[np.int64]:
    """What each class is called by whoever predicts, [k]: one to one, so that most images are given their class.

    Of equals, as it is. (Kuhn, Naval Research Logistics 2 (1955) 83.)
    """
    from scipy.optimize import linear_sum_assignment

    table = confusion_matrix(truth, predicted, num_classes) + 0.5 * np.eye(num_classes)
    return np.asarray(linear_sum_assignment(table, maximize=True)[1], np.int64)


def counts_of(confusion: NDArray[Any]) -> Counts:
    """The counts [k] behind a confusion matrix [k, k]."""
    matrix = confusion.astype(np.float64)
    return Counts(np.diagonal(matrix).copy(), matrix.sum(axis=1), matrix.sum(axis=0))


def class_counts(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    num_classes: int,
    weights: NDArray[Any] | None = None,
) -> Counts:
    """Counts [b, k] of single-label decisions, class ids [n], under each row of weights [b, n] (None: one row of ones).

    The whole confusion matrix is never made: with a thousand classes it would be a million numbers per resample.
    """
    rows = np.ones((1, truth.size)) if weights is None else weights
    right = predicted == truth
    right_classes = truth[right]
    counted = [
        (
            np.bincount(right_classes, row[right], num_classes),
            np.bincount(truth, row, num_classes),
            np.bincount(predicted, row, num_classes),
        )
        for row in rows
    ]
    hits, in_truth, in_predicted = (np.array(column) for column in zip(*counted, strict=True))
    return Counts(hits, in_truth, in_predicted)


def label_counts(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: NDArray[Any] | None = None) -> Counts:
    """Counts [b, k] of multi-label decisions [n, k] under each row of weights [b, n] (None: one row of ones)."""
    num_labels = truth.shape[1]
    if weights is None:
        columns = (truth & predicted, truth, predicted)
        return Counts(*(np.count_nonzero(column, axis=0).astype(np.float64)[None] for column in columns))
    # float32 products are exact: they sum whole numbers that stay below 2**24 (16 million draws).
    rows = weights.astype(np.float32)
    summed = np.empty((3, len(rows), num_labels))
    for start in range(0, num_labels, _LABELS_AT_ONCE):
        some = slice(start, start + _LABELS_AT_ONCE)
        for out, column in zip(
            summed, (truth[:, some] & predicted[:, some], truth[:, some], predicted[:, some]), strict=True
        ):
            out[:, some] = rows @ column.astype(np.float32)
    return Counts(*summed)


def precision(counts: Counts) -> NDArray[np.float64]:
    """Of the images given the class, the share that has it, [..., k]; 0 if never given, NaN if not in truth."""
    return _ratio(counts.hits, counts.predicted, counts.truth)


def recall(counts: Counts) -> NDArray[np.float64]:
    """Of the images that have the class, the share that was given it, [..., k]; NaN if not in truth."""
    return _ratio(counts.hits, counts.truth, counts.truth)


def f1(counts: Counts) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall, [..., k]; NaN if not in truth."""
    return _ratio(2 * counts.hits, counts.truth + counts.predicted, counts.truth)


def pooled(counts: Counts) -> Counts:
    """All decisions as if of one class, [..., 1]: the rates of this are the micro averages."""
    return Counts(*(part.sum(axis=-1, keepdims=True) for part in counts))


def macro(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes where the rate is defined, [..., k] -> [...]; NaN where it is defined for none."""
    defined = ~np.isnan(rates)
    count = defined.sum(axis=-1)
    total = np.where(defined, rates, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def weighted(rates: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Mean over classes weighted by how many images have each, [..., k] -> [...]; NaN without any."""
    total = np.where(counts.truth > 0, rates * counts.truth, 0.0).sum(axis=-1)
    size = counts.truth.sum(axis=-1)
    return np.where(size > 0, total / np.maximum(size, 1), np.nan)


def accuracy(counts: Counts) -> NDArray[np.float64]:
    """Share of single-label decisions that are right, [..., k] -> [...]."""
    return recall(pooled(counts))[..., 0]


def balanced_accuracy(counts: Counts) -> NDArray[np.float64]:
    """Mean recall of the classes in the truth, [..., k] -> [...]: 1/k for a constant answer, however skewed."""
    return macro(recall(counts))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(truth > 0, part / np.maximum(whole, 1), np.nan)
