"""Average precision as Pascal VOC defines it, at one IoU (Everingham et al., IJCV 88 (2010) 303 and 111 (2015) 98).

It differs from COCO's in three ways. A detection is held to the true object that it overlaps most: if that one was
taken by a surer detection it is wrong, even where it fits another. All detections count, not the first 100. And
precision is read at the recalls 0, 0.1, ..., 1 (2007), or at every recall that occurs: the area under the curve (since
2010). In both, precision is the best that is still to be had at that recall or beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.matching import Bools, Floats, ImageResult, by_score, same_class

_POINTS = 11


def voc_ap(
    images: Sequence[ImageResult], num_classes: int, *, iou: float = 0.5, rule: Literal["2007", "2010"] = "2010"
) -> Floats:
    """Average precision of each class, [C]; NaN for a class without true objects that count.

    Difficult objects are neither to be found nor wrong to find. So are crowds, which VOC does not know: a detection of
    which half (``iou``) lies in one and that is not right otherwise is not judged.
    """
    totals = np.zeros(num_classes, np.int64)
    labels: list[NDArray[np.intp]] = []
    scores: list[Floats] = []
    hits: list[Bools] = []
    for image in images:
        totals += np.bincount(image.true.labels[~image.true.uncounted], minlength=num_classes)
        order, _ = by_score(image.found.scores, image.found.labels, None)
        hit, judged = _judge(image, order, iou)
        labels.append(np.asarray(image.found.labels, np.intp)[order][judged])
        scores.append(np.asarray(image.found.scores, np.float64)[order][judged])
        hits.append(hit[judged])
    average = _at_eleven_recalls if rule == "2007" else _area
    result = np.full(num_classes, np.nan)
    if images:
        label, score, right = np.concatenate(labels), np.concatenate(scores), np.concatenate(hits)
        for index in np.flatnonzero(totals):
            own = np.flatnonzero(label == index)
            result[index] = average(right[own[np.argsort(-score[own], kind="stable")]], int(totals[index]))
    return result


def _judge(image: ImageResult, order: NDArray[np.intp], iou: float) -> tuple[Bools, Bools]:
    """Whether each detection, in ``order``, is a hit, and whether it is judged at all."""
    hit, judged = np.zeros(len(order), np.bool_), np.ones(len(order), np.bool_)
    overlap = same_class(image.overlap()[order], image.found.labels[order], image.true.labels)
    if not overlap.size:
        return hit, judged
    crowd = image.true.is_crowd
    alone = np.where(crowd, -1.0, overlap)
    best = alone.argmax(axis=1)
    fits = alone.max(axis=1) >= iou
    excused = fits & image.true.uncounted[best]
    claims = np.flatnonzero(fits & ~excused)
    hit[claims[np.unique(best[claims], return_index=True)[1]]] = True
    in_crowd = np.where(crowd, overlap, -1.0).max(axis=1) >= iou
    return hit, ~excused & (hit | ~in_crowd)


def _best_precision(hit: Bools) -> Floats:
    """The best precision at each place of the list or after it, [d]."""
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1]


def _area(hit: Bools, total: int) -> float:
    """Recall rises by 1 / total at each hit and nowhere else."""
    return float(_best_precision(hit)[hit].sum() / total)


def _at_eleven_recalls(hit: Bools, total: int) -> float:
    best = np.append(_best_precision(hit), 0.0)
    # Recall is found / total >= point / 10; in whole numbers, as 0.3 is not 3 / 10 for a computer.
    found = np.cumsum(hit) * (_POINTS - 1)
    return float(best[np.searchsorted(found, np.arange(_POINTS) * total, side="left")].mean())
