"""What detection says of one image. The same type holds the truth and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import MIN_VISIBLE
from snellen.core.geometry import Matrix, Size, clip_boxes, map_boxes, map_points, translation
from snellen.core.record import Record
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region
from snellen.metrics.overlap import box_areas
from snellen.tasks.objects.sightings import Seen, found_once
from snellen.tasks.objects.target import NO_ROWS, ObjectSet, objects_of

_MIN_SIDE = 1.0  # pixels of the input: what is thinner cannot be seen
_ON_A_SIDE = 5  # points of each side of a box that are followed through an elastic field
_LACKING = "boxes are needed, and this data has none; give COCO, YOLO, VOC or the like"

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes(ObjectSet):
    """The objects of an image, as boxes. ``area`` is that of the objects themselves, where the truth tells it."""

    @classmethod
    def predicted(cls, size: Size, boxes: Floats, labels: NDArray[np.int64], scores: Floats) -> Self:
        """A prediction: nothing is known but boxes, classes and scores."""
        none = np.zeros(len(boxes), np.bool_)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float32)
        return cls(size=size, boxes=boxes, labels=labels, scores=scores, crowd=none, difficult=none, area=area)

    @classmethod
    def empty(cls, size: Size) -> Self:
        return cls(size=size, **NO_ROWS)

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> Self:
        objects = objects_of(record, classes, _LACKING)
        boxes = np.array([each.box for each in objects], np.float32).reshape(-1, 4)
        own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        area = [box if each.area is None else each.area for each, box in zip(objects, own, strict=True)]
        return cls(
            size=record.size or (0, 0),
            boxes=boxes,
            labels=np.array([classes.index(each.label) for each in objects], np.int64),
            crowd=np.array([each.crowd for each in objects], np.bool_),
            difficult=np.array([each.difficult for each in objects], np.bool_),
            area=np.array(area, np.float32),
        )

    @classmethod
    def merged(
        cls, parts: Sequence[Self], regions: Sequence[Region], size: Size, *, by: str = "iou", agnostic: bool = False
    ) -> Self:
        seen = Seen.of(parts, regions)
        found = found_once(seen, size, partial(_in_common, seen.boxes), by=by, agnostic=agnostic)
        return cls.predicted(size, found.boxes(seen), seen.labels[found.surest], seen.scores[found.surest])

    def moved(self, matrix: Matrix, size: Size, field: ElasticField | None = None) -> Self:
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

    def within(self, region: Region) -> Self:
        """What is seen of them in a region (x0, y0, x1, y1), by the rule of ``moved``."""
        x0, y0, x1, y1 = region
        seen = self.moved(translation(-x0, -y0), (x1 - x0, y1 - y0))
        return replace(seen, size=self.size, boxes=seen.boxes + np.array([x0, y0, x0, y0], np.float32))

    def covered(self, region: Region) -> Self:
        """Without those of which a region hides so much that less than MIN_VISIBLE is left. The others keep their
        boxes, as objects do that stand half behind others."""
        x0, y0, x1, y1 = region
        sides = np.minimum(self.boxes[:, 2:], (x1, y1)) - np.maximum(self.boxes[:, :2], (x0, y0))
        hidden = np.prod(np.maximum(sides, 0), axis=1)
        whole = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return self.chosen(hidden <= (1 - MIN_VISIBLE) * whole)


def _in_common(boxes: Floats64, one: Ints, other: Ints, region: Region) -> tuple[Floats64, Floats64, Floats64]:
    """See ``sightings.InCommon``."""
    mine, theirs = _cut_to(boxes[one], region), _cut_to(boxes[other], region)
    both = np.concatenate([np.maximum(mine[:, :2], theirs[:, :2]), np.minimum(mine[:, 2:], theirs[:, 2:])], axis=1)
    return box_areas(mine), box_areas(theirs), box_areas(both)


def _cut_to(boxes: Floats64, region: Region) -> Floats64:
    return np.concatenate([np.maximum(boxes[:, :2], region[:2]), np.minimum(boxes[:, 2:], region[2:])], axis=1)


def _bent(matrix: Matrix, field: ElasticField, boxes: Floats) -> NDArray[np.float64]:
    """The upright boxes [n, 4] round the borders of ``boxes`` after a matrix and an elastic field."""
    along = np.linspace(0.0, 1.0, _ON_A_SIDE)
    zero, one = np.zeros_like(along), np.ones_like(along)
    places = np.concatenate([np.stack(pair, 1) for pair in ((along, zero), (along, one), (zero, along), (one, along))])
    corners = boxes.astype(np.float64)
    points = corners[:, None, :2] + places * (corners[:, None, 2:] - corners[:, None, :2])
    bent = field.map_points(map_points(matrix, points))
    return np.concatenate([bent.min(axis=1), bent.max(axis=1)], axis=1)
