"""Checks of what is marked in the images: objects that are lost, doubtful, too small or too few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from snellen.audit.marks import MarkedObjects
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Finding
from snellen.data.duplicates import Duplicate

SMALL_SHARE = 0.0002  # of the image's area: 8 x 8 pixels once the image is shrunk to 640 x 480
_SMALL_SIDE = 8  # pixels of the image
_SAME = 0.9  # IoU from which two boxes of a class are one object marked twice
_WHOLE = 0.95  # of the image's area
_MUCH = 0.05  # of the objects: a fault of more is a warning
_LOST = 0.01  # of the annotations: a loss of more is serious
_AT_BORDER = 0.4  # of the objects
_FEW, _VERY_FEW = 30, 10
_MOST_JUDGED = 100  # answers of a class in an image that COCO's metrics look at
_UNEQUAL, _VERY_UNEQUAL = 10, 100
_ENOUGH = 50  # objects, from which a share of them means something
_MAX_CLASSES = 20  # classes spelt out in the evidence


def lost_annotations(subject: AuditSubject) -> Iterator[Finding]:
    """Annotations that the files hold and that are not used. Serious when they are more than a hundredth."""
    lost, total = subject.listing.lost, subject.listing.num_annotations
    if not lost:
        return
    share = len(lost) / max(total, len(lost))
    reasons = Counter(each.reason for each in lost)
    (reason, times), *_ = reasons.most_common(1)
    yield Finding(
        code="lost-annotations",
        severity="serious" if share > _LOST else "warning",
        message=f"{counted(len(lost), 'annotation')} of {total:,} ({share:.1%}) cannot be used, {times:,} of them "
        f"because: {reason}.",
        advice="Mend them in the file, or see that nothing is missed: what is not marked is learnt as background.",
        evidence={
            "num_lost": len(lost),
            "share": share,
            "reasons": dict(reasons.most_common(10)),
            "examples": {each.path: each.reason for each in lost[:MAX_IMAGES]},
        },
    )


def tiny_objects(subject: AuditSubject) -> Iterator[Finding]:
    """Objects that are hardly seen: below 0.02 % of the image, or shorter than 8 pixels both ways."""
    objects = subject.objects
    rows = np.flatnonzero((objects.shares < SMALL_SHARE) | (objects.sides < _SMALL_SIDE).all(axis=1))
    if not len(rows):
        return
    share = len(rows) / len(objects)
    yield Finding(
        code="tiny-objects",
        severity="warning" if share > _MUCH else "info",
        message=f"{counted(len(rows), 'object')} of {len(objects):,} ({share:.1%}) are tiny: below "
        f"{SMALL_SHARE:.2%} of their image or {_SMALL_SIDE} pixels.",
        advice="Look whether they are meant: slips of the mouse look so. If they are, train with a larger input size, "
        "or cut large images into tiles.",
        evidence={"num_tiny": len(rows), "share": share, "classes": _by_class(objects, rows)},
        images=objects.images_of(rows)[:MAX_IMAGES],
    )


def repeated_objects(subject: AuditSubject) -> Iterator[Finding]:
    """Boxes of one class in one image that are nearly the same (IoU above 0.9)."""
    objects = subject.objects
    rows = _repeated(objects)
    if not len(rows):
        return
    share = len(rows) / len(objects)
    yield Finding(
        code="repeated-objects",
        severity="warning",
        message=f"{counted(len(rows), 'object')} of {len(objects):,} ({share:.1%}) {_have(len(rows))} nearly the same "
        f"box as another of the same class (IoU above {_SAME}).",
        advice="Most likely these were marked twice: remove one of each pair. A model is punished for finding one.",
        evidence={"num_repeated": len(rows), "share": share, "classes": _by_class(objects, rows)},
        images=objects.images_of(rows)[:MAX_IMAGES],
    )


def whole_image_objects(subject: AuditSubject) -> Iterator[Finding]:
    """Boxes that cover 95 % of their image or more."""
    objects = subject.objects
    rows = np.flatnonzero(objects.shares >= _WHOLE)
    if not len(rows):
        return
    share = len(rows) / len(objects)
    yield Finding(
        code="whole-image-objects",
        severity="warning" if share > _MUCH else "info",
        message=f"{counted(len(rows), 'object')} of {len(objects):,} ({share:.1%}) {_are(len(rows))} as large as the "
        "image.",
        advice="Look at them: a class for the whole image, or a box in the wrong units, looks so. If most are meant, "
        "classification answers the same question more simply.",
        evidence={"num_whole": len(rows), "share": share, "classes": _by_class(objects, rows)},
        images=objects.images_of(rows)[:MAX_IMAGES],
    )


def objects_at_the_border(subject: AuditSubject) -> Iterator[Finding]:
    """Two in five objects or more end where the image ends: they were cut, as in tiles and crops."""
    objects = subject.objects
    if len(objects) < _ENOUGH:
        return
    ends = (objects.boxes[:, :2] < 1) | (objects.boxes[:, 2:] > objects.sizes[objects.image] - 1)
    rows = np.flatnonzero(ends.any(axis=1) & (objects.shares < _WHOLE))
    share = len(rows) / len(objects)
    if share < _AT_BORDER:
        return
    yield Finding(
        code="objects-at-the-border",
        severity="info",
        message=f"{len(rows):,} of {len(objects):,} objects ({share:.0%}) touch the border of their image.",
        advice="If the images are tiles of larger ones, let tiles overlap, and keep those of one image on one side "
        "of the split (groups).",
        evidence={"num_at_border": len(rows), "share": share},
        images=objects.images_of(rows)[:MAX_IMAGES],
    )


def images_without_objects(subject: AuditSubject) -> Iterator[Finding]:
    """Images in which nothing is marked."""
    objects = subject.objects
    empty = [objects.ids[i] for i in np.flatnonzero(objects.per_image == 0)]
    if not empty or not len(objects):
        return
    yield Finding(
        code="images-without-objects",
        severity="info",
        message=f"{counted(len(empty), 'image')} of {len(objects.ids):,} {'shows' if len(empty) == 1 else 'show'} no "
        f"object: {listed(empty, 3)}.",
        advice="They teach what is nothing and serve well, if that is what they mean: an image that was never marked "
        "looks the same.",
        evidence={"num_images": len(empty), "share": len(empty) / len(objects.ids)},
        images=tuple(empty[:MAX_IMAGES]),
    )


def few_objects(subject: AuditSubject) -> Iterator[Finding]:
    """Classes with fewer than 30 objects; a warning below 10."""
    counts = _totals(subject)
    few = {name: count for name, count in counts.items() if 0 < count < _FEW}
    if not few:
        return
    ordered = dict(sorted(few.items(), key=lambda item: (item[1], item[0])))
    told = [f"{name} ({count})" for name, count in ordered.items()]
    yield Finding(
        code="few-objects",
        severity="warning" if min(few.values()) < _VERY_FEW else "info",
        message=f"{counted(len(few), 'class has', 'classes have')} fewer than {_FEW} objects: {listed(told)}.",
        advice="More of these will help more than anything else; until then their own numbers say little.",
        evidence={"num_classes": len(few), "counts": dict(list(ordered.items())[:_MAX_CLASSES])},
        images=_showing(subject, set(few)),
    )


def unequal_objects(subject: AuditSubject) -> Iterator[Finding]:
    """The most common class has ten times the objects of the rarest, or more; a warning from a hundred times."""
    counts = {name: count for name, count in _totals(subject).items() if count}
    if len(counts) < 2:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[least]
    if ratio < _UNEQUAL:
        return
    rarest = sorted(counts.items(), key=lambda item: (item[1], item[0]))[:_MAX_CLASSES]
    yield Finding(
        code="unequal-objects",
        severity="warning" if ratio >= _VERY_UNEQUAL else "info",
        message=f"{most} is marked {counts[most]:,} times, {least} {counts[least]:,} times: {ratio:.0f} to 1.",
        advice="Each class counts the same in the mean average precision: read the numbers of the rare ones, and "
        "collect more images of them.",
        evidence={"ratio": ratio, "most": most, "least": least, "counts": dict(rarest)},
    )


def crowded_images(subject: AuditSubject) -> Iterator[Finding]:
    """Images with more than a hundred objects of one class: COCO's metrics look at the hundred surest answers."""
    objects = subject.objects
    cells, counts = np.unique(objects.image * max(1, len(objects.names)) + objects.label, return_counts=True)
    crowded = np.flatnonzero(counts > _MOST_JUDGED)
    if not len(crowded):
        return
    crowded = crowded[np.argsort(-counts[crowded], kind="stable")]
    images = list(dict.fromkeys(objects.ids[cell // len(objects.names)] for cell in cells[crowded]))
    unjudged = int((counts[crowded] - _MOST_JUDGED).sum())
    yield Finding(
        code="crowded-images",
        severity="warning",
        message=f"{counted(len(images), 'image')} of {len(objects.ids):,} {'has' if len(images) == 1 else 'have'} more "
        f"than {_MOST_JUDGED} objects of one class, up to {counts.max():,}.",
        advice=f"The metrics look at the {_MOST_JUDGED} surest answers of a class in an image, so that {unjudged:,} "
        "objects can never count as found: cut such images into tiles.",
        evidence={"num_images": len(images), "most": int(counts.max()), "num_beyond": unjudged},
        images=tuple(images[:MAX_IMAGES]),
    )


def conflicting_marks(subject: AuditSubject) -> Iterator[Finding]:
    """Images that are copies of each other, pixel for pixel, in which not the same is marked."""
    rows = subject.rows
    pairs = [pair for pair in subject.pairs if pair.kind == "exact" and pair.first in rows and pair.second in rows]
    marks = {image_id: (rows[image_id].labels, rows[image_id].objects) for pair in pairs for image_id in _ids(pair)}
    differing = [pair for pair in pairs if subject.is_marked and marks[pair.first] != marks[pair.second]]
    if not differing:
        return
    first = differing[0]
    yield Finding(
        code="conflicting-marks",
        severity="warning",
        message=f"{counted(len(differing), 'pair')} of exact copies {_are(len(differing))} marked differently, for "
        f"example {first.first} and {first.second}.",
        advice="Keep the copy that is marked completely and remove the other: what one of them marks, the other "
        "teaches as background.",
        evidence={"num_pairs": len(differing), "pairs": [list(_ids(pair)) for pair in differing[:12]]},
        images=tuple(dict.fromkeys(image_id for pair in differing for image_id in _ids(pair)))[:MAX_IMAGES],
    )


def _ids(pair: Duplicate) -> tuple[str, str]:
    return pair.first, pair.second


def _repeated(objects: MarkedObjects) -> NDArray[np.intp]:
    """Rows that have an earlier one of their image and class with an IoU above 0.9.

    Rows of one image and class are put side by side, and each is held against the next, then the one after, as long
    as any group is that long: there are as many steps as objects in the largest group, not pairs of all objects.
    """
    group = objects.image * max(1, len(objects.names)) + objects.label
    order = np.argsort(group, kind="stable")
    group, boxes = group[order], objects.boxes[order]
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    repeated = np.zeros(len(order), np.bool_)
    left, step = np.arange(len(order)), 0
    while len(left):
        step += 1
        left = left[left + step < len(order)]
        left = left[group[left + step] == group[left]]
        a, b = boxes[left], boxes[left + step]
        shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0).prod(axis=1)
        repeated[left[shared > _SAME * (area[left] + area[left + step] - shared)] + step] = True
    return np.sort(order[repeated])


def _by_class(objects: MarkedObjects, rows: NDArray[np.intp]) -> dict[str, int]:
    counts = np.bincount(objects.label[rows], minlength=len(objects.names))
    order = np.argsort(-counts, kind="stable")[:_MAX_CLASSES]
    return {objects.names[i]: int(counts[i]) for i in order if counts[i]}


def _totals(subject: AuditSubject) -> dict[str, int]:
    return {name: counts.total() for name, counts in subject.object_counts.items()}


def _showing(subject: AuditSubject, names: set[str]) -> tuple[str, ...]:
    return tuple(row.id for row in subject.manifest.rows if not names.isdisjoint(row.labels))[:MAX_IMAGES]


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
