"""What of an answer is explained, and how much of it is left when the image is changed, for each kind of answer.

This is the one place in the room that knows what the tasks' answers hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Literal

import numpy as np

from snellen.core.errors import ConfigError, DataError, did_you_mean
from snellen.core.record import BACKGROUND
from snellen.tasks.base import Task
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.objects.target import ObjectSet
from snellen.tasks.regression.target import Values
from snellen.tasks.segmentation.target import ClassMap

Scale = Literal["log-odds", "number", "share"]

_EPS = 1e-7  # where float32 probabilities end
_LEAST_LOG_ODDS, _LEAST_SHARE = 0.1, 0.01  # the first takes 0.5 to 0.475


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One class, or one number, of the answer for one image.

    index, name  of the class or the number
    score        an answer for the image, changed -> how much of this is left in it: a probability; the number; of
                 objects the mean over those that were shown of score times IoU with what is found now (Petsiuk et al.
                 2021, arXiv:2006.03204); of pixels the share that keeps its class times how sure of it the model is
    scale        how changes of it are measured: of a probability by its log-odds, since one near 1 hardly falls where
                 half of what speaks for it is gone; of a number by its distance, a rise as well as a fall
    """

    index: int
    name: str
    score: Callable[[Any], float]
    scale: Scale = "share"

    @property
    def either_way(self) -> bool:
        """Whether a rise counts as a fall does."""
        return self.scale == "number"

    def change(self, before: float, after: float) -> float:
        """How far ``after`` is below ``before``, or away from it."""
        if self.scale == "log-odds":
            return _log_odds(before) - _log_odds(after)
        return abs(before - after) if self.either_way else before - after

    def least_change(self, before: float) -> float:
        """Less is next to nothing."""
        return _LEAST_LOG_ODDS if self.scale == "log-odds" else _LEAST_SHARE * abs(before) or _LEAST_SHARE


def _log_odds(probability: float) -> float:
    inside = min(max(probability, _EPS), 1 - _EPS)
    return log(inside / (1 - inside))


def check_class(task: Task[Any], of: str | None) -> None:
    """Raises ConfigError for a class, or a number, that the model does not know."""
    if of is not None and of not in task.classes:
        raise ConfigError(f"of = '{of}' is nothing that this model answers{did_you_mean(of, task.classes)}")


def asked_of(task: Task[Any], answer: Any, of: str | None = None) -> list[Asked]:
    """What of ``answer`` is explained: ``of``, or what it says.

    That is the class; each label that is present (without any, the likeliest); each number; each class of the objects
    that are shown; of classes of pixels, the largest that is not the background. Raises ConfigError as ``check_class``,
    and DataError where nothing of it was found in the image.
    """
    check_class(task, of)
    reading = next(read for kind, read in _READINGS.items() if isinstance(answer, kind))
    return reading(task, answer, None if of is None else task.classes.index(of))


def _of_label(task: Task[Any], answer: Label, index: int | None) -> list[Asked]:
    index = answer.index if index is None else index
    return [_scored(task, index)]


def _of_labels(task: Task[Any], answer: LabelSet, index: int | None) -> list[Asked]:
    if index is not None:
        return [_scored(task, index)]
    assert answer.scores is not None
    present = np.flatnonzero(answer.present).tolist() or [int(answer.scores.argmax())]
    return [_scored(task, each) for each in present]


def _scored(task: Task[Any], index: int) -> Asked:
    return Asked(index, task.classes[index], lambda answer: float(answer.scores[index]), "log-odds")


def _of_values(task: Task[Any], answer: Values, index: int | None) -> list[Asked]:
    def asked(of: int) -> Asked:
        return Asked(of, task.classes[of], lambda changed: float(changed.values[of]), "number")

    return [asked(of) for of in (range(len(task.classes)) if index is None else [index])]


def _of_pixels(task: Task[Any], answer: ClassMap, index: int | None) -> list[Asked]:
    shares = answer.shares(len(task.classes))
    if index is None:
        clear = task.classes.index(BACKGROUND) if BACKGROUND in task.classes else -1
        order = [int(i) for i in np.argsort(-shares, kind="stable") if i != clear]
        index = order[0] if order and shares[order[0]] > 0 else int(shares.argmax())
    if not shares[index] > 0:
        raise DataError(_not_found(task, index, "pixel", [task.classes[i] for i in np.flatnonzero(shares)]))
    own, chosen = answer.array == index, index

    def left(changed: ClassMap) -> float:
        kept = float((changed.array[own] == chosen).mean())
        return kept * (1.0 if changed.scores is None else float(changed.scores[chosen]))

    return [Asked(index, task.classes[index], left)]


def _of_objects(task: Task[Any], answer: ObjectSet, index: int | None) -> list[Asked]:
    shown = answer.above(task.thresholds)  # type: ignore[attr-defined]
    found = sorted(set(shown.labels.tolist()))
    if index is None and not found:
        raise DataError("the model shows no object here, so there is nothing to explain")
    if index is not None and index not in found:
        raise DataError(_not_found(task, index, "object", [task.classes[i] for i in found]))
    return [_of_class(task, shown, each) for each in (found if index is None else [index])]


def _of_class(task: Task[Any], shown: ObjectSet, index: int) -> Asked:
    boxes = shown.boxes[shown.labels == index].astype(np.float64)

    def left(changed: ObjectSet) -> float:
        now = changed.labels == index
        if changed.scores is None or not now.any():
            return 0.0
        agreement = _iou(boxes, changed.boxes[now].astype(np.float64)) * changed.scores[now]
        return float(agreement.max(axis=1).mean())

    return Asked(index, task.classes[index], left)


def _iou(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """boxes [n, 4] and [m, 4] -> [n, m]"""
    low, high = np.maximum(ones[:, None, :2], others[:, :2]), np.minimum(ones[:, None, 2:], others[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (ones, others)]
    return np.asarray(both / np.maximum(areas[0][:, None] + areas[1] - both, 1e-9))


def _not_found(task: Task[Any], index: int, what: str, found: Sequence[str]) -> str:
    there = f"; it shows {', '.join(found[:6])}" if found else ""
    return f"the model shows no {what} of {task.classes[index]} here, so there is nothing to explain{there}"


_READINGS: dict[type, Callable[[Task[Any], Any, int | None], list[Asked]]] = {
    Label: _of_label,
    LabelSet: _of_labels,
    Values: _of_values,
    ClassMap: _of_pixels,
    ObjectSet: _of_objects,
}
