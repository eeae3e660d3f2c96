"""What all formats of marked objects share: from what a file says of its images to a Listing, with everything counted.

A format reads its files into Sheets, one an image, and calls ``assemble``. That finds the image files, reads their
sizes, brings what was marked upright, and settles every annotation by the rule of ``drafts``.

Sizes and orientation. Boxes stand in pixels of the upright image. Some tools mark the image as it is stored, without
its EXIF orientation. Where the two differ in size, the boxes decide if they fit only one of them, and else the size
that the file states; images that cannot tell (square ones, mirrored ones, those that state nothing) go with the
majority of those that can. What was marked as stored is turned. A stated size that is neither is believed to be that of
the image when it was marked: unless the boxes reach beyond it and fit the image as it is, the image is left out, since
its boxes would silently be in the wrong places.

Counting: every image that a file names is one record or one thing left out, images named twice being merged; every
annotation is an object of a record or stands in ``lost``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from snellen.core.annotation import Annotation
from snellen.core.errors import DataError, StorageError
from snellen.core.geometry import Size, scaling
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.formats.drafts import Draft, extent, mapped, reach, settle, turned
from snellen.data.formats.image_files import ImageFiles
from snellen.data.image import ImageHeader

_SAME = 2
"""Pixels by which two sizes of one image may differ: from rounding when it was resized."""

_SLACK = 0.02
"""What part of an image's side a box may reach beyond it and still be said to fit."""

_FEW, _SHOWN = 3, 12  # lost annotations, and classes, that are told by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What a file says of one image, before the image is looked for.

    name       the image, as the file calls it
    drafts     its annotations, in the file's order; in fractions of its width and height where ``fractions`` is set
    size       (width, height) that the file states; None where it states none
    within     the folder, relative to the root of the images, in which it is looked for first; '' for none
    """

    name: str
    drafts: tuple[Draft, ...] = ()
    size: Size | None = None
    split: Split | None = None
    group: str | None = None
    within: str = ""
    fractions: bool = False


def assemble(
    sheets: Sequence[Sheet],
    files: ImageFiles,
    *,
    format: str,
    lost: Sequence[LeftOut] = (),
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
) -> Listing:
    """The listing of what was read.

    lost, left_out, notes  what the format itself could not use, and what it decided

    Raises DataError when no image is found, when no annotation can be used, and when an image is on two sides.
    """
    counts: Counter[str] = Counter()
    found, missing = _found(sheets, files, counts)
    if not found:
        _raise_none_found(sheets, files, missing)
    headers = dict(zip(found, files.headers(list(found)), strict=True))
    views = _views(found, headers)
    records, gone = [], list(missing)
    lost = list(lost)
    for name, sheet in found.items():
        header, view = headers[name], views[name]
        if isinstance(header, str) or view.unfit:
            gone.append((replace(sheet, name=name), view.unfit or str(header)))
            continue
        record, not_used = _record(files, name, sheet, header, view, counts)
        records.append(record)
        lost += not_used
    for sheet, reason in gone:
        lost += [LeftOut(path=draft.where, reason=f"its image is left out: {reason}") for draft in sheet.drafts]
    _check(records, lost, gone)
    return Listing(
        root=files.root,
        format=format,
        records=tuple(sorted(records, key=lambda record: record.id)),
        classes=tuple(sorted({label for record in records for label in record.labels})),
        multi_label=True,
        left_out=tuple(
            sorted([*left_out, *(LeftOut(path=s.name, reason=why) for s, why in gone)], key=lambda item: item.path)
        ),
        notes=(*notes, *_notes(counts)),
        num_annotations=sum(len(record.objects or ()) for record in records) + len(lost),
        lost=tuple(lost),
    )


def _record(
    files: ImageFiles, name: str, sheet: Sheet, header: ImageHeader, view: _View, counts: Counter[str]
) -> tuple[Record, tuple[LeftOut, ...]]:
    size = (header.width, header.height)
    settled = settle(_upright(sheet, header, view), size)
    counts["turned"] += view.turn and header.orientation != 1 and bool(sheet.drafts)
    counts["misstated"] += view.misstated
    counts["swapped"] += settled.swapped
    counts["clipped"] += settled.clipped
    counts["thin"] += settled.thin
    counts["background"] += not settled.objects
    record = Record(
        id=name,
        path=files.root / name,
        labels=tuple(sorted({item.label for item in settled.objects})),
        objects=settled.objects,
        size=size,
        group=sheet.group,
        split=sheet.split,
    )
    return record, settled.lost


# ---- image files


def _found(
    sheets: Sequence[Sheet], files: ImageFiles, counts: Counter[str]
) -> tuple[dict[str, Sheet], list[tuple[Sheet, str]]]:
    """One sheet for each image file, in the sheets' order, and the sheets without one, with the reason."""
    places = [files.find(sheet.name, sheet.within) for sheet in sheets]
    callers: dict[str, set[str]] = {}
    for sheet, place in zip(sheets, places, strict=True):
        if not isinstance(place, str):
            callers.setdefault(place[0], set()).add(sheet.name)
    found: dict[str, Sheet] = {}
    missing: list[tuple[Sheet, str]] = []
    for sheet, place in zip(sheets, places, strict=True):
        if isinstance(place, str):
            missing.append((sheet, place))
        elif not place[1] and len(callers[place[0]]) > 1:
            missing.append((sheet, f"file not found: the only one called so, {place[0]}, is another image's"))
        else:
            counts["elsewhere"] += not place[1]
            counts["twice"] += place[0] in found
            found[place[0]] = _merged(found[place[0]], sheet) if place[0] in found else sheet
    return found, missing


