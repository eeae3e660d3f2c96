"""LabelMe: a JSON file for each image, beside it, with the shapes that were drawn.

Polygons, rectangles, circles, masks and rotated rectangles become objects; points and lines mark none and are lost with
that reason. Outlines of one label that share a group_id are the parts of one object. Coordinates are continuous pixels
of the upright image, as ours. The pixels inside of the file (imageData) are not looked at.

A JSON file belongs to the image of its own name; its imagePath counts where there is none. Files in ``train/``,
``val/`` and ``test/`` are on those sides. The flags ``difficult`` and ``crowd`` of a shape are read.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from snellen.core.annotation import Annotation, Rle
from snellen.core.errors import DataError, ImageError
from snellen.core.geometry import Size
from snellen.core.masks import decode, encode, mask_box
from snellen.core.record import LeftOut, Listing, Record
from snellen.data.formats.drafts import Draft
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.linking import link_or_copy
from snellen.data.formats.namesakes import Namesakes, files_below, folder_of, holds
from snellen.data.formats.objects import Sheet, assemble, new_folder, objects_of, unnamed
from snellen.data.formats.outlines import ellipse
from snellen.data.formats.sides import BESIDE, is_divided, sides_by_folder
from snellen.data.image import MAX_PIXELS
from snellen.data.image import decode as decode_image

if TYPE_CHECKING:
    from snellen.data.formats import Marks

_MOST_BYTES = 256 << 20  # of a JSON file; it may hold the image as text

_NO_OBJECTS = {
    "point": "a point",
    "points": "a set of points",
    "line": "a line",
    "linestrip": "a line",
}


class _Unfit(Exception):
    """Why a shape is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One JSON file, relative to the root."""

    file: str
    stated: str
    size: Size | None
    drafts: tuple[Draft, ...]
    lost: tuple[LeftOut, ...]
    joined: int


def matches(path: Path) -> bool:
    """Whether a JSON file that begins with LabelMe's words is in the folder or not far below."""
    return path.is_dir() and holds(path, ".json", lambda head: b'"shapes"' in head)


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read a folder of JSON files. Raises DataError when none can be read, or no image is found."""
    root = Path(os.path.abspath(path))
    pages, left_out = [], []
    for file in files_below(root, ".json"):
        try:
            pages.append(_page(root, file))
        except DataError as error:
            left_out.append(LeftOut(path=file, reason=str(error).removeprefix(f"{root / file} ")))
    if not pages:
        why = f"; the first: {left_out[0].reason}" if left_out else ""
        raise DataError(f"{path} holds no annotations of LabelMe{why}")
    files = ImageFiles(root if images is None else images)
    namesakes = Namesakes(files)
    side_of = sides_by_folder([page.file for page in pages])
    divided = is_divided(side_of.values())
    sheets: list[Sheet] = []
    lost: list[LeftOut] = []
    for page in pages:
        within = folder_of(page.file) if images is None else ""
        name = namesakes.image(page.file, page.stated, within)
        lost += page.lost
        if divided and side_of[page.file] is None:
            left_out.append(LeftOut(path=name, reason=BESIDE))
            lost += [LeftOut(path=draft.where, reason=f"its image is {BESIDE}") for draft in page.drafts]
            continue
        sheets.append(Sheet(name=name, drafts=page.drafts, size=page.size, split=side_of[page.file], within=within))
    joined = sum(page.joined for page in pages)
    notes = [f"objects put together from outlines that share a group_id: {joined}"] * bool(joined)
    notes += namesakes.notes("JSON")
    listing = assemble(sheets, files, format="labelme", lost=lost, left_out=left_out, notes=notes)
    return unnamed(files, listing, "the JSON files")


def _page(root: Path, file: str) -> _Page:
    path = root / file
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES >> 20} MB, and is not read")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path} has no list 'shapes', as LabelMe writes it")
    stated = content.get("imagePath")
    size = _size(content.get("imageWidth"), content.get("imageHeight"))
    drafts: list[Draft] = []
    lost = []
    parts: dict[tuple[str, str], list[Draft]] = {}
    for place, shape in enumerate(content["shapes"], start=1):
        where = f"{file}, shape {place}"
        try:
            draft = _draft(shape, where, size)
        except _Unfit as unfit:
            lost.append(LeftOut(path=where, reason=str(unfit)))
            continue
        group = shape.get("group_id")
        if isinstance(group, int | str) and draft.polygons:
            parts.setdefault((draft.label, str(group)), []).append(draft)
        else:
            drafts.append(draft)
    drafts += [_joined(same) for same in parts.values()]
    return _Page(
        file=file,
        stated=stated if isinstance(stated, str) else "",
        size=size,
        drafts=tuple(sorted(drafts, key=lambda draft: int(draft.where.rpartition(" ")[2]))),
        lost=tuple(lost),
        joined=sum(len(same) > 1 for same in parts.values()),
    )


def _size(width: object, height: object) -> Size | None:
    if isinstance(width, int) and isinstance(height, int) and width > 0 < height and width * height <= MAX_PIXELS:
        return width, height
    return None


# ---- shapes


def _draft(shape: object, where: str, size: Size | None) -> Draft:
    """One shape. Raises _Unfit."""
    if not isinstance(shape, dict):
        raise _Unfit("it is not a shape")
    label, flags = shape.get("label"), shape.get("flags")
    kind = shape.get("shape_type") or "polygon"
    if kind in _NO_OBJECTS:
        raise _Unfit(f"{_NO_OBJECTS[kind]} marks no object")
    if kind not in _SHAPES and kind != "mask":
        raise _Unfit(f"shapes of the type {str(kind)[:40]!r} are not known")
    points = _points(shape.get("points"))
    fields = _mask(shape.get("mask"), points, size) if kind == "mask" else _SHAPES[kind](points)
    flags = flags if isinstance(flags, dict) else {}
    return Draft(
        where=where,
        label=str(label) if isinstance(label, str | int) else "",
        difficult=flags.get("difficult") is True or shape.get("difficult") is True,
        crowd=flags.get("crowd") is True,
        **fields,
    )


def _points(value: object) -> list[tuple[float, float]]:
    if not isinstance(value, list):
        raise _Unfit("its points are not a list")
    points = []
    for point in value:
        if not (isinstance(point, list) and len(point) == 2 and all(_is_number(number) for number in point)):
            raise _Unfit("its points are not pairs of numbers")
        points.append((float(point[0]), float(point[1])))
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is not


def _polygon(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if len(points) < 3:
        raise _Unfit(f"an outline has three or more points, and it has {len(points)}")
    return {"polygons": (tuple(number for point in points for number in point),)}


def _rectangle(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if len(points) not in (2, 4):
        raise _Unfit(f"a rectangle has two corners, and it has {len(points)}")
    across, down = [point[0] for point in points], [point[1] for point in points]
    return {"box": (min(across), min(down), max(across), max(down))}


def _turned_rectangle(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if len(points) != 4:
        raise _Unfit(f"a rotated rectangle has four corners, and it has {len(points)}")
    return {"corners": tuple(number for point in points for number in point)}


def _circle(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if len(points) != 2:
        raise _Unfit(f"a circle has a centre and a point on it, and it has {len(points)} points")
    (x, y), (edge_x, edge_y) = points
    radius = math.hypot(edge_x - x, edge_y - y)
    return {"box": (x - radius, y - radius, x + radius, y + radius), "polygons": (ellipse(x, y, radius, radius),)}


_SHAPES = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "rotation": _turned_rectangle,
    "oriented_rectangle": _turned_rectangle,
}


def _mask(value: object, points: Sequence[tuple[float, float]], size: Size | None) -> dict[str, Any]:
    """A picture in text, as large as the box of ``points``, whose last pixel is inside."""
    if size is None:
        raise _Unfit("its file states no imageWidth and imageHeight, which its mask needs")
    if not isinstance(value, str) or len(points) != 2:
        raise _Unfit("its mask is no text of an image with two points")
    try:
        inside = decode_image(base64.b64decode(value, validate=True))[:, :, 0] > 0
    except (binascii.Error, ValueError, ImageError):
        raise _Unfit("its mask is no text of an image") from None
    left, top = (int(number) for number in points[0])
    height, width = inside.shape
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise _Unfit(f"its mask of {width} x {height} pixels at {left}, {top} reaches beyond the image")
    whole = np.zeros((size[1], size[0]), bool)
    whole[top : top + height, left : left + width] = inside
    return {"mask": encode(whole)}


def _joined(parts: Sequence[Draft]) -> Draft:
    """One object of several outlines, in the place of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Draft(
        where=first.where,
        label=first.label,
        polygons=tuple(polygon for part in parts for polygon in part.polygons),
        difficult=any(part.difficult for part in parts),
        crowd=any(part.crowd for part in parts),
    )


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write a JSON file beside each image into the new folder ``path``, below split folders if there are any.

    Images are linked to the same file where the disk allows it, else copied. Boxes, outlines, masks and rotated boxes
    (as 'rotation', which X-AnyLabeling reads too) are kept, a box beside an outline or a mask becomes their hull;
    keypoints and areas are not written. Raises DataError for data without objects, for groups and for two images that
    would share a JSON file; StorageError when writing fails.
    """
    targets: dict[str, Record] = {}
    taken: set[str] = set()
    for record in listing.records:
        objects_of(record, "LabelMe")
        if record.group is not None:
            raise DataError(f"LabelMe cannot hold groups, and {record.id} has one; write COCO")
        target = _target(record)
        stem = str(PurePosixPath(target).with_suffix(""))
        if stem in taken:
            raise DataError(f"{record.id} cannot be written: two images would share {stem}.json")
        taken.add(stem)
        targets[target] = record
    with new_folder(path) as folder:
        for target, record in targets.items():
            link_or_copy(record.path, folder / target)
            content = json.dumps(_content(PurePosixPath(target).name, record), ensure_ascii=False, indent=1)
            (folder / target).with_suffix(".json").write_text(content, "utf-8")


def _target(record: Record) -> str:
    parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
    return "/".join([record.split, *parts] if record.split and parts[0] != record.split else parts)


def _content(name: str, record: Record) -> dict[str, Any]:
    assert record.size is not None
    shapes: list[Mapping[str, Any]] = []
    for place, item in enumerate(objects_of(record, "LabelMe"), start=1):
        for shape in _shapes_of(item):
            flags = {flag: True for flag in ("difficult", "crowd") if getattr(item, flag)}
            group = place if len(item.polygons) > 1 and item.mask is None else None
            shapes.append({"label": item.label, **shape, "group_id": group, "flags": flags})
    return {
        "version": "5.0.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": record.size[1],
        "imageWidth": record.size[0],
    }


def _shapes_of(item: Annotation) -> Iterator[dict[str, Any]]:
    if item.mask is not None:
        yield _mask_shape(item.mask)
    elif item.polygons:
        for polygon in item.polygons:
            yield {"shape_type": "polygon", "points": _pairs(polygon)}
    elif item.corners is not None:
        yield {"shape_type": "rotation", "points": _pairs(item.corners)}
    else:
        yield {"shape_type": "rectangle", "points": _pairs(item.box)}


def _pairs(numbers: Sequence[float]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def _mask_shape(rle: Rle) -> dict[str, Any]:
    whole = decode(rle)
    left, top, right, bottom = map(int, mask_box(whole) or (0, 0, 1, 1))
    stream = BytesIO()
    Image.fromarray(whole[top:bottom, left:right].astype(np.uint8) * 255).save(stream, "PNG")
    return {
        "shape_type": "mask",
        "points": [[left, top], [right - 1, bottom - 1]],
        "mask": base64.b64encode(stream.getvalue()).decode("ascii"),
    }
