"""Pascal VOC: an XML file for each image, with boxes.

Three layouts: ``Annotations/`` beside ``JPEGImages/``, with given sides in ``ImageSets/Main/``; XML files beside their
images in one folder; the same below ``train/``, ``valid/`` and ``test/``, which are sides.

Pixels are counted from 1 and the last one is inside: xmin 1, xmax 1 is the first column, [0, 1). Some tools count from
0: where a box begins at 0 all are read so, or ``Marks.origin`` says. xmax is the box's edge either way.

An XML file belongs to the image of its own name; what it says in <filename> counts where there is none. Rotated boxes
(<robndbox>, radians, clockwise) and outlines (<polygon>) are read; <truncated>, <pose> and <part> are not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from snellen.core.annotation import Annotation, Polygon
from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.formats.drafts import Draft
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.linking import link_or_copy
from snellen.data.formats.namesakes import Namesakes, files_below, folder_of, holds
from snellen.data.formats.objects import Sheet, assemble, new_folder, objects_of, unnamed
from snellen.data.formats.outlines import as_rectangle, corners_of
from snellen.data.formats.sides import BESIDE, UNLISTED, is_divided, read_image_sets, sides_by_folder
from snellen.data.formats.xml_files import number, read_xml, text

if TYPE_CHECKING:
    from snellen.data.formats import Marks

_MOST_BYTES = 16 << 20
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_ROTATED = ("cx", "cy", "w", "h", "angle")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images")


def matches(path: Path) -> bool:
    """Whether an XML file that begins with <annotation> is in the folder or not far below."""
    return path.is_dir() and holds(path, ".xml", lambda head: b"<annotation>" in head or b"<annotation " in head)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One XML file.

    file    relative to the root, with forward slashes
    base    the folder that ImageSets/ would be in
    within  the folder of its image; both relative to the root
    """

    file: str
    base: str
    within: str
    stated: str
    size: Size | None
    drafts: tuple[Draft, ...]


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read a folder of XML files. Raises DataError when none can be read, or no image is found."""
    root = Path(os.path.abspath(path))
    pages, left_out = _pages(root)
    if not pages:
        why = f"; the first: {left_out[0].reason}" if left_out else ""
        raise DataError(f"{path} holds no annotations of Pascal VOC{why}")
    origin, notes = _origin(pages, None if marks is None else marks.origin)
    files = ImageFiles(root if images is None else images)
    if images is not None:
        pages = [replace(page, within="") for page in pages]
    side_of, why = _sides(root, pages)
    namesakes = Namesakes(files)
    sheets, lost = [], []
    for page in pages:
        name = namesakes.image(page.file, page.stated, page.within)
        side = side_of[page.file]
        if side is None and is_divided(side_of.values()):
            left_out.append(LeftOut(path=name, reason=why))
            lost += [LeftOut(path=draft.where, reason=f"its image is {why}") for draft in page.drafts]
            continue
        drafts = tuple(_shifted(draft, origin) for draft in page.drafts)
        sheets.append(Sheet(name=name, drafts=drafts, size=page.size, split=side, within=page.within))
    notes += namesakes.notes("XML")
    listing = assemble(sheets, files, format="voc", lost=lost, left_out=left_out, notes=notes)
    return unnamed(files, listing, "the XML files")


def _pages(root: Path) -> tuple[list[_Page], list[LeftOut]]:
    pages, left_out = [], []
    for file in files_below(root, ".xml"):
        try:
            pages.append(_page(root, file))
        except DataError as error:
            left_out.append(LeftOut(path=file, reason=str(error).removeprefix(f"{root / file} ")))
    return pages, left_out


def _page(root: Path, file: str) -> _Page:
    tree = read_xml(root / file, most_bytes=_MOST_BYTES)
    if tree.tag != "annotation":
        raise DataError(f"{root / file} begins with <{tree.tag[:40]}>, and Pascal VOC with <annotation>")
    base, within = _places(root, PurePosixPath(file))
    width, height = number(text(tree, "size/width")), number(text(tree, "size/height"))
    known = math.isfinite(width) and math.isfinite(height) and width >= 1 and height >= 1
    return _Page(
        file=file,
        base=base,
        within=within,
        stated=PurePosixPath(text(tree, "filename").replace("\\", "/")).name,
        size=(int(width), int(height)) if known else None,
        drafts=tuple(_draft(f"{file}, object {i}", item) for i, item in enumerate(tree.findall("object"), start=1)),
    )


def _places(root: Path, file: PurePosixPath) -> tuple[str, str]:
    """The folder that ImageSets/ would be in, and that of the image, for an XML file."""
    folders = file.parent.parts
    at = next((i for i in reversed(range(len(folders))) if folders[i].lower() == "annotations"), None)
    if at is None:
        return folder_of(str(file)), folder_of(str(file))
    base, inner = "/".join(folders[:at]), folders[at + 1 :]
    for name in _IMAGE_FOLDERS:
        if (root / base / name).is_dir():
            return base, str(PurePosixPath(base, name, *inner))
    return base, str(PurePosixPath(base, *inner)) if base or inner else ""


# ---- objects


def _draft(where: str, item: Element) -> Draft:
    """Coordinates as they are written; ``_shifted`` brings the box to ours."""
    box, rotated, outline = item.find("bndbox"), item.find("robndbox"), item.find("polygon")
    corners: Polygon | None = None
    if rotated is not None:
        values = [number(text(rotated, name)) for name in _ROTATED]
        corners = corners_of(*values)
    points = [] if outline is None else _points(outline)
    return Draft(
        where=where,
        label=text(item, "name"),
        box=None if box is None else _box(box),
        polygons=(tuple(points),) if len(points) >= 6 else (),
        corners=corners,
        difficult=text(item, "difficult").lower() in ("1", "true"),
    )


def _box(box: Element) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (number(text(box, name)) for name in _EDGES)
    return x0, y0, x1, y1


def _points(outline: Element) -> list[float]:
    """<x1>, <y1>, <x2>, ..."""
    points: list[float] = []
    while (x := outline.find(f"x{len(points) // 2 + 1}")) is not None:
        y = outline.find(f"y{len(points) // 2 + 1}")
        points += [number(x.text), number(None if y is None else y.text)]
    return points


def _origin(pages: Sequence[_Page], told: Literal[0, 1] | None) -> tuple[int, list[str]]:
    """What the first pixel is called, and what to say of it."""
    if told is not None:
        return told, [f"the first pixel is called {told}, as was said"]
    for page in pages:
        for draft in page.drafts:
            if draft.box is not None and any(0 <= low < 1 for low in draft.box[:2]):
                return 0, [f"a box begins at 0 ({draft.where}): all are read as counted from 0, not from 1"]
    return 1, ["boxes are counted from 1, as Pascal VOC says"]


def _shifted(draft: Draft, origin: int) -> Draft:
    """The edges of the pixels that a box names; of swapped corners too, which are put in order later."""
    if draft.box is None:
        return draft
    x0, y0, x1, y1 = draft.box
    left, right = (x0, x1 - origin) if x0 > x1 else (x0 - origin, x1)
    top, bottom = (y0, y1 - origin) if y0 > y1 else (y0 - origin, y1)
    return replace(draft, box=(left, top, right, bottom))


# ---- sides


def _sides(root: Path, pages: Sequence[_Page]) -> tuple[Mapping[str, Split | None], str]:
    """The side of each XML file, None for all when none are given; and why one may be on none."""
    lists = {base: read_image_sets(root / base, "Main") for base in {page.base for page in pages}}
    listed = {page.file: _listed(page, lists[page.base]) for page in pages}
    if is_divided(listed.values()):
        return listed, UNLISTED
    return sides_by_folder([page.file for page in pages]), BESIDE


def _listed(page: _Page, sides: Mapping[str, Split]) -> Split | None:
    """Lists hold names, with folders where Annotations/ has some."""
    parts = PurePosixPath(page.file).with_suffix("").parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((sides[name] for name in names if name in sides), None)


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write ``Annotations/``, ``JPEGImages/`` and for given sides ``ImageSets/Main/`` into the new folder ``path``.

    Images are linked to the same file where the disk allows it, else copied. Boxes, rotated boxes and the mark of a
    difficult object are kept. A crowd is written as difficult, which no evaluation counts when it is missed; outlines,
    masks and keypoints have no place in VOC and are not written. Raises DataError for data without objects, for groups
    and for two images that would share an XML file; StorageError when writing fails.
    """
    names: dict[str, Record] = {}
    for record in listing.records:
        objects_of(record, "Pascal VOC")
        if record.group is not None:
            raise DataError(f"Pascal VOC cannot hold groups, and {record.id} has one; write COCO")
        parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
        name = "/".join(parts[1:] if parts[0] == "JPEGImages" and len(parts) > 1 else parts)
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in {str(PurePosixPath(other).with_suffix("")) for other in names}:
            raise DataError(f"{record.id} cannot be written: two images would share Annotations/{stem}.xml")
        names[name] = record
    with new_folder(path) as folder:
        for name, record in names.items():
            link_or_copy(record.path, folder / "JPEGImages" / name)
            _write_page(folder / "Annotations" / f"{PurePosixPath(name).with_suffix('')}.xml", name, record)
        if listing.has_user_split:
            _write_sets(folder / "ImageSets" / "Main", names)


