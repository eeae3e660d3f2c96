"""How near the numbers come, over the whole set at once, each metric with the n it rests on and a 95 % interval.

With e = predicted - true:

* r2: 1 - sum(e^2) / sum((true - mean of true)^2). 1 is perfect, 0 is what always saying the mean of these images would
  get, and it has no lower end.
* mae, rmse, median_absolute_error, bias: mean of |e|, root of the mean of e^2, median of |e|, mean of e; in the
  target's own unit.
* pearson, spearman: correlation of predicted and true, and of their ranks (ties get their mean rank).

With several outputs each has its own, as ``mae/<output>``; r2, pearson and spearman, which have no unit, also have
their mean over the outputs. Where the truth (for a correlation also the prediction) is the same everywhere, they are
undefined and left out, as they are of fewer than two images.

Intervals are the percentile bootstrap over images, or over whole groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DivergenceError
from snellen.core.estimate import Estimate
from snellen.metrics.estimates import Floats, Measure, Weights, num_units, sample
from snellen.metrics.interval import NUM_RESAMPLES, codes_of_units, percentile_interval
from snellen.tasks.regression.target import Values

_WITHOUT_UNIT = ("r2", "pearson", "spearman")
# A variance below this share of the mean square is rounding: the numbers are all the same.
_CONSTANT = 1e-12

Each = Mapping[str, Floats]  # metric -> [b, k]: of each output, under each row of weights


class RegressionMetrics:
    """Keeps every prediction, so that the numbers do not depend on how they were batched."""

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("metrics need at least one output, got none")
        self.names = tuple(names)
        self._truth: list[NDArray[np.float32]] = []
        self._predicted: list[NDArray[np.float32]] = []

    @property
    def n(self) -> int:
        """How many images were seen."""
        return len(self._truth)

    def update(self, predicted: Sequence[Values], truth: Sequence[Values]) -> None:
        """Take in a batch.

        ValueError if the batches differ in length or a target does not fit the outputs; DivergenceError for a
        prediction that is not finite.
        """
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        for row, (said, true) in enumerate(zip(predicted, truth, strict=True)):
            for each in (said, true):
                if each.values.shape != (len(self.names),):
                    raise ValueError(f"values must be of shape ({len(self.names)},), got {each.values.shape}")
            if not np.isfinite(said.values).all():
                raise DivergenceError(
                    f"prediction {row} of a batch of {len(truth)} is not finite; the model's weights or the image hold "
                    "NaN or infinity"
                )
        self._predicted.extend(each.values for each in predicted)
        self._truth.extend(each.values for each in truth)

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str | None] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Every metric by name, as the module says.

        intervals  False: values only, fast enough for every epoch
        groups     the group of each image in the order of the updates (None: a group of its own): whole groups are
                   resampled
        seed       of the bootstrap; the same seed gives the same intervals
        """
        codes = codes_of_units(self.n, groups)
        ones = np.ones((1, self.n), np.uint8)
        decided, ranked = self._measures()
        values = {
            name: float(value[0]) for name, value in {**decided(ones), **ranked(ones)}.items() if np.isfinite(value[0])
        }
        if not intervals:
            return {name: Estimate(value=value, n=self.n) for name, value in values.items()}
        samples = self._samples(codes, seed)
        units = num_units(np.ones(self.n, dtype=np.bool_), codes)
        grouped = codes is not None
        return {name: self._estimate(value, samples.get(name), units, grouped) for name, value in values.items()}

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """Every metric in each bootstrap resample, name -> [num_resamples]; NaN where it is undefined."""
        return self._samples(codes_of_units(self.n, groups), seed, at_any_cost=True)

    def _samples(self, codes: NDArray[np.intp] | None, seed: int, *, at_any_cost: bool = False) -> dict[str, Floats]:
        size = self.n * len(self.names)
        return sample(*self._measures(), self.n, size, groups=codes, seed=seed, at_any_cost=at_any_cost)

    def _measures(self) -> tuple[Measure, Measure]:
        """What sums decide and what order decides: weights [b, n] -> metric name -> [b]."""
        truth = np.array(self._truth, np.float64)
        predicted = np.array(self._predicted, np.float64)
        ordered = _Ordered.of(truth, predicted)
        return (
            lambda weights: self._named(_of_sums(truth, predicted, weights)),
            lambda weights: self._named(_of_order(ordered, weights)),
        )

    def _named(self, each: Each) -> dict[str, Floats]:
        """Metric name -> [b]: of each output, and their mean where there is no unit in the way."""
        if len(self.names) == 1:
            return {metric: values[:, 0] for metric, values in each.items()}
        found = {metric: _mean_of_defined(values) for metric, values in each.items() if metric in _WITHOUT_UNIT}
        for metric, values in each.items():
            found |= {f"{metric}/{name}": values[:, i] for i, name in enumerate(self.names)}
        return found

    def _estimate(self, value: float, samples: Floats | None, units: int, grouped: bool) -> Estimate:
        if units < 2:
            return Estimate(value=value, n=self.n, method=f"none (fewer than two {'groups' if grouped else 'images'})")
        if samples is None:
            return Estimate(value=value, n=self.n, method="none (too many images to resample)")
        low, high = percentile_interval(samples)
        if not np.isfinite(low):
            return Estimate(value=value, n=self.n, method="none (undefined in every resample)")
        method = "bootstrap over groups" if grouped else "bootstrap"
        if samples.size < NUM_RESAMPLES:
            method += f", {samples.size} resamples"
        return Estimate(value=value, n=self.n, low=min(low, value), high=max(high, value), method=method)


