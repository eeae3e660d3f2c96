"""How well scores order images: ROC and precision-recall curves, the areas under them, top-k.

Everything is computed over all scores at once: a mean of batch-wise areas is another number. Ties count as in
scikit-learn: items of one score stand or fall together (a tie between a positive and a negative is half right for
the ROC area), so that the order in which images come never matters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 4096


class RocCurve(NamedTuple):
    """Rates at each distinct score taken as threshold, [t], from "nothing is positive" to "all is"."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]


class PrecisionRecallCurve(NamedTuple):
    """Precision and recall at each distinct score taken as threshold, [t], from recall 0 (precision 1) to recall 1."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[np.float64]


class Ranking(NamedTuple):
    """Areas per class, [b, k]; NaN where undefined."""

    roc_auc: NDArray[np.float64]
    average_precision: NDArray[np.float64]


def roc_curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> RocCurve:
    """The ROC curve of scores [n] for the images in ``positive`` [n]. A rate without images to count is NaN."""
    thresholds, true_positives, called = _calls(scores, positive)
    num_positives = int(np.count_nonzero(positive))
    return RocCurve(
        _share(called - true_positives, positive.size - num_positives),
        _share(true_positives, num_positives),
        thresholds,
    )


def precision_recall_curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> PrecisionRecallCurve:
    """The precision-recall curve of scores [n] for the images in ``positive`` [n]; recall is NaN without positives."""
    thresholds, true_positives, called = _calls(scores, positive)
    precision = np.ones(called.size)
    precision[1:] = true_positives[1:] / called[1:]
    return PrecisionRecallCurve(precision, _share(true_positives, int(np.count_nonzero(positive))), thresholds)


def roc_auc(scores: NDArray[Any], positive: NDArray[np.bool_], weights: NDArray[Any] | None = None) -> float:
    """Chance that a positive scores above a negative, a tie being half; NaN without at least one of each.

    scores, positive, weights [n]; a whole-number weight counts an image so many times.
    """
    return float(_roc_auc(_levels(scores, positive, None if weights is None else weights[None]))[0])


def average_precision(scores: NDArray[Any], positive: NDArray[np.bool_], weights: NDArray[Any] | None = None) -> float:
    """Mean over positives of the precision at their score, without interpolation; NaN without positives.

    scores, positive, weights [n]; a weight is how many times an image was drawn in a resample. An image drawn again
    weighs more in the mean, but is not counted as a second hit beside itself: with few positives or a weak model such
    hits made of copies would push nearly every resample above the value itself, and the interval with them. (Twenty
    positives per class, average precision 0.2: plain copies hold the expected value 89 times in 100, this 95 times.)
    """
    return float(_average_precision(_levels(scores, positive, None if weights is None else weights[None]))[0])


def one_vs_rest(scores: NDArray[Any], truth: NDArray[Any], weights: NDArray[Any] | None = None) -> Ranking:
    """Both areas of each column of scores [n, k], under each row of weights [b, n] (None: one row of ones).

    truth   class ids [n], or which labels each image has, bool [n, k]
    """
    num_rows, num_classes = 1 if weights is None else len(weights), scores.shape[1]
    ranking = Ranking(np.empty((num_rows, num_classes)), np.empty((num_rows, num_classes)))
    for index in range(num_classes):
        levels = _levels(scores[:, index], members(truth, index), weights)
        ranking.roc_auc[:, index] = _roc_auc(levels)
        ranking.average_precision[:, index] = _average_precision(levels)
    return ranking


def members(truth: NDArray[Any], index: int) -> NDArray[np.bool_]:
    """Which images have the class, bool [n]: truth as class ids [n], or bool [n, k]."""
    return np.equal(truth, index) if truth.ndim == 1 else truth[:, index]


def macro_roc_auc(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean one-versus-rest ROC area over the classes that have positives and negatives; NaN if none has."""
    areas = one_vs_rest(scores, truth).roc_auc[0]
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if defined.size else float("nan")


def top_k_hits(scores: NDArray[Any], truth: NDArray[np.integer[Any]], k: int) -> NDArray[np.float64]:
    """Whether the true class is among the k best of each row of scores [n, num_classes], [n]: 1, 0, or a share.

    Where it ties with other classes for the last of the k places, the chance that a draw gives it one: equal scores
    for all classes earn k / num_classes, whichever class comes first.
    """
    hits = np.empty(len(scores))
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        own = np.take_along_axis(scores[rows], truth[rows, None].astype(np.intp), axis=1)
        better = np.count_nonzero(scores[rows] > own, axis=1)
        equal = np.count_nonzero(scores[rows] == own, axis=1)
        hits[rows] = np.clip((k - better) / equal, 0, 1)
    return hits


def top_k_accuracy(scores: NDArray[Any], truth: NDArray[np.integer[Any]], k: int) -> float:
    """Share of images whose true class is among the k best; ties as in ``top_k_hits``."""
    return float(top_k_hits(scores, truth, k).mean())


