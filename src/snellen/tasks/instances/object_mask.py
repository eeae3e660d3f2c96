"""The pixels of one object, kept small: runs within the box round them. A mask of 200 x 200 pixels takes about 2 kB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Annotation, Box, Rle
from snellen.core.geometry import Matrix, Points, Size, compose, map_boxes, map_points, translation
from snellen.core.masks import Mask, annotation_mask, mask_box, polygon_mask
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region
from snellen.data.warp import warp_mask

_ASKED = 1000  # pixels of a mask of which it is asked whether they are still in the image

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMask:
    """A mask is where pixel (left, top) of the image stands first in a piece of (width, height).

    runs  uint32 [r], lengths of runs down the columns of that piece, the first of them outside of the object
    """

    left: int
    top: int
    width: int
    height: int
    runs: NDArray[np.uint32]

    def __eq__(self, other: object) -> bool:
        """Whether both are the same pixels."""
        return isinstance(other, ObjectMask) and (self.region, self.runs.tobytes()) == (
            other.region,
            other.runs.tobytes(),
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, mask: Mask, left: int = 0, top: int = 0) -> ObjectMask:
        """Of bool [h, w] whose first pixel is (left, top) of the image; cut to what is in the object."""
        x0, y0, x1, y1 = (int(side) for side in mask_box(mask) or (0, 0, 0, 0))
        flat = mask[y0:y1, x0:x1].ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False))
        runs = np.diff(np.concatenate([[0], edges, [flat.size]])).astype(np.uint32)
        return cls(left + x0, top + y0, x1 - x0, y1 - y0, runs)

    @classmethod
    def of_annotation(cls, annotation: Annotation, size: Size) -> ObjectMask | None:
        """In an image of ``size``; None when only the box is known, or the outline has no pixel's centre inside."""
        if not annotation.has_shape:
            return None
        whole = annotation_mask(annotation, size) if annotation.mask is not None else None
        found = cls._of_outline(annotation, size) if whole is None else cls.of(whole)
        return found if found.width else None

    @classmethod
    def _of_outline(cls, annotation: Annotation, size: Size) -> ObjectMask:
        """Filled within its own box alone: an image may be large, and have many objects."""
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in annotation.polygons])
        low = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)), low, size).astype(int)
        moved = [tuple((np.reshape(polygon, (-1, 2)) - low).ravel().tolist()) for polygon in annotation.polygons]
        return cls.of(polygon_mask(moved, (int(high[0] - low[0]), int(high[1] - low[1]))), int(low[0]), int(low[1]))

    @classmethod
    def of_box(cls, box: Box, size: Size) -> ObjectMask:
        """Every pixel whose centre is in a box."""
        x0, y0, x1, y1 = np.clip(np.ceil(np.array(box) - 0.5), 0, [*size, *size]).astype(int).tolist()
        return cls.of(np.ones((max(0, y1 - y0), max(0, x1 - x0)), np.bool_), x0, y0)

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.runs[1::2].sum(dtype=np.int64))

    @property
    def region(self) -> Region:
        """The smallest box round all pixels."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def pixels(self) -> Mask:
        """bool [height, width]: the piece ``region`` of the image."""
        return self._columns(0, self.width)

    def piece(self, region: Region) -> tuple[Region, Mask]:
        """What ``region`` and the object's own have in common, and its pixels there: only its columns are unpacked."""
        x0, y0 = max(region[0], self.left), max(region[1], self.top)
        x1 = max(x0, min(region[2], self.left + self.width))
        y1 = max(y0, min(region[3], self.top + self.height))
        columns = self._columns(x0 - self.left, x1 - self.left)
        return (x0, y0, x1, y1), columns[y0 - self.top : y1 - self.top]

    def _columns(self, start: int, stop: int) -> Mask:
        """bool [height, stop - start]"""
        places = np.concatenate([[0], np.cumsum(self.runs, dtype=np.int64)])
        runs = np.diff(np.clip(places, start * self.height, stop * self.height))
        inside = np.arange(len(runs)) % 2 == 1
        return np.repeat(inside, runs).reshape(self.height, stop - start, order="F")

    def within(self, region: Region) -> Mask:
        """bool [y1 - y0, x1 - x0]: a region of the image, of which the object may show anything or nothing."""
        left, top, right, bottom = region
        out = np.zeros((bottom - top, right - left), np.bool_)
        (x0, y0, x1, y1), pixels = self.piece(region)
        out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
        return out

    def shifted(self, dx: int, dy: int) -> ObjectMask:
        return replace(self, left=self.left + dx, top=self.top + dy)

    def without(self, hidden: Mask) -> ObjectMask:
        """What is seen of it when bool [H, W] of the whole image lies in front."""
        x0, y0, x1, y1 = self.region
        return ObjectMask.of(self.pixels() & ~hidden[y0:y1, x0:x1], x0, y0)

    def moved(self, matrix: Matrix, size: Size) -> ObjectMask:
        """After ``matrix`` brought its image to ``size``."""
        x0, y0, x1, y1 = _reached(matrix, self.region, size)
        if x0 >= x1 or y0 >= y1:
            return NOTHING
        placed = compose(translation(self.left, self.top), matrix, translation(-x0, -y0))
        return ObjectMask.of(warp_mask(self.pixels(), placed, (x1 - x0, y1 - y0), ignore=0), x0, y0)

    def share_within(self, matrix: Matrix, size: Size) -> float:
        """Which share of its pixels, 0..1, ``matrix`` takes to a place within an image of ``size``."""
        if not self.width:
            return 0.0
        at = map_points(compose(translation(self.left, self.top), matrix), _some_pixels(self.pixels()))
        return float(((at >= 0) & (at < size)).all(axis=1).mean())

    def rle(self, size: Size) -> Rle:
        """As COCO writes it, of the whole image of ``size``, which is never made."""
        height = size[1]
        columns = np.zeros((self.width, self.height + 2), np.bool_)  # so that every column begins and ends outside
        columns[:, 1:-1] = self.pixels().T
        column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
        places = (self.left + column) * height + self.top + row
        # A run that ends at the foot of the image goes on at the head of the next column.
        goes_on = np.flatnonzero(places[1:-1:2] == places[2::2]) * 2 + 1
        places = np.delete(places, np.concatenate([goes_on, goes_on + 1]))
        counts = np.diff(np.concatenate([[0], places, [size[0] * height]])).tolist()
        if len(counts) > 1 and counts[-1] == 0:
            del counts[-1]
        return Rle(size=(height, size[0]), counts=tuple(counts))


