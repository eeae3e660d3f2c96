"""Class folders: ``photos/<class>/.../*.jpg``, or such folders below ``train/``, ``val/`` and ``test/``.

The class is the first folder's name; folders inside it may be nested. The layout with splits is taken when every
folder in the root is named like a split, or ``train`` stands beside another split; names are matched in any case, and
``valid`` and ``validation`` are ``val``. A class that one split lacks keeps its place in the classes.

Counting: every file is a record or left out with a reason. A folder that is not entered (hidden, a link back into the
data) and a class folder without any image count as one thing left out; their names end in '/'.

With ``numeric`` the folders' names are numbers, which are to be predicted: ``age/23/anna.jpg``.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from snellen.core.errors import DataError, StorageError
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.formats.numbers import AMOUNT_NAMES, doubt, number
from snellen.data.image import IMAGE_SUFFIXES

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Lower-case names of what operating systems leave in folders, beside everything that begins with a dot."""

_NUMBERED = ("to be predicted: the numbers that the folders are named by",)

READ_ALREADY = "link to a folder that is read already"

PARTS_OF_OTHER_FORMATS = frozenset("images masks labels annotations jpegimages segmentationclass".split())
"""Lower-case folder names by which detection and segmentation data is told from classes."""


def matches(path: Path) -> bool:
    return path.is_dir()


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: object = None,
) -> Listing:
    """Read class folders. Raises DataError when there are fewer than two classes with images, or a folder is closed."""
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    if images is not None:
        raise DataError(f"{path} is a folder of images itself; --images goes with a table")
    if multi_label:
        raise DataError(f"class folders give each image one label, got {path}; for several labels write a table: a|b")
    root = Path(os.path.abspath(path))
    walk = _Walk(root)
    walk.run()
    splits = _split_folders(walk.folders)
    records = []
    left_out = walk.left_out
    with_images: set[str] = set()
    for relative in walk.files:
        placed = _place(relative, splits)
        if isinstance(placed, str):
            left_out.append(LeftOut(path=relative, reason=placed))
            continue
        split, label = placed
        with_images.add(_class_folder(relative, splits))
        records.append(Record(id=relative, path=root / relative, labels=(label,), split=split))
    for folder in walk.folders:
        if _is_class_folder(folder, splits) and folder not in with_images:
            left_out.append(LeftOut(path=f"{folder}/", reason="class folder without images"))
    classes = tuple(sorted({label for record in records for label in record.labels}))
    _check(path, classes, walk, left_out)
    records.sort(key=lambda record: record.id)
    notes = doubt("the folders' names are", classes) if numeric is None else ()
    if numeric:
        classes, records, notes = (AMOUNT_NAMES[0],), _numbered(path, records, left_out), _NUMBERED
    return Listing(
        root=root,
        format="folder",
        records=tuple(records),
        classes=classes,
        left_out=tuple(sorted(left_out, key=lambda item: item.path)),
        notes=notes,
    )


def _numbered(path: Path, records: Sequence[Record], left_out: list[LeftOut]) -> list[Record]:
    """The records with their folder's number instead of its name; folders of another name are left out."""
    found = []
    for record in records:
        value = number(record.labels[0])
        if isinstance(value, str):
            left_out.append(LeftOut(path=record.id, reason=f"its folder '{value}' is not a number"))
        else:
            found.append(replace(record, labels=(), values=(value,)))
    if len({record.values for record in found}) < 2:
        raise DataError(
            f"{path} has no two folders named by a number, such as 23; name them so, or write a table image,value"
        )
    return found


# ---- where a file belongs; paths are relative to the root, with forward slashes


def _split_folders(folders: Sequence[str]) -> dict[str, Split]:
    """The root's folders that are splits, or none when its folders are classes."""
    top = [name for name in folders if "/" not in name]
    splits = {name: SPLIT_FOLDERS[name.lower()] for name in top if name.lower() in SPLIT_FOLDERS}
    divided = "train" in splits.values() and len(set(splits.values())) > 1
    return splits if divided or len(splits) == len(top) else {}