class _Levels(NamedTuple):
    """What happens at each distinct score of a positive, from the highest. Whole numbers.

    Between two such scores nothing happens that either area depends on.
    """

    drawn: NDArray[np.integer[Any]]  # [b, p] weight of each positive, from the highest score
    level: NDArray[np.intp] | slice  # [p] the level of each; all of them in turn where no two share a score
    positives: NDArray[np.integer[Any]]  # [b, m] weight of the positives at the level
    hits: NDArray[np.integer[Any]]  # [b, m] of the positives above or at it
    above: NDArray[np.integer[Any]]  # [b, m] of all images above it
    reached: NDArray[np.integer[Any]]  # [b, m] of all images above or at it
    total: NDArray[np.integer[Any]]  # [b] of all images


def _levels(scores: NDArray[Any], positive: NDArray[np.bool_], weights: NDArray[Any] | None) -> _Levels:
    falling = np.negative(scores)
    order = np.argsort(falling)
    ordered = falling[order]
    levels, level_of, sizes = np.unique(falling[positive], return_inverse=True, return_counts=True)
    level = slice(None) if levels.size == level_of.size else np.repeat(np.arange(levels.size), sizes)
    first = np.searchsorted(ordered, levels, side="left")
    last = np.searchsorted(ordered, levels, side="right")
    if weights is None:
        ones, total = np.ones((1, level_of.size), dtype=np.int32), np.array([scores.size])
        return _Levels(ones, level, sizes[None], np.cumsum(sizes)[None], first[None], last[None], total)
    own = np.flatnonzero(positive)[np.argsort(level_of, kind="stable")]
    hits = _weight_of_first(weights, own, np.cumsum(sizes))
    positives = np.diff(hits, axis=1, prepend=np.int32(0))
    reached = _weight_of_first(weights, order, last)
    tied = not np.array_equal(last - first, sizes)  # a negative shares its score with a positive
    above = _weight_of_first(weights, order, first) if tied else reached - positives
    drawn = np.take(weights, own, axis=1).astype(np.int32)
    return _Levels(drawn, level, positives, hits, above, reached, weights.sum(axis=1, dtype=np.int64))


def _weight_of_first(
    weights: NDArray[Any], order: NDArray[np.intp], counts: NDArray[np.integer[Any]]
) -> NDArray[np.int32]:
    """Weight of the first ``counts`` images of ``order``, [b, m], under each row of weights [b, n]; counts [m] rise."""
    summed = np.zeros((len(weights), counts.size), dtype=np.int32)
    some = counts[counts > 0]
    if not some.size:
        return summed
    gathered = np.take(weights, order[: some[-1]], axis=1)
    if some[-1] < 6 * some.size:  # below six images a run, adding up runs first is slower
        summed[:, -some.size :] = np.take(np.cumsum(gathered, axis=1, dtype=np.int32), some - 1, axis=1)
    else:
        runs = np.add.reduceat(gathered, np.concatenate([[0], some[:-1]]), axis=1, dtype=np.int32)
        np.cumsum(runs, axis=1, dtype=np.int32, out=summed[:, -some.size :])
    return summed


def _roc_auc(levels: _Levels) -> NDArray[np.float64]:
    num_positives = levels.hits[:, -1:].sum(axis=1)  # 0 where there is no level
    num_negatives = levels.total - num_positives
    # Twice the negatives that each positive loses to: those above it, and half of those beside it.
    lost = levels.above + levels.reached - 2 * levels.hits + levels.positives
    pairs = num_positives * num_negatives.astype(np.float64)
    share_lost = np.einsum("bm,bm->b", levels.positives, lost, dtype=np.int64) / 2 / np.maximum(pairs, 1)
    return np.where(pairs > 0, 1 - share_lost, np.nan)


def _average_precision(levels: _Levels) -> NDArray[np.float64]:
    num_positives = levels.hits[:, -1:].sum(axis=1)
    again = levels.drawn - 1
    precision = (levels.hits[:, levels.level] - again) / (levels.reached[:, levels.level] - again)
    summed = np.einsum("bp,bp->b", levels.drawn, precision)
    return np.where(num_positives > 0, summed / np.maximum(num_positives, 1), np.nan)


def _calls(
    scores: NDArray[Any], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds from infinity down through each distinct score, and how many images are true and called positive."""
    levels, level_of = np.unique(np.negative(scores), return_inverse=True)
    called = np.cumsum(np.bincount(level_of, minlength=levels.size))
    true_positives = np.cumsum(np.bincount(level_of[positive], minlength=levels.size))
    return (
        np.concatenate([[np.inf], -levels]),
        np.concatenate([[0], true_positives]),
        np.concatenate([[0], called]),
    )


def _share(part: NDArray[np.int64], whole: int) -> NDArray[np.float64]:
    return part / whole if whole else np.full(part.size, np.nan)
