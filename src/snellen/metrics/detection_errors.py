"""What goes wrong in detection, and what each kind of error costs (TIDE: Bolya et al. 2020, arXiv:2008.08115).

A detection that is wrong is of the first kind that fits, t being 0.5 and b 0.1:

    location    IoU of b to t with an object of its class: it is there, but the box does not fit
    class       IoU of t or more with an object of another class
    duplicate   IoU of t or more with an object of its class that a surer detection has taken
    background  IoU of b or less with every object
    both        the rest: neither place nor class is right

and a true object is ``missed`` if nothing was matched to it, nor would be if location or class were put right.

The cost of a kind is how much the mean average precision at t would rise if only that kind were put right: boxes moved
or classes changed to those of the object (of several detections of one object the surest is then kept), duplicates,
background and both taken away, and missed objects no longer asked for. Costs do not add up to what is lacking: errors
hide others. Two more, not exclusive of these: no false positive at all, and no false negative at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.coco_ap import MAX_DETECTIONS, precision_at_recalls
from snellen.metrics.confusion import macro
from snellen.metrics.matching import Bools, Floats, ImageResult, by_score, match

KINDS = ("location", "class", "duplicate", "background", "both")
_LOCATION, _CLASS, _DUPLICATE, _BACKGROUND, _BOTH = range(len(KINDS))
_RIGHT = -1


@dataclass(frozen=True, slots=True, eq=False)
class DetectionErrors:
    """What was found wrong.

    counts  how many of each of KINDS, and of "missed"
    costs   what each is worth in mean average precision; also "false positives" and "false negatives"
    map50   the mean average precision that there is
    faults  each wrong detection and missed object, for showing
    """

    counts: dict[str, int]
    costs: dict[str, float]
    map50: float
    faults: tuple[Fault, ...]


class Fault(NamedTuple):
    """A wrong detection (its place in the image's ``found``), or a missed object, and the true object it is about."""

    kind: str
    image: int
    found: int | None
    true: int | None
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Judged detections of all images, and what there is to be found.

    label, score  [d]
    kind          [d] place in KINDS, or _RIGHT
    target        [d] the true object that it is about, numbered through all images; -1 for none
    image, found  [d] where it stands
    true_label, true_image, true_index, taken
                  [t] of each true object that counts; whether a detection is matched to it
    """

    label: NDArray[np.intp]
    score: Floats
    kind: NDArray[np.intp]
    target: NDArray[np.intp]
    image: NDArray[np.intp]
    found: NDArray[np.intp]
    true_label: NDArray[np.intp]
    true_image: NDArray[np.intp]
    true_index: NDArray[np.intp]
    taken: Bools


def detection_errors(
    images: Sequence[ImageResult], num_classes: int, *, fits: float = 0.5, near: float = 0.1
) -> DetectionErrors:
    """Sort every error of a set of images into its kind. ``fits`` and ``near`` are t and b of the module's text."""
    rows = _gather(images, fits, near)
    missed = _missed(rows)
    counts = {kind: int(np.count_nonzero(rows.kind == i)) for i, kind in enumerate(KINDS)}
    base = _mean_ap(rows, num_classes)
    mended = {
        "location": _mean_ap(_moved(rows, _LOCATION), num_classes),
        "class": _mean_ap(_moved(rows, _CLASS), num_classes),
        **{KINDS[kind]: _mean_ap(_without(rows, rows.kind == kind), num_classes) for kind in range(2, len(KINDS))},
        "missed": _mean_ap(rows, num_classes, asked=~missed),
        "false positives": _mean_ap(_without(rows, rows.kind != _RIGHT), num_classes),
        "false negatives": _mean_ap(rows, num_classes, asked=rows.taken),
    }
    return DetectionErrors(
        counts=counts | {"missed": int(np.count_nonzero(missed))},
        costs={kind: value - base for kind, value in mended.items()},
        map50=base,
        faults=_faults(rows, missed),
    )


def _gather(images: Sequence[ImageResult], fits: float, near: float) -> _Rows:
    parts: list[_Rows] = []
    before = 0
    for index, image in enumerate(images):
        parts.append(_of_image(index, image, fits, near, before))
        before += len(parts[-1].true_label)
    return _Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Rows.__slots__))