NOTHING = ObjectMask.of(np.zeros((0, 0), np.bool_))


def bent(masks: Sequence[ObjectMask], matrix: Matrix, size: Size, field: ElasticField) -> list[ObjectMask]:
    """Masks of one image after ``matrix`` and ``field`` brought it to ``size``.

    Where each pixel comes from is asked once for all of them: that takes far longer than to look it up.
    """
    if not masks:
        return []
    x0, y0, x1, y1 = around(masks)
    places = np.arange((x1 - x0) * (y1 - y0)).reshape(y1 - y0, x1 - x0)
    if not places.size:
        return [NOTHING] * len(masks)
    origin = warp_mask(places, compose(translation(x0, y0), matrix), size, ignore=-1, field=field)
    return [ObjectMask.of((origin >= 0) & mask.within((x0, y0, x1, y1)).ravel()[origin]) for mask in masks]


def united(masks: Sequence[ObjectMask]) -> ObjectMask:
    """All pixels of one or more masks of an image."""
    if len(masks) == 1:
        return masks[0]
    x0, y0, x1, y1 = around(masks)
    out = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for mask in masks:
        left, top, right, bottom = mask.region
        out[top - y0 : bottom - y0, left - x0 : right - x0] |= mask.pixels()
    return ObjectMask.of(out, x0, y0)


def in_common(masks: Sequence[ObjectMask], one: Ints, other: Ints, region: Region) -> tuple[Floats, Floats, Floats]:
    """See ``sightings.InCommon``. Two masks are unpacked at a time, where both may be."""
    area = {row: np.count_nonzero(masks[row].piece(region)[1]) for row in {*one.tolist(), *other.tolist()}}
    mine, theirs = (np.array([area[row] for row in rows.tolist()], np.float64) for rows in (one, other))
    both = np.zeros(len(one))
    for pair, (i, j) in enumerate(zip(one.tolist(), other.tolist(), strict=True)):
        left, top, right, bottom = masks[j].region
        window = max(left, region[0]), max(top, region[1]), min(right, region[2]), min(bottom, region[3])
        shared, pixels = masks[i].piece(window)
        both[pair] = np.count_nonzero(pixels & masks[j].piece(shared)[1])
    return mine, theirs, both


def around(masks: Sequence[ObjectMask]) -> Region:
    """The smallest box round all pixels of one or more masks."""
    x0, y0, x1, y1 = np.array([mask.region for mask in masks]).T
    return int(x0.min()), int(y0.min()), int(x1.max()), int(y1.max())


def _reached(matrix: Matrix, region: Region, size: Size) -> Region:
    """The pixels of an image of ``size`` that a region comes to lie in."""
    x0, y0, x1, y1 = map_boxes(matrix, [region])[0]
    low = np.clip(np.floor([x0, y0]), 0, size).astype(int).tolist()
    high = np.clip(np.ceil([x1, y1]), 0, size).astype(int).tolist()
    return low[0], low[1], high[0], high[1]


def _some_pixels(mask: Mask) -> Points:
    """Centres [n, 2] of pixels of a mask, spread evenly over it, at most _ASKED."""
    places = np.flatnonzero(mask)
    some = places[np.linspace(0, len(places) - 1, min(_ASKED, len(places))).astype(int)]
    y, x = np.divmod(some, mask.shape[1])
    return np.stack([x, y], axis=1) + 0.5
