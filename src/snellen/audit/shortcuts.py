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
    half = halves(ids)
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
    scores = {}
    for name, inside in members(subject, ids).items():
        score = youden(prop.codes, inside, half)
        if score is not None and score >= prop.least:
            scores[name] = score
    return scores


def youden(codes: Codes, inside: Mask, half: Mask) -> float | None:
    """J of the rule learned on one half and tried on the other, both ways; None when it may be chance."""
    said = answers(codes, inside, half)
    if said is None:
        return None
    score = float(said[inside].mean() - said[~inside].mean())
    error = (0.25 / np.count_nonzero(inside) + 0.25 / np.count_nonzero(~inside)) ** 0.5
    return score if score > _STANDARD_ERRORS * error else None


def answers(codes: Codes, inside: Mask, half: Mask) -> npt.NDArray[np.float64] | None:
    """For each image whether it is of the class by the rule that the other half teaches: 1, 0, or 0.5 where both are
    as likely. None for too few images."""
    if not enough(inside, half):
        return None
    said = np.zeros(len(codes))
    for learned, tried in ((half, ~half), (~half, half)):
        length = int(codes.max()) + 1
        for_class = np.bincount(codes[learned & inside], minlength=length) / np.count_nonzero(learned & inside)
        against = np.bincount(codes[learned & ~inside], minlength=length) / np.count_nonzero(learned & ~inside)
        said[tried] = np.where(for_class == against, 0.5, for_class > against)[codes[tried]]
    return said


def enough(inside: Mask, half: Mask) -> bool:
    """Whether each half has enough images of the class and of the rest."""
    return all(np.count_nonzero(a & b) >= _FEWEST for a in (inside, ~inside) for b in (half, ~half))


def chance(said: Mask, inside: Mask, half: Mask) -> float:
    """How likely it is that what is said of the images goes with the class as well by chance: Fisher's exact test,
    one-sided, in each half; the larger p of the two, as both must agree."""
    from scipy.stats import hypergeom  # not at the top: its import takes longer than most audits

    return max(
        float(
            hypergeom.sf(
                np.count_nonzero(said & inside & part) - 1,
                np.count_nonzero(part),
                np.count_nonzero(inside & part),
                np.count_nonzero(said & part),
            )
        )
        for part in (half, ~half)
    )


def halves(ids: Sequence[str]) -> Mask:
    """Which half each image is in, by its id alone."""
    return np.array([keyed_seed("half", image_id) % 2 == 0 for image_id in ids], dtype=np.bool_)


def members(subject: AuditSubject, ids: Sequence[str]) -> dict[str, Mask]:
    """Which of the images are of each class."""
    inside: dict[str, Mask] = {}
    for row, image_id in enumerate(ids):
        for label in set(subject.rows[image_id].labels):
            inside.setdefault(label, np.zeros(len(ids), np.bool_))[row] = True
    return dict(sorted(inside.items()))


def one_of_each_unit(subject: AuditSubject) -> list[str]:
    """One image of each group and of each set of duplicates, sorted by id: exact tests need independent images."""
    first: dict[str, str] = {}
    for image_id in sorted(subject.rows):
        first.setdefault(subject.unit_of(image_id), image_id)
    return sorted(first.values())
