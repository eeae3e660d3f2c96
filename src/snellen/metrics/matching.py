"""Which of the objects that were found are which of the true ones: the ground under every number of detections.

COCO's rule: within an image and a class, found objects choose in the order of their scores; each takes, of the true
objects that are left and that it overlaps enough, the one that it overlaps most. Some true objects are not counted
(crowds, difficult ones, those outside of a range of sizes): they are chosen last, and what is matched to them is
neither right nor wrong. A crowd may be chosen again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Rle
from snellen.core.errors import DivergenceError
from snellen.metrics.overlap import box_areas, box_iou, mask_areas, mask_iou

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# COCO takes an overlap of exactly 1 to pass any threshold, however it was rounded.
_ALMOST_ONE = 1 - 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a model found in one image.

    boxes   [d, 4] x0, y0, x1, y1 in pixels
    scores  [d], any numbers that order them
    labels  [d] class indices
    masks   one for each, where masks are to be judged; None: boxes are
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    masks: Sequence[Rle] | None = None

    def __post_init__(self) -> None:
        _check("detections", self.boxes, (self.scores, self.labels), self.masks)
        for name, values in (("score", self.scores), ("box", self.boxes)):
            if not np.isfinite(values).all():
                raise DivergenceError(
                    f"the {name} of a detection is not finite; the model's weights or the image hold NaN or infinity"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """What is truly in one image: boxes [t, 4], labels [t] and masks as in ``Detections``.

    crowd      bool [t]: a region of many objects that nobody told apart; None: none is
    difficult  bool [t]: not to be counted, found or missed; None: none is
    areas      [t] in pixels, as the file says, by which objects are small, medium or large; None, or NaN for an
               object: the area of its mask, or of its box where there is none
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    crowd: Bools | None = None
    difficult: Bools | None = None
    areas: NDArray[Any] | None = None
    masks: Sequence[Rle] | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.labels, self.crowd, self.difficult, self.areas) if each is not None]
        _check("objects", self.boxes, given, self.masks)

    @property
    def is_crowd(self) -> Bools:
        """bool [t]"""
        return np.zeros(len(self.labels), np.bool_) if self.crowd is None else self.crowd

    @property
    def uncounted(self) -> Bools:
        """bool [t]: crowds and difficult ones."""
        return self.is_crowd if self.difficult is None else self.is_crowd | self.difficult

    @property
    def sizes(self) -> Floats:
        """[t] the area of each."""
        own = box_areas(self.boxes) if self.masks is None else mask_areas(self.masks)
        return own if self.areas is None else np.where(np.isnan(self.areas), own, self.areas)


class ImageResult(NamedTuple):
    """One image: what was found, and what there is."""

    found: Detections
    true: Objects

    def overlap(self) -> Floats:
        """IoU [d, t] of masks where both sides have them, else of boxes."""
        if self.found.masks is not None and self.true.masks is not None:
            return mask_iou(self.found.masks, self.true.masks, self.true.is_crowd)
        return box_iou(self.found.boxes, self.true.boxes, self.true.is_crowd)

    def found_sizes(self) -> Floats:
        """[d] areas of what was found, of masks or boxes as ``overlap``."""
        masked = self.found.masks is not None and self.true.masks is not None
        return mask_areas(self.found.masks or ()) if masked else box_areas(self.found.boxes)


def match(overlap: Floats, crowd: Bools, uncounted: Bools, thresholds: Floats) -> NDArray[np.intp]:
    """COCO's matching of one image under several thresholds and several opinions of what counts.

    overlap     [d, t], found objects from the highest score; below 0 where the two may not be matched
    crowd       [t]
    uncounted   [a, t]
    thresholds  [k] the least IoU

    Returns [a, k, d]: which true object each is matched to, -1 for none. Of two true objects with the same IoU the
    later is taken, as COCO's own code does.
    """
    matched = np.full((len(uncounted), len(thresholds), len(overlap)), -1, np.intp)
    if not overlap.size:
        return matched
    needed = np.minimum(thresholds, _ALMOST_ONE)[:, None]
    near = overlap >= needed.min()
    left = np.ones((len(uncounted), len(thresholds), overlap.shape[1]), np.bool_)
    for row in np.flatnonzero(near.any(axis=1)):
        # The last of the best comes first when they are looked at from the end.
        some = np.flatnonzero(near[row])[::-1]
        fits = (overlap[row, some] >= needed) & (left[:, :, some] | crowd[some])
        counted = fits & ~uncounted[:, None, some]
        wanted = np.where(counted.any(axis=2, keepdims=True), counted, fits)
        best = some[np.where(wanted, overlap[row, some], -1.0).argmax(axis=2)]
        matched[:, :, row] = np.where(fits.any(axis=2), best, -1)
        # Where nothing fits, the one that is written off is not there: it was taken before, or overlaps too little.
        which = matched[:, :, row]
        area, step = np.nonzero(which >= 0)
        left[area, step, which[area, step]] = False
    return matched


def by_score(scores: NDArray[Any], labels: NDArray[Any], most: int | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the found objects [d] are kept, from the highest score, and the place of each among its class.

    most  at most so many of each class; None: all. Equal scores keep their order.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    classes = np.asarray(labels)[order]
    together = np.argsort(classes, kind="stable")
    ordered = classes[together]
    place = np.empty(len(order), np.intp)
    place[together] = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    kept = place < (len(order) if most is None else most)
    return order[kept], place[kept]


def same_class(overlap: Floats, found: NDArray[Any], true: NDArray[Any]) -> Floats:
    """The overlap [d, t] with -1 wherever the classes [d] and [t] differ: all classes can then be matched at once."""
    return np.where(np.asarray(found)[:, None] == np.asarray(true)[None], overlap, -1.0)


def _check(name: str, boxes: NDArray[Any], columns: Sequence[NDArray[Any]], masks: Sequence[Rle] | None) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}: boxes must be of shape [n, 4], got {boxes.shape}")
    lengths = [len(each) for each in columns] + ([] if masks is None else [len(masks)])
    if set(lengths) - {len(boxes)}:
        raise ValueError(f"{name}: each of {len(boxes)} boxes needs one of everything, got {lengths}")
