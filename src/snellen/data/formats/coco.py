"""COCO: a JSON file of images, annotations and categories, or a folder of such files for train, val and test.

    instances.json                         images beside it, in a folder below, or where --images says
    coco/annotations/instances_train.json  images in coco/train/, coco/images/train/, coco/images/ or coco/
    export/train/_annotations.coco.json    images beside it (Roboflow); also valid/ and test/

Boxes are x, y, width, height in pixels. Outlines, runs (lists and compressed text), crowd regions and keypoints are
kept. Ids may be of any kind and have gaps; categories of one name are one class, and those without objects are none.
A box of zeros or none beside an outline or a mask is that of the shape. A further key of each image, ``split``, is
taken where all images have it, as ``write`` leaves it.

Counting: every entry of ``images`` is one record or one thing left out (entries of one file being merged), every entry
of ``annotations`` an object or lost.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.files import write_text
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.formats import Marks
from snellen.data.formats.coco_entry import Unfit, draft_of, entry_of, key_of, known, size_of
from snellen.data.formats.drafts import Draft
from snellen.data.formats.folder import SPLIT_FOLDERS
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.objects import Sheet, assemble, objects_of, refuse_existing, unnamed, without_unused

_KEYS = (b'"images"', b'"annotations"')
_LOOKED_AT = 8  # JSON files at the top of a folder: where there are more, they are one for each image


def matches(path: Path) -> bool:
    """A .json file that has the keys images and annotations, or a folder with such files. Looks for the keys only."""
    return _has_keys(path) if path.is_file() else bool(_files(path))


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read COCO annotations. Raises DataError for what is no COCO, and when no image or no object can be used.

    images  where the image files are; the folder of the file, or the one above if that is called annotations
    """
    if numeric:
        raise DataError(f"{path} marks objects, and has no numbers to be predicted; give --task detection")
    sources = _files(path) if path.is_dir() else [path]
    if not sources:
        raise DataError(f"{path} holds no COCO file: a .json with the keys images and annotations")
    sides = [_side(path, source) for source in sources] if len(sources) > 1 else [None]
    files = ImageFiles(_root(path, sources[0]) if images is None else images)
    found = _Found()
    for source, side in zip(sources, sides, strict=True):
        _Reader(source, side, _within(files.root, source), found).run()
    listing = assemble(found.sheets, files, format="coco", lost=found.lost, notes=found.notes())
    return unnamed(files, without_unused(listing, found.classes), "the annotations")


# ---- which files


