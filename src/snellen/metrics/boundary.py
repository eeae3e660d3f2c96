"""Boundary IoU: how well contours fit (Cheng et al. 2021, arXiv:2103.16562).

The plain IoU of a large object hardly feels its outline. Here a class counts only within a distance of its own contour:
(T_d and P_d) over (T_d or P_d), where T_d are the pixels of the true region no farther than d from its contour, and
P_d those of the predicted region. The edge of the image is a contour too, and distance is that of a king on a chess
board, as in the authors' own evaluation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.class_maps import VOID, Map
from snellen.metrics.confusion import Counts

RATIO = 0.02  # of the image's diagonal: the paper's distance for COCO and LVIS; it takes 0.005 for Cityscapes


def boundary_counts(truth: Map, predicted: Map, num_classes: int, *, ratio: float = RATIO) -> Counts:
    """Pixels near the contours of each class, [C]: in both maps, in the truth, in the prediction.

    truth, predicted  class maps uint8 [H, W]; 255 in the truth is void
    ratio             the distance as a share of the image's diagonal; one pixel at least

    They are counts like those of ``class_maps``: summed over images, ``class_maps.iou`` of them is the Boundary IoU of
    each class. Void pixels are not counted, and the prediction is taken to be void where the truth is: the rim of a
    void region is then a contour of both, and a prediction that is right wherever it is judged gets 1.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"maps must be of one size, got {truth.shape} (truth) and {predicted.shape} (predicted)")
    distance = max(1, round(ratio * math.hypot(*truth.shape)))
    judged = truth != VOID
    true_near = near_contours(truth, distance) & judged
    said_near = near_contours(np.where(judged, predicted, np.uint8(VOID)), distance) & judged
    both = true_near & said_near & (truth == predicted)
    return Counts(
        *(_per_class(*pair, num_classes) for pair in ((truth, both), (truth, true_near), (predicted, said_near)))
    )


def near_contours(classes: Map, distance: int) -> NDArray[np.bool_]:
    """Which pixels of a class map [H, W] have another class, or the outside of the image, within ``distance``.

    That is what an erosion of each class by a square of 2 distance + 1 pixels takes away. A square holds one class
    where its least and its largest class are the same, so that all classes are done at once.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * distance + 1
    near: NDArray[np.bool_] = minimum_filter(classes, size, mode="nearest") != maximum_filter(
        classes, size, mode="nearest"
    )
    near[:distance] = near[-distance:] = True
    near[:, :distance] = near[:, -distance:] = True
    return near


def _per_class(classes: Map, counted: NDArray[np.bool_], num_classes: int) -> NDArray[np.float64]:
    return np.bincount(classes[counted], minlength=num_classes).astype(np.float64)
