"""Checks of the classes: balance, presence on every side, and whether there are enough images for the claim."""

from __future__ import annotations

from collections.abc import Iterator

from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Finding
from snellen.core.record import Split
from snellen.metrics.interval import wilson

_FEW = 30
_FEW_TO_LEARN = 10  # training images
_MAX_CLASSES = 20  # classes spelt out in the evidence
_WIDEST = 0.10
_ASSUMED = 0.8  # accuracy at which the width of the interval is told


def imbalance(subject: AuditSubject) -> Iterator[Finding]:
    """The largest class has ten times the images of the smallest, or more. In multi-label data that is usual: info.

    Of marked data objects and pixels are counted instead: ``unequal_objects``, ``rare_pixels``.
    """
    counts = _totals(subject)
    if len(counts) < 2 or subject.is_marked:
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[largest] / counts[smallest]
    if ratio < 10:
        return
    share = counts[largest] / len(subject.manifest.rows)
    yield Finding(
        code="imbalance",
        severity="info" if subject.manifest.multi_label else "warning",
        message=f"{largest} has {counted(counts[largest], 'image')}, {smallest} has {counts[smallest]:,}: "
        f"{ratio:.0f} to 1.",
        advice="Read the recall of each class and their mean rather than the accuracy "
        f"({largest} alone is in {share:.0%} of the images); weigh the classes, or collect more of the small ones.",
        evidence={"ratio": ratio, "largest": largest, "smallest": smallest, "counts": _smallest(counts)},
    )


def tiny_classes(subject: AuditSubject) -> Iterator[Finding]:
    """Classes with one or two images, which cannot be learned and judged at once."""
    tiny = {name: count for name, count in _totals(subject).items() if count < 3}
    if tiny:
        yield Finding(
            code="tiny-classes",
            severity="warning",
            message=f"{counted(len(tiny), 'class has', 'classes have')} one or two images: {listed(sorted(tiny))}.",
            advice="Collect at least 3, better 30, or leave these classes out: nothing honest can be said about them.",
            evidence={"num_classes": len(tiny), "counts": _smallest(tiny)},
            images=_of_classes(subject, set(tiny)),
        )


def small_classes(subject: AuditSubject) -> Iterator[Finding]:
    """Classes with 3 to 29 images: they train, but their own numbers will be vague. Worse: under 10 to learn from.

    Where objects are marked, these are counted instead: ``few_objects``.
    """
    if subject.objects.ids:
        return
    totals = {name: count for name, count in _totals(subject).items() if count >= 3}
    small = {name: count for name, count in totals.items() if count < _FEW}
    learnt = {name: subject.class_counts[name]["train"] for name in totals}
    meagre = {name: count for name, count in learnt.items() if 0 < count < _FEW_TO_LEARN}
    named, least, of = (meagre, _FEW_TO_LEARN, "training images") if meagre else (small, _FEW, "images")
    if named:
        yield Finding(
            code="small-classes",
            severity="warning" if meagre else "info",
            message=f"{counted(len(named), 'class has', 'classes have')} fewer than {least} {of}: "
            f"{listed(sorted(named))}.",
            advice="More images of these classes will help more than anything else.",
            evidence={"num_classes": len(named), "counts": _smallest(named)},
        )


def missing_classes(subject: AuditSubject) -> Iterator[Finding]:
    """Classes that are absent from a side though they have images elsewhere, or that have no images at all.

    Serious when train lacks a class that val or test asks for. Classes too small for three sides are told of by
    ``tiny_classes``.
    """
    absent: dict[str, list[str]] = {}
    for name, counts in subject.class_counts.items():
        if counts.total() == 0:
            absent.setdefault("the data", []).append(name)
            continue
        for side in subject.sides:
            if counts[side] == 0 and (side == "train" or counts.total() >= len(subject.sides)):
                absent.setdefault(side, []).append(name)
    if not absent:
        return
    told = "; ".join(f"{side} lacks {listed(names)}" for side, names in absent.items())
    missing = {name for names in absent.values() for name in names}
    yield Finding(
        code="missing-classes",
        severity="serious" if "train" in absent else "warning",
        message=f"{counted(len(missing), 'class is', 'classes are')} missing on a side: {told}.",
        advice="A class that train lacks is never predicted, one that val or test lacks is never judged: "
        "add images, let Snellen divide the data, or drop the class.",
        evidence={side: names[:_MAX_CLASSES] for side, names in absent.items()},
        images=_of_classes(subject, missing),
    )


def too_few_images(subject: AuditSubject) -> Iterator[Finding]:
    """So few test images (val, where there is no test) that the 95 % interval is wider than +-10 points.

    Of marked data fewer than 30: what the interval is there depends on what they show.
    """
    side: Split = "test" if "test" in subject.sides else "val"
    n = len(subject.manifest.ids(side))
    if n == 0 or subject.manifest.numeric:  # few_judged in values.py
        return
    if subject.is_marked:
        yield from _few_marked(side, n)
        return
    low, high = wilson(_ASSUMED * n, n)
    if (high - low) / 2 <= _WIDEST:
        return
    enough = next(m for m in range(n, 10_000) if _half_width(m) <= _WIDEST)
    yield Finding(
        code="too-few-images",
        severity="warning",
        message=f"The result rests on {counted(n, f'{side} image')}: an accuracy of 80 % would be known "
        f"to lie between {low:.0%} and {high:.0%} only.",
        advice=f"At least {enough} {side} images are needed for +-10 points; add images, or use cross-validation.",
        evidence={"num_images": n, "side": side, "low": low, "high": high, "enough": enough},
    )


def _few_marked(side: Split, n: int) -> Iterator[Finding]:
    if n < _FEW:
        yield Finding(
            code="too-few-images",
            severity="warning",
            message=f"The result rests on {counted(n, f'{side} image')}: another {n} would give quite another number.",
            advice="What is in one image is alike, however many objects it shows: add images, or use cross-validation.",
            evidence={"num_images": n, "side": side, "enough": _FEW},
        )


def _half_width(n: int) -> float:
    low, high = wilson(_ASSUMED * n, n)
    return (high - low) / 2


def _totals(subject: AuditSubject) -> dict[str, int]:
    """Images of every class that has any."""
    return {name: counts.total() for name, counts in subject.class_counts.items() if counts.total()}


def _smallest(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (item[1], item[0]))[:_MAX_CLASSES])


def _of_classes(subject: AuditSubject, names: set[str]) -> tuple[str, ...]:
    return tuple(row.id for row in subject.manifest.rows if not names.isdisjoint(row.labels))[:MAX_IMAGES]
