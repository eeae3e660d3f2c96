"""Which objects of two predictions for one image are the same: those of a network and of what was exported from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.overlap import box_iou, mask_iou
from snellen.tasks.objects.target import ObjectSet

SAME = 0.98  # IoU of the boxes, and of the masks where there are any
SAME_SCORE = 0.05


def counterparts(
    one: ObjectSet, other: ObjectSet, *, overlap: float = SAME, score: float = SAME_SCORE
) -> NDArray[np.intp]:
    """[k, 2], places in both: of one class, overlapping by so much (IoU) with scores no farther apart; each in one pair
    only."""
    if not len(one) or not len(other):
        return np.zeros((0, 2), np.intp)
    covered = box_iou(one.boxes, other.boxes)
    alike = (covered >= overlap) & (one.labels[:, None] == other.labels)
    alike &= np.abs(_scores(one)[:, None] - _scores(other)) <= score
    masks, other_masks = one.runs(one.size), other.runs(other.size)
    if masks is not None and other_masks is not None and one.size == other.size:
        alike &= mask_iou(masks, other_masks) >= overlap
    pairs: dict[int, int] = {}
    for i, row in enumerate(alike):
        j = next((int(j) for j in np.argsort(-covered[i], kind="stable") if row[j] and int(j) not in pairs), None)
        if j is not None:
            pairs[j] = i
    return np.array([(i, j) for j, i in pairs.items()], np.intp).reshape(-1, 2)


def _scores(of: ObjectSet) -> NDArray[np.float32]:
    return np.ones(len(of), np.float32) if of.scores is None else of.scores
