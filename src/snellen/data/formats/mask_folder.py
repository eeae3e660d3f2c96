"""Images with a mask each, in which every pixel names its class: ``images/`` and ``masks/``, or files side by side.

Which mask is whose is told by names (mask_pairs.py), what its values mean by all masks together and by a file of names
(mask_classes.py, mask_names.py). Sides are given by folders named like splits, or by Pascal VOC's ImageSets.

Counting: every image is a record or left out with a reason: it has no mask, the mask is of another size, one of the two
cannot be decoded. Masks that go with no image are counted in a note.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from snellen.core.annotation import MaskFile
from snellen.core.errors import DataError, ImageError
from snellen.core.record import LeftOut, Listing, Record
from snellen.data.formats.linking import link_or_copy
from snellen.data.formats.mask_classes import Look, Meaning, decide, is_blurred, look_at
from snellen.data.formats.mask_names import VOID_NAMES, Names, read_names
from snellen.data.formats.mask_pairs import image_files, is_laid_out, pair
from snellen.data.formats.objects import new_folder
from snellen.data.formats.sides import BESIDE, UNLISTED, is_divided, read_image_sets, sides_by_folder
from snellen.data.image import ImageHeader, read_header
from snellen.data.mask_files import read_mask, read_raw, save_mask

if TYPE_CHECKING:
    from snellen.data.formats import Marks


_LOOKED_INTO = 4  # folders below one another, to know what a folder is


def matches(path: Path) -> bool:
    """Whether folders of images and of masks are there, or masks beside their images."""
    if not path.is_dir():
        return False
    try:
        files = image_files(path, _LOOKED_INTO)
    except DataError:
        return False
    return is_laid_out(files)


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read images with masks; every mask is decoded, to know which values occur. An image shows any number of classes.

    Raises DataError when no image has a mask, or the masks cannot be told to hold classes.
    """
    root = Path(os.path.abspath(path))
    if images is not None:
        raise DataError(f"{path} is a folder of images and masks itself; --images goes with a file of annotations")
    if not root.is_dir():
        raise DataError(f"{path} is not a folder")
    found = pair(image_files(root))
    if not found.pairs:
        raise DataError(
            f"{path}: no image has a mask; put images in images/ and masks of the same name in masks/, "
            f"or a mask beside its image, as in a.jpg and a_mask.png{_example(found.unused)}"
        )
    names = read_names(root)
    left_out = list(found.left_out)
    seen: list[tuple[str, Path, ImageHeader, Look]] = []
    with ThreadPoolExecutor() as pool:
        for (image, mask), result in zip(found.pairs, pool.map(partial(_look, root, names), found.pairs), strict=True):
            if isinstance(result, str):
                left_out.append(LeftOut(path=image, reason=result))
            else:
                seen.append((image, root / mask, *result))
    if not seen:
        first = next(item for item in left_out if item.path == found.pairs[0][0])
        raise DataError(f"{path}: no mask can be used; the first, of {first.path}: {first.reason}")
    meaning = decide([look for *_, look in seen], names, None if marks is None else marks.void)
    records = _records(root, seen, meaning, left_out)
    notes = [*meaning.notes]
    if found.unused:
        notes.append(f"masks that go with no image: {len(found.unused)}, the first {found.unused[0]}")
    return Listing(
        root=root,
        format="masks",
        records=tuple(records),
        classes=meaning.classes,
        multi_label=True,
        left_out=tuple(sorted(left_out, key=lambda item: item.path)),
        notes=tuple(notes),
    )


def _example(unused: Sequence[str]) -> str:
    return f"; {unused[0]} goes with no image" if unused else ""


def _look(root: Path, names: Names | None, files: tuple[str, str]) -> tuple[ImageHeader, Look] | str:
    """An image's header and what its mask holds, or why the image cannot be used."""
    image, mask = files
    try:
        header = read_header(root / image)
    except ImageError as error:
        return str(error).removeprefix(f"{root / image} ")
    try:
        look = look_at(read_raw(root / mask))
    except ImageError as error:
        return f"its mask {mask} {str(error).removeprefix(f'{root / mask} ')}"
    size = (header.width, header.height)
    if look.size != size:
        stored = look.size == size[::-1] and header.orientation >= 5
        hint = "; it was drawn on the image as stored, before its EXIF orientation: save the image upright"
        return f"its mask is of {look.size[0]} x {look.size[1]} pixels, and it of {size[0]} x {size[1]}" + hint * stored
    if is_blurred(look, names):
        return f"its mask is a JPEG, which blurs classes into {len(look.values)} values; save masks as PNG"
    return header, look