def _place(relative: str, splits: dict[str, Split]) -> tuple[Split | None, str] | str:
    """The split and the class of an image by its path, or the reason why it has none."""
    parts = relative.split("/")
    if not splits:
        return (None, class_name(parts[0])) if len(parts) > 1 else "not in a class folder"
    if parts[0] not in splits:
        return "beside the folders of the splits"
    return (splits[parts[0]], class_name(parts[1])) if len(parts) > 2 else "not in a class folder"


def class_name(folder: str) -> str:
    """Macs and Linux spell an é in file names differently; one spelling (NFC) makes them one class."""
    return unicodedata.normalize("NFC", folder)


def _class_folder(relative: str, splits: dict[str, Split]) -> str:
    return "/".join(relative.split("/")[: 2 if splits else 1])


def _is_class_folder(folder: str, splits: dict[str, Split]) -> bool:
    parts = folder.split("/")
    return len(parts) == 2 and parts[0] in splits if splits else len(parts) == 1


# ---- walking


@dataclass
class _Walk:
    """Everything below ``root``: ``files`` that are images by their suffix, ``folders`` entered, and the rest."""

    root: Path
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    entered: set[tuple[int, int]] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.waiting.append("")
        while self.waiting:
            self._enter(self.waiting.pop())

    def _enter(self, relative: str) -> None:
        folder = self.root / relative
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self.entered:  # two links lead here
                self.folders.remove(relative)
                self.left_out.append(LeftOut(path=f"{relative}/", reason=READ_ALREADY))
                return
            self.entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
        for entry in entries:
            self._look_at(entry, f"{relative}/{entry.name}" if relative else entry.name)

    def _look_at(self, entry: os.DirEntry[str], relative: str) -> None:
        is_folder = _answers(entry.is_dir)
        reason = _unwanted(entry.name, is_folder=is_folder)
        if reason is None and is_folder:
            reason = self._closed(entry)
        elif reason is None and not _answers(entry.is_file):
            reason = "link to nothing" if entry.is_symlink() else "not a regular file"
        if reason is not None:
            shown = relative if relative.isprintable() else ascii(relative)[1:-1]
            self.left_out.append(LeftOut(path=shown + "/" * is_folder, reason=reason))
        elif is_folder:
            self.folders.append(relative)
            self.waiting.append(relative)
        else:
            self.files.append(relative)

    def _closed(self, entry: os.DirEntry[str]) -> str | None:
        """Why a folder is not entered. A link into the data would show images twice, or lead in a circle."""
        if not entry.is_symlink():
            return None
        real, root = Path(os.path.realpath(entry.path)), Path(os.path.realpath(self.root))
        if real == root or root in real.parents or real in root.parents:
            return READ_ALREADY
        return None


def _answers(question: Callable[[], bool]) -> bool:
    """DirEntry.is_dir and is_file ask the file system, which raises on a link that points at itself."""
    try:
        return question()
    except OSError:
        return False


def _unwanted(name: str, *, is_folder: bool) -> str | None:
    """Why a file or folder of this name is left out, or None."""
    kind = "folder" if is_folder else "file"
    if name.startswith("."):
        return f"hidden {kind}"
    if name.lower() in SYSTEM_NAMES:
        return f"{kind} of the operating system"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    suffix = PurePosixPath(name).suffix
    if is_folder or suffix.lower() in IMAGE_SUFFIXES:
        return None
    if suffix.lower() in (".heic", ".heif"):
        return "HEIC cannot be read; convert it to JPEG"
    return f"not an image by its suffix {suffix}" if suffix else "not an image: its name has no suffix"


# ---- what cannot be used, in one line


