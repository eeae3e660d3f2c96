"""Data sets about to be audited, healthy ones and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from snellen.audit.subject import AuditSubject
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.duplicates import Duplicate
from snellen.data.fingerprint import fingerprint
from snellen.data.scan import ImageFacts
from snellen.data.split import split

EMPTY = fingerprint(np.zeros((8, 8, 3), np.uint8))
SIZES = ((500, 375), (500, 333), (375, 500), (480, 360))


def facts_of(rng: np.random.Generator) -> ImageFacts:
    """Facts as photographs have them: a few sizes, one mode and format, a spread of brightness."""
    width, height = SIZES[rng.integers(len(SIZES))]
    return ImageFacts(
        width=width,
        height=height,
        mode="RGB",
        format="JPEG",
        orientation=1,
        brightness=float(np.clip(rng.normal(0.5, 0.1), 0.2, 0.8)),
        contrast=0.2,
        channel_means=(0.5, 0.5, 0.5),
        channel_squares=(0.3, 0.3, 0.3),
        sha256="",
        pixel_hash="",
        fingerprint=EMPTY,
    )


@dataclass
class Data:
    """Data about to be audited: healthy as it is made, and open to sabotage."""

    records: list[Record]
    facts: dict[str, ImageFacts]
    left_out: list[LeftOut] = field(default_factory=list)
    pairs: list[Duplicate] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    multi_label: bool = False
    groups: Mapping[str, str] | None = None

    def subject(self) -> AuditSubject:
        classes = self.classes or tuple(sorted({label for record in self.records for label in record.labels}))
        used = [record for record in self.records if record.id in self.facts]
        manifest = split(used, pairs=self.pairs, classes=classes, multi_label=self.multi_label, groups=self.groups)
        listing = Listing(root=Path("x"), format="folder", records=self.records, classes=classes)
        return AuditSubject(
            listing=listing, facts=self.facts, left_out=self.left_out, pairs=self.pairs, manifest=manifest
        )

    def ids(self, label: str) -> list[str]:
        return [record.id for record in self.records if label in record.labels]

    def change(self, image_ids: Sequence[str], **facts: Any) -> None:
        for image_id in image_ids:
            self.facts[image_id] = replace(self.facts[image_id], **facts)

    def give_sides(self, sides: Mapping[Split, float]) -> None:
        """Make the user's own split: the same share of every class on each side."""
        by_class: dict[str, int] = {}
        for row, record in enumerate(self.records):
            place = by_class[record.labels[0]] = by_class.get(record.labels[0], -1) + 1
            share = (place % 20 + 0.5) / 20
            bounds = np.cumsum(list(sides.values()))
            self.records[row] = replace(record, split=list(sides)[int(np.searchsorted(bounds, share))])


def healthy(sizes: Mapping[str, int] | None = None) -> Data:
    rng = np.random.default_rng(0)
    records = [
        Record(id=f"{label}/{i:04d}.jpg", path=Path("x"), labels=(label,))
        for label, size in (sizes or {"ant": 320, "bee": 300}).items()
        for i in range(size)
    ]
    return Data(records, {record.id: facts_of(rng) for record in records})


def user_split() -> Data:
    data = healthy()
    data.give_sides({"train": 0.7, "val": 0.15, "test": 0.15})
    return data


def with_broken(data: Data, num: int) -> None:
    for record in data.records[:num]:
        del data.facts[record.id]
        data.left_out.append(LeftOut(path=record.id, reason="cannot be decoded: truncated"))


def pair(first: str, second: str, kind: str = "near") -> Duplicate:
    return Duplicate(first=first, second=second, kind=kind, similarity=0.99)  # type: ignore[arg-type]


def on_side(data: Data, side: Split, label: str) -> list[str]:
    return [record.id for record in data.records if record.split == side and label in record.labels]


# ---- plants: each makes a fault in healthy data


def few_broken_files(data: Data) -> None:
    with_broken(data, 4)


