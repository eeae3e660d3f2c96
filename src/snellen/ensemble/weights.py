"""What each model counts: fitted on validation images, and judged on those that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.seeds import keyed_seed
from snellen.metrics.log_loss import CLIP
from snellen.tasks.base import Task

Floats = NDArray[np.float64]

_LEAST = 0.005  # a model that counts less than this is left out
_ROUNDS = 12  # of greedy selection


@dataclass(frozen=True, slots=True)
class Numbers:
    """What models say of images that have numbers for an answer: probabilities of classes or labels, or values.

    said    [models, images, k]
    truth   [images, k]: 0 or 1 of classes and labels; values in units of their own spread, as ``said``
    kind    'class', 'labels' or 'values'
    """

    said: Floats
    truth: Floats
    kind: str

    def of(self, images: Sequence[int]) -> Numbers:
        return Numbers(self.said[:, images], self.truth[images], self.kind)

    @property
    def errors(self) -> Floats:
        """[models, images * k]"""
        return (self.said - self.truth).reshape(len(self.said), -1)


def numbers_of(task: Task[Any], said: Sequence[Sequence[Any]], truth: Sequence[Any]) -> Numbers | None:
    """The predictions of each model as numbers; None where answers are about places."""
    if task.dense:
        return None
    arrays = [task.arrays(predicted, truth) for predicted in said]
    true = arrays[0]["truth"]
    if "scores" not in arrays[0]:
        spread = true.astype(np.float64).std(axis=0)
        unit = np.where(spread > 0, spread, 1.0)
        return Numbers(np.stack([each["predicted"] for each in arrays]) / unit, true / unit, "values")
    scores = np.stack([each["scores"] for each in arrays]).astype(np.float64)
    if true.ndim == 1:
        return Numbers(scores, np.eye(scores.shape[2])[true], "class")
    return Numbers(scores, true.astype(np.float64), "labels")


def least_loss(numbers: Numbers) -> tuple[float, ...]:
    """The weights, 0 or more and together 1, whose mean has the least log loss, or of values the least squared error.

    Both are convex in the weights, so that the one minimum is found, by sequential least squares (SLSQP: Kraft, ACM
    TOMS 20 (1994) 262) from equal weights. Stacking with weights that are a mean: Breiman, Machine Learning 24 (1996)
    49.
    """
    from scipy.optimize import LinearConstraint, minimize

    count = len(numbers.said)
    equal: Floats = np.full(count, 1 / count)
    found = minimize(  # type: ignore[call-overload]  # the stubs know no gradient beside the value
        lambda weights: _loss(weights, numbers),
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints=LinearConstraint(np.ones((1, count)), 1, 1),
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights = np.clip(found.x, 0, 1)
    weights /= weights.sum()
    if not np.isfinite(weights).all() or _loss(weights, numbers)[0] > _loss(equal, numbers)[0]:
        weights = equal
    return rounded(weights)


def rounded(weights: Floats) -> tuple[float, ...]:
    """Without those that count next to nothing."""
    kept = np.where(weights >= _LEAST, weights, 0.0)
    return tuple(float(weight) for weight in kept / kept.sum())


def _loss(weights: Floats, numbers: Numbers) -> tuple[float, Floats]:
    """And its gradient."""
    mean = np.tensordot(weights, numbers.said, 1)
    if numbers.kind == "values":
        off = mean - numbers.truth
        return float(np.mean(off**2)), 2 * np.mean(off * numbers.said, axis=(1, 2))
    if numbers.kind == "class":
        given, share = numbers.truth * numbers.said, numbers.truth * mean
        of_models, chance = given.sum(axis=2), np.clip(share.sum(axis=1), CLIP, 1)
        return float(-np.log(chance).mean()), -np.mean(of_models / chance, axis=1)
    there = numbers.truth.astype(bool)
    chance = np.clip(np.where(there, mean, 1 - mean), CLIP, 1)
    slope = np.where(there, 1.0, -1.0) / chance
    return float(-np.log(chance).mean()), -np.mean(slope * numbers.said, axis=(1, 2))


def greedy_selection(count: int, score: Callable[[tuple[float, ...]], float]) -> tuple[float, ...]:
    """Weights by forward selection with replacement (Caruana et al., ICML 2004), for a score of any kind.

    It begins with the best model, and in each round adds the one, perhaps again, with which the mean scores highest.
    It ends where none scores higher, or after 12 rounds.
    """
    chosen, best = np.zeros(count), -np.inf
    for _ in range(_ROUNDS):
        options = [score(_shares(chosen + one)) for one in np.eye(count)]
        first = int(np.argmax(options))
        if not options[first] > best:
            break
        best = options[first]
        chosen[first] += 1
    return _shares(chosen)


def _shares(counts: Floats) -> tuple[float, ...]:
    return tuple(float(each) for each in counts / counts.sum())


def halves(units: Sequence[str], kinds: Sequence[Any], seed: int) -> NDArray[np.bool_]:
    """Which images are in the first half, [n]; what shares a unit is never parted, and kinds are alike in both.

    units  group or name of each image, [n]; kinds: its labels, or anything that is to be divided evenly
    """
    kind_of = dict(zip(reversed(units), reversed(list(map(str, kinds))), strict=True))
    order = sorted(kind_of, key=lambda unit: (kind_of[unit], keyed_seed(seed, "half", unit)))
    first = set(order[::2])
    return np.array([unit in first for unit in units])
