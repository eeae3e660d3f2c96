"""Which side an image is given to: by Pascal VOC's lists of images, or by folders named like splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from snellen.core.errors import DataError
from snellen.core.record import Split
from snellen.data.formats.folder import SPLIT_FOLDERS

UNLISTED = "in none of the lists of ImageSets"
BESIDE = "beside the folders of the splits"

_FLAGS = ("1", "0", "-1")  # lists of one class say beside the name whether it is there


def read_image_sets(root: Path, kind: str) -> Mapping[str, Split]:
    """Name -> side, from ``ImageSets/<kind>/{train,val,trainval,test}.txt`` below ``root``.

    Each line is the name of an image without its suffix. kind is 'Main' for objects, 'Segmentation' for masks.
    trainval counts as train where no list parts the two. Empty unless there is a list for training and one more.
    Raises DataError when a name is on two sides, or a list cannot be read.
    """
    folder = root / "ImageSets" / kind
    lists: dict[Split, list[str]] = {side: _names(folder / f"{side}.txt") for side in ("train", "val", "test")}
    if not lists["train"]:
        lists["train"] = [] if lists["val"] else _names(folder / "trainval.txt")
    if not lists["train"] or not (lists["val"] or lists["test"]):
        return {}
    sides: dict[str, Split] = {}
    for side, names in lists.items():
        for name in names:
            if sides.setdefault(name, side) != side:
                raise DataError(f"{folder}: '{name}' is in {sides[name]}.txt and in {side}.txt; remove one")
    return sides


def _names(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    names = []
    for line in lines:
        name, _, last = line.strip().rpartition(" ")
        names.append(name.strip() if name and last in _FLAGS else line.strip())
    return [name for name in names if name]


def sides_by_folder(files: Sequence[str]) -> dict[str, Split | None]:
    """The side of each file by the first folder of its path that is named like a split: ``train/``, ``val_images/``.

    None for all, unless there is a side for training and one more.
    """
    found = {file: _side(file) for file in files}
    return found if is_divided(found.values()) else dict.fromkeys(files)


def is_divided(sides: Iterable[Split | None]) -> bool:
    """Whether there are training images, and images on another side."""
    given = {side for side in sides if side is not None}
    return "train" in given and len(given) > 1


def _side(file: str) -> Split | None:
    for folder in PurePosixPath(file).parts[:-1]:
        for word in words(folder):
            if word in SPLIT_FOLDERS:
                return SPLIT_FOLDERS[word]
    return None


def words(folder: str) -> list[str]:
    """The words of a folder's name, in lower case: 'train_labels' and 'trainannot' are two words."""
    joined = re.sub(r"^(train|val|valid|validation|test)(annots?|masks?|labels?)$", r"\1_\2", folder.lower())
    return re.split(r"[_\-\s]", joined)