def _merged(first: Sheet, second: Sheet) -> Sheet:
    if (first.split, first.group) != (second.split, second.group):
        sides = f"in {first.split} and in {second.split}" if first.split != second.split else "in two groups"
        raise DataError(f"the image {first.name} is {sides}; name it once")
    return replace(first, drafts=first.drafts + second.drafts, size=first.size or second.size)


def _raise_none_found(sheets: Sequence[Sheet], files: ImageFiles, missing: Sequence[tuple[Sheet, str]]) -> None:
    if not sheets:
        raise DataError(f"no image is named in the annotations of {files.root}")
    first, reason = missing[0]
    raise DataError(
        f"none of the {len(sheets)} images is below {files.root}; the first, {first.name!r}: {reason}; "
        "say where the images are with --images"
    )


# ---- sizes and orientation


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """How an image was looked at when it was marked.

    turn       as it is stored: what was marked is to be turned upright
    misstated  the file states a size that is wrong
    unfit      why the image cannot be used
    """

    turn: bool = False
    misstated: bool = False
    unfit: str | None = None


_Seen = Literal["upright", "stored", "open"]


def _views(found: Mapping[str, Sheet], headers: Mapping[str, ImageHeader | str]) -> dict[str, _View]:
    seen = {name: "open" if isinstance(header, str) else _seen(found[name], header) for name, header in headers.items()}
    votes = Counter(vote for vote in seen.values() if not isinstance(vote, _View))
    follow = votes["stored"] > votes["upright"]
    return {
        name: vote if isinstance(vote, _View) else _View(turn=vote == "stored" or (vote == "open" and follow))
        for name, vote in seen.items()
    }


def _seen(sheet: Sheet, header: ImageHeader) -> _Seen | _View:
    """What one image says of how it was looked at. Only one that can tell the two apart has a vote."""
    size, stored = (header.width, header.height), _stored(header)
    boxes = [box for box in map(extent, sheet.drafts) if box is not None]
    if not sheet.drafts or sheet.fractions:
        return "open"
    if not _same(size, stored):
        fits = _fits(boxes, size)
        if fits != _fits(boxes, stored):
            return "upright" if fits else "stored"
        if sheet.size is not None and _same(sheet.size, size):
            return "upright"
        if sheet.size is not None and _same(sheet.size, stored):
            return "stored"
    if sheet.size is None or _same(sheet.size, size):
        return "open"
    if _fits(boxes, size) and not _fits(boxes, sheet.size):
        return _View(misstated=True)
    return _View(
        unfit=f"the annotations are of an image of {sheet.size[0]} x {sheet.size[1]} pixels, and the file has "
        f"{size[0]} x {size[1]}; mend the stated size, or take it out if the boxes fit the file as it is"
    )


