"""One line of a YOLO label file: numbers to a Draft, and an object back to a line. All are fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from snellen.core.annotation import Annotation, Polygon, Rle
from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.core.masks import decode, outline
from snellen.core.record import LeftOut
from snellen.data.formats.drafts import Draft

Outlines = Literal["polygon", "corners"]

_SLACK = 0.1
"""How far beyond 0..1 a number may lie: an object at the edge, marked generously. Pixels lie further off."""

_BOX, _CORNERS, _TRIANGLE = 5, 9, 7  # numbers in a line


class Unfit(Exception):
    """Why a line cannot be used, or an object not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """where    for the user: 'labels/1.txt, line 3'
    numbers  the class and what follows
    """

    where: str
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How lines are to be read.

    names     class names by their number; None where there are none, and classes are called by their number
    outlines  what a line of nine numbers is
    pose      (keypoints, numbers of each: 2 or 3) of a line that has keypoints, or None
    """

    names: Sequence[str] | None = None
    outlines: Outlines | None = None
    pose: tuple[int, int] | None = None


def lines_of(text: str, file: str) -> tuple[list[Line], list[LeftOut]]:
    """The lines of one file that are numbers, and those that are not. Blank lines are none."""
    lines, lost = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words, where = line.split(), f"{file}, line {number}"
        try:
            numbers = tuple(map(float, words))
        except ValueError:
            lost.append(LeftOut(path=where, reason="it is not all numbers"))
            continue
        if words:
            lines.append(Line(where=where, numbers=numbers))
    return lines, lost


def settled_outlines(lines: Iterable[Line], reading: Reading, given: Outlines | None) -> tuple[Outlines | None, bool]:
    """What lines of nine numbers are, and whether other lines had to decide it. Raises DataError when none can."""
    lengths = {len(line.numbers) for line in lines}
    if given is not None or _CORNERS not in lengths or reading.pose:
        return given, False
    if any(length >= _TRIANGLE and length % 2 for length in lengths - {_CORNERS}):
        return "polygon", True
    raise DataError(
        "lines of nine numbers may be polygons of four points or rotated boxes, and nothing in the data tells which; "
        "say so with --outlines polygon or --outlines corners"
    )


def draft_of(line: Line, reading: Reading) -> Draft:
    """What a line says, in fractions. Raises Unfit for one that fits no kind."""
    label, numbers = _label(line.numbers[0], reading.names), line.numbers[1:]
    length = len(line.numbers)
    if length == _BOX:
        return Draft(where=line.where, label=label, box=_box(numbers))
    if reading.pose and length == _pose_length(reading.pose):
        points = _keypoints(numbers[4:], reading.pose[1])
        return Draft(where=line.where, label=label, box=_box(numbers[:4]), keypoints=points)
    if reading.pose or length < _TRIANGLE or length % 2 == 0:
        what = (
            f", and one with keypoints {_pose_length(reading.pose)}" if reading.pose else ", an outline 7, 9, 11, ..."
        )
        raise Unfit(f"it has {length} numbers; a box has 5{what}")
    _check_fractions(numbers)
    if length == _CORNERS and reading.outlines == "corners":
        return Draft(where=line.where, label=label, corners=numbers)
    return Draft(where=line.where, label=label, polygons=(numbers,))


def _pose_length(pose: tuple[int, int]) -> int:
    return _BOX + pose[0] * pose[1]


def _label(number: float, names: Sequence[str] | None) -> str:
    if not math.isfinite(number) or number < 0 or number != int(number) or number > 1e6:
        raise Unfit(f"its class {number:g} is not a whole number from 0 on")
    if names is None:
        return f"class {int(number)}"
    if number >= len(names):
        raise Unfit(
            f"it is of the class {int(number)}, but the last of the {len(names)} names is that of {len(names) - 1}"
        )
    return names[int(number)]


def _check_fractions(numbers: Sequence[float]) -> None:
    worst = max(numbers, key=lambda number: abs(number - 0.5) if math.isfinite(number) else math.inf)
    if not -_SLACK <= worst <= 1 + _SLACK:
        raise Unfit(f"{worst:g} is not a fraction of the image, 0 to 1; if these are pixels, divide them by its size")


def _box(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    _check_fractions(numbers)
    x, y, width, height = numbers
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _keypoints(numbers: Sequence[float], dimensions: int) -> tuple[tuple[float, float, int], ...]:
    found = []
    for i in range(0, len(numbers), dimensions):
        x, y = numbers[i : i + 2]
        seen = numbers[i + 2] if dimensions == 3 else 2 * ((x, y) != (0, 0))
        if seen not in (0, 1, 2):
            raise Unfit(f"the visibility {seen:g} of a keypoint is not 0, 1 or 2")
        if seen:
            _check_fractions((x, y))
        found.append((x, y, int(seen)) if seen else (0.0, 0.0, 0))
    return tuple(found)


# ---- writing


def line_of(item: Annotation, number: int, size: Size, pose: tuple[int, int] | None) -> str:
    """The line of an object of class ``number`` in an image of ``size``. Raises Unfit for what a line cannot hold."""
    if item.crowd:
        raise Unfit("it is a crowd region")
    shape = _polygon(item) if item.has_shape else item.corners
    if shape is not None and pose is not None:
        raise Unfit("it has an outline or corners, and there are keypoints")
    if shape is not None:
        return _joined(number, [value / size[i % 2] for i, value in enumerate(shape)])
    x0, y0, x1, y1 = item.box
    numbers = [(x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1], (x1 - x0) / size[0], (y1 - y0) / size[1]]
    keypoints = item.keypoints or ((0.0, 0.0, 0),) * (pose[0] if pose else 0)
    if pose is not None and len(keypoints) != pose[0]:
        raise Unfit(f"it has {len(keypoints)} keypoints, and others have {pose[0]}")
    for x, y, seen in keypoints:
        numbers += [x / size[0], y / size[1], seen] if seen else [0, 0, 0]
    return _joined(number, numbers)


def _polygon(item: Annotation) -> Polygon | None:
    """The outline, where it is of one part."""
    parts = item.polygons
    if item.mask is not None:
        traced = outline(decode(item.mask))
        if isinstance(traced, Rle):
            raise Unfit("its mask has a hole")
        parts = traced
    if len(parts) > 1:
        raise Unfit(f"its outline has {len(parts)} parts")
    return parts[0] if parts else None


def _joined(number: int, values: Iterable[float]) -> str:
    """Nine decimals: within a hundredth of a pixel in any image that can be opened."""
    return " ".join([str(number), *(f"{value:.9f}".rstrip("0").rstrip(".") for value in values)])
