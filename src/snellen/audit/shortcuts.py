"""Can a class be told from the file rather than from what it shows? A model would take that short cut.

For every property (kind of pixels, format, size, resolution, shape, brightness) and every class, a rule is learned on
one half of the images and tried on the other: which values of the property speak for the class. Its score is Youden's J
= true positive rate + true negative rate - 1: 0 is chance, 1 is perfect. An alarm needs a large J and one that chance
cannot explain (4.5 standard errors, about 1 in 300,000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snellen.audit.files import KINDS
from snellen.audit.subject import MAX_IMAGES, AuditSubject, listed
from snellen.core.finding import Finding, Severity
from snellen.core.seeds import keyed_seed

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FEWEST = 10  # images of a class and outside it, in each half
_STANDARD_ERRORS = 4.5
_BINS = 10


@dataclass(frozen=True, slots=True)
class _Property:
    """name and codes [n] of a property; least: the J from which on it is told."""

    name: str
    codes: Codes
    least: float
    severity: Severity


def shortcuts(subject: AuditSubject) -> Iterator[Finding]:
    """One finding for every property that gives a class away; of the properties of size, only the most telling.

    Brightness is part of what a picture shows (day and night), so it is information and needs a higher J. So is all
    of it where objects or pixels are to be found: what gives away that they are there does not say where.
    """
    ids = sorted(subject.rows)
    half = np.array([keyed_seed("half", image_id) % 2 == 0 for image_id in ids], dtype=np.bool_)
    found = []
    for prop in _properties(subject, ids):
        scores = _scores(subject, ids, prop, half)
        if scores:
            found.append((prop, scores))
    sizes = [(prop, scores) for prop, scores in found if prop.name in ("size", "resolution", "shape")]
    best = max(sizes, key=lambda each: max(each[1].values()), default=None)
    for prop, scores in found:
        if (prop, scores) in sizes and best is not None and prop is not best[0]:
            continue
        yield _finding(subject, ids, prop, scores)


def _finding(subject: AuditSubject, ids: Sequence[str], prop: _Property, scores: dict[str, float]) -> Finding:
    names = sorted(scores, key=lambda name: (-scores[name], name))
    top = names[0]
    rate = (1 + scores[top]) / 2
    examples = [image_id for image_id in ids if top in subject.rows[image_id].labels]
    return Finding(
        code=f"shortcut-{prop.name}",
        severity="info" if subject.is_marked else prop.severity,
        message=f"The {_WORDS[prop.name]} alone tells {listed(names)} from the rest: for {top} it is right "
        f"for {rate:.0%} of the images (balanced, 50 % is chance).",
        advice="A model can learn this instead of what the picture shows, and fails on files from elsewhere. Give all "
        "classes the same source and processing, or make sure that the difference is real.",
        evidence={"property": prop.name, "youden_j": {name: round(scores[name], 3) for name in names[:20]}},
        images=tuple(examples[:MAX_IMAGES]),
    )


_WORDS = {
    "mode": "kind of pixels (grey, colour, transparent, CMYK, 16-bit)",
    "format": "file format",
    "size": "image size",
    "resolution": "number of pixels",
    "shape": "ratio of width to height",
    "brightness": "mean brightness",
}


def _properties(subject: AuditSubject, ids: Sequence[str]) -> Iterator[_Property]:
    facts = [subject.facts[image_id] for image_id in ids]
    widths = np.array([each.width for each in facts], np.float64)
    heights = np.array([each.height for each in facts], np.float64)
    brightness = np.array([each.brightness for each in facts])
    yield _Property("mode", _coded([KINDS.get(each.mode, each.mode) for each in facts]), 0.6, "warning")
    yield _Property("format", _coded([each.format for each in facts]), 0.6, "warning")
    yield _Property("size", _coded([f"{each.width} x {each.height}" for each in facts]), 0.6, "warning")
    yield _Property("resolution", _binned(widths * heights), 0.6, "warning")
    yield _Property("shape", _binned(widths / heights), 0.6, "warning")
    yield _Property("brightness", _binned(brightness), 0.8, "info")


def _coded(values: Sequence[str]) -> Codes:
    return np.unique(np.array(values, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _binned(values: npt.NDArray[np.float64]) -> Codes:
    """The tenth that each value falls into; equal values never part."""
    if not len(values):
        return np.zeros(0, np.int64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _scores(subject: AuditSubject, ids: Sequence[str], prop: _Property, half: Mask) -> dict[str, float]:
    """J of every class that the property gives away."""
    if len(np.unique(prop.codes)) < 2:
        return {}
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    members: dict[str, list[int]] = {}
    for image_id in ids:
        for label in set(subject.rows[image_id].labels):
            members.setdefault(label, []).append(row_of[image_id])
    scores = {}
    for name in sorted(members):
        inside = np.zeros(len(ids), np.bool_)
        inside[members[name]] = True
        score = _youden(prop.codes, inside, half)
        if score is not None and score >= prop.least:
            scores[name] = score
    return scores


def _youden(codes: Codes, inside: Mask, half: Mask) -> float | None:
    """J of the rule learned on one half and tried on the other, both ways; None when it may be chance."""
    groups = [np.count_nonzero(inside & half), np.count_nonzero(inside & ~half)]
    groups += [np.count_nonzero(~inside & half), np.count_nonzero(~inside & ~half)]
    if min(groups) < _FEWEST:
        return None
    correct = np.zeros(len(codes))
    for learned, tried in ((half, ~half), (~half, half)):
        length = int(codes.max()) + 1
        for_class = np.bincount(codes[learned & inside], minlength=length) / np.count_nonzero(learned & inside)
        against = np.bincount(codes[learned & ~inside], minlength=length) / np.count_nonzero(learned & ~inside)
        answer = np.where(for_class == against, 0.5, for_class > against)[codes[tried]]
        correct[tried] = np.where(inside[tried], answer, 1 - answer)
    sensitivity, specificity = float(correct[inside].mean()), float(correct[~inside].mean())
    error = (0.25 / np.count_nonzero(inside) + 0.25 / np.count_nonzero(~inside)) ** 0.5
    score = sensitivity + specificity - 1
    return score if score > _STANDARD_ERRORS * error else None
