"""Objects that several models, or several views of an image, have found: each named once, where they agree it is.

Weighted boxes fusion (Solovyev, Wang and Gabruseva, Image and Vision Computing 107 (2021) 104117, arXiv:1910.13302):
suppression keeps one of several boxes of an object as it is, fusion takes their mean, each to its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.tasks.objects.target import ObjectSet

SAME_OBJECT = 0.55  # IoU above which two boxes are of one object: the best of the paper, over several sets of data

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Fused(NamedTuple):
    """What there is, the surest first.

    boxes   float32 [k, 4]: the mean of the boxes that are of the object
    labels  int64 [k]
    scores  float32 [k]: the mean of their scores, less where not all have found the object
    rows    for each object those of ``Sightings`` that are of it, the surest first
    """

    boxes: NDArray[np.float32]
    labels: Ints
    scores: NDArray[np.float32]
    rows: list[Ints]


class Sightings(NamedTuple):
    """All that was found in one image, one view or model after the other.

    boxes    float64 [n, 4], in the pixels of the image
    labels   int64 [n]
    weights  float64 [n]: the score, times the share of the view or model
    views    how many views or models there are
    """

    boxes: Floats
    labels: Ints
    weights: Floats
    views: int

    @classmethod
    def of(cls, found: Sequence[ObjectSet], shares: Sequence[float]) -> Sightings:
        """Of predictions for one image, each of a share above 0."""
        scores = [np.ones(len(each)) if each.scores is None else each.scores for each in found]
        return cls(
            np.concatenate([each.boxes for each in found]).astype(np.float64),
            np.concatenate([each.labels for each in found]),
            np.concatenate([share * each.astype(np.float64) for share, each in zip(shares, scores, strict=True)]),
            len(found),
        )


def fuse(seen: Sightings, *, iou: float = SAME_OBJECT, agnostic: bool = False, most: int | None = None) -> Fused:
    """What was found, as the objects that there are, at most ``most``.

    iou       boxes of one object overlap the mean of the others by more
    agnostic  boxes of different classes may be of one object, which has the class of the surest

    From the surest to the least sure each joins the object whose mean so far it overlaps most, or is a new one. The
    score of an object is the mean over its boxes, times the share of the views that it was found in, counted by its
    boxes: n of T views make it n / T as sure.
    """
    groups = np.zeros_like(seen.labels) if agnostic else seen.labels
    clusters: list[Ints] = []
    boxes = [np.zeros((0, 4))]
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        rows = rows[np.argsort(-seen.weights[rows], kind="stable")]
        members, means = _clustered(seen, rows, iou)
        clusters += members
        boxes.append(means)
    scores = np.array([seen.weights[each].mean() * min(seen.views, len(each)) for each in clusters])
    order = np.argsort(-scores, kind="stable")[:most]
    kept = [clusters[i] for i in order]
    return Fused(
        np.concatenate(boxes)[order].astype(np.float32),
        np.array([seen.labels[each[0]] for each in kept], np.int64),
        np.minimum(scores[order], 1).astype(np.float32),  # shares that differ may come to more
        kept,
    )


def _clustered(seen: Sightings, rows: Ints, iou: float) -> tuple[list[Ints], Floats]:
    """The rows of each object, and the mean of their boxes [k, 4]; ``rows`` come in the order of their weights."""
    members: list[list[int]] = []
    totals, sums, means = np.zeros(len(rows)), np.zeros((4, len(rows))), np.zeros((4, len(rows)))
    for row in rows.tolist():
        count, weight = len(members), max(float(seen.weights[row]), np.finfo(float).tiny)
        overlap = _overlap(means[:, :count], seen.boxes[row])
        place = int(overlap.argmax()) if count else 0
        if not count or overlap[place] <= iou:
            place = count
            members.append([])
        members[place].append(row)
        totals[place] += weight
        sums[:, place] += weight * seen.boxes[row]
        means[:, place] = sums[:, place] / totals[place]
    return [np.array(each, np.int64) for each in members], means[:, : len(members)].T


def _overlap(means: Floats, box: Floats) -> Floats:
    """IoU of boxes [4, k] with one [4] -> [k]; ``box_iou`` would take four times as long for so few."""
    width = np.minimum(means[2], box[2]) - np.maximum(means[0], box[0])
    height = np.minimum(means[3], box[3]) - np.maximum(means[1], box[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (means[2] - means[0]) * (means[3] - means[1])
    union = areas + (box[2] - box[0]) * (box[3] - box[1]) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
