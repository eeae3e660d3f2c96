"""What instance segmentation says of one image. The same type holds the truth and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import MIN_VISIBLE, Rle
from snellen.core.errors import DataError
from snellen.core.geometry import Matrix, Size
from snellen.core.masks import Mask
from snellen.core.record import Record
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region
from snellen.tasks.instances.object_mask import ObjectMask, bent, in_common, united
from snellen.tasks.objects.sightings import Seen, found_once
from snellen.tasks.objects.target import NO_ROWS, ObjectSet, objects_of

_LACKING = "outlines of objects are needed, and this data has none; give COCO, YOLO polygons or LabelMe"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceSet(ObjectSet):
    """The objects of an image, as masks in it with boxes.

    masks  one for each object
    boxes  as the file or the network says; round the mask once it was moved
    """

    masks: tuple[ObjectMask, ...]

    @classmethod
    def predicted(
        cls, size: Size, masks: Sequence[ObjectMask], boxes: Floats, labels: NDArray[np.int64], scores: Floats
    ) -> Self:
        none = np.zeros(len(boxes), np.bool_)
        return cls(
            size=size,
            masks=tuple(masks),
            boxes=boxes,
            labels=labels,
            scores=scores,
            crowd=none,
            difficult=none,
            area=np.array([mask.area for mask in masks], np.float32),
        )

    @classmethod
    def empty(cls, size: Size) -> Self:
        return cls(size=size, masks=(), **NO_ROWS)

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> Self:
        """The truth of a record.

        An object of which only the box is known, beside others with outlines, is neither learnt nor judged: its box
        is taken for a crowd. DataError where an image has objects and no outline at all, and as ``objects_of``.
        """
        objects = objects_of(record, classes, _LACKING)
        size: Size = record.size or (0, 0)
        masks = [ObjectMask.of_annotation(each, size) for each in objects]
        known = [mask is not None for mask in masks]
        if objects and not any(known) and not all(each.crowd for each in objects):
            raise DataError(
                f"{record.id}: none of its {len(objects)} objects has an outline, and masks are learnt from outlines: "
                "draw them, leave the image out, or use task = 'detection'"
            )
        whole = tuple(m or ObjectMask.of_box(each.box, size) for m, each in zip(masks, objects, strict=True))
        area = [mask.area if each.area is None else each.area for mask, each in zip(whole, objects, strict=True)]
        return cls(
            size=size,
            masks=whole,
            boxes=np.array([each.box for each in objects], np.float32).reshape(-1, 4),
            labels=np.array([classes.index(each.label) for each in objects], np.int64),
            crowd=np.array([each.crowd or not has for each, has in zip(objects, known, strict=True)], np.bool_),
            difficult=np.array([each.difficult for each in objects], np.bool_),
            area=np.array(area, np.float32),
        )

    @classmethod
    def merged(
        cls, parts: Sequence[Self], regions: Sequence[Region], size: Size, *, by: str = "iou", agnostic: bool = False
    ) -> Self:
        """As for every ``ObjectSet``; whether two are one is judged by their masks, and pieces are united."""
        seen = Seen.of(parts, regions)
        corners = zip(parts, regions, strict=True)
        masks = [mask.shifted(x0, y0) for each, (x0, y0, _, _) in corners for mask in each.masks]
        found = found_once(seen, size, partial(in_common, masks), by=by, agnostic=agnostic)
        whole = [united([masks[row] for row in rows]) for rows in found.pieces]
        return cls.predicted(size, whole, found.boxes(seen), seen.labels[found.surest], seen.scores[found.surest])

    # ``super()`` finds no class here: ``slots`` makes a new one (github.com/python/cpython/issues/90562).

    def chosen(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        masks = tuple(self.masks[i] for i in np.arange(len(self))[index])
        return replace(ObjectSet.chosen(self, index), masks=masks)

    def joined(self, other: Self) -> Self:
        return replace(ObjectSet.joined(self, other), masks=self.masks + other.masks)

    def runs(self, size: Size) -> list[Rle]:
        return [mask.rle(size) for mask in self.masks]

    def moved(self, matrix: Matrix, size: Size, field: ElasticField | None = None) -> Self:
        """After ``matrix`` and ``field`` brought the image to ``size``.

        An object is dropped when less than MIN_VISIBLE of its pixels are left; a crowd only when nothing is. That is
        judged by the matrix: a field moves things a little, and hardly any out of the image. Boxes are those round
        what is left; ``area`` grows and shrinks as the mask does.
        """
        if field is None:
            masks = [mask.moved(matrix, size) for mask in self.masks]
        else:
            masks = bent(self.masks, matrix, size, field)
        left = np.array([mask.share_within(matrix, size) for mask in self.masks])
        return replace(self, size=size)._seen_as(masks, left)

    def behind(self, hidden: Mask) -> Self:
        """What is seen of them when bool [H, W] of the image lies in front; dropped and told as in ``moved``."""
        masks = [mask.without(hidden) for mask in self.masks]
        left = [seen.area / max(1, mask.area) for seen, mask in zip(masks, self.masks, strict=True)]
        return self._seen_as(masks, np.array(left))

    def within(self, region: Region) -> Self:
        """What is seen of them in a region (x0, y0, x1, y1)."""
        return self.behind(~self._region(region))

    def covered(self, region: Region) -> Self:
        """What is seen of them around a region that something else covers."""
        return self.behind(self._region(region))

    def pixels(self) -> Mask:
        """bool [H, W]: where any of them is."""
        out = np.zeros((self.size[1], self.size[0]), np.bool_)
        for mask in self.masks:
            x0, y0, x1, y1 = mask.region
            out[y0:y1, x0:x1] |= mask.pixels()
        return out

    def stacked(self) -> Mask:
        """bool [n, H, W]."""
        width, height = self.size
        out = np.zeros((len(self), height, width), np.bool_)
        for plane, mask in zip(out, self.masks, strict=True):
            x0, y0, x1, y1 = mask.region
            plane[y0:y1, x0:x1] = mask.pixels()
        return out

    def _seen_as(self, masks: Sequence[ObjectMask], left: NDArray[np.float64]) -> Self:
        """With other masks, of which ``left`` [n] is the share of each object that they show."""
        now = np.array([mask.area for mask in masks], np.float64)
        before = np.array([mask.area for mask in self.masks], np.float64)
        changed = replace(
            self,
            masks=tuple(masks),
            boxes=np.array([mask.region for mask in masks], np.float32).reshape(-1, 4),
            area=(self.area * now / np.maximum(before, 1)).astype(np.float32),
        )
        return changed.chosen((now > 0) & (left >= np.where(self.crowd, 0.0, MIN_VISIBLE)))

    def _region(self, region: Region) -> Mask:
        x0, y0, x1, y1 = region
        inside = np.zeros((self.size[1], self.size[0]), np.bool_)
        inside[y0:y1, x0:x1] = True
        return inside
