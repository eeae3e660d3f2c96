"""YOLO: a text file for each image, with a line for each object, in fractions of the image.

    data.yaml      train: images/train          a folder, a list of folders, or a .txt that lists images; also val, test
                   names: [cat, dog]            or {0: cat, 1: dog}
    images/...     and labels/..., alike but for the suffix; or train/images/ and train/labels/; or texts beside images

A line is ``class x y width height`` with the centre of the box; longer, odd lines are an outline, the class and then
points; with ``kpt_shape`` in the YAML file keypoints follow the box. Nine numbers are a polygon of four points or the
corners of a rotated box: other outlines in the data decide, or the key ``outlines`` of the YAML file, or the user.
Without a YAML file names come from classes.txt. Paths in the YAML file and in lists are relative to it (or to its
``path``), and taken as they are: they are the user's own.

An image without a text file, or with an empty one, is background. Each line is judged by itself: numbers that are no
fractions and classes without a name cost their line and nothing else. Lines of texts without an image are lost.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from snellen.core.errors import DataError
from snellen.core.record import SPLITS, LeftOut, Listing, Record
from snellen.data.formats import Marks
from snellen.data.formats.drafts import Draft
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.objects import Sheet, assemble, new_folder, objects_of, without_unused
from snellen.data.formats.yolo_data import (
    NAME_FILES,
    Data,
    described,
    has_texts,
    image_folders,
    is_data,
    labels_folder,
    read_text,
    undescribed,
    yaml_of,
)
from snellen.data.formats.yolo_lines import Line, Reading, Unfit, draft_of, line_of, lines_of, settled_outlines


def matches(path: Path) -> bool:
    """A YAML file with names of classes and a train or val, or a folder that has one, or that has texts for images."""
    if path.is_file():
        return is_data(path)
    try:
        return yaml_of(path) is not None or any(has_texts(path, folder) for folder in image_folders(path))
    except OSError:
        return False


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: Marks | None = None,
) -> Listing:
    """Read YOLO labels. Raises DataError for a YAML file that is none, and when no image or no object can be used.

    images  a folder to look in first for what the YAML file names
    marks   ``outlines`` says what lines of nine numbers are
    """
    if numeric:
        raise DataError(f"{path} marks objects, and has no numbers to be predicted; give --task detection")
    path = Path(os.path.abspath(path))
    yaml_file = yaml_of(path) if path.is_dir() else path
    data = undescribed(path) if yaml_file is None else described(yaml_file, images)
    texts = _Texts(data)
    reading, notes = texts.reading(data.reading, marks)
    sheets, lost = [], list(texts.lost)
    for file, split in data.images.items():
        if file in texts.of_image:
            drafts = tuple(_drafts(texts.of_image[file], reading, lost))
            sheets.append(Sheet(name=texts.name(file), drafts=drafts, split=split, fractions=True))
    for line in texts.stray:
        lost.append(LeftOut(path=line.where, reason="there is no image for its file"))
    listing = assemble(
        sheets,
        ImageFiles(data.root, [sheet.name for sheet in sheets]),
        format="yolo",
        lost=lost,
        left_out=(*data.left_out, *texts.left_out),
        notes=(*data.notes, *notes),
    )
    return without_unused(listing, reading.names or ())


def _drafts(lines: Sequence[Line], reading: Reading, lost: list[LeftOut]) -> Iterator[Draft]:
    for line in lines:
        try:
            yield draft_of(line, reading)
        except Unfit as unfit:
            lost.append(LeftOut(path=line.where, reason=str(unfit)))


class _Texts:
    """The lines of every image that can be used, and what else is in the folders of texts."""

    def __init__(self, data: Data) -> None:
        self._root = data.root
        self._labels: dict[Path, Path] = {}
        self.of_image: dict[Path, list[Line]] = {}
        self.stray: list[Line] = []
        self.lost: list[LeftOut] = []
        self.left_out: list[LeftOut] = []
        owner: dict[Path, Path] = {}
        for file in data.images:
            text = self._text_of(file)
            if text is None:
                self.of_image[file] = []
            elif text in owner:
                reason = f"it shares its labels, {self.name(text)}, with {self.name(owner[text])}; rename one"
                self.left_out.append(LeftOut(path=self.name(file), reason=reason))
            else:
                owner[text] = file
                self._take(file, text)
        for folder in sorted(set(self._labels.values()) - set(self._labels)):
            self._take_stray(sorted(set(folder.glob("*.txt")) - set(owner)))

    def name(self, file: Path) -> str:
        return os.path.relpath(file, self._root).replace(os.sep, "/")

    def _text_of(self, file: Path) -> Path | None:
        folder = file.parent
        if folder not in self._labels:
            self._labels[folder] = labels_folder(folder)
        texts = (place / f"{file.stem}.txt" for place in (self._labels[folder], folder))
        return next((text for text in texts if text.is_file()), None)

    def _take(self, file: Path, text: Path) -> None:
        try:
            self.of_image[file], lost = lines_of(read_text(text), self.name(text))
            self.lost += lost
        except DataError as error:
            self.left_out.append(LeftOut(path=self.name(file), reason=str(error)))

    def _take_stray(self, texts: Sequence[Path]) -> None:
        for text in texts:
            if text.name in NAME_FILES or text.name.startswith("."):
                continue
            self.left_out.append(LeftOut(path=self.name(text), reason="there is no image of its name"))
            try:
                lines, lost = lines_of(read_text(text), self.name(text))
            except DataError:
                continue
            self.stray += lines
            self.lost += lost

    def reading(self, reading: Reading, marks: Marks | None) -> tuple[Reading, list[str]]:
        """How lines are to be read, once all of them are known, and what is to be said of it."""
        lines = [line for of_image in self.of_image.values() for line in of_image]
        given = (marks.outlines if marks is not None else None) or reading.outlines
        outlines, decided = settled_outlines(lines, reading, given)
        notes = ["lines of nine numbers are taken for polygons, since others are"] * decided
        if reading.names is None:
            notes.append("there are no names of classes; they are called by their number")
        return replace(reading, outlines=outlines), notes


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write a folder of images/, labels/, data.yaml and, if the listing has splits, a list of images for each.

    Images are hard links where the disk allows it, else copies; ids that are in an images/ already are kept. Rotated
    boxes are written by their corners, masks by the outline of their pixels; what has an outline comes back with the
    box round it, and what has no keypoints where others have some, with unlabelled ones. Stated areas, ids and
    'difficult' have no place in YOLO and are not written.

    Raises DataError for what would come back as something else: groups, crowd regions, outlines of several parts or
    with holes, unlike numbers of keypoints, and rotated boxes beside polygons; and when ``path`` has contents.
    Raises StorageError when writing fails.
    """
    import yaml

    kind, pose = _kinds(listing)
    targets = _targets(listing)
    texts = _texts(listing, targets, pose)
    content: dict[str, object] = {"names": dict(enumerate(listing.classes)), **kind}
    if pose is not None:
        content["kpt_shape"] = list(pose)
    sides = {split: [r for r in listing.records if r.split == split] for split in SPLITS}
    with new_folder(path) as folder:
        for target, record in targets.items():
            _put(record.path, folder / target)
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        if not listing.has_user_split:
            content |= {"train": "images.txt", "val": "images.txt"}
            (folder / "images.txt").write_text("".join(f"./{target}\n" for target in targets), encoding="utf-8")
        for split, records in sides.items():
            if records:
                ids = {record.id for record in records}
                listed = "".join(f"./{target}\n" for target, record in targets.items() if record.id in ids)
                (folder / f"{split}.txt").write_text(listed, encoding="utf-8")
                content[split] = f"{split}.txt"
        (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), "utf-8")


