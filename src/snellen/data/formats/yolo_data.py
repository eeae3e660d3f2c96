"""Which images YOLO data has, on which sides, and what its classes are called: told by a YAML file, or by folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen.core.errors import DataError
from snellen.core.record import LeftOut, Split
from snellen.data.formats.folder import SPLIT_FOLDERS
from snellen.data.formats.image_files import walk
from snellen.data.formats.yolo_lines import Reading
from snellen.data.image import IMAGE_SUFFIXES

NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")

_YAML = (".yaml", ".yml")
_LARGEST_YAML = 4_000_000  # bytes: a thousand classes take 30,000
_MOST_BRACKETS = 1000  # the parser's time grows with the square of how deep they are nested: 4 s for 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What there is: the images with their splits, and how their lines are to be read. Image ids begin at ``root``."""

    root: Path
    images: Mapping[Path, Split | None]
    reading: Reading
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def is_data(path: Path) -> bool:
    """Whether a YAML file has names of classes and a train, val or test. Looks at the first letters of its lines."""
    if path.suffix.lower() not in _YAML or not path.is_file():
        return False
    try:
        lines = path.read_bytes()[:_LARGEST_YAML].decode(errors="replace").splitlines()
    except OSError:
        return False
    keys = {line.partition(":")[0].strip("\ufeff'\" ") for line in lines if ":" in line and not line.startswith(" ")}
    return bool(keys & {"names", "nc"}) and bool(keys & set(SPLIT_FOLDERS))


def yaml_of(folder: Path) -> Path | None:
    """The YAML file of a folder, or None."""
    if not folder.is_dir():
        return None
    found = sorted(entry for entry in folder.iterdir() if is_data(entry))
    if len(found) > 1 and folder / "data.yaml" not in found:
        raise DataError(f"{folder} holds {found[0].name} and {found[1].name}; give the one that is meant")
    return folder / "data.yaml" if folder / "data.yaml" in found else next(iter(found), None)