def _check(path: Path, classes: Sequence[str], walk: _Walk, left_out: Sequence[LeftOut]) -> None:
    if classes and {name.lower() for name in classes} <= PARTS_OF_OTHER_FORMATS:
        raise DataError(f"{path} has folders named {', '.join(classes)}, which are no classes; give one for each class")
    if len(classes) > 1:
        return
    if len(classes) == 1:
        first = next(name for name in sorted(walk.folders) if class_name(PurePosixPath(name).name) == classes[0])
        hint = "; a classifier needs two or more"
        if any(folder.startswith(f"{first}/") for folder in walk.folders):
            hint = f"; if the classes are the folders inside it, give {path / first}"
        raise DataError(f"{path} has only one class with images, '{classes[0]}'{hint}")
    if not walk.files and not left_out:
        raise DataError(f"{path} is empty; it should hold one folder of images for each class")
    if not walk.files:
        raise DataError(f"{path} holds no images, but {_count(left_out)}; images end in .jpg, .png, ...")
    tables = sorted(item.name for item in path.iterdir() if item.suffix.lower() in (".csv", ".tsv", ".parquet"))
    hint = f"give the table: {path / tables[0]}" if tables else "or write a table with the columns image,label"
    images = "1 image" if len(walk.files) == 1 else f"{len(walk.files)} images"
    raise DataError(f"{path} holds {images}, but not in class folders; put them in one folder for each class, {hint}")


def _count(left_out: Sequence[LeftOut]) -> str:
    reasons = [item.reason for item in left_out]
    most = max(sorted(set(reasons)), key=reasons.count)
    things = "1 thing" if len(reasons) == 1 else f"{len(reasons)} things"
    return f"{things} left out (mostly: {most})" if len(set(reasons)) > 1 else f"{things} left out ({most})"


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Copy the images into class folders at ``path``, below split folders if the listing has splits.

    A file keeps its id where the id already has that form. Raises DataError for what folders cannot hold (several
    labels, groups, odd class names) and when ``path`` has contents; StorageError when copying fails.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not an empty folder; give a new folder")
    root = Path(os.path.realpath(listing.root))
    if path == root or root in path.parents:
        raise DataError(f"{path} is inside the data it would be a copy of; give a folder elsewhere")
    copies = dict(_copies(listing))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        for target, record in copies.items():
            (partial / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(record.path, partial / target)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copies(listing: Listing) -> Iterator[tuple[str, Record]]:
    """Where each record goes, relative to the new folder."""
    if listing.numeric:
        raise DataError("class folders hold names of classes, and this data has numbers; write a table")
    if listing.multi_label:
        raise DataError("class folders hold one label for each image, and this data has several; write a table")
    if not listing.has_user_split and _split_folders(listing.classes):
        raise DataError(f"the classes {', '.join(listing.classes)} would read back as splits; write a table")
    taken: set[str] = set()
    for record in listing.records:
        if record.group is not None:
            raise DataError(f"class folders cannot hold groups, and {record.id} has one; write a table")
        target = _target(record)
        parts = target.split("/")
        bad = next((part for part in parts[:-1] if not part or _unwanted(part, is_folder=True)), None)
        reason = _unwanted(parts[-1], is_folder=False) if bad is None else f"'{bad}' cannot be a folder's name"
        if reason or target in taken:
            raise DataError(f"{record.id} cannot be put in a class folder: {reason or 'two images would be ' + target}")
        taken.add(target)
        yield target, record


def _target(record: Record) -> str:
    (label,) = record.labels
    if "/" in label or "\0" in label:
        raise DataError(f"'{label}' cannot be a folder's name; write a table")
    parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
    splits: dict[str, Split] = {}
    if record.split is not None and SPLIT_FOLDERS.get(parts[0].lower()) == record.split:
        splits = {parts[0]: record.split}
    if (record.split is None) == (not splits) and _place("/".join(parts), splits) == (record.split, label):
        return "/".join(parts)
    return "/".join([*([record.split] if record.split else []), label, *parts])