def _has_keys(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            is_object = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
            return is_object and all(content.find(key) >= 0 for key in _KEYS)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _files(folder: Path) -> list[Path]:
    """The COCO files of a folder, in order; only those of instances where there are also captions and the like."""
    try:
        return _coco_files(folder)
    except OSError:
        return []


def _coco_files(folder: Path) -> list[Path]:
    inner = {entry.name: entry for entry in folder.iterdir() if entry.is_dir()}
    places = [inner[name] for name in sorted(inner) if name.lower() == "annotations" or name.lower() in SPLIT_FOLDERS]
    found: list[Path] = []
    for place in (folder, *places):
        named = sorted(entry for entry in place.iterdir() if entry.suffix.lower() == ".json")
        if len(named) <= _LOOKED_AT or place.name.lower() == "annotations":
            found += [entry for entry in named if _has_keys(entry)]
    return [entry for entry in found if entry.name.startswith("instances_")] or found


def _side(path: Path, source: Path) -> Split:
    """The split that a file is for, by a word of its name, or else by its folder's."""
    words = [*re.split(r"[^a-z]+", source.stem.lower()), source.parent.name.lower()]
    sides = {SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS}
    if len(sides) != 1:
        raise DataError(
            f"{path} holds several COCO files, and {source.name} is not named for one split; give the file that is "
            "meant, or name them like instances_train.json and instances_val.json"
        )
    return sides.pop()


def _root(path: Path, source: Path) -> Path:
    if path.is_dir():
        return path
    return source.parent.parent if source.absolute().parent.name.lower() == "annotations" else source.parent


def _within(root: Path, source: Path) -> str:
    """The folder below ``root`` where a file's images are looked for first; '' for all of it."""
    beside = Path(os.path.abspath(source.parent))
    if root in beside.parents and beside.name.lower() != "annotations":
        return beside.relative_to(root).as_posix()
    name = source.stem.rpartition("_")[2]
    plain = re.sub(r"[^a-z]", "", name.lower())
    alike = [word for word, side in SPLIT_FOLDERS.items() if side == SPLIT_FOLDERS.get(plain)]
    places = [place for word in (name, *alike) for place in (word, f"images/{word}", f"{word}/images")]
    return next((place for place in [*places, "images"] if (root / place).is_dir()), "")


# ---- what is in a file


@dataclass(kw_only=True)
class _Found:
    """What all files together hold."""

    sheets: list[Sheet] = field(default_factory=list)
    lost: list[LeftOut] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        counts = self.counts
        said = []
        if counts["alike"]:
            said.append(f"categories with a name that another has, which are one class: {counts['alike']}")
        if 2 * counts["crowd"] > counts["all"]:
            said.append(
                f"{counts['crowd']} of {counts['all']} annotations are crowd regions, which are neither learnt nor "
                "counted; some tools mark every brushed mask so: set iscrowd to 0 where they are single objects"
            )
        return said


@dataclass
class _Reader:
    """Reads one file into ``found``."""

    source: Path
    side: Split | None
    within: str
    found: _Found

    def run(self) -> None:
        content = _content(self.source)
        entries = {key: self._entries(content, key) for key in ("images", "annotations", "categories")}
        names = self._names(entries["categories"])
        images = self._by_id(entries["images"], "image")
        drafts: dict[str, list[Draft]] = {key: [] for key in images}
        for place, entry in enumerate(entries["annotations"]):
            number = key_of(entry.get("id"))
            where = f"{self.source.name}, annotation {number or f'at place {place}'}"
            try:
                draft = self._draft(entry, names, where)
                drafts[known(key_of(entry.get("image_id")), drafts, "image")].append(draft)
            except Unfit as unfit:
                self.found.lost.append(LeftOut(path=where, reason=str(unfit)))
        self._sheets(images, drafts)

    def _entries(self, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{self.source}: '{key}' should be a list of objects; export the file again as COCO")
        return entries

    def _by_id(self, entries: Iterable[dict[str, Any]], what: str) -> dict[str, dict[str, Any]]:
        name = "file_name" if what == "image" else "name"
        found: dict[str, dict[str, Any]] = {}
        for place, entry in enumerate(entries):
            key = key_of(entry.get("id"))
            if key is None or not _is_text(entry.get(name)):
                raise DataError(f"{self.source}: the {what} at place {place} has no id or no {name}; give it one")
            if key in found and found[key][name] != entry[name]:
                raise DataError(
                    f"{self.source}: {found[key][name]!r} and {entry[name]!r} both have the {what} id {key}; "
                    "give each its own"
                )
            found[key] = entry
        return found

    def _names(self, categories: Iterable[dict[str, Any]]) -> dict[str, str]:
        names = {key: entry["name"].strip() for key, entry in self._by_id(categories, "category").items()}
        self.found.classes |= set(names.values())
        self.found.counts["alike"] += len(names) - len(set(names.values()))
        return names

    def _sheets(self, images: Mapping[str, dict[str, Any]], drafts: Mapping[str, list[Draft]]) -> None:
        own = [SPLIT_FOLDERS.get(str(entry.get("split")).lower()) for entry in images.values()]
        for (key, entry), split in zip(images.items(), own, strict=True):
            group = entry.get("group")
            self.found.sheets.append(
                Sheet(
                    name=entry["file_name"],
                    drafts=tuple(drafts[key]),
                    size=size_of(entry.get("width"), entry.get("height")),
                    split=self.side or (split if all(own) else None),
                    group=group if isinstance(group, str) and group else None,
                    within=self.within,
                )
            )

    def _draft(self, entry: Mapping[str, Any], names: Mapping[str, str], where: str) -> Draft:
        counts = self.found.counts
        label = names[known(key_of(entry.get("category_id")), names, "category")]
        draft = draft_of(entry, label, where)
        counts["all"] += 1
        counts["crowd"] += draft.crowd
        return draft


def _is_text(value: object) -> bool:
    """Whether it is a name; JSON can spell halves of characters, which no file can hold."""
    return isinstance(value, str) and bool(value.strip()) and value == value.encode(errors="replace").decode()


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise DataError(f"{path} is not JSON, or not all of it is there: {reason}; export or copy it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not COCO: it should be an object with the keys images, annotations and categories")
    return content


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write one COCO file. Its file names are the record ids: read it back with ``images=listing.root``.

    An object's ``source`` is its id where all are whole numbers above 0 and no two alike; else all are numbered anew
    (tools pass over an id of 0). An area is always written, since evaluation asks for it: that of the mask or the box
    where none was stated. What COCO has no field for is written as further keys, which other tools pass over: split and
    group of an image, difficult and corners of an object.

    Raises DataError when the file exists, or no objects are marked; StorageError when writing fails.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        raise DataError(f"a COCO file ends in .json, got {path}")
    refuse_existing(path)
    marked = [(number, record, objects_of(record, "COCO")) for number, record in enumerate(listing.records, start=1)]
    category = {name: number for number, name in enumerate(listing.classes, start=1)}
    ids = iter(_ids([item for _, _, objects in marked for item in objects]))
    content = {
        "images": [_image_entry(record, number) for number, record, _ in marked],
        "annotations": [
            {
                "id": next(ids),
                "image_id": number,
                "category_id": category[item.label],
                **entry_of(item, record.size or (0, 0)),
            }
            for number, record, objects in marked
            for item in objects
        ],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in category.items()],
    }
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _ids(objects: Sequence[Annotation]) -> Sequence[int]:
    known = [int(item.source) for item in objects if item.source and re.fullmatch(r"[1-9][0-9]{0,14}", item.source)]
    return known if len(set(known)) == len(objects) else range(1, len(objects) + 1)


def _image_entry(record: Record, number: int) -> dict[str, Any]:
    width, height = record.size or (0, 0)
    further = {"split": record.split, "group": record.group}
    entry = {"id": number, "file_name": record.id, "width": width, "height": height}
    return entry | {key: value for key, value in further.items() if value is not None}
