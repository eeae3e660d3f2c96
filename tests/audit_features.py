"""Data sets about to be audited with what a network sees in each image, healthy ones and ones with a planted fault.

The features are drawn: a place for each class, a smaller step for each image, and where asked for a place for each
group, each in 24 dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audit_data import facts_of
from snellen.audit.subject import AuditSubject
from snellen.core.record import Listing, Record, Split
from snellen.data.scan import ImageFacts
from snellen.data.split import split

Floats = npt.NDArray[np.float64]
DIMENSIONS = 24
_NOWHERE = Path("x")
SIDES: Mapping[Split, float] = {"train": 0.6, "val": 0.4}


@dataclass
class Seen:
    """Records with features: healthy as it is made, and open to sabotage."""

    records: list[Record]
    features: Floats
    format: str = "folder"

    def subject(self) -> AuditSubject:
        rng = np.random.default_rng(0)
        facts: dict[str, ImageFacts] = {record.id: facts_of(rng) for record in self.records}
        classes = tuple(sorted({label for record in self.records for label in record.labels}))
        manifest = split(self.records, pairs=[], classes=classes, multi_label=False, groups=_groups(self.records))
        listing = Listing(root=self.records[0].path, format=self.format, records=self.records, classes=classes)
        features = {record.id: self.features[i].astype(np.float32) for i, record in enumerate(self.records)}
        return AuditSubject(listing=listing, facts=facts, left_out=[], pairs=[], manifest=manifest, features=features)

    def labels(self) -> list[str]:
        return [record.labels[0] for record in self.records]

    def relabel(self, labels: Sequence[str]) -> None:
        self.records = [replace(record, labels=(label,)) for record, label in zip(self.records, labels, strict=True)]

    def give_sides(self, seed: int = 0) -> None:
        """The user's own split, by lot."""
        drawn = np.random.default_rng(seed).permutation(len(self.records)) / len(self.records)
        sides: list[Split] = ["train" if place < SIDES["train"] else "val" for place in drawn]
        self.records = [replace(record, split=side) for record, side in zip(self.records, sides, strict=True)]

    def on(self, side: Split) -> npt.NDArray[np.bool_]:
        return np.array([record.split == side for record in self.records])


def _groups(records: Sequence[Record]) -> dict[str, str] | None:
    return {record.id: record.group for record in records if record.group is not None} or None


def seen(seed: int, *, num: int = 500, classes: int = 4, hardness: float = 0.55) -> Seen:
    """Images of a class each, in an order of names that says nothing of it; about 2 to 5 in a hundred are hard."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(num) % classes)
    places = rng.normal(size=(classes, DIMENSIONS))
    features = places[codes] + hardness * rng.normal(size=(num, DIMENSIONS)) * rng.gamma(4, 0.25, size=(num, 1))
    records = [Record(id=f"{i:05d}.jpg", path=_NOWHERE, labels=(f"kind {code}",)) for i, code in enumerate(codes)]
    return Seen(records, features)


def with_groups(seed: int = 0, *, num_groups: int = 90, size: int = 6, follow_class: bool = True) -> Seen:
    """Films of ``size`` frames each, thrown on both sides by lot, with names that say nothing of it."""
    rng = np.random.default_rng(seed)
    num = num_groups * size
    film = np.arange(num) // size
    codes = film % 2 if follow_class else rng.integers(0, 2, num)
    places, scenes = rng.normal(size=(2, DIMENSIONS)), rng.normal(size=(num_groups, DIMENSIONS))
    features = (0.5 if follow_class else 0.1) * places[codes] + scenes[film] + 0.08 * rng.normal(size=(num, DIMENSIONS))
    names = rng.permutation(num)
    records = [Record(id=f"{names[i]:05d}.jpg", path=_NOWHERE, labels=(f"kind {codes[i]}",)) for i in range(num)]
    data = Seen(records, features)
    data.give_sides(seed)
    return data


def mislabelled(data: Seen, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Give as many images another class by lot; True for those."""
    rng = np.random.default_rng(1000 + seed)
    labels, names = data.labels(), sorted(set(data.labels()))
    wrong = np.zeros(len(labels), np.bool_)
    wrong[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    for i in np.flatnonzero(wrong):
        labels[i] = str(rng.choice([name for name in names if name != labels[i]]))
    data.relabel(labels)
    return wrong


# ---- plants


def wrong_labels(seed: int = 0) -> Seen:
    data = seen(seed, num=800)
    mislabelled(data, 0.08, seed)
    return data


def one_class_called_another(seed: int = 0) -> Seen:
    data = seen(seed, num=1000, classes=8)
    labels = data.labels()
    of_class = [i for i, label in enumerate(labels) if label == "kind 1"]
    for i in of_class[::4]:
        labels[i] = "kind 2"
    data.relabel(labels)
    return data


def shuffled_labels(seed: int = 0) -> Seen:
    data = seen(seed, num=1200)
    order = np.random.default_rng(2000 + seed).permutation(len(data.records))
    data.relabel([data.labels()[i] for i in order])
    return data


def labels_of_the_row_above(seed: int = 0) -> Seen:
    data = seen(seed, num=1200)
    labels = data.labels()
    data.relabel([labels[-1], *labels[:-1]])
    return data


def classes_numbered_anew(seed: int = 0) -> Seen:
    data = seen(seed)
    data.give_sides(seed)
    names = sorted(set(data.labels()))
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    data.relabel(
        [
            following[label] if record.split == "val" else label
            for record, label in zip(data.records, data.labels(), strict=True)
        ]
    )
    return data


def another_camera(seed: int = 0) -> Seen:
    data = seen(seed)
    data.give_sides(seed)
    data.features[data.on("val")] += 0.7 * np.random.default_rng(3000 + seed).normal(size=DIMENSIONS)
    return data


def another_mixture(seed: int = 0) -> Seen:
    data = seen(seed)
    data.give_sides(seed)
    gone = [i for i, record in enumerate(data.records) if record.split == "val" and record.labels[0] == "kind 0"][::2]
    kept = sorted(set(range(len(data.records))) - set(gone))
    more = [i for i in kept if data.records[i].split == "train" and data.records[i].labels[0] == "kind 1"][::2]
    for i in more:
        data.records[i] = replace(data.records[i], split="val")
    return Seen([data.records[i] for i in kept], data.features[kept])


def strangers(seed: int = 0) -> Seen:
    data = seen(seed)
    data.features[[3, 77, 200]] += 60 * np.random.default_rng(4000 + seed).normal(size=(3, DIMENSIONS))
    return data


def a_film(seed: int = 0) -> Seen:
    """Neighbours in the list are alike, as in a film."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(400, DIMENSIONS)), axis=0)
    records = [Record(id=f"{i:05d}.jpg", path=_NOWHERE, labels=(f"kind {i // 50 % 2}",)) for i in range(400)]
    return Seen(records, walk, format="table")


PLANTED = (
    wrong_labels,
    one_class_called_another,
    shuffled_labels,
    classes_numbered_anew,
    another_camera,
    another_mixture,
    strangers,
    a_film,
    with_groups,
)
