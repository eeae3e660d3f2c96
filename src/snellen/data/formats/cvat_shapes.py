"""The shapes of a CVAT file: elements of XML to Drafts, and objects back to elements.

Coordinates are continuous pixels, as ours; a rotation is in degrees, clockwise, about the shape's middle. Boxes,
polygons, ellipses and masks are objects; points, lines, cuboids, skeletons and tags mark none. An attribute of a shape
called ``difficult`` or ``crowd`` is read as the flag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from snellen.core.annotation import Annotation, Box, Polygon, Rle
from snellen.core.geometry import Size
from snellen.core.masks import decode, encode, mask_box
from snellen.data.formats.drafts import Draft
from snellen.data.formats.outlines import as_rectangle, corners_of, ellipse
from snellen.data.formats.xml_files import number
from snellen.data.image import MAX_PIXELS

_NO_OBJECTS = ("points", "polyline", "cuboid", "skeleton", "tag")


class Unfit(Exception):
    """Why a shape is lost."""


def is_shape(element: Element) -> bool:
    return element.tag in _SHAPES or element.tag in _NO_OBJECTS


def draft_of(element: Element, label: str, where: str, size: Size | None) -> Draft:
    """One shape of an image of the ``size`` that the file states. Raises Unfit."""
    if element.tag not in _SHAPES:
        raise Unfit(f"a shape of the kind '{element.tag}' marks no object")
    fields = _SHAPES[element.tag](element, size)
    return Draft(
        where=where, label=label, difficult=_flag(element, "difficult"), crowd=_flag(element, "crowd"), **fields
    )


def joined(drafts: Sequence[tuple[Draft, str]]) -> tuple[list[Draft], int]:
    """Drafts with their group_id: outlines of one label and one group become the parts of one object.

    And the number of objects that came of more than one. 0 and '' are no group.
    """
    found: list[Draft] = []
    places: dict[tuple[str, str], int] = {}
    many = set()
    for draft, group in drafts:
        key = (draft.label, group)
        if group in ("", "0") or not draft.polygons:
            found.append(draft)
        elif key in places:
            place = places[key]
            many.add(place)
            found[place] = replace(found[place], box=None, polygons=found[place].polygons + draft.polygons)
        else:
            places[key] = len(found)
            found.append(draft)
    return found, len(many)


def _flag(element: Element, name: str) -> bool:
    texts = [item.text or "" for item in element.iter("attribute") if (item.get("name") or "").lower() == name]
    return any(text.strip().lower() in ("true", "1") for text in texts)


def _numbers(element: Element, *names: str) -> list[float]:
    return [number(element.get(name)) for name in names]


def _box(element: Element, size: Size | None) -> dict[str, Any]:
    x0, y0, x1, y1 = _numbers(element, "xtl", "ytl", "xbr", "ybr")
    degrees = number(element.get("rotation") or "0")
    if degrees % 360 == 0:
        return {"box": (x0, y0, x1, y1)}
    return {"corners": corners_of((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, math.radians(degrees))}


def _polygon(element: Element, size: Size | None) -> dict[str, Any]:
    pairs = [pair.split(",") for pair in (element.get("points") or "").split(";")]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise Unfit("an outline has three or more points x,y")
    return {"polygons": (tuple(number(value) for pair in pairs for value in pair),)}


def _ellipse(element: Element, size: Size | None) -> dict[str, Any]:
    x, y, across, down = _numbers(element, "cx", "cy", "rx", "ry")
    return {"polygons": (ellipse(x, y, across, down, math.radians(number(element.get("rotation") or "0"))),)}


def _mask(element: Element, size: Size | None) -> dict[str, Any]:
    """Runs along the rows of the mask's own box, the first of them outside of the object."""
    if size is None or size[0] * size[1] > MAX_PIXELS:
        raise Unfit("its image has no width and height that can be, which its mask needs")
    numbers = _numbers(element, "left", "top", "width", "height")
    if not all(value.is_integer() and 0 <= value <= max(size) for value in numbers):
        raise Unfit("the place of its mask is not told in whole pixels of the image")
    left, top, width, height = map(int, numbers)
    counts = [number(count) for count in (element.get("rle") or "").split(",")]
    if not all(count.is_integer() and count >= 0 for count in counts) or sum(counts) != width * height:
        raise Unfit(f"the runs of its mask do not fill {width} x {height} pixels")
    if left + width > size[0] or top + height > size[1]:
        raise Unfit("its mask reaches beyond the image")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, np.int64))
    whole = np.zeros((size[1], size[0]), bool)
    whole[top : top + height, left : left + width] = inside.reshape(height, width)
    return {"mask": encode(whole)}


_SHAPES: dict[str, Callable[[Element, Size | None], dict[str, Any]]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}


# ---- writing


def add(image: Element, item: Annotation, group: int) -> None:
    """Add an object to an <image>; ``group`` is a number of its own, for an object of several parts."""
    fields = {"label": item.label, "source": "manual", "occluded": "0"}
    elements = []
    if item.mask is not None:
        elements.append(SubElement(image, "mask", fields | _runs(item.mask)))
    for polygon in () if item.mask is not None else item.polygons:
        elements.append(SubElement(image, "polygon", fields | {"points": _pairs(polygon)}))
        if len(item.polygons) > 1:
            elements[-1].set("group_id", str(group))
    if not elements:
        elements.append(SubElement(image, "box", fields | (_turned(item.corners) or _edges(item.box))))
    for element in elements:
        element.set("z_order", "0")
        for flag in ("difficult", "crowd"):
            if getattr(item, flag):
                SubElement(element, "attribute", {"name": flag}).text = "true"


def _edges(box: Box) -> dict[str, str]:
    return {name: repr(float(value)) for name, value in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)}


def _pairs(numbers: Polygon) -> str:
    return ";".join(f"{float(x)!r},{float(y)!r}" for x, y in zip(numbers[::2], numbers[1::2], strict=True))


def _turned(corners: Polygon | None) -> dict[str, str] | None:
    turned = None if corners is None else as_rectangle(corners)
    if turned is None:
        return None
    x, y, width, height, angle = turned
    edges = _edges((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return edges | {"rotation": repr(math.degrees(angle) % 360)}


def _runs(rle: Rle) -> dict[str, str]:
    whole = decode(rle)
    left, top, right, bottom = map(int, mask_box(whole) or (0, 0, 1, 1))
    flat = whole[top:bottom, left:right].ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    runs = ", ".join(map(str, [0, *counts] if flat[0] else counts))
    place = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return {"rle": runs, **{name: str(value) for name, value in place.items()}}
