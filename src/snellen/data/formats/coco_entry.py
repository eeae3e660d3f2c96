"""One entry of a COCO file's annotations: JSON to a Draft, and an object back to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from snellen.core.annotation import Annotation, Polygon, Rle
from snellen.core.geometry import Size
from snellen.core.masks import annotation_mask, mask_area, runs_to_text, text_to_runs
from snellen.data.formats.drafts import Draft


class Unfit(Exception):
    """Why an annotation cannot be used."""


def draft_of(entry: Mapping[str, Any], label: str, where: str) -> Draft:
    """What an entry says, with all parts of its outline. Raises Unfit for fields of a wrong kind."""
    polygons, mask = _shape(entry.get("segmentation"))
    return Draft(
        where=where,
        label=label,
        box=_box(entry.get("bbox"), shaped=bool(polygons) or mask is not None),
        polygons=polygons,
        mask=mask,
        corners=_corners(entry.get("corners")),
        keypoints=_keypoints(entry.get("keypoints")),
        crowd=entry.get("iscrowd") == 1,
        difficult=entry.get("difficult") is True,
        area=_area(entry.get("area")),
        source=key_of(entry.get("id")),
    )


def key_of(value: object) -> str | None:
    """An id as text, so that 3, 3.0 and "3" are one; None for what is no id."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return str(value).encode(errors="replace").decode()  # JSON can spell halves of characters
    except ValueError:  # thousands of digits
        return None


def known(key: str | None, of: Mapping[str, object], what: str) -> str:
    if key is None or key not in of:
        raise Unfit(f"it is of no {what}" if key is None else f"it is of the {what} {key[:50]}, which is not there")
    return key


def _numbers(value: object, what: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        raise Unfit(f"its {what} is not a list of numbers")
    try:
        return tuple(map(float, value))
    except OverflowError:
        raise Unfit(f"its {what} holds a number beyond all images") from None


def _box(value: object, *, shaped: bool) -> tuple[float, float, float, float] | None:
    if value is None or value == []:
        return None
    numbers = _numbers(value, "bbox")
    if len(numbers) != 4:
        raise Unfit(f"its bbox has {len(numbers)} numbers, not 4")
    x, y, width, height = numbers
    return None if shaped and not any(numbers) else (x, y, x + width, y + height)


def _shape(value: object) -> tuple[tuple[Polygon, ...], Rle | None]:
    if not value:
        return (), None
    if isinstance(value, dict):
        return (), _runs(value)
    if not isinstance(value, list):
        raise Unfit("its segmentation is neither outlines nor runs")
    flat = not isinstance(value[0], list)  # some tools leave out the inner brackets
    polygons = tuple(_numbers(part, "segmentation") for part in ([value] if flat else value))
    return polygons, None


def _runs(value: Mapping[str, Any]) -> Rle:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise Unfit("the size of its mask is not height and width")
    if isinstance(counts, str):
        try:
            counts = text_to_runs(counts)
        except ValueError as error:
            raise Unfit(str(error)) from None
    elif not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise Unfit("the runs of its mask are neither text nor a list of whole numbers")
    return Rle(size=(size[0], size[1]), counts=tuple(counts))


def _keypoints(value: object) -> tuple[tuple[float, float, int], ...]:
    if not value:
        return ()
    numbers = _numbers(value, "keypoints")
    if len(numbers) % 3 or not set(numbers[2::3]) <= {0, 1, 2}:
        raise Unfit("its keypoints are not x, y and a visibility of 0, 1 or 2 each")
    return tuple((*numbers[i : i + 2], int(numbers[i + 2])) for i in range(0, len(numbers), 3))  # type: ignore[misc]


def _corners(value: object) -> Polygon | None:
    return _numbers(value, "corners") if isinstance(value, list) and len(value) == 8 else None


def _area(value: object) -> float | None:
    """As stated; None for what is no area, which then is that of the mask or the box."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return None
    return float(value)


def size_of(width: object, height: object) -> tuple[int, int] | None:
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        return None
    return width, height


# ---- writing


def entry_of(item: Annotation, size: Size) -> dict[str, Any]:
    """All fields of an object but its ids. ``size`` is (width, height) of its image."""
    x0, y0, x1, y1 = item.box
    area = item.area
    if area is None:
        mask = annotation_mask(item, size)
        area = (x1 - x0) * (y1 - y0) if mask is None else float(mask_area(mask))
    segmentation: Any = [list(part) for part in item.polygons]
    if item.mask is not None:
        segmentation = {"size": list(item.mask.size), "counts": runs_to_text(item.mask.counts)}
    entry = {
        "bbox": [x0, y0, _span(x0, x1), _span(y0, y1)],
        "area": area,
        "iscrowd": int(item.crowd),
        "segmentation": segmentation,
    }
    if item.keypoints:
        entry["keypoints"] = [number for point in item.keypoints for number in point]
        entry["num_keypoints"] = sum(point[2] > 0 for point in item.keypoints)
    if item.corners is not None:
        entry["corners"] = list(item.corners)
    return entry | ({"difficult": True} if item.difficult else {})


def _span(low: float, high: float) -> float:
    """The width that gives back ``high`` when it is added to ``low``, with few decimals where that is possible."""
    span = high - low
    widths = (round(span, 6), span, math.nextafter(span, math.inf), math.nextafter(span, 0.0))
    return next((width for width in widths if low + width == high), span)