def _kinds(listing: Listing) -> tuple[dict[str, str], tuple[int, int] | None]:
    """What lines of nine numbers will be, and the shape of keypoints."""
    objects = [item for record in listing.records for item in objects_of(record, "YOLO")]
    shapes = {item.has_shape for item in objects if item.has_shape or item.corners is not None}
    if len(shapes) > 1:
        raise DataError("YOLO cannot hold rotated boxes beside outlines, and this data has both; write COCO")
    kind = {"outlines": "polygon" if shapes.pop() else "corners"} if shapes else {}
    points = {len(item.keypoints) for item in objects if item.keypoints}
    return kind, (max(points), 3) if points else None


def _targets(listing: Listing) -> dict[str, Record]:
    """Where each image goes, relative to the new folder."""
    targets: dict[str, Record] = {}
    texts: set[str] = set()
    for record in listing.records:
        if record.group is not None:
            raise DataError(f"YOLO cannot hold groups, and {record.id} has one; write COCO")
        parts = [part for part in PurePosixPath(record.id).parts if part not in ("..", "/")]
        target = "/".join(parts if "images" in parts[:-1] else ["images", *parts])
        if not target.isprintable():
            raise DataError(f"{record.id!r} cannot stand in a list of images; rename it")
        text = _label_name(target)
        if text in texts:
            raise DataError(f"two images would share the labels {text}; rename {record.id}")
        texts.add(text)
        targets[target] = record
    return targets


def _label_name(target: str) -> str:
    parts = list(PurePosixPath(target).with_suffix(".txt").parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return "/".join(parts)


def _texts(listing: Listing, targets: dict[str, Record], pose: tuple[int, int] | None) -> dict[str, str]:
    number = {name: at for at, name in enumerate(listing.classes)}
    texts: dict[str, str] = {}
    refused: list[str] = []
    for target, record in targets.items():
        lines = []
        for item in objects_of(record, "YOLO"):
            try:
                lines.append(line_of(item, number[item.label], record.size or (1, 1), pose))
            except Unfit as unfit:
                refused.append(f"{record.id}: {unfit}")
        texts[_label_name(target)] = "".join(f"{line}\n" for line in lines)
    if refused:
        raise DataError(f"YOLO cannot hold {len(refused)} of the objects; the first, in {refused[0]}; write COCO")
    return texts


def _put(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(file), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, target)