def _write_sets(folder: Path, names: Mapping[str, Record]) -> None:
    folder.mkdir(parents=True)
    for side in sorted({record.split or "train" for record in names.values()}):
        lines = [str(PurePosixPath(name).with_suffix("")) for name, record in names.items() if record.split == side]
        (folder / f"{side}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _write_page(file: Path, name: str, record: Record) -> None:
    root = Element("annotation")
    SubElement(root, "filename").text = PurePosixPath(name).name
    size = SubElement(root, "size")
    assert record.size is not None
    for tag, value in (("width", record.size[0]), ("height", record.size[1]), ("depth", 3)):
        SubElement(size, tag).text = str(value)
    for item in objects_of(record, "Pascal VOC"):
        _add(root, item)
    indent(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree(root).write(file, encoding="utf-8")


def _add(root: Element, item: Annotation) -> None:
    element = SubElement(root, "object")
    SubElement(element, "name").text = item.label
    SubElement(element, "difficult").text = str(int(item.difficult or item.crowd))
    rotated = None if item.corners is None else as_rectangle(item.corners)
    box = SubElement(element, "bndbox" if rotated is None else "robndbox")
    x0, y0, x1, y1 = item.box
    names, values = (_EDGES, (x0 + 1, y0 + 1, x1, y1)) if rotated is None else (_ROTATED, rotated)
    for name, value in zip(names, values, strict=True):
        SubElement(box, name).text = str(int(value)) if value == int(value) else repr(float(value))