def _mean_of_defined(values: Floats) -> Floats:
    """The mean over the outputs [b, k] for which there is a value; NaN where there is none."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1))


def _of_sums(truth: Floats, predicted: Floats, weights: Weights) -> dict[str, Floats]:
    """What sums over images decide: truth and predicted [n, k], weights [b, n] -> [b, k] each."""
    total = weights.sum(axis=1, dtype=np.float64)[:, None]
    # Seen from the middle: with numbers like 1990 the squares' difference would be rounding.
    middle = truth.mean(axis=0)
    true, said = truth - middle, predicted - middle
    error = said - true
    k = truth.shape[1]
    columns = np.concatenate([true, said, error, np.abs(error), true**2, said**2, error**2, true * said], axis=1)
    mean = (weights.astype(np.float64) @ columns / total).reshape(len(weights), 8, k).transpose(1, 0, 2)
    of_true, of_said, of_error, of_size, true_square, said_square, error_square, product = mean
    spread, own = _variance(true_square, of_true), _variance(said_square, of_said)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - error_square / spread
        pearson = (product - of_true * of_said) / np.sqrt(spread * own)
    return {
        "r2": r2,
        "mae": of_size,
        "rmse": np.sqrt(error_square),
        "bias": of_error,
        "pearson": pearson.clip(-1, 1),
    }


def _variance(square: Floats, mean: Floats) -> Floats:
    """Mean square less squared mean; NaN where all numbers are the same, so that nothing is divided by it."""
    variance = square - mean**2
    return np.where(variance > _CONSTANT * square, variance, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class _Ordered:
    """What is sorted once for all resamples: sizes of errors, and which rank each number has, for each output."""

    sizes: Floats
    by_size: NDArray[np.intp]
    tied: tuple[NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def of(cls, truth: Floats, predicted: Floats) -> _Ordered:
        size = np.abs(predicted - truth)
        by_size = size.argsort(axis=0)
        return cls(np.take_along_axis(size, by_size, axis=0), by_size, (_ranks(truth), _ranks(predicted)))


def _ranks(values: Floats) -> NDArray[np.intp]:
    """0 for the smallest number of each column, 1 for the next larger one: [n, k]."""
    return np.stack([np.unique(column, return_inverse=True)[1] for column in values.T], axis=1)


def _of_order(ordered: _Ordered, weights: Weights) -> dict[str, Floats]:
    """What the order of images decides: weights [b, n] -> [b, k] each."""
    k = ordered.sizes.shape[1]
    medians = [_weighted_median(ordered.sizes[:, i], weights[:, ordered.by_size[:, i]]) for i in range(k)]
    correlations = [_spearman(ordered.tied[0][:, i], ordered.tied[1][:, i], weights) for i in range(k)]
    return {"median_absolute_error": np.stack(medians, axis=1), "spearman": np.stack(correlations, axis=1)}


def _weighted_median(ascending: Floats, weights: Weights) -> Floats:
    """The median of numbers [n] of which each is there as often as ``weights`` [b, n] says."""
    passed = weights.cumsum(axis=1, dtype=np.int64)
    total = passed[:, -1:]
    low, high = ((passed > place).argmax(axis=1) for place in ((total - 1) // 2, total // 2))
    return np.asarray((ascending[low] + ascending[high]) / 2)


def _spearman(truth: NDArray[np.intp], predicted: NDArray[np.intp], weights: Weights) -> Floats:
    """The correlation of mean ranks; rank numbers [n] each, weights [b, n] -> [b]."""
    one, other = _mean_ranks(truth, weights), _mean_ranks(predicted, weights)
    counted = weights.astype(np.float64)
    total = counted.sum(axis=1, keepdims=True)
    one = one - (counted * one).sum(axis=1, keepdims=True) / total
    other = other - (counted * other).sum(axis=1, keepdims=True) / total
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (counted * one * other).sum(axis=1) / np.sqrt(
            (counted * one**2).sum(axis=1) * (counted * other**2).sum(axis=1)
        )
    return np.asarray(found.clip(-1, 1))


def _mean_ranks(rank: NDArray[np.intp], weights: Weights) -> Floats:
    """The rank, 1 and up, of each number among its resample [b, n]; equal ones share the mean of theirs."""
    order = rank.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    together = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    return np.asarray((together.cumsum(axis=1) - (together - 1) / 2)[:, rank])
