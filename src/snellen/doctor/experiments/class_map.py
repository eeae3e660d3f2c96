"""Are classes numbered on one side as they are on the other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snellen.core.finding import Finding
from snellen.core.seeds import keyed_permutation
from snellen.core.thresholds import alpha
from snellen.data.overlay import renamed
from snellen.doctor.case import Case
from snellen.doctor.experiments.measure import measurements
from snellen.metrics.confusion import best_renaming
from snellen.metrics.paired import mcnemar

# How much the mean recall of the classes that were moved must rise: two classes that look alike are confused with each
# other, but no healthy model calls most of each by the name of the other.
_LEAST_RISE = 0.3
_LEAST_GAIN = 0.05  # of accuracy over all images
_LOOKS = 4  # two sides here, and as many in the audit, which asks the same of the data

Ids = npt.NDArray[np.int64]


class _Side(NamedTuple):
    """truth, predicted: class ids [n] below num."""

    name: str
    truth: Ids
    predicted: Ids
    num: int


def class_map_permuted(case: Case) -> Iterator[Finding]:
    """Would the model be right if the classes of a side had other numbers?

    The renaming is found on half of the side's images (the best assignment of the confusion matrix) and tried on the
    other half, so that McNemar's test is exact. On the training images, where they are known, the names as they are
    must be the better ones.
    """
    sides = {side.name: side for side in _sides(case)}
    own = sides.pop("train", None)
    for side in sides.values():
        halves = _halves(side, case.seed)
        names = _renamed(halves[0])
        if names is None or (own is not None and own.num == side.num and _rise(own, names) >= 0):
            continue
        p = _p_of(halves[1], names)
        if p >= alpha("class-map-permuted", _LOOKS) or _rise(halves[1], names) < _LEAST_RISE:
            continue
        before, after = (
            float((side.predicted == side.truth).mean()),
            float((side.predicted == names[side.truth]).mean()),
        )
        if after - before >= _LEAST_GAIN:
            yield _finding(case, side, names, (before, after, p))


def _finding(case: Case, side: _Side, names: Ids, told: tuple[float, float, float]) -> Finding:
    before, after, p = told
    classes = case.classes or (() if case.training is None else case.training.classes)
    word = [classes[each] if each < len(classes) else f"class {each}" for each in range(side.num)]
    moved = {word[each]: word[names[each]] for each in range(side.num) if names[each] != each}
    first = ", ".join(f"{given} is the model's {meant}" for given, meant in list(moved.items())[:4])
    return Finding(
        code="class-map-permuted",
        severity="serious",
        message=f"The classes of the {side.name} images are numbered otherwise than those of training: renamed, "
        f"{after:.1%} of the answers are right instead of {before:.1%} ({first}).",
        advice="Make one table from class name to number and use it for all sides: sorted folders and a list in a "
        "file often differ in their order.",
        evidence={"side": side.name, "renamed": moved, "before": before, "after": after, "p": p},
        certainty="confirmed",
        treatment=_treatment(case, side, word, moved),
    )


def _treatment(case: Case, side: _Side, word: Sequence[str], moved: Mapping[str, str]) -> dict[str, Any]:
    """The images of the side relabelled, where it is known which they are."""
    told = case.answers.get(side.name)
    if told is None or len(told.ids) != len(side.truth) or not np.array_equal(told.truth, side.truth):
        return {}
    return {"overlay": renamed(told.ids, [word[label] for label in side.truth], moved)}


def _sides(case: Case) -> Iterator[_Side]:
    """Validation, test and training images; what the model is asked now goes before what was written down."""
    seen = measurements(case, "classification")
    known = set()
    for name, side in (("val", "val"), ("train", "plain")):
        found = None if seen is None else seen.side(side)  # type: ignore[arg-type]
        if found is not None:
            known.add(name)
            yield _Side(name, found.labels, found.predicted, found.outputs.shape[1])
    for name in ("val", "test", "train"):
        answers = case.answers.get(name)
        if answers is not None and name not in known and len(answers):
            yield _Side(name, answers.truth.astype(np.int64), answers.predicted, answers.probabilities.shape[1])


def _halves(side: _Side, seed: int) -> tuple[_Side, _Side]:
    order = keyed_permutation(len(side.truth), "halves", side.name, seed)
    cut = len(order) // 2
    one, other = (
        side._replace(truth=side.truth[part], predicted=side.predicted[part]) for part in np.split(order, [cut])
    )
    return one, other


def _renamed(side: _Side) -> Ids | None:
    """names[class as given] = class as the model calls it; cycles whose recall rises enough. None: there is none."""
    best = best_renaming(side.truth, side.predicted, side.num)
    names = np.arange(side.num)
    for cycle in _cycles(best):
        trial = np.arange(side.num)
        trial[cycle] = best[cycle]
        if _rise(side, trial) >= _LEAST_RISE:
            names[cycle] = best[cycle]
    return None if (names == np.arange(side.num)).all() else names


def _cycles(names: Ids) -> Iterator[list[int]]:
    left = {each for each in range(len(names)) if names[each] != each}
    while left:
        cycle = [min(left)]
        while (following := int(names[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        yield cycle


def _rise(side: _Side, names: Ids) -> float:
    """By how much the mean recall of the moved classes that are there rises with the new names; 0 without any."""
    rises = []
    for label in np.flatnonzero(names != np.arange(side.num)):
        answers = side.predicted[side.truth == label]
        if len(answers):
            rises.append(float((answers == names[label]).mean() - (answers == label).mean()))
    return float(np.mean(rises)) if rises else 0.0


def _p_of(side: _Side, names: Ids) -> float:
    """One-sided, that the new names are right no more often than the old."""
    old, new = side.predicted == side.truth, side.predicted == names[side.truth]
    only_old, only_new = int((old & ~new).sum()), int((new & ~old).sum())
    return mcnemar(only_old, only_new) / 2 if only_new > only_old else 1.0
