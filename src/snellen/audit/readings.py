"""Other things that the four numbers of a box may have meant, and how to undo each misreading.

A ``Reading`` takes boxes as they were read, x0, y0, x1, y1 in pixels and cut off at the image's edge, and gives the
boxes that would have been meant. What cannot be known any more, since it was cut off, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core import geometry
from snellen.data.formats.drafts import upright

Floats = NDArray[np.float64]
Move = Callable[[Floats, Floats], Floats]  # boxes [n, 4] of an image, its (width, height) [2] -> boxes [n, 4]

LEFT, TOP, RIGHT, BOTTOM = range(4)
ALL_SIDES = (LEFT, TOP, RIGHT, BOTTOM)

_AT_EDGE = 0.5  # pixels from the image's edge, at which a box may have been cut off


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read boxes.

    words    what they were meant as: "the boxes fit ... when read as {words}"
    move     undoes the misreading
    sides    those that the reading puts in their places
    paired   whether each of ``sides`` must be better for itself: what moves a box moves opposite sides alike, and boxes
             that are loose on one side only are no misreading
    """

    name: str
    words: str
    move: Move
    sides: tuple[int, ...] = ALL_SIDES
    paired: bool = False


def _known(boxes: Floats, size: Floats) -> Floats:
    """NaN for each axis of each box that may have been cut off."""
    cut = (boxes[:, :2] < _AT_EDGE) | (boxes[:, 2:] > size - _AT_EDGE)
    return np.where(np.tile(cut, 2), np.nan, boxes)


def _corners_read_as_width(boxes: Floats, size: Floats) -> Floats:
    known = np.where(np.tile(boxes[:, 2:] > size - _AT_EDGE, 2), np.nan, boxes)
    return np.concatenate([known[:, :2], known[:, 2:] - known[:, :2]], axis=1)