def many_broken_files(data: Data) -> None:
    with_broken(data, 100)


def stray_files(data: Data) -> None:
    data.left_out.extend(
        [LeftOut(path="notes.txt", reason="not an image"), LeftOut(path="x.csv", reason="not an image")]
    )


def few_exact_copies(data: Data) -> None:
    ants = data.ids("ant")
    data.pairs.extend(pair(ants[0], other, "exact") for other in ants[1:4])


def many_exact_copies(data: Data) -> None:
    ants = data.ids("ant")
    data.pairs.extend(pair(ants[i], ants[i + 1], "exact") for i in range(0, 100, 2))


def near_copies(data: Data) -> None:
    data.pairs.append(pair(*data.ids("bee")[:2]))


def exact_copies_of_two_classes(data: Data) -> None:
    data.pairs.append(pair(data.ids("ant")[5], data.ids("bee")[5], "exact"))


def near_copies_of_two_classes(data: Data) -> None:
    data.pairs.append(pair(data.ids("ant")[5], data.ids("bee")[5]))


def copies_on_two_sides(data: Data) -> None:
    data.pairs.append(pair(on_side(data, "train", "ant")[3], on_side(data, "test", "ant")[2]))


def copies_in_val_and_test(data: Data) -> None:
    data.pairs.append(pair(on_side(data, "val", "ant")[3], on_side(data, "test", "ant")[2]))


def patients_on_two_sides(data: Data) -> None:
    data.records[:] = [replace(record, group=f"patient {i // 8}") for i, record in enumerate(data.records)]


def guessed_groups_on_two_sides(data: Data) -> None:
    data.groups = {record.id: f"patient {i // 8}" for i, record in enumerate(data.records)}


def class_missing_in_train(data: Data) -> None:
    data.records[:] = [
        replace(record, split="test") if "bee" in record.labels and record.split == "train" else record
        for record in data.records
    ]
    data.records.append(Record(id="w", path=Path("x"), labels=("wasp",), split="train"))
    data.facts["w"] = facts_of(np.random.default_rng(1))


def class_missing_in_test(data: Data) -> None:
    data.records[:] = [
        replace(record, split="val") if "bee" in record.labels and record.split == "test" else record
        for record in data.records
    ]


def class_without_images(data: Data) -> None:
    data.classes = ("ant", "bee", "wasp")


def one_mode_for_a_class(data: Data) -> None:
    data.change(data.ids("bee")[:270], mode="L")


def one_format_for_a_class(data: Data) -> None:
    data.change(data.ids("bee")[:270], format="PNG")


def one_size_for_a_class(data: Data) -> None:
    data.change(data.ids("ant")[:300], width=640, height=480)


def larger_images_for_a_class(data: Data) -> None:
    rng = np.random.default_rng(2)
    for image_id in data.ids("ant"):
        side = int(rng.integers(1000, 3000))
        data.change([image_id], width=side, height=side)


def night_and_day(data: Data) -> None:
    for image_id in data.ids("ant"):
        data.change([image_id], brightness=data.facts[image_id].brightness / 4)


def flat_pictures(data: Data) -> None:
    data.change(data.ids("ant")[:2], contrast=0.0, brightness=0.0)


def dark_pictures(data: Data) -> None:
    data.change(data.ids("ant")[:2], brightness=0.01)
    data.facts.update(
        {image_id: replace(f, brightness=0.5 + (f.brightness - 0.5) / 3) for image_id, f in data.facts.items()}
    )
    data.change(data.ids("ant")[:2], brightness=0.01)


def thumbnails(data: Data) -> None:
    data.change(data.ids("bee")[:3], width=40, height=30)


def panoramas(data: Data) -> None:
    data.change(data.ids("bee")[:3], width=900, height=200)


def some_transparent(data: Data) -> None:
    data.change(data.ids("bee")[:20] + data.ids("ant")[:20], mode="RGBA")
