"""Boxes of the wrong class, boxes round nothing, and objects without a box, as a model sees it that was fitted without
the image.

Boxes are regions as a frozen network sees them, classified out of fold by image, so what is known of wrong labels
(metrics/label_errors.py) holds for boxes too. Which boxes are round nothing and which objects have no box is looked for
place by place (overlooked.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.audit.dense import Floats, HeldOutPlaces
from snellen.audit.labelled import FEWEST, Labelled
from snellen.audit.labels import without_suspects
from snellen.audit.overlooked import Overlooked, find_overlooked
from snellen.audit.places import boxes_of_turned_images, boxes_off_edges
from snellen.audit.regions import empty_regions, region_features
from snellen.audit.remedies import left_out_of_training
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.core.finding import Finding
from snellen.core.seeds import keyed_generator, keyed_permutation
from snellen.core.thresholds import alpha

MOST_BOXES = 1_500  # whose classes are looked at
NOTHING = "nothing"
_LOOKS = 4  # at classes, at classes and empty places, at what is boxed, and at what is not
_FEWEST_OF_CLASS = 8  # of fewer there may be none in what the model learns from
_FEWEST = 5  # units: what is wrong in fewer is one mishap
_MOST_FALSE = 0.25  # of the suspects, may be right after all: a longer list is no help
_LOW = 0.75  # share of empty places: hardly a right box scores less than so many of them
_HARD = 0.01  # share of boxes in which a model may see as little as anywhere although they are right
_FALSE = 0.05  # share of the boxes that are named, rightly drawn
_MOVED = 0.5  # share of the images of boxes round nothing that have an object without a box ...
_TIMES = 3.0  # and how much oftener than other images
_TOLERATED = 0.02  # share of units in which something that is no object may look as much like one as the boxes do
_ALIKE = 0.5  # share of what resembles boxes that looks as their better half does: 5/8 if they were drawn from them
_MUCH = 0.10  # share of wrong claims from which no result can be trusted


@dataclass(frozen=True, slots=True, eq=False)
class _Claims:
    """seen: boxes and their classes; places [n, 4] in shares of the image's sides."""

    seen: Labelled
    places: Floats


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is said of some objects.

    told         the part of a sentence
    objects      JSON-able, the most doubtful first, each with its image, box, given and suggested class
    evidence     numbers
    rate         share of what was looked at
    """

    told: str
    objects: list[dict[str, Any]]
    evidence: dict[str, Any]
    rate: float
    confirmed: bool


def suspect_boxes(subject: AuditSubject) -> Iterator[Finding]:
    """Boxes that are denied as confidently as right ones are affirmed, and objects that nobody has boxed."""
    if not subject.maps:
        return
    found = _overlooked(subject)
    wrong = _wrong(subject, with_empty=False)
    if wrong is None and found is None:
        wrong = _wrong(subject, with_empty=True)
    asked = [
        wrong,
        *((_empty(subject, found), _missing(subject, found)) if found else ()),
    ]
    verdicts = [each for each in asked if each is not None]
    if not verdicts or any(boxes_off_edges(subject)) or any(boxes_of_turned_images(subject)):
        return
    rate = max(each.rate for each in verdicts)
    objects = [each for verdict in verdicts for each in verdict.objects]
    ids = list(dict.fromkeys(each["image"] for each in objects))
    yield Finding(
        code="suspect-boxes",
        severity="serious" if rate > _MUCH else "warning",
        certainty="confirmed" if any(each.confirmed for each in verdicts) else "observed",
        message=f"{_sentence([each.told for each in verdicts])}; look at {ids[0]} first.",
        advice="Look at what is named, drawn in dashes on the images, and correct the boxes in their file.",
        evidence={
            "objects": objects[: 4 * MAX_IMAGES],
            **{name: value for verdict in verdicts for name, value in verdict.evidence.items()},
        },
        images=tuple(ids[:MAX_IMAGES]),
        treatment=left_out_of_training(subject, ids, most=0.2),
    )


def _sentence(parts: Sequence[str]) -> str:
    told = "; ".join(parts)
    return told[0].upper() + told[1:]


def _wrong(subject: AuditSubject, *, with_empty: bool) -> _Verdict | None:
    """Boxes of another class, and where empty places are one of them, round nothing; confirmed when a model learns
    better without them (labels.py)."""
    claims = _claims(subject, with_empty)
    if claims is None:
        return None
    seen, errors = claims.seen, claims.seen.errors
    shown = errors.noise.p <= alpha("suspect-boxes", _LOOKS) and errors.noise.low > errors.noise.tolerated
    boxed = seen.codes != (len(seen.classes) - 1 if with_empty else -1)
    named = errors.suspect & boxed
    few = len({seen.units[int(i)] for i in np.flatnonzero(named)}) < _FEWEST
    if not shown or few or errors.false_share > _MOST_FALSE:
        return None
    better, worse, p = without_suspects(seen)
    order = np.flatnonzero(named)[np.argsort(-errors.doubt[named], kind="stable")]
    return _Verdict(
        told=f"{counted(len(order), 'box', 'boxes')} of {int(boxed.sum()):,} look as if of another class"
        + " or beside objects" * with_empty,
        objects=[
            _object(subject, seen.ids[i], claims.places[i], seen.classes[seen.codes[i]], seen.classes[j])
            for i, j in zip(order, errors.suggested[order], strict=True)
        ],
        evidence={
            "num_wrong": len(order),
            "num_boxes": int(boxed.sum()),
            "rate": errors.noise.rate,
            "low": errors.noise.low,
            "tolerated": errors.noise.tolerated,
            "false_share": errors.false_share,
            "p": errors.noise.p,
            "without_them": {"better": better, "worse": worse, "p": p},
        },
        rate=errors.noise.low,
        confirmed=better > worse and p <= alpha("suspect-boxes", 2 * _LOOKS),
    )


def _empty(subject: AuditSubject, found: Overlooked) -> _Verdict | None:
    """Boxes that might as well have been put anywhere.

    Two groups (Efron, Statistical Science 23 (2008) 1): what boxes put anywhere score is known, from places drawn by
    lot, and three quarters of it lie where hardly a right box does; so the boxes there are three quarters of the wrong
    ones. Hard objects score like that too: it
    speaks only when most of their images have an object without a box, and other images hardly ever.
    """
    low = found.as_empty < _LOW
    units = np.unique([subject.unit_of(image_id) for image_id in found.ids], return_inverse=True)[1]
    named = int(np.count_nonzero(np.bincount(units[found.image], low)))
    total = int(units.max()) + 1
    per_unit = len(found.boxes) / total
    p = _at_least(named, total, min(1.0, _LOW * _HARD * per_unit))
    share = low.mean() / _LOW
    if named < _FEWEST or share <= 2 * _HARD or p > alpha("suspect-boxes", _LOOKS):
        return None
    order = np.argsort(found.as_empty, kind="stable")
    ranks = found.as_empty[order]
    wrong = share * len(order) * ranks / np.arange(1, len(order) + 1)  # about the share of those so far
    order = order[: max(int(low.sum()), int(np.flatnonzero(wrong >= 1 - _FALSE).max(initial=-1)) + 1)]
    moved = float(found.as_boxes[found.image[order]].mean())
    others = float(np.delete(found.as_boxes, np.unique(found.image[order])).mean()) if len(order) else 1.0
    if moved < _MOVED or moved < _TIMES * others:
        return None
    return _Verdict(
        told=f"{counted(len(order), 'box', 'boxes')} of {len(found.boxes):,} look as if put anywhere",
        objects=[_stated(subject, found.ids[found.image[i]], int(found.row[i])) for i in order],
        evidence={
            "num_empty": len(order),
            "share_empty": float(share),
            "p_empty": p,
            "with_object_elsewhere": round(moved, 3),
            "others_with_object_elsewhere": round(others, 3),
        },
        rate=float(share),
        confirmed=True,
    )


def _stated(subject: AuditSubject, image_id: str, row: int) -> dict[str, Any]:
    each = (subject.records[image_id].objects or ())[row]
    return {
        "image": image_id,
        "box": [round(float(x), 1) for x in each.box],
        "given": each.label,
        "suggested": NOTHING,
    }


def _missing(subject: AuditSubject, found: Overlooked) -> _Verdict | None:
    """Objects without a box: confirmed when the model does not know them from those that have one."""
    units = np.unique([subject.unit_of(image_id) for image_id in found.ids], return_inverse=True)[1]
    total = int(units.max()) + 1
    named = int(np.count_nonzero(np.bincount(units, found.as_boxes)))
    p = _at_least(named, total, _TOLERATED)
    if named < _FEWEST or named <= 2 * _TOLERATED * total or p > alpha("suspect-boxes", _LOOKS):
        return None
    order = [i for i in np.argsort(-found.scores, kind="stable") if found.as_boxes[i]]
    names = subject.manifest.classes
    return _Verdict(
        told=f"in {len(order):,} of {counted(len(found.ids), 'image')} something without a box looks like an object",
        objects=[_object(subject, found.ids[i], found.places[i], NOTHING, names[found.kinds[i]]) for i in order],
        evidence={
            "num_overlooked": len(order),
            "num_images": len(found.ids),
            "p_overlooked": p,
            "alike": round(found.alike, 3),
        },
        rate=named / total,
        confirmed=found.alike >= _ALIKE,
    )


def _at_least(named: int, total: int, tolerated: float) -> float:
    """That so many units are named if no more than what is tolerated would be: exact, binomial."""
    from scipy.special import bdtrc

    return float(bdtrc(named - 1, total, tolerated)) if named else 1.0


def _object(subject: AuditSubject, image_id: str, place: Floats, given: str, suggested: str) -> dict[str, Any]:
    box = place * np.tile(np.array(subject.records[image_id].size, np.float64), 2)
    return {"image": image_id, "box": [round(float(x), 1) for x in box], "given": given, "suggested": suggested}


def _claims(subject: AuditSubject, with_empty: bool) -> _Claims | None:
    """A sample of the boxes, and as many places without one; None where too few have a class, or all the same."""
    boxes, labels = _marked(subject)
    counts = np.zeros(len(subject.manifest.classes), np.int64)
    for each in labels.values():
        np.add.at(counts, each, 1)
    usable = np.flatnonzero(counts >= _FEWEST_OF_CLASS)
    if len(usable) < 2 or int(counts[usable].sum()) < FEWEST:
        return None
    everything = [(image_id, i) for image_id, each in labels.items() for i in np.flatnonzero(np.isin(each, usable))]
    chosen = sorted(keyed_permutation(len(everything), "boxes")[:MOST_BOXES].tolist())
    ids = [everything[i][0] for i in chosen]
    rows = np.array([everything[i][1] for i in chosen], np.intp)
    sizes = np.concatenate([each[:, 2:] - each[:, :2] for each in boxes.values()])
    features, codes, places, images = [], [], [], []
    for image_id in dict.fromkeys(ids):
        of_image = rows[[i for i, each in enumerate(ids) if each == image_id]]
        number, rng = len(of_image) * with_empty, keyed_generator("empty", image_id)
        empty = empty_regions(boxes[image_id], sizes, number, rng)
        regions = np.concatenate([boxes[image_id][of_image], empty])
        features.append(region_features((subject.maps or {})[image_id], regions))
        codes.append(np.append(np.searchsorted(usable, labels[image_id][of_image]), [len(usable)] * len(empty)))
        places.append(regions)
        images += [image_id] * len(regions)
    seen = Labelled(
        ids=images,
        sides=[subject.rows[image_id].split for image_id in images],
        units=[subject.unit_of(image_id) for image_id in images],
        codes=np.concatenate(codes).astype(np.int64),
        classes=(*(subject.manifest.classes[label] for label in usable), *[NOTHING] * with_empty),
        features=np.concatenate(features),
    )
    return _Claims(seen, np.concatenate(places))


def _overlooked(subject: AuditSubject) -> Overlooked | None:
    boxes, labels = _marked(subject)
    if sum(map(len, boxes.values())) < FEWEST:
        return None
    model = HeldOutPlaces.of({image_id: (subject.maps or {})[image_id] for image_id in boxes}, subject.unit_of)
    return None if model is None else find_overlooked(model, boxes, labels, len(subject.manifest.classes))


def _marked(subject: AuditSubject) -> tuple[dict[str, Floats], dict[str, npt.NDArray[np.intp]]]:
    """Boxes [n, 4] in shares of the image's sides, and the places of their classes [n], of each image with a map.

    Images with crowds are passed over: what is in a crowd has no box of its own.
    """
    boxes, labels = {}, {}
    classes = {name: i for i, name in enumerate(subject.manifest.classes)}
    for image_id in subject.maps or {}:
        record = subject.records[image_id]
        if record.objects is None or record.size is None or any(each.crowd for each in record.objects):
            continue
        size = np.tile(np.array(record.size, np.float64), 2)
        boxes[image_id] = np.array([each.box for each in record.objects], np.float64).reshape(-1, 4) / size
        labels[image_id] = np.array([classes[each.label] for each in record.objects], np.intp)
    return boxes, labels
