"""CVAT's own XML, 'CVAT for images 1.1': annotations.xml beside the folder ``images/``.

An image's ``subset`` is its side where it names one. Outlines of one label that share a group_id are the parts of one
object. Shapes are told in cvat_shapes.py.

'CVAT for video 1.1' holds tracks instead of images; it is read where the frames lie there as frame_000000.png and so
on, and every track says of each of them where it is. A frame without a track shows nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.core.record import LeftOut, Listing, Record
from snellen.data.formats.cvat_shapes import Unfit, add, draft_of, is_shape, joined
from snellen.data.formats.drafts import Draft
from snellen.data.formats.folder import SPLIT_FOLDERS
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.linking import link_or_copy
from snellen.data.formats.namesakes import head
from snellen.data.formats.objects import Sheet, assemble, new_folder, objects_of, unnamed
from snellen.data.formats.sides import is_divided
from snellen.data.formats.xml_files import number, read_xml

if TYPE_CHECKING:
    from snellen.data.formats import Marks

_FILE = "annotations.xml"
_IMAGES = "images"
_MOST_BYTES = 1 << 30
_FRAME = re.compile(r"^frame_(\d{1,9})\.\w+$", re.IGNORECASE)


@dataclass(slots=True)
class _Found:
    """What has been read: sheets, and what is lost; counts of what is said."""

    sheets: list[Sheet] = field(default_factory=list)
    lost: list[LeftOut] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def matches(path: Path) -> bool:
    """Whether it is a file that begins as CVAT's, or a folder with one called annotations.xml."""
    file = path / _FILE if path.is_dir() else path
    return file.suffix.lower() == ".xml" and file.is_file() and b"<annotations>" in head(file)


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read a file of CVAT, or the folder with one. Raises DataError when it cannot be read, or no image is found."""
    file = Path(os.path.abspath(path))
    file = file / _FILE if file.is_dir() else file
    tree = read_xml(file, most_bytes=_MOST_BYTES)
    if tree.tag != "annotations":
        raise DataError(f"{file} begins with <{tree.tag[:40]}>, and CVAT's files with <annotations>")
    files = ImageFiles(file.parent if images is None else images)
    within = _IMAGES if images is None else ""
    found = _Found()
    for element in tree.findall("image"):
        _read_image(element, within, found)
    tracks = tree.findall("track")
    if tracks:
        _read_tracks(file, tree, tracks, files, found)
    notes = [f"objects put together from outlines that share a group_id: {found.counts['joined']}"]
    listing = assemble(
        _sided(found.sheets), files, format="cvat", lost=found.lost, notes=notes * bool(found.counts["joined"])
    )
    return unnamed(files, listing, file.name)


def _read_image(element: Element, within: str, found: _Found) -> None:
    name = element.get("name") or ""
    size = _size(element.get("width"), element.get("height"))
    grouped: list[tuple[Draft, str]] = []
    for place, shape in enumerate(filter(is_shape, element), start=1):
        where = f"{name}, shape {place}"
        try:
            draft = draft_of(shape, (shape.get("label") or "").strip(), where, size)
            grouped.append((draft, shape.get("group_id") or ""))
        except Unfit as unfit:
            found.lost.append(LeftOut(path=where, reason=str(unfit)))
    drafts, many = joined(grouped)
    found.counts["joined"] += many
    side = SPLIT_FOLDERS.get((element.get("subset") or "").lower())
    found.sheets.append(Sheet(name=name, drafts=tuple(drafts), size=size, split=side, within=within))


def _size(width: str | None, height: str | None) -> Size | None:
    numbers = number(width), number(height)
    known = all(math.isfinite(value) and value >= 1 for value in numbers)
    return (int(numbers[0]), int(numbers[1])) if known else None


def _sided(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Subsets are sides where all of them are called so, and one is for training."""
    if all(sheet.split is not None for sheet in sheets) and is_divided(sheet.split for sheet in sheets):
        return list(sheets)
    return [replace(sheet, split=None) for sheet in sheets]


