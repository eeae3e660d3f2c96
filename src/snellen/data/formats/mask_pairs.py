"""Which mask goes with which image, told from their names alone.

A folder named like IMAGE_WORDS or MASK_WORDS says what its files are (``images/``, ``train/masks/``, ``train_labels/``,
``SegmentationClass/``); the deepest such folder counts. An image and a mask belong together when the rest of their
paths agree, but for the suffix and for an ending such as ``_mask`` or ``_leftImg8bit``. Where folders inside disagree,
a name that occurs once on both sides is enough. Without such folders ``a_mask.png`` is the mask of ``a.jpg`` beside it.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from snellen.core.errors import DataError
from snellen.core.record import LeftOut
from snellen.data.formats.folder import SYSTEM_NAMES
from snellen.data.formats.sides import words
from snellen.data.image import IMAGE_SUFFIXES

IMAGE_WORDS = frozenset("images image imgs img jpegimages leftimg8bit photos".split())
MASK_WORDS = frozenset(
    "masks mask annotations annotation annots annot labels label segmentationclass segmentation gtfine gt groundtruth "
    "targets".split()
)
OTHER_WORDS = frozenset(("segmentationobject",))

_MASK_ENDINGS = (  # where several are there, the first is taken
    "gtfine_labeltrainids gtfine_labelids gtcoarse_labelids labeltrainids labelids mask masks segmentation seg labels "
    "label gt annotation l"
).split()
_MASK_ENDING = re.compile(rf"[_-]({'|'.join(_MASK_ENDINGS)})$", re.IGNORECASE)
_IMAGE_ENDING = re.compile(r"[_-](leftimg8bit|image|img|sat|rgb)$", re.IGNORECASE)
_LEAST_PAIRED = 10  # images for each pair
_BEGINNINGS = re.compile(r"^(?:image|img|mask|label|gt)[_-]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What was found; paths are relative to the root.

    pairs     (image, mask)
    left_out  images without a mask
    unused    masks, and other renderings of them, that go with no image
    """

    pairs: Sequence[tuple[str, str]]
    left_out: Sequence[LeftOut]
    unused: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Name:
    """A file's path in parts.

    role    what its folders say that it is: 'image', 'mask', 'other', or '' for nothing
    above   the folders above the one that says so
    folder  all folders without that word
    names   what it may be called
    """

    path: str
    role: str
    above: tuple[str, ...]
    folder: tuple[str, ...]
    names: Sequence[str]


