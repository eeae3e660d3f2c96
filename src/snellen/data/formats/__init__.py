"""Readers and writers of the layouts that people keep labelled images in.

Each format is a module with

    matches(path) -> bool                                      is this path laid out so? Looks at names, not contents
    read(path, *, images=None, multi_label=None, numeric=None, marks=None) -> Listing
    write(listing, path) -> None                               refuses to overwrite
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from snellen.core.errors import DataError, did_you_mean
from snellen.core.record import Listing

FORMATS = {
    "coco": "snellen.data.formats.coco",
    "yolo": "snellen.data.formats.yolo",
    "voc": "snellen.data.formats.voc",
    "labelme": "snellen.data.formats.labelme",
    "cvat": "snellen.data.formats.cvat",
    "box table": "snellen.data.formats.box_table",
    "masks": "snellen.data.formats.mask_folder",
    "folder": "snellen.data.formats.folder",
    "table": "snellen.data.formats.table",
}
"""Name -> module; the first that matches reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How objects and masks are to be read where the files leave it open. None: decided from the files, and said.

    void      values of a mask that mean nothing: such pixels are neither learnt nor judged
    outlines  what a YOLO line of nine numbers is: 'polygon', or 'corners' of a rotated box
    origin    what the first pixel is called in Pascal VOC boxes: 1 (the standard), or 0
    """

    void: tuple[int, ...] | None = None
    outlines: Literal["polygon", "corners"] | None = None
    origin: Literal[0, 1] | None = None


class Format(Protocol):
    """What each module of FORMATS offers."""

    def matches(self, path: Path) -> bool: ...

    def read(
        self,
        path: Path,
        *,
        images: Path | None = None,
        multi_label: bool | None = None,
        numeric: bool | None = None,
        marks: Marks | None = None,
    ) -> Listing: ...

    def write(self, listing: Listing, path: Path) -> None: ...


def load(name: str) -> Format:
    """The module of one format. Raises DataError for an unknown name."""
    if name not in FORMATS:
        raise DataError(f"unknown data format '{name}'{did_you_mean(name, FORMATS)}")
    return cast(Format, import_module(FORMATS[name]))


def read(
    data: str | Path,
    *,
    images: str | Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read labelled images in whatever format they are in.

    images       where the image files of a table are; the table's own folder when None
    multi_label  whether an image may have several labels; None lets the data decide
    numeric      whether an image has numbers to be predicted instead; None lets the data decide
    marks        what objects and masks leave open

    Raises DataError when the path is missing, in no known format, or its contents are unfit.
    """
    path = Path(data)
    try:
        exists = path.exists()
    except OSError as error:
        raise DataError(f"cannot look at {path}: {error.strerror}") from error
    if not exists:
        raise DataError(f"{path} does not exist{_nearest(path)}")
    for name in FORMATS:
        format = load(name)
        if format.matches(path):
            where = None if images is None else Path(images)
            return format.read(path, images=where, multi_label=multi_label, numeric=numeric, marks=marks)
    raise DataError(
        f"{path} is in no format that can be read; give a folder with one folder for each class, a table that ends in "
        ".csv, .tsv or .parquet, boxes as COCO, YOLO, Pascal VOC, LabelMe, CVAT or CSV, or folders images/ and masks/"
    )


def _nearest(path: Path) -> str:
    """A hint towards the existing path that is most like this one."""
    parent = path.absolute().parent
    try:
        siblings = [entry.name for entry in os.scandir(parent) if not entry.name.startswith(".")]
    except OSError:
        return f"; nor does the folder {parent}" if not parent.exists() else ""
    return did_you_mean(path.name, siblings)