def _records(
    root: Path, seen: Sequence[tuple[str, Path, ImageHeader, Look]], meaning: Meaning, left_out: list[LeftOut]
) -> list[Record]:
    """One for each image; where sides are given, images on none are left out."""
    listed = read_image_sets(root, "Segmentation")
    names = [image for image, *_ in seen]
    listed_sides = {name: listed.get(PurePosixPath(name).stem) for name in names}
    side_of = listed_sides if is_divided(listed_sides.values()) else sides_by_folder(names)
    divided = is_divided(side_of.values())
    shared: dict[tuple[tuple[int, int], ...], dict[int, int]] = {}  # equal tables are kept once
    records = []
    for image, mask, header, look in seen:
        if divided and side_of[image] is None:
            left_out.append(LeftOut(path=image, reason=UNLISTED if side_of is listed_sides else BESIDE))
            continue
        values = meaning.values(look)
        values = shared.setdefault(tuple(sorted(values.items())), values)
        present = {meaning.classes[values[value]] for value in look.values if value in values}
        records.append(
            Record(
                id=image,
                path=root / image,
                labels=tuple(sorted(present)),
                mask=MaskFile(path=mask, values=values, colour=look.colour),
                size=(header.width, header.height),
                split=side_of[image],
            )
        )
    return sorted(records, key=lambda record: record.id)


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write ``images/``, ``masks/`` and classes.txt into the new folder ``path``, below split folders if there are any.

    Masks become PNG files of class indices with a palette, and void becomes 255. Images are linked to the same file
    where the disk allows it, else copied. A file keeps its id where that already has this form. Raises DataError for
    data without masks, for groups and for names that would read back differently; StorageError when writing fails.
    """
    _check_names(listing.classes)
    targets = dict(_targets(listing))
    with new_folder(path) as folder:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in listing.classes), "utf-8")
        for target, record in targets.items():
            _write_pair(folder, target, record)


def _check_names(classes: Sequence[str]) -> None:
    for name in classes:
        if not name or name != name.strip() or len(name.splitlines()) > 1 or name.lower() in VOID_NAMES:
            raise DataError(f"the class {name!r} cannot be written to classes.txt: it would read back differently")


def _targets(listing: Listing) -> Iterator[tuple[str, Record]]:
    """Where each image goes, relative to the new folder."""
    taken: set[str] = set()
    for record in listing.records:
        if record.mask is None:
            raise DataError(f"{record.id} has no mask; only data with a mask for each image can be written as masks")
        if record.group is not None:
            raise DataError(f"folders of masks cannot hold groups, and {record.id} has one")
        target = _target(record)
        name = str(PurePosixPath(target).with_suffix(""))  # two images must not share a mask
        if name in taken:
            raise DataError(f"{record.id} cannot be written: two images would have the mask {_mask_name(target)}")
        taken.add(name)
        yield target, record


def _target(record: Record) -> str:
    parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
    side = record.split or ""
    if parts[0] == (side or "images") and "images" in parts[:2] and len(parts) == 2 + bool(side):
        return "/".join(parts)
    # Folders of the old name could read as another side or as masks: they become a part of the file's name.
    return "/".join([*[side] * bool(side), "images", "-".join(parts)])


def _mask_name(target: str) -> str:
    image = PurePosixPath(target)
    return str(image.parent.with_name("masks") / f"{image.stem}.png")


def _write_pair(folder: Path, target: str, record: Record) -> None:
    assert record.mask is not None
    image, mask = folder / target, folder / _mask_name(target)
    link_or_copy(record.path, image)
    mask.parent.mkdir(parents=True, exist_ok=True)
    save_mask(read_mask(record.mask), mask)
