"""One annotation as a file gives it, and the rule by which it becomes an object or is lost with a reason.

The rule, the same for every format, in this order. An annotation is lost when

* it has no label;
* one of its coordinates is not a finite number, or 10^9 and more;
* its outline is no list of points, or its mask not of the image's size;
* it has neither a box nor a shape to put one round;
* its box has no width or no height, or lies outside of the image.

A box whose corners are swapped is put in order, and one that reaches beyond the image is cut off; both are counted.
Outlines are cut off by moving their points to the image's edge, and parts with fewer than three points are passed over
and counted. Corners of rotated boxes and keypoints are never moved.
No annotation costs its image anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from snellen.core.annotation import Annotation, Box, Polygon, Rle
from snellen.core.geometry import Matrix, Size, compose, hflip, identity, rot90, vflip
from snellen.core.masks import check_runs, decode, encode, mask_box
from snellen.core.record import LeftOut

MIN_SIDE = 1e-3
"""Pixels. A box that is thinner is empty: less than what a file of six decimals can tell in a photograph."""

_ROUNDING = 0.02
"""Pixels beyond the image that nobody need hear of: they come from rounding to a file's decimals."""


_BEYOND = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One annotation as it was read, in pixels, before anything is checked. Other fields are those of ``Annotation``.

    where  for the user, as 'labels/1.txt, line 3'
    box    x0, y0, x1, y1, perhaps swapped, outside, or not finite; None: the hull of its shape
    """

    where: str
    label: str
    box: Box | None = None
    polygons: tuple[Polygon, ...] = ()
    mask: Rle | None = None
    corners: Polygon | None = None
    keypoints: tuple[tuple[float, float, int], ...] = ()
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of the drafts of one image: len(objects) + len(lost) is their number.

    swapped, clipped  how many boxes were put in order and cut off
    thin              how many parts of outlines have fewer than three points
    """

    objects: tuple[Annotation, ...]
    lost: tuple[LeftOut, ...]
    swapped: int = 0
    clipped: int = 0
    thin: int = 0


def settle(drafts: Iterable[Draft], size: Size) -> Settled:
    """The objects of an image of ``size`` (width, height), by the rule above."""
    objects: list[Annotation] = []
    lost: list[LeftOut] = []
    swapped = clipped = thin = 0
    for draft in drafts:
        reason = _unfit(draft, size)
        raw = None if reason else _box(draft)
        if raw is None:
            lost.append(LeftOut(path=draft.where, reason=reason or "it has no box"))
            continue
        box = (min(raw[0], raw[2]), min(raw[1], raw[3]), max(raw[0], raw[2]), max(raw[1], raw[3]))
        inside = (*_clamped(box[:2], size), *_clamped(box[2:], size))
        reason = _nowhere(box, inside, size)
        if reason:
            lost.append(LeftOut(path=draft.where, reason=reason))
            continue
        swapped += box != tuple(raw)
        clipped += reach(box, size) > _ROUNDING
        thin += sum(len(part) < 6 for part in draft.polygons)
        objects.append(_annotation(draft, (inside[0], inside[1], inside[2], inside[3]), size))
    return Settled(objects=tuple(objects), lost=tuple(lost), swapped=swapped, clipped=clipped, thin=thin)


def reach(box: Sequence[float], size: Size) -> float:
    """How many pixels a box reaches beyond an image; 0 within."""
    return max(0.0, -min(box), max(box[0], box[2]) - size[0], max(box[1], box[3]) - size[1])


def _unfit(draft: Draft, size: Size) -> str | None:
    if not draft.label.strip():
        return "it has no label"
    if not _finite(draft):
        return "a coordinate is not a finite number, or beyond all images"
    if any(len(part) % 2 for part in draft.polygons) or len(draft.corners or range(8)) != 8:
        return "its outline has an odd number of coordinates, or not four corners"
    return None if draft.mask is None else _unfit_mask(draft.mask, size)


def _unfit_mask(mask: Rle, size: Size) -> str | None:
    if mask.size != (size[1], size[0]):
        height, width = mask.size
        return f"its mask is of {width} x {height} pixels, and the image of {size[0]} x {size[1]}"
    try:
        check_runs(mask)
    except ValueError as error:
        return str(error)
    return None