def _width_read_as_corners(boxes: Floats, size: Floats) -> Floats:
    """Corners were put in order, so which of the two was the width is lost; their sum is the far side either way."""
    return np.concatenate([boxes[:, 2:], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _centres_read_as_corners(boxes: Floats, size: Floats) -> Floats:
    known = _known(boxes, size)
    return known - np.tile((known[:, 2:] - known[:, :2]) / 2, 2)


def _corners_read_as_centres(boxes: Floats, size: Floats) -> Floats:
    known = _known(boxes, size)
    return known + np.tile((known[:, 2:] - known[:, :2]) / 2, 2)


def _two_corners_read_as_centre_and_size(boxes: Floats, size: Floats) -> Floats:
    known = _known(boxes, size)
    return np.concatenate([(known[:, :2] + known[:, 2:]) / 2, known[:, 2:] - known[:, :2]], axis=1)


def _mirrored(across: bool, down: bool) -> Move:
    def move(boxes: Floats, size: Floats) -> Floats:
        x0, y0, x1, y1 = boxes.T
        width, height = size
        if across:
            x0, x1 = width - x1, width - x0
        if down:
            y0, y1 = height - y1, height - y0
        return np.stack([x0, y0, x1, y1], axis=1)

    return move


def _swapped(boxes: Floats, size: Floats) -> Floats:
    return boxes[:, [1, 0, 3, 2]]


def _scaled(factors: Callable[[Floats], Floats]) -> Move:
    """factors  (width, height) [2] -> what x and y are to be multiplied by, [2]"""
    return lambda boxes, size: np.asarray(_known_far(boxes, size) * np.tile(factors(size), 2))


def _known_far(boxes: Floats, size: Floats) -> Floats:
    return np.where(np.tile(boxes[:, 2:] > size - _AT_EDGE, 2), np.nan, boxes)


def _from_padded(boxes: Floats, size: Floats) -> Floats:
    """Of a square with the image in its middle."""
    longest = size.max()
    return np.asarray(_known(boxes, size) * np.tile(longest / size, 2) - np.tile((longest - size) / 2, 2))


def _constant(factor: float) -> Move:
    return _scaled(lambda size: np.full_like(size, factor))


def _of_side(side: float) -> Move:
    return _scaled(lambda size: size / side)


MISREADINGS: tuple[Reading, ...] = (
    Reading("corners", "two corners instead of x, y, width, height", _corners_read_as_width, (RIGHT, BOTTOM)),
    Reading("width-height", "x, y, width, height instead of two corners", _width_read_as_corners, (RIGHT, BOTTOM)),
    Reading("centres", "centre and size instead of x, y, width, height", _centres_read_as_corners),
    Reading("not-centres", "x, y, width, height instead of centre and size", _corners_read_as_centres),
    Reading(
        "two-corners",
        "two corners instead of centre and size",
        _two_corners_read_as_centre_and_size,
    ),
    Reading("mirrored", "measured from the right edge", _mirrored(True, False)),
    Reading("upside-down", "measured from the lower edge", _mirrored(False, True)),
    Reading("half-turn", "measured from the lower right corner", _mirrored(True, True)),
    Reading("swapped", "y, x instead of x, y", _swapped),
    Reading(
        "swapped-fractions",
        "fractions y, x instead of x, y",
        lambda boxes, size: (boxes / np.tile(size, 2))[:, [1, 0, 3, 2]] * np.tile(size, 2),
    ),
    Reading("other-side", "fractions of height, width instead of width, height", _scaled(lambda s: s[::-1] / s)),
    Reading("padded", "fractions of the image padded to a square all round", _from_padded),
    Reading(
        "padded-end",
        "fractions of the image padded to a square at its end",
        _scaled(lambda s: s.max() / s),
    ),
    Reading("percent", "percentages", _of_side(100)),
    Reading("thousandths", "thousandths of the image", _of_side(1000)),
    Reading("of-640", "pixels of a copy of 640 x 640", _of_side(640)),
    *(
        Reading(f"times-{factor:.3g}", f"pixels of a copy {1 / factor:.3g} times as large", _constant(factor))
        for factor in (0.5, 2 / 3, 0.75, 4 / 3, 1.5, 2.0)
    ),
)
"""Misreadings that people report most, of every format."""

FRACTIONS = Reading("fractions", "fractions of the image instead of pixels", lambda boxes, s: boxes * np.tile(s, 2))


def _shift(across: int, down: int, share: float) -> Reading:
    step = np.array([across, down, across, down]) * share
    sides = (LEFT, RIGHT) * (across != 0) + (TOP, BOTTOM) * (down != 0)
    where = " and ".join(
        [f"{share:.1%} to the {'right' if across > 0 else 'left'}"] * (across != 0)
        + [f"{share:.1%} {'down' if down > 0 else 'up'}"] * (down != 0)
    )

    def move(boxes: Floats, size: Floats) -> Floats:
        return np.asarray(_known(boxes, size) + step * size.max())

    name = f"shift{across:+d}{down:+d}-{share:.3f}"
    return Reading(name, f"lying {where} (of the long side) from where they do", move, sides, paired=True)


SHIFTS: tuple[Reading, ...] = tuple(
    _shift(across, down, share)
    for share in (0.0125, 0.025, 0.05, 0.1, 0.15)
    for across in (-1, 0, 1)
    for down in (-1, 0, 1)
    if across or down
)
"""By 3 to 38 of the 256 pixels that images are looked at in; less is within what hands do."""


def turned_readings(orientation: int) -> tuple[Reading, ...]:
    """For images with an EXIF orientation 2..8 whose boxes were not turned with them, or turned though they were not
    to be; in pixels and in fractions."""

    def turning(back: bool, fractions: bool) -> Move:
        def move(boxes: Floats, size: Floats) -> Floats:
            stored = size[::-1] if orientation >= 5 else size
            matrix = upright(orientation, (int(stored[0]), int(stored[1])))
            to_stored, to_size = (np.tile(each, 2) if fractions else 1.0 for each in (stored / size, size / stored))
            if back:
                return np.asarray(_moved(np.asarray(np.linalg.inv(matrix), np.float64), _known(boxes, size)) * to_size)
            return _moved(matrix, _known(boxes, size) * to_stored)

        return move

    stored, shown = "those of the image as it is stored, without its EXIF orientation", "those of the upright image"
    return (
        Reading("stored", stored, turning(False, False)),
        Reading("stored-fractions", stored, turning(False, True)),
        Reading("upright", shown, turning(True, False)),
        Reading("upright-fractions", shown, turning(True, True)),
    )


def _moved(matrix: geometry.Matrix, boxes: Floats) -> Floats:
    """By a matrix that keeps upright boxes upright; NaN stays."""
    known = np.isfinite(boxes).all(axis=1, keepdims=True)
    return np.where(known, geometry.map_boxes(matrix, np.where(known, boxes, 0.0)), np.nan)