def _content(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = path.read_bytes()[:_LARGEST_YAML].decode("utf-8-sig")
        if text.count("[") + text.count("{") > _MOST_BRACKETS:
            raise RecursionError("nested too deeply")
        # The loader of text alone: a class called 'no', '012' or '1:30' stays that, and nothing is ever built.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} should have lines such as 'train: images/train' and 'names: [cat, dog]'")
    return content


def described(path: Path, images: Path | None) -> Data:
    """What a YAML file tells. Paths in it are looked for below ``images``, its ``path``, and its own folder."""
    content = _content(path)
    bases = [path.parent / str(content.get("path") or "."), path.parent]
    if images is not None:
        bases.insert(0, Path(os.path.abspath(images)))
    sides: dict[Split, list[Path]] = {}
    left_out: list[LeftOut] = []
    for key, side in SPLIT_FOLDERS.items():
        for entry in _entries(path, key, content.get(key)):
            place = _place(entry, bases)
            if place.exists() or side == "train":
                sides.setdefault(side, []).extend(_named(path, place, bases, left_out))
            else:  # exports name a test folder whether there is one or not
                left_out.append(LeftOut(path=entry, reason=f"not there; it is named in {path.name} as {key}"))
    found = {side: list(dict.fromkeys(files)) for side, files in sides.items() if files}
    placed, notes = _divided(found)
    if not placed:
        raise DataError(f"{path} names no image that is there; look at its train, val and test")
    outlines = content.get("outlines")
    if outlines not in (None, "polygon", "corners"):
        raise DataError(f"{path}: 'outlines' is polygon or corners, got {outlines!r}")
    reading = Reading(names=_names(path, content), outlines=outlines, pose=_pose(path, content.get("kpt_shape")))
    root = _root(list(placed), [Path(os.path.abspath(base)) for base in bases])
    return Data(root=root, images=placed, reading=reading, left_out=tuple(left_out), notes=notes)


def _root(files: Sequence[Path], bases: Sequence[Path]) -> Path:
    """The first of ``bases`` that all files are in, else the folder that they share."""
    folders = {file.parent for file in files}
    found = (base for base in bases if all(base == folder or base in folder.parents for folder in folders))
    return next(found, None) or Path(os.path.commonpath(folders))


def _entries(path: Path, key: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value] if value else []
    named = [entry for entry in entries if isinstance(entry, str) and entry]
    if len(named) < len(entries):
        raise DataError(f"{path}: '{key}' should be a folder, a .txt of image names, or a list of those")
    return named


def _place(entry: str, bases: Sequence[Path]) -> Path:
    """Where an entry leads. Roboflow writes ../train/images for what stands beside the YAML file."""
    spelled = entry.replace("\\", "/")
    inner = "/".join(part for part in spelled.split("/") if part not in ("", ".", ".."))
    places = [Path(os.path.normpath(base / name)) for name in (spelled, inner) for base in bases]
    return next((place for place in places if place.exists()), places[0])


def _named(path: Path, place: Path, bases: Sequence[Path], left_out: list[LeftOut]) -> Iterator[Path]:
    """The images of a folder, or of a list."""
    if place.is_dir():
        yield from (place / name for name in walk(place))
    elif place.suffix.lower() != ".txt" or not place.is_file():
        raise DataError(f"{path} names {place}, which is neither a folder that is there nor a .txt of image names")
    else:
        for name in filter(None, map(str.strip, read_text(place).splitlines())):
            spelled = name.replace("\\", "/")
            files = (Path(os.path.normpath(base / spelled)) for base in (*bases, place.parent))
            file = next((file for file in files if file.is_file()), None)
            if file is not None and file.suffix.lower() in IMAGE_SUFFIXES:
                yield file
            else:
                why = "file not found" if file is None else f"not an image by its suffix {file.suffix}"
                left_out.append(LeftOut(path=name, reason=f"{why}; it is named in {place.name}"))


def _divided(found: Mapping[Split, Sequence[Path]]) -> tuple[dict[Path, Split | None], tuple[str, ...]]:
    """The side of each image. One split, or the same images for all, is no division."""
    files = {file for side in found.values() for file in side}
    if all(set(side) == files for side in found.values()):
        same = len(found) > 1
        return dict.fromkeys(sorted(files)), (f"{' and '.join(found)} name the same images: no split is given",) * same
    placed: dict[Path, Split | None] = {}
    for side, of_side in found.items():
        for file in of_side:
            if file in placed:
                raise DataError(f"the image {file} is in {placed[file]} and in {side}; name it once")
            placed[file] = side
    return placed, ()


def _names(path: Path, content: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = content.get("names")
    if names is None or names == "":
        return None
    if isinstance(names, dict) and all(str(key).isdecimal() and len(str(key)) < 7 for key in names):
        numbered = {int(key): name for key, name in names.items()}
        names = [numbered.get(number, f"class {number}") for number in range(max(numbered, default=-1) + 1)]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{path}: 'names' should be a list such as [cat, dog], or numbers with names, such as 0: cat")
    return tuple(names)


def _pose(path: Path, shape: object) -> tuple[int, int] | None:
    if shape is None:
        return None
    if isinstance(shape, list) and len(shape) == 2 and all(str(n).isdecimal() and len(str(n)) < 5 for n in shape):
        keypoints, dimensions = int(shape[0]), int(shape[1])
        if keypoints > 0 and dimensions in (2, 3):
            return keypoints, dimensions
    raise DataError(f"{path}: 'kpt_shape' should be such as [17, 3]: how many keypoints, with 2 or 3 numbers each")


def image_folders(root: Path) -> list[Path]:
    """Where images are looked for without a YAML file: images/, or an images/ in each split's folder, or the root."""
    inner = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()} if root.is_dir() else {}
    if "images" in inner:
        return [inner["images"]]
    within = [inner[name] / "images" for name in inner if name in SPLIT_FOLDERS and (inner[name] / "images").is_dir()]
    return within or [root] * root.is_dir()


def has_texts(root: Path, folder: Path) -> bool:
    """Whether images have texts of labels: in labels/, or beside them where the classes are named in a file."""
    labels = labels_folder(folder)
    if labels != folder:
        return any(
            name.endswith(".txt") and name not in NAME_FILES for _, _, files in os.walk(labels) for name in files
        )
    if not any((root / name).is_file() for name in NAME_FILES):
        return False
    return any(os.path.isfile(os.path.splitext(folder / name)[0] + ".txt") for name in walk(folder))


def undescribed(root: Path) -> Data:
    """What a folder without a YAML file holds."""
    folders = image_folders(root)
    files = [folder / name for folder in folders for name in walk(folder)]
    sides: dict[Path, Split | None] = {file: _side(file.relative_to(root).parts) for file in files}
    if None in sides.values() or len(set(sides.values())) < 2:
        sides = dict.fromkeys(files)
    listed = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    names = None if listed is None else tuple(filter(None, map(str.strip, read_text(listed).splitlines())))
    if not sides:
        raise DataError(f"{root} holds no images beside its labels; images end in .jpg, .png, ...")
    return Data(root=root, images=sides, reading=Reading(names=names))


def _side(parts: Sequence[str]) -> Split | None:
    """By the folder before or after images/."""
    at = next((i for i, part in enumerate(parts[:-1]) if part.lower() == "images"), 0)
    near = [part.lower() for part in (*parts[max(0, at - 1) : at], *parts[at + 1 : at + 2])]
    return next((SPLIT_FOLDERS[part] for part in near if part in SPLIT_FOLDERS), None)


# ---- their labels


def labels_folder(folder: Path) -> Path:
    """Where the texts of the images in a folder are: the last images/ of its path, which has a labels/ beside it, is
    labels/ instead; the folder itself where there is none.
    """
    parts = folder.parts
    for at in reversed(range(len(parts))):
        if parts[at].lower() == "images":
            for name in ("labels", "Labels", "LABELS"):
                if Path(*parts[:at], name).is_dir():
                    return Path(*parts[:at], name, *parts[at + 1 :])
    return folder


def read_text(path: Path) -> str:
    """Raises DataError for what cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it so") from None
