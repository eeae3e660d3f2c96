"""Which image is on which side, and how that came about: the record of a split, with a hash of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from snellen.core.record import Split

Origin = Literal["user", "snellen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image: its id, class names or numbers, side, group, duplicate cluster (the smallest id in it), file hash.

    truth    of objects and masks: sha256, hex, of what is marked in the image
    objects  how many objects of each class are marked, in the order of the classes; None where none can be
    """

    id: str
    labels: tuple[str, ...]
    split: Split
    group: str | None = None
    cluster: str | None = None
    sha256: str | None = None
    values: tuple[float, ...] | None = None
    truth: str | None = None
    objects: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Without what is not there: the digest of data of classes is what it was before there was anything else."""
        fields = {**asdict(self), "labels": list(self.labels)}
        optional = {name: fields.pop(name) for name in ("values", "truth", "objects")}
        given = {name: value for name, value in optional.items() if value is not None}
        return {**fields, **{name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A split of the data.

    rows       sorted by id
    classes    every class name, in the order of the class indices; of rows with values the names of these
    fractions  asked for train, val and test
    origin     'user' when the sides came with the data, all or some; 'snellen' otherwise
    reasons    sentences, to be printed
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    multi_label: bool
    seed: int
    fractions: tuple[float, float, float]
    origin: Origin
    reasons: tuple[str, ...] = ()

    def ids(self, split: Split) -> list[str]:
        """The ids of one side's images, sorted."""
        return [row.id for row in self.rows if row.split == split]

    @property
    def numeric(self) -> bool:
        """True when the rows hold numbers instead of classes."""
        return any(row.values is not None for row in self.rows)

    @property
    def num_objects(self) -> int | None:
        """How many objects are marked in all images; None where none can be."""
        counts = [sum(row.objects) for row in self.rows if row.objects is not None]
        return sum(counts) if counts else None

    @property
    def question(self) -> str:
        """What is asked of each image: ``of 2 classes``, or ``with a number each: age``."""
        if self.num_objects is not None:
            return f"with {self.num_objects:,} objects of {len(self.classes)} classes"
        if self.numeric:
            num = "a number" if len(self.classes) == 1 else f"{len(self.classes)} numbers"
            return f"with {num} each: {', '.join(self.classes[:5])}{', ...' if len(self.classes) > 5 else ''}"
        return f"of {len(self.classes)} classes"

    @property
    def digest(self) -> str:
        """The manifest hash: sha256, hex, over canonical JSON of everything but ``reasons``, which are only words."""
        fields = {name: value for name, value in self.to_json().items() if name not in ("reasons", "digest", "seal")}
        return _sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")))

    @property
    def seal(self) -> str:
        """sha256, hex, of the test images' ids, one a line: two runs with one seal were tested on the same images."""
        return _sha256("".join(f"{image_id}\n" for image_id in self.ids("test")))

    def to_json(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "seed": self.seed,
            "fractions": list(self.fractions),
            "multi_label": self.multi_label,
            "classes": list(self.classes),
            "reasons": list(self.reasons),
            "rows": [row.to_json() for row in self.rows],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Manifest:
        train, val, test = fields["fractions"]
        return cls(
            rows=tuple(_rows(fields["rows"])),
            classes=tuple(fields["classes"]),
            multi_label=fields["multi_label"],
            seed=fields["seed"],
            fractions=(train, val, test),
            origin=fields["origin"],
            reasons=tuple(fields["reasons"]),
        )


def _rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    for fields in rows:
        lists = {name: tuple(fields[name]) for name in ("labels", "values", "objects") if fields.get(name) is not None}
        yield Row(**{**fields, **lists})


def _sha256(text: str) -> str:
    # A file name that isn't UTF-8 reaches here as lone surrogates; they must hash, not raise.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
