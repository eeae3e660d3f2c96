"""One image on disk and what its owner says about it. No torch, no pixels.

Formats make Records, the audit reads them, the split engine divides them, tasks turn them into targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from snellen.core.annotation import Annotation, MaskFile
from snellen.core.errors import DataError

Split = Literal["train", "val", "test"]
Action = Literal["leave out", "relabel", "group", "side"]
ACTIONS: tuple[Action, ...] = ("leave out", "relabel", "group", "side")
BACKGROUND = "background"  # the class of pixels that no marked object covers
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image and its neutral annotations.

    id      unique in its listing and stable between runs: the path relative to the data root, with forward slashes
    path    where the file is, absolute
    labels  class names: one for single-label data, any number (also none) for multi-label data; of objects and masks,
            the names of what is in the image, sorted, each once
    values  the numbers to be predicted, finite, in the order of the listing's ``classes``; None for data of classes
    objects  what is marked in the image, in the file's order, perhaps nothing; None for data that marks no objects
    mask    where the class of each pixel stands; None for data without masks
    size    (width, height) of the upright image; known wherever objects or a mask are
    group   images of one patient, plant, or scene share a group and stay on one side of every split
    split   the side that the user put it on, or None when Snellen is to decide
    """

    id: str
    path: Path
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] | None = None
    objects: tuple[Annotation, ...] | None = None
    mask: MaskFile | None = None
    size: tuple[int, int] | None = None
    group: str | None = None
    split: Split | None = None

    @property
    def unit(self) -> str:
        """What is never parted when images are divided or resampled: its group, or the image alone."""
        return self.group or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something in the data that is not used, and why. ``path`` is as the user would write it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change to what is said of one image, made after reading: no file is touched.

    image    its id
    action   leave out; relabel: ``value`` is its class, its classes, its number or its numbers; group and side:
             ``value`` is the name
    because  code of the finding behind it; '': not said
    """

    image: str
    action: Action
    value: str | float | tuple[str | float, ...] | None = None
    because: str = ""

    def to_json(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        fields = {"image": self.image, "action": self.action, "value": value, "because": self.because}
        return {name: each for name, each in fields.items() if each not in (None, "")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a format found: every image once, in a stable order, and everything that was left out.

    classes is the sorted union over all splits, so that a class missing from one split keeps its id; of records with
    values it names the values, in their order.
    notes are sentences about what was decided in reading, for the user.
    changes were asked for on top of what the files say, and are made here already.
    num_found = len(records) + len(left_out), always.

    Where objects are marked, ``num_annotations`` is how many the files hold, and those that are not used stand in
    ``lost``, each with the reason: num_annotations = objects of all records + len(lost), always.
    """

    root: Path
    format: str
    records: Sequence[Record]
    classes: tuple[str, ...]
    multi_label: bool = False
    left_out: Sequence[LeftOut] = field(default_factory=tuple)
    notes: Sequence[str] = ()
    num_annotations: int = 0
    lost: Sequence[LeftOut] = ()
    changes: Sequence[Change] = ()

    @property
    def num_found(self) -> int:
        return len(self.records) + len(self.left_out)

    @property
    def numeric(self) -> bool:
        """True when the records state numbers instead of classes."""
        return any(record.values is not None for record in self.records)

    @property
    def marks_objects(self) -> bool:
        return any(record.objects is not None for record in self.records)

    @property
    def has_masks(self) -> bool:
        """True when a class is given for each pixel."""
        return any(record.mask is not None for record in self.records)

    def with_outputs(self, names: Sequence[str]) -> Listing:
        """The numbers called ``names``, in that order, and no others; where there is but one on either side, that one
        whatever it is called in a folder, which has no names. Data of classes comes back as it is.

        Masks tell the classes of ``names`` apart, by name; what is of none of them is void.

        Raises DataError when one is missing.
        """
        if self.has_masks:
            return self._with_classes(tuple(names))
        if not self.numeric or self.classes == tuple(names):
            return self
        missing = [name for name in names if name not in self.classes]
        if missing and not (self.format == "folder" and len(names) == 1):
            raise DataError(
                f"the table has no column of numbers '{missing[0]}', which the model predicts, but "
                f"{', '.join(self.classes)}; rename the one that is meant"
            )
        places = [0] if missing else [self.classes.index(name) for name in names]
        records = [
            replace(record, values=tuple(record.values[place] for place in places))
            for record in self.records
            if record.values is not None
        ]
        return replace(self, records=records, classes=tuple(names))

    def _with_classes(self, names: tuple[str, ...]) -> Listing:
        place = {i: names.index(name) for i, name in enumerate(self.classes) if name in names}
        if not place:
            raise DataError(
                f"the masks show {', '.join(self.classes)}, and the model knows {', '.join(names)}: name them alike"
            )

        def renamed(record: Record) -> Record:
            if record.mask is None:
                return record
            values = {value: place[index] for value, index in record.mask.values.items() if index in place}
            labels = tuple(label for label in record.labels if label in names)
            return replace(record, mask=replace(record.mask, values=values), labels=labels)

        return replace(self, records=[renamed(record) for record in self.records], classes=names)

    @property
    def has_user_split(self) -> bool:
        """True when the user divided the data (every record then names its side)."""
        return any(record.split is not None for record in self.records)