# ---- video


def _read_tracks(file: Path, tree: Element, tracks: Sequence[Element], files: ImageFiles, found: _Found) -> None:
    """One sheet for each frame that is there as an image. Raises DataError where frames or places are missing."""
    frames = {int(match[1]): name for name in files.names if (match := _FRAME.match(PurePosixPath(name).name))}
    if not frames:
        raise DataError(
            f"{file} holds tracks of a video, and its frames are not there as frame_000000.png and so on; "
            "export the task as 'CVAT for images 1.1', with images"
        )
    width, height = (tree.findtext(f"meta/*/original_size/{side}") for side in ("width", "height"))
    size = _size(width, height)
    drafts: dict[int, list[Draft]] = {frame: [] for frame in frames}
    for place, track in enumerate(tracks, start=1):
        label = (track.get("label") or "").strip()
        for frame, shape in _places(file, place, track, frames):
            where = f"track {place}, frame {frame}"
            if frame not in drafts:
                found.lost.append(LeftOut(path=where, reason="its frame is not there as an image"))
                continue
            try:
                drafts[frame].append(draft_of(shape, label, where, size))
            except Unfit as unfit:
                found.lost.append(LeftOut(path=where, reason=str(unfit)))
    for frame in sorted(frames):
        found.sheets.append(Sheet(name=frames[frame], drafts=tuple(drafts[frame]), size=size))


def _places(file: Path, place: int, track: Element, frames: Mapping[int, str]) -> Iterator[tuple[int, Element]]:
    """(frame, shape) where a track is to be seen. Raises DataError when it leaves out a frame that is there."""
    shapes: dict[int, Element] = {}
    for shape in filter(is_shape, track):
        frame = number(shape.get("frame"))
        if not frame.is_integer() or frame in shapes:
            raise DataError(f"{file}: track {place} has two places in a frame, or one in no frame; export it again")
        shapes[int(frame)] = shape
    numbers = sorted(shapes)
    for frame, following in zip(numbers, [*numbers[1:], -1], strict=True):
        if shapes[frame].get("outside") == "1":
            continue
        skipped = next((between for between in range(frame + 1, following) if between in frames), None)
        if skipped is not None:
            raise DataError(
                f"{file}: track {place} does not say where it is in frame {skipped}, between {frame} and {following}; "
                "export the task as 'CVAT for images 1.1'"
            )
        yield frame, shapes[frame]


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write annotations.xml and ``images/`` into the new folder ``path``; sides become subsets.

    Images are linked to the same file where the disk allows it, else copied. Boxes, rotated boxes, outlines, masks and
    the flags of difficult objects and crowds are kept, a box beside an outline or a mask becomes their hull; keypoints
    and areas are not written. Raises DataError for data without objects, and for groups; StorageError when writing
    fails.
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    names: dict[str, Record] = {}
    for record in listing.records:
        if record.group is not None:
            raise DataError(f"CVAT cannot hold groups, and {record.id} has one; write COCO")
        name = _name(record)
        if name in names:
            raise DataError(f"{record.id} cannot be written: two images would be {_IMAGES}/{name}")
        _add_image(root, len(names), name, record)
        names[name] = record
    indent(root)
    with new_folder(path) as folder:
        for name, record in names.items():
            link_or_copy(record.path, folder / _IMAGES / name)
        ElementTree(root).write(folder / _FILE, encoding="utf-8", xml_declaration=True)


def _name(record: Record) -> str:
    parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
    return "/".join(parts[1:] if parts[0] == _IMAGES and len(parts) > 1 else parts)


def _add_image(root: Element, place: int, name: str, record: Record) -> None:
    objects = objects_of(record, "CVAT")
    assert record.size is not None
    fields = {"id": str(place), "name": name, "width": str(record.size[0]), "height": str(record.size[1])}
    image = SubElement(root, "image", fields | ({} if record.split is None else {"subset": record.split}))
    for group, item in enumerate(objects, start=1):
        add(image, item, group)