def _of_image(index: int, image: ImageResult, fits: float, near: float, before: int) -> _Rows:
    """The rows of one image; ``before`` true objects that count were in earlier ones."""
    found, true = image
    kept, _ = by_score(found.scores, found.labels, MAX_DETECTIONS[-1])
    label = np.asarray(found.labels, np.intp)[kept]
    overlap = image.overlap()[kept]
    same = label[:, None] == true.labels[None]
    matched = match(np.where(same, overlap, -1.0), true.is_crowd, true.uncounted[None], np.array([fits]))[0, 0]
    counted = np.flatnonzero(~true.uncounted)
    number = np.full(len(true.labels) + 1, -1, np.intp)  # the last is for -1, nothing
    number[counted] = before + np.arange(len(counted))
    judged = (matched < 0) | (number[matched] >= 0)
    kind, target = _kinds(overlap[:, counted], same[:, counted], fits, near)
    right = matched >= 0
    kind[right] = _RIGHT
    target = np.where(right, number[matched], np.where(target >= 0, before + target, -1))
    taken = np.isin(before + np.arange(len(counted)), target[right])
    return _Rows(
        label=label[judged],
        score=np.asarray(found.scores, np.float64)[kept][judged],
        kind=kind[judged],
        target=target[judged],
        image=np.full(np.count_nonzero(judged), index),
        found=kept[judged],
        true_label=np.asarray(true.labels, np.intp)[counted],
        true_image=np.full(len(counted), index),
        true_index=counted,
        taken=taken,
    )


def _kinds(overlap: Floats, same: Bools, fits: float, near: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The kind of each detection [d] if it is wrong, and the true object it is about; overlap and same [d, t]."""
    if not overlap.size:
        return np.full(len(overlap), _BACKGROUND), np.full(len(overlap), -1)
    own, other = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    located = (best_own >= near) & (best_own < fits)
    rules = [located, best_other >= fits, best_own >= fits, overlap.max(axis=1) <= near]
    kind = np.select(rules, [_LOCATION, _CLASS, _DUPLICATE, _BACKGROUND], _BOTH)
    target = np.select(
        [(kind == _LOCATION) | (kind == _DUPLICATE), kind == _CLASS, kind == _BOTH],
        [own.argmax(axis=1), other.argmax(axis=1), overlap.argmax(axis=1)],
        -1,
    )
    return kind, target


def _missed(rows: _Rows) -> Bools:
    explained = rows.target[(rows.kind == _LOCATION) | (rows.kind == _CLASS)]
    return ~rows.taken & ~np.isin(np.arange(len(rows.taken)), explained)


def _moved(rows: _Rows, kind: int) -> _Rows:
    """With errors of a kind put right: of all that then claim an object the surest is a hit, and the others go away."""
    claims = np.flatnonzero((rows.kind == kind) | (rows.kind == _RIGHT))
    claims = claims[np.argsort(-rows.score[claims], kind="stable")]
    surest = claims[np.unique(rows.target[claims], return_index=True)[1]]
    label, kinds = rows.label.copy(), rows.kind.copy()
    label[surest], kinds[surest] = rows.true_label[rows.target[surest]], _RIGHT
    gone = np.zeros(len(label), np.bool_)
    gone[np.setdiff1d(claims, surest)] = True
    return _without(replace(rows, label=label, kind=kinds), gone)


def _without(rows: _Rows, gone: Bools) -> _Rows:
    columns = ("label", "score", "kind", "target", "image", "found")
    return replace(rows, **{name: getattr(rows, name)[~gone] for name in columns})


def _mean_ap(rows: _Rows, num_classes: int, asked: Bools | None = None) -> float:
    """Mean average precision over the classes in the truth. ``asked``: true objects that are to be found; None: all.

    A class of which nothing is asked any more has no fault left, and counts as 1.
    """
    totals = np.bincount(rows.true_label, minlength=num_classes)
    left = totals if asked is None else np.bincount(rows.true_label[asked], minlength=num_classes)
    average = np.full(num_classes, np.nan)
    average[totals > 0] = 1.0
    for label in np.flatnonzero(left):
        own = np.flatnonzero(rows.label == label)
        hit = rows.kind[own[np.argsort(-rows.score[own], kind="stable")]] == _RIGHT
        average[label] = precision_at_recalls(hit, int(left[label])).mean()
    return float(macro(average))


def _faults(rows: _Rows, missed: Bools) -> tuple[Fault, ...]:
    wrong = [
        Fault(
            KINDS[rows.kind[row]],
            int(rows.image[row]),
            int(rows.found[row]),
            int(rows.true_index[rows.target[row]]) if rows.target[row] >= 0 else None,
            float(rows.score[row]),
        )
        for row in np.flatnonzero(rows.kind != _RIGHT)
    ]
    unseen = [
        Fault("missed", int(rows.true_image[row]), None, int(rows.true_index[row]), 0.0)
        for row in np.flatnonzero(missed)
    ]
    return (*wrong, *unseen)
