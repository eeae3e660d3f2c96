"""Numbers with intervals: which kind fits, how many resamples are affordable, and what to say where none is honest.

* A share of independent images (accuracy, recall, ...) gets Wilson's interval.
* Everything else gets the percentile bootstrap over images, or over whole groups. Images are drawn anew each time, so
  a resample may lack a rare class; it then has no say in that class's interval.
* Where every resample gives a perfect 0 or 1, the bootstrap would claim certainty. The interval is then Wilson's for
  n of n, with n the independent images (or groups) that the number rests on.
* Fewer than two images or groups say nothing about their spread: there is no interval.
* The bootstrap knows little about a rare class: beside classes of a hundred images, one of five or ten leaves the
  95 % interval of balanced accuracy holding the truth in 82 to 86 % of simulated test sets; with classes of like
  size it is 92 to 95 %.
* Work is bounded: numbers made from decisions use fewer resamples above 200,000 images; numbers that need the scores
  sorted use fewer above 1 million scores (images x classes), and get no interval above 5 million. Where models are
  compared by such a number it is resampled all the same, 200 times.

``Estimate.method`` says which of these it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.core.estimate import Estimate
from snellen.metrics.interval import NUM_RESAMPLES, percentile_interval, resamples, wilson

Floats = NDArray[np.float64]
Weights = NDArray[np.uint8]
Measure = Callable[[Weights], dict[str, Floats]]  # weights [b, n] -> metric name -> [b]

# Numbers looked at while resampling, for about five seconds of each on one core.
_COUNTING_BUDGET, _RANKING_BUDGET = 2 * 10**8, 10**9
_MIN_RESAMPLES, _MIN_RANKING_RESAMPLES = 100, 200


class Support(NamedTuple):
    """What a number rests on.

    n       images it was computed over
    units   how many of them are independent: images, or groups; of a mean over classes, what they come to
    share   whether it is a share of n independent images, so that Wilson's interval fits
    """

    n: int
    units: float
    share: bool


def num_units(images: NDArray[np.bool_], groups: NDArray[np.intp] | None) -> int:
    """How many independent units the marked images [n] come from: themselves, or their groups (codes [n])."""
    return int(np.count_nonzero(images if groups is None else np.bincount(groups[images])))


def units_of_mean(units: list[int]) -> float:
    """What the units of each class come to in a mean over classes: k^2 / sum(1 / units).

    The variance of a mean of k independent rates is sum(1 / units) / k^2 times that of one unit: the rarest class
    decides. 0 for no class.
    """
    return len(units) ** 2 / sum(1 / n for n in units) if units else 0.0


def sample(
    decided: Measure,
    ranked: Measure,
    n: int,
    num_scores: int,
    *,
    groups: NDArray[np.intp] | None,
    seed: int,
    at_any_cost: bool = False,
) -> dict[str, Floats]:
    """The bootstrap values of every metric, name -> [num_resamples], within the budgets above.

    decided     metrics made from decisions: cost n a resample
    ranked      metrics that need the scores sorted: cost num_scores a resample; left out where that is too much,
                unless ``at_any_cost``
    """
    total = max(_MIN_RESAMPLES, min(NUM_RESAMPLES, _COUNTING_BUDGET // n))
    to_rank = min(total, _RANKING_BUDGET // num_scores)
    if to_rank < _MIN_RANKING_RESAMPLES:
        to_rank = min(total, _MIN_RANKING_RESAMPLES) if at_any_cost else 0
    parts: dict[str, list[Floats]] = {}
    for weights in resamples(n, groups=groups, num_resamples=total, seed=seed):
        measured = decided(weights)
        if to_rank > 0:
            measured |= ranked(weights[:to_rank])
            to_rank -= len(weights)
        for name, values in measured.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def estimate(value: float, support: Support, samples: Floats | None, *, grouped: bool) -> Estimate:
    """The value with its 95 % interval. The interval always holds the value: resampling is biased for small n.

    samples   the metric's bootstrap values [num_resamples], NaN where undefined; None: too costly to make
    """
    if support.share:
        low, high = wilson(round(value * support.n, 6), support.n)
        return Estimate(value=value, n=support.n, low=low, high=high, method="wilson")
    units = "groups" if grouped else "images"
    if support.units < 2:
        return Estimate(value=value, n=support.n, method=f"none (fewer than two {units})")
    if samples is None:
        return Estimate(value=value, n=support.n, method="none (too many scores to resample)")
    method = "bootstrap over groups" if grouped else "bootstrap"
    if samples.size < NUM_RESAMPLES:
        method += f", {samples.size} resamples"
    low, high = percentile_interval(samples)
    if low == high == value and value in (0, 1):
        low, high = wilson(value * support.units, support.units)
        method = f"wilson ({value:.0f} in every resample)"
    return Estimate(value=value, n=support.n, low=min(low, value), high=max(high, value), method=method)
