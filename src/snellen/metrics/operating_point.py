"""A detector in use: with a threshold on its scores, what it finds, what it misses and where it cries wolf.

Everything here is at the first IoU of ``coco_ap.IOUS``, 0.5, and for objects of any size. Precision, recall and F1 of
the counts are those of ``confusion``; ``class_maps.drawn`` of them are those of resampled images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.coco_ap import Matches
from snellen.metrics.confusion import Counts
from snellen.metrics.matching import Bools, Floats


class Thresholds(NamedTuple):
    """Precision, recall and F1 with each distinct score as threshold, [t], from the highest; NaN without truth."""

    precision: Floats
    recall: Floats
    f1: Floats
    scores: Floats


def counts_at(matches: Matches, threshold: float) -> Counts:
    """Of each image and class, [n, C]: objects rightly found, true objects, detections that are judged.

    Detections of at least ``threshold`` count. A lower one never takes an object from them, so that nothing has to be
    matched anew.
    """
    called = matches.judged[0, 0] & (matches.score >= threshold)
    shape = matches.true.shape[1:]
    return Counts(
        _per_image(matches, called & matches.hit[0, 0], shape),
        matches.true[0].astype(float),
        _per_image(matches, called, shape),
    )


def at_every_threshold(matches: Matches, label: int | None = None) -> Thresholds:
    """The precision-recall curve as it is, without interpolation, of one class or of all together."""
    rows = np.flatnonzero(matches.judged[0, 0] if label is None else matches.judged[0, 0] & (matches.label == label))
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    total = int((matches.true[0] if label is None else matches.true[0, :, label]).sum())
    scores = matches.score[rows]
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    found, called = np.cumsum(matches.hit[0, 0, rows])[ends], ends + 1
    undefined = np.full(len(ends), np.nan)
    if not total:
        return Thresholds(undefined, undefined, undefined, scores[ends])
    return Thresholds(found / called, found / total, 2 * found / (called + total), scores[ends])


def best_threshold(matches: Matches, label: int | None = None) -> float:
    """The threshold with the highest F1 on these images; of equals the highest. 0.5 where nothing right was found.

    It lies halfway between the lowest score that is let through and the next one below (or 0), so that a score that
    comes out a little differently on another machine decides the same. Fit it on validation images: on the images
    that it is chosen by, its F1 is too good.
    """
    curve = at_every_threshold(matches, label)
    if not np.nansum(curve.f1):
        return 0.5
    best = int(np.argmax(curve.f1))
    below = curve.scores[best + 1] if best + 1 < len(curve.scores) else min(0.0, curve.scores[best])
    return float((curve.scores[best] + below) / 2)


def false_positives_in_absent_classes(matches: Matches, threshold: float) -> NDArray[np.int64]:
    """How often each class was found, [C], if there is no true object of it at all, and 0 for other classes.

    Average precision leaves such classes out, so that these false alarms cost nothing there.
    """
    called = matches.judged[0, 0] & (matches.score >= threshold)
    absent = matches.true[0].sum(axis=0) == 0
    return np.where(absent, np.bincount(matches.label[called], minlength=matches.num_classes), 0)


def false_alarms_in_empty_images(matches: Matches, threshold: float) -> tuple[Bools, Bools]:
    """Which images have no true object that counts, bool [n], and which of these have a detection, bool [n]."""
    called = matches.judged[0, 0] & (matches.score >= threshold)
    empty = matches.true[0].sum(axis=1) == 0
    return empty, empty & (np.bincount(matches.image[called], minlength=len(empty)) > 0)


def _per_image(matches: Matches, counted: Bools, shape: tuple[int, ...]) -> NDArray[Any]:
    places = matches.image[counted] * shape[1] + matches.label[counted]
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
