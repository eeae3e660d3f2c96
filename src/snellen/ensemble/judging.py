"""Is the ensemble better than its best member, why not more, and what does it cost?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from snellen.core.estimate import Estimate
from snellen.ensemble.panel import Side, headline
from snellen.ensemble.weights import Numbers, numbers_of
from snellen.metrics import correlation
from snellen.metrics.paired import Difference, images_for, paired_bootstrap
from snellen.tasks.base import Task

_ROUNDS, _SECONDS = 100, 2.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The numbers of one model on a side, by metric, and those of the headline in each resample of the images."""

    numbers: Mapping[str, Estimate]
    samples: np.ndarray | None


def judge(task: Task[Any], side: Side, predicted: Sequence[Any], seed: int) -> Judged:
    metrics = task.metrics()
    metrics.update(predicted, side.truth)
    numbers = metrics.compute(groups=side.groups, seed=seed)
    found = numbers.get(task.headline)
    if found is None or not np.isfinite(found.value):
        return Judged(numbers, None)
    return Judged(numbers, np.asarray(metrics.resampled(groups=side.groups, seed=seed)[task.headline], float))


def gain(task: Task[Any], side: Side, best: Judged, ours: Judged) -> Difference | None:
    """How much higher the headline is than that of the best member; None where one of them is undefined."""
    if best.samples is None or ours.samples is None:
        return None
    value = ours.numbers[task.headline].value - best.numbers[task.headline].value
    low, high = paired_bootstrap(value, best.samples, ours.samples, side.num_units)
    method = "paired bootstrap" if side.groups is None else "paired bootstrap over groups"
    if not (np.isfinite([low, high]).all() and low < high):
        return Difference(value=value, low=None, high=None, method=method)
    found = Difference(value=value, low=low, high=high, method=method)
    if found.is_shown:
        return found
    error = float(np.nanstd(ours.samples - best.samples, ddof=1))
    needed = images_for(value, error, len(side.truth))
    return Difference(value=value, low=low, high=high, images_needed=needed, method=method)


# --- why not more


def diversity(
    task: Task[Any], side: Side, alone: Sequence[Sequence[Any]], together: Sequence[Any] | None
) -> dict[str, Any]:
    """How far the members err alike, beside what independent errors would promise; JSON-able.

    ``together`` is what the ensemble says; None where its scores are votes or ranks, and no probabilities.

    of           what an error is: 'probabilities' and 'values' have signed ones, 'images' how far each image's own
                 headline is from 1
    correlation  of every two members' errors, and their ``mean``
    square       of signed errors: of one member, of the mean of all if they were independent, of that mean as their
                 correlation has it, and what the ensemble reaches (None: it has no such errors)
    majority     of decisions: what a vote would reach by independent members, and what it does reach
    """
    numbers = numbers_of(task, alone, side.truth)
    if numbers is None:
        short = np.array([[_shortfall(task, *pair) for pair in zip(said, side.truth, strict=True)] for said in alone])
        known = np.isfinite(short).all(axis=0)
        matrix = (
            correlation.pairwise_correlation(short[:, known]) if known.sum() > 1 else np.full((len(alone),) * 2, np.nan)
        )
        return {"of": "images", "n": int(known.sum()), **_matrix(matrix)}
    found = correlation.moments(numbers.errors)
    joined = None if together is None else numbers_of(task, [together], side.truth)
    count = len(alone)
    square = {
        "one": found.square,
        "independent": correlation.square_of_mean(found.square, count),
        "correlated": correlation.square_of_mean(found.square, count, 0.0 if found.square == 0 else found.correlation),
        "reached": None if joined is None else float(np.mean(joined.errors**2)),
    }
    of = "values" if numbers.kind == "values" else "probabilities"
    told = {"of": of, "n": len(side.truth), **_matrix(correlation.error_correlation(numbers.errors)), "square": square}
    return told if of == "values" else {**told, "majority": _majority(task, side, alone, numbers)}


def _shortfall(task: Task[Any], predicted: Any, truth: Any) -> float:
    value = headline(task, [predicted], [truth])
    return 1 - value if np.isfinite(value) else float("nan")


def _matrix(matrix: np.ndarray) -> dict[str, Any]:
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
    mean = correlation.mean_of_pairs(matrix)
    return {"correlation": rows, "mean": None if np.isnan(mean) else mean}


def _majority(task: Task[Any], side: Side, alone: Sequence[Sequence[Any]], numbers: Numbers) -> dict[str, Any]:
    """Of decisions about images, or about each label of each image."""
    true = task.arrays(alone[0], side.truth)["truth"]
    right = np.array([task.arrays(said, side.truth)["predicted"] == true for said in alone]).reshape(len(alone), -1)
    rates = right.mean(axis=1)
    votes = right.sum(axis=0) * 2
    pairs = [float(np.mean(~one & ~other)) for one, other in combinations(right, 2)]
    apart = [float((1 - one) * (1 - other)) for one, other in combinations(rates, 2)]
    return {
        "of": "label decisions" if numbers.kind == "labels" else "images",
        "rates": [float(rate) for rate in rates],
        "independent": correlation.majority_if_independent([float(rate) for rate in rates]),
        "reached": float(np.mean(votes > len(alone)) + np.mean(votes == len(alone)) / 2),
        "both_wrong": float(np.mean(pairs)),
        "both_wrong_if_independent": float(np.mean(apart)),
    }


# --- what it costs


def seconds_each(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that what slows the machine slows all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # the first is slower: memory is found, kernels are chosen
    begun = time.perf_counter()
    for turn in range(_ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
        if turn >= 4 and time.perf_counter() - begun > _SECONDS:
            break
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
