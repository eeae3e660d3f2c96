"""Images with boxes or masks about to be audited with what a network sees at each place: the maps are drawn, no image
is. Objects are 2 to 5 places wide, each class with its own direction in 10 dimensions, on ground that is rough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from audit_data import facts_of
from audit_objects import Marked
from object_listings import boxed
from snellen.audit.dense_targets import class_shares, covered
from snellen.audit.subject import AuditSubject
from snellen.core.annotation import Annotation, MaskFile
from snellen.core.record import Record
from snellen.data.mask_files import save_mask

SIZE = (320, 240)
SHAPE = (15, 20)
STEP = 16  # pixels of a place
CLASSES = ("car", "dog", "owl")
DIMENSIONS = 10

Turn = Callable[[np.ndarray], np.ndarray]


@dataclass
class Mapped(Marked):
    """As ``Marked``, with maps."""

    maps: dict[str, np.ndarray] = field(default_factory=dict)

    def subject(self) -> AuditSubject:
        return replace(super().subject(), maps={i: each.astype(np.float16) for i, each in self.maps.items()})


def boxed_maps(num: int = 160, seed: int = 0, *, faint: float = 0.0, alike: float = 0.0, noise: float = 0.4) -> Mapped:
    """Two or three objects an image. faint: the share that is hardly seen; alike: the share of images with something
    that resembles an object and is none."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(9).normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    data = Mapped([], {}, classes=CLASSES)
    for i in range(num):
        name = f"{i:04d}.jpg"
        places, objects = _apart(rng, int(rng.integers(2, 4)) + 1), []
        seen = rng.normal(0, noise, (*SHAPE, DIMENSIONS))
        for box in places[:-1]:
            kind = int(rng.integers(len(CLASSES)))
            strength = 0.2 if rng.random() < faint else 1.0
            seen += strength * _cover(box)[..., None] * (directions[kind] + directions[5])
            objects.append(boxed(CLASSES[kind], *box))
        if rng.random() < alike:
            seen += 0.5 * _cover(places[-1])[..., None] * (directions[0] + directions[5])
        data.records.append(Record(id=name, path=Path("gone") / name, size=SIZE, objects=()))
        data.facts[name] = replace(facts_of(rng), width=SIZE[0], height=SIZE[1])
        data.maps[name] = seen
        data.mark(i, objects)
    return data


def _apart(rng: np.random.Generator, number: int) -> list[tuple[float, float, float, float]]:
    found: list[tuple[float, float, float, float]] = []
    for _ in range(400):
        width, height = rng.uniform(48, 88, 2)
        x0, y0 = rng.uniform(0, SIZE[0] - width), rng.uniform(0, SIZE[1] - height)
        box = (float(x0), float(y0), float(x0 + width), float(y0 + height))
        if all(box[0] > b[2] or b[0] > box[2] or box[1] > b[3] or b[1] > box[3] for b in found):
            found.append(box)
        if len(found) == number:
            break
    return found


def _cover(box: tuple[float, float, float, float]) -> np.ndarray:
    return covered(np.array([box]) / np.tile(SIZE, 2), SHAPE)


def change_boxes(
    data: Mapped, share: float, change: Callable[[Annotation, np.random.Generator], Annotation | None], seed: int = 1
) -> set[tuple[str, str]]:
    """Change or take away boxes by lot; gives the image and the label, or '' for none, of each."""
    rng, changed = np.random.default_rng(seed), set()
    for i, record in enumerate(data.records):
        kept = []
        for each in record.objects or ():
            new = change(each, rng) if rng.random() < share else each
            if new is not each:
                changed.add((record.id, new.label if new else ""))
            if new is not None:
                kept.append(new)
        data.mark(i, kept)
    return changed


def masked_maps(
    folder: Path,
    turn: Callable[[np.ndarray, int], np.ndarray] | None = None,
    num: int = 80,
    seed: int = 0,
    noise: float = 0.4,
) -> Mapped:
    """A class for each pixel: ground or one of two others. turn: what is written instead of (mask, number)."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(9).normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    data = Mapped([], {}, classes=("ground", "disc", "block"))
    for i in range(num):
        mask = np.zeros(SIZE[::-1], np.uint8)
        for box in _apart(rng, int(rng.integers(1, 4))):
            x0, y0, x1, y1 = (round(x) for x in box)
            mask[y0:y1, x0:x1] = int(rng.integers(1, 3))
        name, path = f"{i:04d}.jpg", folder / f"{i:04d}.png"
        seen = rng.normal(0, noise, (*SHAPE, DIMENSIONS)) + class_shares(mask, 3, SHAPE) @ directions[:3]
        save_mask(np.ascontiguousarray(mask if turn is None else turn(mask, i)), path)
        file = MaskFile(path=path, values={0: 0, 1: 1, 2: 2})
        data.records.append(Record(id=name, path=Path("gone") / name, size=SIZE, mask=file, labels=("disc", "ground")))
        data.facts[name] = replace(facts_of(rng), width=SIZE[0], height=SIZE[1])
        data.maps[name] = seen
    return data
