"""Whether confidence is earned: of the answers given with 80 %, are 80 % right?

Answers are sorted into bins of like confidence, and each bin's confidence is compared with its share of right answers.
The usual expected calibration error is never 0: on 50 images a perfect forecaster shows about 0.1, as each bin's share
is off by chance. Here that part is taken out of the squared error (Kumar, Liang and Ma 2019, section 4; Bröcker 2012),
so that its mean over test sets does not depend on their size, and the root of it is told: 0 where there is no evidence
of any error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.core.seeds import keyed_generator

MAX_BINS = 15
_ANSWERS_PER_BIN = 20
_ROWS_AT_ONCE = 2**14
_DRAWS = 4000  # of a calibrated model, for the band that it would fill

Floats = NDArray[np.float64]


class Reliability(NamedTuple):
    """By bin, the least confident first; each [m].

    confidence, right  mean confidence and share of right answers, 0..1
    answers            how many
    low, high          where the share of 95 of 100 calibrated models would lie
    """

    confidence: Floats
    right: Floats
    answers: NDArray[np.int64]
    low: Floats
    high: Floats


def calibration_errors(confidence: NDArray[Any], right: NDArray[Any], weights: NDArray[Any] | None = None) -> Floats:
    """Root mean square distance of confidence and share of right answers, without what chance adds, [b].

    confidence, right  0..1 and bool, [n, answers]: one answer an image, or one for each of its labels
    weights            how often each image was drawn in each resample, [b, n]; None: one row of ones
    NaN where no bin has two answers. Under resampling, the distance holds the chance part twice: of the images that
    there are, and of drawing from them. Both are taken out, so that resamples spread around the value itself.
    """
    codes = _bins(confidence.ravel()).reshape(confidence.shape)
    count, total, squares = _sums(codes, right - confidence.astype(np.float64), weights)
    used = count >= 2
    n = np.where(used, count, 2.0)
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0) / (n - 1)  # of the mean
    squared = mean**2 - variance * (1 if weights is None else 2)
    answers = np.where(used, count, 0.0)
    whole = answers.sum(axis=1)
    error = (squared * answers).sum(axis=1) / np.maximum(whole, 1)
    return np.where(whole > 0, np.sqrt(np.maximum(error, 0)), np.nan)


def plain_calibration_error(confidence: NDArray[Any], right: NDArray[Any]) -> float:
    """The same distance as it is usually told, with what chance adds. Confidence 0..1 and bool, [n]."""
    count, total, _ = _sums(_bins(confidence)[:, None], (right - confidence.astype(np.float64))[:, None], None)
    return float(np.sqrt((total**2 / np.maximum(count, 1)).sum() / len(confidence)))


def error_by_chance(confidence: NDArray[Any]) -> float:
    """What ``plain_calibration_error`` would come to for a calibrated model: the root of its mean square."""
    chance = np.clip(confidence.astype(np.float64), 0, 1)
    spread = chance * (1 - chance)
    count, total, _ = _sums(_bins(confidence)[:, None], spread[:, None], None)
    return float(np.sqrt((total / np.maximum(count, 1)).sum() / len(confidence)))


def reliability(confidence: NDArray[Any], right: NDArray[Any]) -> Reliability:
    """What a reliability diagram shows. Confidence 0..1 and bool, [n]."""
    codes = _bins(confidence)
    count = np.bincount(codes)
    kept = count > 0
    means = np.bincount(codes, confidence)[kept] / count[kept]
    shares = np.bincount(codes, right)[kept] / count[kept]
    rng = keyed_generator("reliability", len(confidence))
    drawn = rng.binomial(count[kept], np.clip(means, 0, 1), size=(_DRAWS, len(means))) / count[kept]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return Reliability(means, shares, count[kept].astype(np.int64), low, high)


def _bins(confidence: NDArray[Any]) -> NDArray[np.intp]:
    """Bins of about as many answers each, [n]; equal confidences share one."""
    num = int(np.clip(len(confidence) // _ANSWERS_PER_BIN, 1, MAX_BINS))
    edges = np.quantile(confidence, np.arange(1, num) / num)
    return np.searchsorted(edges, confidence, side="right")


def _sums(codes: NDArray[np.intp], values: Floats, weights: NDArray[Any] | None) -> tuple[Floats, Floats, Floats]:
    """Count, sum and sum of squares of ``values`` [n, answers] by bin, each [b, bins]."""
    num, rows = MAX_BINS, 1 if weights is None else len(weights)
    sums = np.zeros((rows, 3 * num))
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        code, value = codes[some], values[some]
        cells = (np.arange(len(code))[:, None] * num + code).ravel()
        parts = (np.ones(value.size), value.ravel(), value.ravel() ** 2)
        by_image = np.hstack([np.bincount(cells, part, len(code) * num).reshape(-1, num) for part in parts])
        if weights is None:
            sums += by_image.sum(axis=0)
        else:
            sums += weights[:, some].astype(np.float32) @ by_image.astype(np.float32)
    count, total, squares = np.split(sums, 3, axis=1)
    return count, total, squares