def image_files(root: Path, deepest: int | None = None) -> list[str]:
    """Image files below ``root`` by suffix, relative and sorted.

    Hidden files and folders are passed over; linked folders are entered once. ``deepest`` is how many folders below the
    root are looked into; None: all. Raises DataError.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if _is_shown(name))
        below = Path(os.path.relpath(folder, root)).as_posix()
        if deepest is not None and below.count("/") + 1 >= deepest:
            folders.clear()
        images = [name for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and _is_shown(name)]
        found += images if below == "." else [f"{below}/{name}" for name in images]
    return sorted(found)


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM_NAMES


def pair(files: Iterable[str]) -> Pairs:
    """Find the mask of every image among ``files``."""
    images, masks = _roles(files)
    if not masks:
        return Pairs(pairs=[], left_out=[LeftOut(path=image.path, reason="has no mask") for image in images], unused=[])
    by_place: dict[tuple[tuple[str, ...], str], list[tuple[int, str]]] = defaultdict(list)
    by_name: dict[tuple[tuple[str, ...], str], list[tuple[int, str]]] = defaultdict(list)
    for mask in masks:
        rank = _rank(mask.path)
        for name in mask.names:
            by_place[mask.folder, name].append((rank, mask.path))
            by_name[mask.above, name].append((rank, mask.path))
    shared: Counter[tuple[tuple[str, ...], str]] = Counter()
    for image in images:
        for name in image.names:
            shared[image.above, name] += 1
    pairs, left_out = [], []
    for image in images:
        found = _first(by_place.get((image.folder, name), []) for name in image.names)
        if not found and image.role == "image":
            places = [(image.above, name) for name in image.names]
            found = _first(by_name.get(place, []) for place in places if shared[place] == 1)
        best = sorted(path for rank, path in found if rank == min(found)[0])
        if len(best) == 1:
            pairs.append((image.path, best[0]))
        else:
            reason = f"has two masks, {best[0]} and {best[1]}; remove one" if best else "has no mask"
            left_out.append(LeftOut(path=image.path, reason=reason))
    used = {mask for _, mask in pairs}
    return Pairs(pairs=pairs, left_out=left_out, unused=[mask.path for mask in masks if mask.path not in used])


def _first(candidates: Iterable[list[tuple[int, str]]]) -> list[tuple[int, str]]:
    return next((found for found in candidates if found), [])


def is_laid_out(files: Sequence[str]) -> bool:
    """Whether these are images with masks: some of each, a tenth of the images paired or folders that say it plainly.

    Classes may be called 'mask' or 'ski mask' too; a folder ``images`` beside a folder ``masks`` is no accident.
    """
    if not any(_role(folder)[0] == "mask" for folder in {file.rpartition("/")[0] for file in files}) and not any(
        _MASK_ENDING.search(file.rpartition(".")[0]) for file in files
    ):
        return False  # at once: this is asked of every folder of images
    found = pair(files)
    if found.pairs:
        return len(found.pairs) * _LEAST_PAIRED >= len(found.pairs) + len(found.left_out)
    plain: dict[str, set[tuple[str, ...]]] = {"image": set(), "mask": set()}
    for folder in {PurePosixPath(file).parent for file in files}:
        for place, name in enumerate(folder.parts):
            for role, known in (("image", IMAGE_WORDS), ("mask", MASK_WORDS)):
                if name.lower() in known:
                    plain[role].add(folder.parts[:place])
    return bool(plain["image"] & plain["mask"])


def _roles(files: Iterable[str]) -> tuple[list[_Name], list[_Name]]:
    images: list[_Name] = []
    masks: list[_Name] = []
    unsure: list[_Name] = []
    for file in files:
        folders, _, name = file.rpartition("/")
        role, above, folder = _role(folders)
        stem = name.rpartition(".")[0] or name
        if role == "mask":
            masks.append(_Name(file, role, above, folder, _called(stem, _MASK_ENDING)))
        elif role != "other":
            image = _Name(file, role, above, folder, _called(stem, _IMAGE_ENDING))
            (images if role else unsure).append(image)
    beside = {(image.folder, name) for image in unsure for name in image.names}
    for image in unsure:
        stem = PurePosixPath(image.path).stem if _MASK_ENDING.search(image.names[0]) else ""
        names = _called(stem, _MASK_ENDING)[1:]
        if any((image.folder, name) in beside for name in names):
            masks.append(_Name(image.path, "mask", image.above, image.folder, names))
        else:
            images.append(image)
    return images, masks


@lru_cache(maxsize=10_000)
def _role(folder: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The role, the folders above and the other folders of ``_Name``."""
    folders = tuple(folder.split("/")) if folder else ()
    for place in reversed(range(len(folders))):
        said = words(folders[place])
        for role, known in (("image", IMAGE_WORDS), ("mask", MASK_WORDS), ("other", OTHER_WORDS)):
            rest = [word for word in said if word not in known]
            if len(rest) < len(said):
                return role, folders[:place], (*folders[:place], *["_".join(rest)] * bool(rest), *folders[place + 1 :])
    return "", folders, folders


def _called(stem: str, ending: re.Pattern[str]) -> list[str]:
    """What a file may be called without its ending or beginning, the full name first."""
    names = (stem, ending.sub("", stem), _BEGINNINGS.sub("", stem))
    return [name for name in dict.fromkeys(names) if name]


def _rank(path: str) -> int:
    """Lower is better."""
    stem = PurePosixPath(path).stem
    ending = _MASK_ENDING.search(stem)
    if ending is not None:
        return _MASK_ENDINGS.index(ending[1].lower())
    return len(_MASK_ENDINGS) - bool(_BEGINNINGS.match(stem))