def _finite(draft: Draft) -> bool:
    numbers = [*(draft.box or ()), *(draft.corners or ()), *(number for part in draft.polygons for number in part)]
    numbers += [number for point in draft.keypoints for number in point]
    return all(map(math.isfinite, numbers)) and max(map(abs, numbers), default=0.0) < _BEYOND


def extent(draft: Draft) -> Box | None:
    """Its box as given, or the hull of its outline or corners; None where there are none."""
    numbers = [*(number for part in draft.polygons for number in part), *(draft.corners or ())]
    if draft.box is not None or not numbers:
        return draft.box
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _box(draft: Draft) -> Box | None:
    box = extent(draft)
    return mask_box(decode(draft.mask)) if box is None and draft.mask is not None else box


def _nowhere(box: Box, inside: Sequence[float], size: Size) -> str | None:
    shown = ", ".join(f"{number:.6g}" for number in box)
    outside = box[2] <= 0 or box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1]
    if outside and not _empty(box):
        return f"its box ({shown}) is outside of the image, which has {size[0]} x {size[1]} pixels"
    return f"its box ({shown}) has no width or no height" if _empty(inside) else None


def _empty(box: Sequence[float]) -> bool:
    return box[2] - box[0] < MIN_SIDE or box[3] - box[1] < MIN_SIDE


def _clamped(points: Sequence[float], size: Size) -> Polygon:
    xs, ys = points[::2], points[1::2]
    if min(xs) < 0 or min(ys) < 0 or max(xs) > size[0] or max(ys) > size[1]:
        return tuple(min(max(float(number), 0.0), float(size[i % 2])) for i, number in enumerate(points))
    return tuple(map(float, points))


def _annotation(draft: Draft, box: Box, size: Size) -> Annotation:
    return Annotation(
        label=draft.label.strip(),
        box=box,
        polygons=tuple(_clamped(part, size) for part in draft.polygons if len(part) >= 6),
        mask=draft.mask,
        corners=draft.corners,
        keypoints=draft.keypoints,
        crowd=draft.crowd,
        difficult=draft.difficult,
        area=draft.area,
        source=draft.source,
    )


# ---- moving what was read


def mapped(draft: Draft, matrix: Matrix) -> Draft:
    """Everything but the mask moved by a matrix that keeps upright boxes upright. Unlabelled keypoints stay.

    What is no finite points comes back as it is, to be lost with that reason.
    """
    if not _finite(draft) or any(len(part) % 2 for part in (*draft.polygons, draft.corners or ())):
        return draft

    (a, b, c), (d, e, f) = matrix[:2].tolist()  # numbers, not arrays: there are many drafts of few points

    def points(numbers: Sequence[float]) -> Polygon:
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(number for x, y in pairs for number in (a * x + b * y + c, d * x + e * y + f))

    changes: dict[str, Any] = {"polygons": tuple(points(part) for part in draft.polygons)}
    if draft.box is not None:
        x0, y0, x1, y1 = points(draft.box)
        changes["box"] = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if draft.corners is not None:
        changes["corners"] = points(draft.corners)
    changes["keypoints"] = tuple((*points((x, y)), v) if v > 0 else (x, y, v) for x, y, v in draft.keypoints)
    return replace(draft, **changes)


def turned(draft: Draft, orientation: int, stored: Size) -> Draft:
    """A draft in pixels of the file as it is stored, (width, height), brought upright by an EXIF orientation 1..8."""
    moved = mapped(draft, upright(orientation, stored))
    mask = draft.mask
    if mask is None or mask.size != (stored[1], stored[0]) or sum(mask.counts) != stored[0] * stored[1]:
        return moved
    pixels = decode(mask)
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return replace(moved, mask=encode(pixels))


def upright(orientation: int, stored: Size) -> Matrix:
    """Pixels of the file as it is stored, (width, height) -> pixels of the upright image, by EXIF orientation 1..8."""
    width, height = stored
    match orientation:
        case 2:
            return hflip(width)
        case 3:
            return rot90(2, width, height)
        case 4:
            return vflip(height)
        case 5:
            return compose(rot90(1, width, height), hflip(height))
        case 6:
            return rot90(1, width, height)
        case 7:
            return compose(rot90(1, width, height), vflip(width))
        case 8:
            return rot90(3, width, height)
    return identity()
