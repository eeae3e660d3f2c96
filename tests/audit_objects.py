"""Data sets with marked objects or masks about to be audited, healthy ones and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from audit_data import Data, facts_of, pair
from object_listings import boxed
from snellen.audit.subject import AuditSubject
from snellen.core.annotation import Annotation, MaskFile
from snellen.core.record import LeftOut, Listing, Record
from snellen.data.marked import with_marks
from snellen.data.split import split

SIZE = (400, 300)
CLASSES = ("car", "dog")
NUM_IMAGES = 240


@dataclass
class Marked(Data):
    """As ``Data``, of images with marks."""

    lost: list[LeftOut] = field(default_factory=list)

    def subject(self) -> AuditSubject:
        classes = self.classes or CLASSES
        manifest = split(self.records, pairs=self.pairs, classes=classes, multi_label=True)
        listing = Listing(
            root=Path("x"),
            format="made",
            records=self.records,
            classes=classes,
            multi_label=True,
            lost=self.lost,
            num_annotations=sum(len(record.objects or ()) for record in self.records) + len(self.lost),
        )
        return AuditSubject(
            listing=listing,
            facts=self.facts,
            left_out=self.left_out,
            pairs=self.pairs,
            manifest=with_marks(manifest, {record.id: record for record in self.records}, 1),
        )

    def mark(self, row: int, objects: Sequence[Annotation]) -> None:
        """Replace what is marked in an image."""
        labels = tuple(sorted({each.label for each in objects}))
        self.records[row] = replace(self.records[row], objects=tuple(objects), labels=labels)

    def add(self, row: int, objects: Sequence[Annotation]) -> None:
        self.mark(row, [*(self.records[row].objects or ()), *objects])


def healthy_objects() -> Marked:
    """A car and two dogs in each image, here and there, well inside of it."""
    rng = np.random.default_rng(0)
    data = Marked([], {})
    for i in range(NUM_IMAGES):
        name = f"{i:04d}.jpg"
        objects = []
        for k, label in enumerate(("car", "dog", "dog")):
            x0, y0 = rng.uniform(5, 60) + 110 * k, rng.uniform(5, 120)
            width, height = rng.uniform(20, 60), rng.uniform(20, 60)
            objects.append(boxed(label, x0, y0, x0 + width, y0 + height))
        data.records.append(Record(id=name, path=Path("x"), size=SIZE, objects=()))
        data.facts[name] = replace(facts_of(rng), width=SIZE[0], height=SIZE[1])
        data.mark(i, objects)
    return data


# ---- plants: each makes a fault in healthy data


def many_lost(data: Marked) -> None:
    data.lost = [LeftOut(path=f"{i:04d}.jpg", reason="the box has no area") for i in range(20)]


def few_lost(data: Marked) -> None:
    data.lost = [LeftOut(path="0007.jpg", reason="the box has no area")]


def some_tiny(data: Marked) -> None:
    data.add(3, [boxed("dog", 380, 280, 384, 284)])


def many_tiny(data: Marked) -> None:
    for row in range(120):
        data.add(row, [boxed("dog", 380, 280, 384, 284)])


def tiny_in_large_images(data: Marked) -> None:
    """Of 30 pixels each, in images of 4000 x 3000."""
    data.records[:] = [
        replace(
            record,
            size=(4000, 3000),
            objects=tuple(
                replace(each, box=(each.box[0], each.box[1], each.box[0] + 30, each.box[1] + 30))
                for each in record.objects or ()
            ),
        )
        for record in data.records
    ]


def marked_twice(data: Marked) -> None:
    for row in (4, 9):
        first = (data.records[row].objects or ())[0]
        x0, y0, x1, y1 = first.box
        data.add(row, [replace(first, box=(x0 + 0.5, y0, x1, y1 - 0.5))])


def whole_images(data: Marked) -> None:
    for row in (4, 9):
        data.add(row, [boxed("car", 1, 1, 399, 299)])


def tiles(data: Marked) -> None:
    for row in range(NUM_IMAGES):
        first, *others = data.records[row].objects or ()
        at_border = [replace(each, box=(each.box[0], 0.0, each.box[2], each.box[3])) for each in others]
        data.mark(row, [first, *at_border])


def empty_ones(data: Marked) -> None:
    for row in (14, 19, 21):
        data.mark(row, [])


def few_of_a_class(data: Marked) -> None:
    data.classes = (*CLASSES, "fox")
    for row in range(0, 160, 8):
        data.add(row, [boxed("fox", 350, 200, 380, 240)])


def very_few_of_a_class(data: Marked) -> None:
    data.classes = (*CLASSES, "fox")
    for row in range(5):
        data.add(row * 40, [boxed("fox", 350, 200, 380, 240)])


def many_dogs(data: Marked) -> None:
    """Sixty more in every fifth image: ten dogs to a car."""
    kennel = [
        boxed("dog", 5 + 12 * (i % 30), 200 + 40 * (i // 30), 16 + 12 * (i % 30), 230 + 40 * (i // 30))
        for i in range(60)
    ]
    for row in range(0, NUM_IMAGES, 5):
        data.add(row, kennel)


def a_crowd_of_dogs(data: Marked) -> None:
    data.add(
        7,
        [
            boxed("dog", 5 + 18 * (i % 20), 100 + 20 * (i // 20), 20 + 18 * (i % 20), 118 + 20 * (i // 20))
            for i in range(110)
        ],
    )


def copies_marked_differently(data: Marked) -> None:
    data.mark(5, (data.records[5].objects or ())[:2])
    data.pairs.append(pair("0004.jpg", "0005.jpg", "exact"))


OBJECT_PLANTS: list[tuple[Callable[[Marked], None], str, str, int]] = [
    # fault, code, severity, images that the finding names
    (many_lost, "lost-annotations", "serious", 0),
    (few_lost, "lost-annotations", "warning", 0),
    (some_tiny, "tiny-objects", "info", 1),
    (many_tiny, "tiny-objects", "warning", 24),
    (tiny_in_large_images, "tiny-objects", "warning", 24),
    (marked_twice, "repeated-objects", "warning", 2),
    (whole_images, "whole-image-objects", "info", 2),
    (tiles, "objects-at-the-border", "info", 24),
    (empty_ones, "images-without-objects", "info", 3),
    (few_of_a_class, "few-objects", "info", 20),
    (very_few_of_a_class, "few-objects", "warning", 5),
    (many_dogs, "unequal-objects", "info", 0),
    (a_crowd_of_dogs, "crowded-images", "warning", 1),
    (copies_marked_differently, "conflicting-marks", "warning", 2),
]


# ---- masks


def healthy_masks(folder: Path) -> Marked:
    """Forty masks, the left half road and the rest sky, with a frame of void."""
    data = Marked([], {}, classes=("road", "sky"))
    rng = np.random.default_rng(0)
    for i in range(40):
        name = f"{i:03d}.png"
        classes = np.ones((30, 40), np.uint8)
        classes[:, :20] = 0
        classes[0] = 255
        write_mask(folder / name, classes)
        mask = MaskFile(path=folder / name, values={0: 0, 1: 1})
        data.records.append(Record(id=name, path=folder / name, labels=("road", "sky"), mask=mask, size=(40, 30)))
        data.facts[name] = replace(facts_of(rng), width=40, height=30)
    return data


def write_mask(path: Path, classes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(classes).save(path)


def mostly_void(data: Marked) -> None:
    for record in data.records[:10]:
        classes = np.full((30, 40), 255, np.uint8)
        classes[:5, :5] = 1
        write_mask(record.path, classes)


def one_wholly_void(data: Marked) -> None:
    write_mask(data.records[0].path, np.full((30, 40), 255, np.uint8))


def hardly_any_road(data: Marked) -> None:
    for i, record in enumerate(data.records):
        classes = np.ones((30, 40), np.uint8)
        classes[0, 0] = 0 if i < 30 else 1
        write_mask(record.path, classes)


MASK_PLANTS: list[tuple[Callable[[Marked], None], str, str, int]] = [
    (mostly_void, "void-masks", "warning", 10),
    (one_wholly_void, "void-masks", "info", 1),
    (hardly_any_road, "rare-pixels", "info", 24),
]


def planted_subjects(folder: Path) -> list[AuditSubject]:
    """One for each fault above."""
    subjects = []
    for plant, *_ in OBJECT_PLANTS:
        data = healthy_objects()
        plant(data)
        subjects.append(data.subject())
    for i, (plant, *_) in enumerate(MASK_PLANTS):
        data = healthy_masks(folder / str(i))
        plant(data)
        subjects.append(data.subject())
    return subjects