def _stored(header: ImageHeader) -> Size:
    size = (header.width, header.height)
    return size[::-1] if header.orientation >= 5 else size


def _same(one: Size, other: Size) -> bool:
    return abs(one[0] - other[0]) <= _SAME and abs(one[1] - other[1]) <= _SAME


def _fits(boxes: Sequence[Sequence[float]], size: Size) -> bool:
    return all(reach(box, size) <= max(_SAME, _SLACK * max(size)) for box in boxes)


def _upright(sheet: Sheet, header: ImageHeader, view: _View) -> Sequence[Draft]:
    if sheet.fractions:
        return [mapped(draft, scaling(header.width, header.height)) for draft in sheet.drafts]
    if view.turn and header.orientation != 1:
        return [turned(draft, header.orientation, _stored(header)) for draft in sheet.drafts]
    return sheet.drafts


# ---- what is said


def _notes(counts: Mapping[str, int]) -> list[str]:
    said = {
        "elsewhere": "images found in another place, or with another suffix, than the annotations say",
        "twice": "images named more than once, whose objects were put together",
        "turned": "images marked as they are stored; what is marked was turned by their EXIF orientation",
        "misstated": "images of another size than the annotations say; the boxes fit the files",
        "swapped": "boxes whose corners were swapped and put in order",
        "clipped": "boxes that reached beyond their image and were cut off at its edge",
        "thin": "parts of outlines with fewer than three points, which were passed over",
        "background": "images without an object, which are background",
    }
    return [f"{sentence}: {counts[key]}" for key, sentence in said.items() if counts[key]]


def unnamed(files: ImageFiles, listing: Listing, what: str) -> Listing:
    """The listing, with a note of how many images there are that ``what`` does not name. They are not data."""
    known = {record.id for record in listing.records} | {item.path for item in listing.left_out}
    count = sum(name not in known for name in files.names)
    if not count:
        return listing
    return replace(listing, notes=(*listing.notes, f"images that are not named in {what} and are not used: {count}"))


def without_unused(listing: Listing, names: Iterable[str]) -> Listing:
    """The listing, with a note of the classes among ``names`` that no object has. They are not classes of the data."""
    unused = sorted(set(names) - set(listing.classes))
    if not unused:
        return listing
    shown = ", ".join(unused[:_SHOWN]) + ", ..." * (len(unused) > _SHOWN)
    return replace(listing, notes=(*listing.notes, f"classes without objects are left out: {shown}"))


def _check(records: Sequence[Record], lost: Sequence[LeftOut], gone: Sequence[tuple[Sheet, str]]) -> None:
    if not records:
        sheet, reason = gone[0]
        raise DataError(f"no image can be used; the first, {sheet.name}: {reason}")
    if not any(record.objects for record in records):
        why = "; ".join(f"{item.path}: {item.reason}" for item in list(lost)[:_FEW])
        raise DataError(f"no image has an object{f'; lost are {len(lost)}: {why}' if why else ''}")
    without = [record.id for record in records if record.split is None]
    if without and len(without) < len(records):
        raise DataError(
            f"{len(without)} of {len(records)} images are in no split, the first {without[0]}; put all in one, or none"
        )


# ---- writing


def objects_of(record: Record, format: str) -> tuple[Annotation, ...]:
    """Raises DataError for a record that marks no objects, which such formats cannot hold."""
    if record.objects is None or record.size is None:
        raise DataError(f"{format} holds marked objects, and {record.id} has none marked; write a table")
    return record.objects


def refuse_existing(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path} exists; give a new file")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` at the end of the block, whole or not at all.

    Raises DataError when ``path`` has contents; StorageError when it cannot be written.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not an empty folder; give a new folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
