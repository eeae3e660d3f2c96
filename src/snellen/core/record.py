"""One image on disk and what its owner says about it. No torch, no pixels.

Formats make Records, the audit reads them, the split engine divides them, tasks turn them into targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image and its neutral annotations.

    id      unique in its listing and stable between runs: the path relative to the data root, with forward slashes
    path    where the file is, absolute
    labels  class names: one for single-label data, any number (also none) for multi-label data
    group   images of one patient, plant, or scene share a group and stay on one side of every split
    split   the side that the user put it on, or None when Snellen is to decide
    """

    id: str
    path: Path
    labels: tuple[str, ...] = ()
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something in the data that is not used, and why. ``path`` is as the user would write it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a format found: every image once, in a stable order, and everything that was left out.

    classes is the sorted union over all splits, so that a class missing from one split keeps its id.
    num_found = len(records) + len(left_out), always.
    """

    root: Path
    format: str
    records: Sequence[Record]
    classes: tuple[str, ...]
    multi_label: bool = False
    left_out: Sequence[LeftOut] = field(default_factory=tuple)

    @property
    def num_found(self) -> int:
        return len(self.records) + len(self.left_out)

    @property
    def has_user_split(self) -> bool:
        """True when the user divided the data (every record then names its side)."""
        return any(record.split is not None for record in self.records)
