"""A table with a box on each line: CSV, TSV or Parquet.

    image,xmin,ymin,xmax,ymax,label
    photos/1.jpg,10,20,110,220,cat
    photos/2.jpg,,,,,

A line without a box says that its image is there and shows nothing. The box stands in four columns (corners, a corner
with width and height, or a centre with width and height, under the names of BOXES) or in one called bbox, as
'[x, y, width, height]'. Coordinates are pixels of the upright image, or fractions of it when none is above 1.5; which
of the two is said. Names are matched in any case and order; other columns are ignored. ``split`` and ``group`` are
those of data/formats/table.py; ``difficult`` and ``crowd`` hold 0 or 1. Where corners are given, columns ``width`` and
``height`` are the image's.

Counting: every line with a box is an object or lost; every line that names no image is left out.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.core.annotation import Box
from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.core.record import LeftOut, Listing, Split
from snellen.data.formats import table
from snellen.data.formats.drafts import Draft
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.numbers import plain
from snellen.data.formats.objects import Sheet, assemble, objects_of, refuse_existing, unnamed
from snellen.data.formats.rows import SUFFIXES, Rows, delimiter_of, read_rows, write_rows

if TYPE_CHECKING:
    from snellen.data.formats import Marks


def _corners(a: float, b: float, c: float, d: float) -> Box:
    return a, b, c, d


def _corner_and_size(x: float, y: float, width: float, height: float) -> Box:
    return x, y, x + width, y + height


def _centre_and_size(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


_Reading = Callable[[float, float, float, float], Box]

BOXES: tuple[tuple[_Reading, tuple[str, ...]], ...] = (
    (_corners, ("xmin ymin xmax ymax", "x_min y_min x_max y_max", "x0 y0 x1 y1", "x1 y1 x2 y2", "xtl ytl xbr ybr")),
    (_corners, ("left top right bottom", "bbox_x1 bbox_y1 bbox_x2 bbox_y2")),
    (_centre_and_size, ("x_center y_center width height", "x_centre y_centre width height", "cx cy width height")),
    (_centre_and_size, ("x_center y_center w h", "center_x center_y width height", "xc yc w h", "cx cy w h")),
    (
        _corner_and_size,
        ("x y width height", "x y w h", "left top width height", "bbox_x bbox_y bbox_width bbox_height"),
    ),
    (_corner_and_size, ("xmin ymin width height", "x_min y_min width height", "bbox_x bbox_y bbox_w bbox_h")),
)
"""How four columns are read, and what they may be called."""

_IN_ONE = ("bbox", "box", "bounding_box")
_IMAGE = (*table.COLUMNS["image"], "image_name", "imagename", "image_id", "imageid", "img")
_LABEL = (*table.COLUMNS["label"], "label_name", "labelname", "class_id", "category_id")
_EMPTY = frozenset(("", "nan", "none", "null", "na", "[]"))
_ONLY_CLASS = "object"
_HEAD = 1 << 16  # bytes that hold the first line
_TRUE = ("1", "1.0", "true", "yes")

MOST_OF_A_FRACTION = 1.5
"""No box of pixels ends within so little, and fractions stray beyond 1 by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Which column is what. ``box`` are four, or the one of ``_IN_ONE``."""

    image: int
    label: int | None
    box: tuple[int, ...]
    reading: _Reading
    size: tuple[int, int] | None
    flags: Mapping[str, int]
    split: int | None
    group: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    where: str
    cells: Sequence[str]
    numbers: tuple[float, float, float, float] | None


def matches(path: Path) -> bool:
    """Whether the table has columns for an image and for a box; only its header is read."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    header = [plain(name) for name in _header(path)]
    return _box_columns(header) is not None and _first(header, _IMAGE) is not None


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read a table of boxes. Raises DataError when a column is missing, or no image is found.

    With ``numeric`` the columns are numbers to be predicted, and table.py reads them.
    """
    path = Path(path)
    if numeric:
        return table.read(path, images=images, multi_label=multi_label, numeric=numeric)
    rows = read_rows(path)
    at = _columns(path, rows)
    lines, left_out, lost = _lines(rows, at)
    boxes = [line.numbers for line in lines if line.numbers is not None]
    most = max((abs(number) for box in boxes for number in at.reading(*box) if math.isfinite(number)), default=math.inf)
    fractions = most <= MOST_OF_A_FRACTION
    sheets = _sheets(path, rows, at, lines, fractions=fractions)
    notes = ["boxes are read as fractions of the image: none is above 1.5" if fractions else "boxes are read as pixels"]
    if len(at.box) == 1:
        notes.append(f"the column '{rows.header[at.box[0]]}' is read as x, y, width, height")
    if at.label is None:
        notes.append(f"the table has no column of labels: all boxes are of one class, '{_ONLY_CLASS}'")
    files = ImageFiles(path.parent if images is None else images)
    listing = assemble(sheets, files, format="box table", lost=lost, left_out=left_out, notes=notes)
    return unnamed(files, listing, "the table")


# ---- columns


def _header(path: Path) -> Sequence[str]:
    """The names of the columns that hold text or numbers, from the beginning of a table; none if it cannot be read."""
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            schema = pyarrow.parquet.read_schema(path)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
            return ()
        return [column.name for column in schema if not pyarrow.types.is_nested(column.type)]
    try:
        with open(path, "rb") as file:
            text = file.read(_HEAD).decode("utf-8-sig", "replace").lstrip("\r\n")
        return next(csv.reader(text.splitlines()[:1], delimiter=delimiter_of(path, text)), ())
    except (OSError, csv.Error):
        return ()


def _first(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The column of the first of ``names`` that is there."""
    return next((header.index(name) for name in names if name in header), None)


