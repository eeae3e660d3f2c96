"""What detection says of one image. The same type holds the truth and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import MIN_VISIBLE
from snellen.core.errors import DataError, did_you_mean
from snellen.core.geometry import Matrix, Size, clip_boxes, map_boxes, map_points, translation
from snellen.core.record import Record
from snellen.data.elastic import ElasticField

_MIN_SIDE = 1.0  # pixels of the input: what is thinner cannot be seen
_ON_A_SIDE = 5  # points of each side of a box that are followed through an elastic field

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """The objects of an image, perhaps none.

    boxes      float32 [n, 4] (x0, y0, x1, y1), in pixels of an image of ``size`` (width, height)
    labels     int64 [n], class indices
    scores     float32 [n], 0..1, falling; None for truth
    crowd      bool [n]: regions of many objects, neither learnt nor judged
    difficult  bool [n]: not counted when missed
    area       float32 [n], of the objects themselves: what makes them small or large to a metric
    """

    size: Size
    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats | None = None
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    area: Floats

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def predicted(cls, size: Size, boxes: Floats, labels: NDArray[np.int64], scores: Floats) -> Boxes:
        """A prediction: nothing is known but boxes, classes and scores."""
        none = np.zeros(len(boxes), np.bool_)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float32)
        return cls(size=size, boxes=boxes, labels=labels, scores=scores, crowd=none, difficult=none, area=area)

    @classmethod
    def empty(cls, size: Size) -> Boxes:
        """The prediction that there is nothing."""
        nothing = np.zeros((0, 4), np.float32)
        return cls.predicted(size, nothing, np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> Boxes:
        """The truth of a record. DataError if nothing can be marked in it, or a label is not one of ``classes``."""
        if record.objects is None or record.size is None:
            raise DataError(f"{record.id}: boxes are needed, and this data has none; give COCO, YOLO, VOC or the like")
        unknown = next((each.label for each in record.objects if each.label not in classes), None)
        if unknown is not None:
            raise DataError(
                f"{record.id}: label '{unknown}' is not one of the classes {', '.join(classes)}"
                f"{did_you_mean(unknown, classes)}"
            )
        boxes = np.array([each.box for each in record.objects], np.float32).reshape(-1, 4)
        own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        area = [box if each.area is None else each.area for each, box in zip(record.objects, own, strict=True)]
        return cls(
            size=record.size,
            boxes=boxes,
            labels=np.array([classes.index(each.label) for each in record.objects], np.int64),
            crowd=np.array([each.crowd for each in record.objects], np.bool_),
            difficult=np.array([each.difficult for each in record.objects], np.bool_),
            area=np.array(area, np.float32),
        )

    def chosen(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Boxes:
        """Some of them."""
        return replace(
            self,
            boxes=self.boxes[index],
            labels=self.labels[index],
            scores=None if self.scores is None else self.scores[index],
            crowd=self.crowd[index],
            difficult=self.difficult[index],
            area=self.area[index],
        )

    def above(self, thresholds: Sequence[float]) -> Boxes:
        """Those whose score reaches the threshold of their class; of truth all."""
        return self if self.scores is None else self.chosen(self.scores >= np.asarray(thresholds)[self.labels])

    def moved(self, matrix: Matrix, size: Size, field: ElasticField | None = None) -> Boxes:
        """After ``matrix`` and ``field`` brought the image to ``size``.

        A box is cut to the image. It is dropped when less than MIN_VISIBLE of its area is left, or less than a pixel
        of a side; a crowd only when nothing is. ``area`` grows and shrinks as its box does.
        """
        if not len(self):
            return replace(self, size=size)
        moved = map_boxes(matrix, self.boxes) if field is None else _bent(matrix, field, self.boxes)
        cut, left = clip_boxes(moved, size)
        sides = cut[:, 2:] - cut[:, :2]
        whole = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1).astype(np.float64)
        growth = np.prod(sides, axis=1) / np.maximum(whole, 1e-9)
        seen = (left >= np.where(self.crowd, 1e-6, MIN_VISIBLE)) & (sides.min(axis=1) >= _MIN_SIDE)
        grown = replace(self, size=size, boxes=cut.astype(np.float32), area=(self.area * growth).astype(np.float32))
        return grown.chosen(seen)

    def within(self, region: tuple[int, int, int, int]) -> Boxes:
        """What is seen of them in a region (x0, y0, x1, y1), by the rule of ``moved``."""
        x0, y0, x1, y1 = region
        seen = self.moved(translation(-x0, -y0), (x1 - x0, y1 - y0))
        return replace(seen, size=self.size, boxes=seen.boxes + np.array([x0, y0, x0, y0], np.float32))

    def covered(self, region: tuple[int, int, int, int]) -> Boxes:
        """Without those of which a region hides so much that less than MIN_VISIBLE is left. The others keep their
        boxes, as objects do that stand half behind others."""
        x0, y0, x1, y1 = region
        sides = np.minimum(self.boxes[:, 2:], (x1, y1)) - np.maximum(self.boxes[:, :2], (x0, y0))
        hidden = np.prod(np.maximum(sides, 0), axis=1)
        whole = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return self.chosen(hidden <= (1 - MIN_VISIBLE) * whole)

    def joined(self, other: Boxes) -> Boxes:
        """The objects of both, for an image that shows both."""
        return replace(
            self,
            boxes=np.concatenate([self.boxes, other.boxes]),
            labels=np.concatenate([self.labels, other.labels]),
            crowd=np.concatenate([self.crowd, other.crowd]),
            difficult=np.concatenate([self.difficult, other.difficult]),
            area=np.concatenate([self.area, other.area]),
        )


def _bent(matrix: Matrix, field: ElasticField, boxes: Floats) -> NDArray[np.float64]:
    """The upright boxes [n, 4] round the borders of ``boxes`` after a matrix and an elastic field."""
    along = np.linspace(0.0, 1.0, _ON_A_SIDE)
    zero, one = np.zeros_like(along), np.ones_like(along)
    places = np.concatenate([np.stack(pair, 1) for pair in ((along, zero), (along, one), (zero, along), (one, along))])
    corners = boxes.astype(np.float64)
    points = corners[:, None, :2] + places * (corners[:, None, 2:] - corners[:, None, :2])
    bent = field.map_points(map_points(matrix, points))
    return np.concatenate([bent.min(axis=1), bent.max(axis=1)], axis=1)
