"""FROC, the free-response ROC: how many objects are found at what price in false alarms (Bunch et al. 1978).

Detection has no ROC curve: there is no number of places where rightly nothing was found, and so no false positive rate.
Instead recall is told against false positives per image. The FROC score is the mean recall at 1/8, 1/4, ..., 8 false
positives per image, as in the LUNA16 challenge (Setio et al. 2017, arXiv:1612.08012).

Everything here is at the first IoU of ``coco_ap.IOUS``, 0.5, and for objects of any size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.coco_ap import Matches
from snellen.metrics.matching import Bools, Floats

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # per image


class FrocCurve(NamedTuple):
    """At each distinct score taken as threshold, [t], from "nothing is found" down."""

    false_positives: Floats  # per image
    recall: Floats  # NaN without true objects
    thresholds: Floats


def froc_curve(matches: Matches, label: int | None = None) -> FrocCurve:
    """The curve of one class, or of all together. Detections of one score stand or fall together."""
    rows, hit, total = _ranked(matches, label)
    ends = np.flatnonzero(np.diff(matches.score[rows], append=-np.inf))
    found = np.cumsum(hit)[ends]
    right = np.concatenate([[0], found])
    called = np.concatenate([[0], ends + 1])
    recall = right / total.sum() if total.sum() else np.full(len(right), np.nan)
    thresholds = np.concatenate([[np.inf], matches.score[rows][ends]])
    return FrocCurve((called - right) / len(total), recall, thresholds)


def froc_recall(matches: Matches, weights: NDArray[Any] | None = None, label: int | None = None) -> Floats:
    """The best recall with at most each of FALSE_POSITIVES per image, [b, 7]; its mean over them is the FROC score.

    weights  [b, n] how often each image was drawn (None: one row of ones)
    label    a class; None: all together. NaN where there are no true objects

    No line is drawn between two thresholds: what is told can be had.
    """
    rows, hit, total = _ranked(matches, label)
    columns = np.ones((len(total), 1), np.uint8) if weights is None else np.ascontiguousarray(weights.T)
    objects = total @ columns.astype(np.int64)
    images = columns.sum(axis=0, dtype=np.int64)
    recall = np.zeros((columns.shape[1], len(FALSE_POSITIVES)))
    if hit.any():
        found, wrong = _at_hits(matches.score[rows], hit, matches.image[rows], columns)
        for column, rate in enumerate(FALSE_POSITIVES):
            steps = np.count_nonzero(wrong <= rate * images, axis=0)  # false positives only rise
            at = np.take_along_axis(found, np.maximum(steps - 1, 0)[None], axis=0)[0]
            recall[:, column] = np.where(steps > 0, at, 0) / np.maximum(objects, 1)
    return np.where(objects[:, None] > 0, recall, np.nan)


def mean_matched_iou(matches: Matches, threshold: float = -np.inf, weights: NDArray[Any] | None = None) -> Floats:
    """Mean IoU of right detections of at least ``threshold`` with their true objects, [b]; NaN where there is none.

    It says how well boxes fit where they fit at all (0.5 at least), which recall and precision do not tell.
    """
    counted = (matches.hit[0, 0] & (matches.score >= threshold)).astype(np.float64)
    n = matches.true.shape[1]
    drawn = np.ones((1, n)) if weights is None else weights.astype(np.float64)
    summed = drawn @ np.bincount(matches.image, counted * matches.overlap, n)
    count = drawn @ np.bincount(matches.image, counted, n)
    return np.where(count > 0, summed / np.maximum(count, 1), np.nan)


def _ranked(matches: Matches, label: int | None) -> tuple[NDArray[np.intp], Bools, NDArray[np.int64]]:
    """Judged detections from the highest score, which of them are hits, and true objects of each image [n]."""
    judged = matches.judged[0, 0] if label is None else matches.judged[0, 0] & (matches.label == label)
    rows = np.flatnonzero(judged)
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    true = matches.true[0].sum(axis=1) if label is None else matches.true[0, :, label]
    return rows, matches.hit[0, 0, rows], true


def _at_hits(
    scores: Floats, hit: Bools, image: NDArray[np.intp], columns: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hits and false positives [p, b] down to each score at which there is a hit, under columns [n, b] of weights."""
    from scipy.sparse import csr_array

    # Recall changes at hits only, and there all detections of the same score are taken in.
    ends = np.unique(np.searchsorted(-scores, -scores[hit], side="right"))
    last = ends[-1]
    step = np.searchsorted(ends, np.arange(last), side="right")
    shape = (len(ends), len(columns))
    found, called = (
        np.cumsum(csr_array((counted, (step, image[:last])), shape=shape) @ columns, axis=0, dtype=np.int64)
        for counted in (hit[:last].astype(np.int32), np.ones(last, np.int32))
    )
    return found, called - found