def _box_columns(header: Sequence[str]) -> tuple[tuple[int, ...], _Reading] | None:
    for reading, spellings in BOXES:
        for names in spellings:
            if all(name in header for name in names.split()):
                return tuple(header.index(name) for name in names.split()), reading
    one = _first(header, _IN_ONE)
    return None if one is None else ((one,), _corner_and_size)


def _columns(path: Path, rows: Rows) -> _Columns:
    header = [plain(name) for name in rows.header]
    image, box = _first(header, _IMAGE), _box_columns(header)
    if image is None or box is None:
        names = ", ".join(f"'{name}'" for name in rows.header)
        lacking = "column 'image'" if image is None else "columns 'xmin', 'ymin', 'xmax', 'ymax'"
        raise DataError(f"{path} has no {lacking}, but {names}; rename what is meant")
    width, height = _first(header, ("width", "image_width")), _first(header, ("height", "image_height"))
    sized = width is not None and height is not None and not {width, height} & set(box[0])
    flags = {name: _first(header, (name, f"is{name}", f"is_{name}")) for name in ("difficult", "crowd")}
    return _Columns(
        image=image,
        label=_first(header, _LABEL),
        box=box[0],
        reading=box[1],
        size=(width or 0, height or 0) if sized else None,
        flags={name: place for name, place in flags.items() if place is not None},
        split=_first(header, table.COLUMNS["split"]),
        group=_first(header, table.COLUMNS["group"]),
    )


# ---- lines


def _lines(rows: Rows, at: _Columns) -> tuple[list[_Line], list[LeftOut], list[LeftOut]]:
    """What names an image; what does not; and the boxes of the latter."""
    lines, left_out, lost = [], [], []
    for number, cells in rows.rows:
        where = f"{rows.unit} {number}"
        numbers = _numbers([cells[place] for place in at.box])
        if cells[at.image].strip():
            lines.append(_Line(where=where, cells=cells, numbers=numbers))
            continue
        left_out.append(LeftOut(path=where, reason="names no image"))
        if numbers is not None:
            lost.append(LeftOut(path=where, reason="it names no image"))
    return lines, left_out, lost


