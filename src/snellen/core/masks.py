"""Masks of objects: outlines to pixels and back, and runs of pixels as COCO writes them. numpy only.

A mask is bool [height, width]. A pixel belongs to an outline when its centre, at +0.5, lies inside. Bad arguments are a
ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Annotation, Box, Polygon, Rle
from snellen.core.geometry import Size

Mask = NDArray[np.bool_]

_MOST_DIGITS = 7  # of 5 bits each: 2^34 pixels


# ---- outlines -> pixels


def polygon_mask(polygons: Sequence[Polygon], size: Size) -> Mask:
    """The pixels of an outline: the union of its parts, each filled by the even-odd rule. ``size`` is (width, height).

    What reaches beyond the image is cut off.
    """
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all():
            raise ValueError(f"an outline needs three or more finite points, got {polygon}")
        left, top = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
        right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, size).astype(int)
        if left < right and top < bottom:
            mask[top:bottom, left:right] |= _filled(points - (left, top), right - left, bottom - top)
    return mask


def _filled(points: NDArray[np.float64], width: int, height: int) -> Mask:
    """One part, even-odd: each edge that a row of pixel centres crosses turns inside to outside to its right."""
    ends = np.roll(points, -1, axis=0)
    upper = np.where((points[:, 1] <= ends[:, 1])[:, None], points, ends)
    lower = np.where((points[:, 1] <= ends[:, 1])[:, None], ends, points)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(int)
    after = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(int)
    crossed = after - first  # rows, for each edge
    edge = np.repeat(np.arange(len(points)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    share = (row + 0.5 - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    x = upper[edge, 0] + share * (lower[edge, 0] - upper[edge, 0])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    crossings = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(crossings, (row, column), 1)
    inside: Mask = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside


# ---- pixels -> outlines


def outline(mask: Mask) -> tuple[Polygon, ...] | Rle:
    """The outline of a mask, a part for each 4-connected region; runs when it has a hole, which parts cannot tell.

    The outline goes along the cracks between pixels, so ``polygon_mask`` gives back exactly ``mask``.
    """
    polygons = []
    for polygon in _cracks(mask):
        x, y = np.asarray(polygon).reshape(-1, 2).T
        if np.dot(x, np.roll(y, -1)) < np.dot(np.roll(x, -1), y):  # round a hole, the walk goes the other way
            return encode(mask)
        polygons.append(polygon)
    return tuple(polygons)


def _cracks(mask: Mask) -> Iterator[Polygon]:
    """Every boundary as a closed walk with the object to its right, told by its turning points.

    Where two pixels touch at a corner only, the walk turns right and so stays with the pixel it came along.
    """
    inside = np.pad(mask, 1)
    above, below, here = inside[:-1, 1:-1], inside[1:, 1:-1], slice(1, -1)
    left, right = inside[here, :-1], inside[here, 1:]
    height, width = mask.shape
    steps = np.zeros((4, height + 1, width + 1), dtype=bool)  # of east, south, west, north: leaves [y, x]?
    steps[0, :, :-1] = below & ~above
    steps[1, :-1, :] = left & ~right
    steps[2, :, 1:] = above & ~below
    steps[3, 1:, :] = right & ~left
    moves = ((1, 0), (0, 1), (-1, 0), (0, -1))
    walked = np.zeros((height + 1, width + 1), dtype=bool)  # eastward only: every boundary goes east somewhere
    for start_y, start_x in np.argwhere(steps[0]).tolist():
        if walked[start_y, start_x]:
            continue
        x, y, heading = start_x, start_y, 0  # a turning point: what leads straight here stands before it in its row
        corners = [float(x), float(y)]
        while True:
            if heading == 0:
                walked[y, x] = True
            x, y = x + moves[heading][0], y + moves[heading][1]
            turn = next(turn for turn in (1, 0, 3) if steps[(heading + turn) % 4, y, x])
            heading = (heading + turn) % 4
            if (x, y, heading) == (start_x, start_y, 0):
                break
            if turn:
                corners += [float(x), float(y)]
        yield tuple(corners)


# ---- runs


def encode(mask: Mask) -> Rle:
    """Runs down the columns, the first of them outside of the object."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts = [0, *counts]
    return Rle(size=(mask.shape[0], mask.shape[1]), counts=tuple(counts))


def check_runs(rle: Rle) -> None:
    """Raises ValueError when the counts do not fill the size."""
    height, width = rle.size
    if any(count < 0 for count in rle.counts) or sum(rle.counts) != height * width:
        raise ValueError(f"the runs of a mask must sum to {width} x {height} pixels, got {sum(rle.counts)}")


def decode(rle: Rle) -> Mask:
    check_runs(rle)
    inside = np.arange(len(rle.counts)) % 2 == 1
    return np.repeat(inside, rle.counts).reshape(rle.size, order="F")


def runs_to_text(counts: Sequence[int]) -> str:
    """COCO's compressed runs: each, less the second before it, in digits of 5 bits, lowest first, from '0' on.

    Bit 6 of a character says that more digits follow; bit 5 of the last is the sign.
    """
    characters = []
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            digit, rest = rest & 31, rest >> 5
            more = rest != (-1 if digit & 16 else 0)
            characters.append(chr(48 + digit + 32 * more))
    return "".join(characters)


def text_to_runs(text: str) -> tuple[int, ...]:
    """The counts that ``runs_to_text`` wrote."""
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or digits == _MOST_DIGITS:
            raise ValueError(f"no compressed runs of a mask: {character!r} is out of place")
        value |= (code & 31) << 5 * digits
        digits += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << 5 * digits
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = digits = 0
    if digits:
        raise ValueError("compressed runs of a mask end in the middle of a number")
    return tuple(counts)


# ---- of one object


def annotation_mask(annotation: Annotation, size: Size) -> Mask | None:
    """The pixels of one object in an image of ``size`` (width, height); None when only its box is known."""
    if annotation.mask is not None:
        if annotation.mask.size != (size[1], size[0]):
            height, width = annotation.mask.size
            raise ValueError(f"a mask of {width} x {height} does not fit an image of {size[0]} x {size[1]}")
        return decode(annotation.mask)
    return polygon_mask(annotation.polygons, size) if annotation.polygons else None


def mask_box(mask: Mask) -> Box | None:
    """The smallest box round all pixels; None when there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def mask_area(mask: Mask) -> int:
    """In pixels."""
    return int(np.count_nonzero(mask))