def _numbers(cells: Sequence[str]) -> tuple[float, float, float, float] | None:
    """The four numbers of a box, NaN for what is none; None where there is no box."""
    if all(cell.strip().lower() in _EMPTY for cell in cells):
        return None
    if len(cells) == 1:
        cells = re.split(r"[,;\s]+", cells[0].strip().strip("[]()").strip())
    numbers = [_number(cell) for cell in cells]
    if len(numbers) != 4:
        return math.nan, math.nan, math.nan, math.nan
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _sheets(path: Path, rows: Rows, at: _Columns, lines: Sequence[_Line], *, fractions: bool) -> list[Sheet]:
    """One for each image, in the table's order. Raises DataError when its lines contradict each other."""
    divided = at.split is not None and any(line.cells[at.split].strip() for line in lines)
    of_image: dict[str, list[_Line]] = {}
    for line in lines:
        of_image.setdefault(line.cells[at.image], []).append(line)
    sheets = []
    for name, group in of_image.items():
        first = group[0]
        sides = {_belongs(path, line, at, divided=divided) for line in group}
        if len(sides) > 1:
            raise DataError(f"{path}: the lines of {name!r}, the first {first.where}, differ in their split or group")
        split, unit = sides.pop()
        drafts = tuple(_draft(line, at) for line in group if line.numbers is not None)
        size = None if at.size is None else _size(first.cells[at.size[0]], first.cells[at.size[1]])
        sheets.append(Sheet(name=name, drafts=drafts, size=size, split=split, group=unit, fractions=fractions))
    return sheets


def _belongs(path: Path, line: _Line, at: _Columns, *, divided: bool) -> tuple[Split | None, str | None]:
    split = table._split(path, line.where, line.cells[at.split].strip()) if divided and at.split is not None else None
    return split, (line.cells[at.group].strip() or None) if at.group is not None else None


def _draft(line: _Line, at: _Columns) -> Draft:
    assert line.numbers is not None
    flags = {name: line.cells[place].strip().lower() in _TRUE for name, place in at.flags.items()}
    return Draft(
        where=line.where,
        label=_ONLY_CLASS if at.label is None else line.cells[at.label].strip(),
        box=at.reading(*line.numbers),
        difficult=flags.get("difficult", False),
        crowd=flags.get("crowd", False),
    )


def _size(width: str, height: str) -> Size | None:
    numbers = _number(width), _number(height)
    known = all(math.isfinite(number) and number >= 1 for number in numbers)
    return (int(numbers[0]), int(numbers[1])) if known else None


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write a table of boxes by the suffix of ``path``: .csv, .tsv or .parquet. Its image column holds the record ids.

    Read it back with ``images=listing.root``, or write it into that folder. Outlines, masks, keypoints and corners are
    not written. Raises DataError when the file exists, for data without objects, and for what would read back
    differently; StorageError when writing fails.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"a table ends in {', '.join(SUFFIXES)}, got {path}")
    refuse_existing(path)
    objects = [(record, item) for record in listing.records for item in objects_of(record, "a table of boxes")]
    if objects and max(max(item.box) for _, item in objects) <= MOST_OF_A_FRACTION:
        raise DataError("all boxes end within 1.5 pixels, and would be read back as fractions; write COCO")
    _check_labels({item.label for _, item in objects})
    flags = [flag for flag in ("difficult", "crowd") if any(getattr(item, flag) for _, item in objects)]
    grouped = any(record.group is not None for record in listing.records)
    more = ["group"] * grouped + ["split"] * listing.has_user_split
    header = ["image", "xmin", "ymin", "xmax", "ymax", "label", *flags, *more]
    rows = []
    for record in listing.records:
        last = [getattr(record, name) or "" for name in more]
        for item in objects_of(record, "a table of boxes"):
            marked = [str(int(getattr(item, flag))) for flag in flags]
            rows.append([record.id, *map(repr, map(float, item.box)), item.label, *marked, *last])
        if not record.objects:
            rows.append([record.id, *[""] * (5 + len(flags)), *last])
    write_rows(path, header, rows)


def _check_labels(labels: set[str]) -> None:
    for label in sorted(labels):
        if not label or label != label.strip():
            raise DataError(f"the class '{label}' cannot be written to a table: it would read back differently")
