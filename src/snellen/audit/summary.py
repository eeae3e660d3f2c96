"""The data in numbers, for the report: bounded in size however large the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.audit.subject import AuditSubject
from snellen.audit.values import spread_over_sides
from snellen.core.seeds import keyed_seed
from snellen.data.duplicates import clusters
from snellen.data.split import leaks

MAX_CLASSES = 1_000
MAX_LEFT_OUT = 200
MAX_EXAMPLES = 6
MAX_VALUES = 20  # numbers to be predicted whose spread is told
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def summarize(subject: AuditSubject) -> dict[str, Any]:
    """JSON-able numbers about the data; every list that is cut off stands beside its total.

    images_found, images_used, images_left_out, and <side>_images for every side with images
    exact_duplicate_pairs, near_duplicate_pairs, duplicate_sets, pairs_across_splits,
    redundant_images: what the duplicate sets have beyond their first
    groups      how many
    classes     total, and for the first 1,000 in class order name, total, and images on every side
    values      of numbers to be predicted, for the first 20 by name: edges and counts of 20 bins on every side, the
                median of each side, the least and the most; empty for classes
    objects     of marked objects: total, classes (name and objects on every side, for the first 1,000), and of the
                number per image, size (square root of a box's share of its image's area) and aspect (width / height
                of a box) quantiles and a histogram, as below; lost: annotations that are not used; empty otherwise
    pixels      of masks: how many were looked at, of how many; the share of void, and of each class, for the first
                1,000, the share of what is not void on every side; empty otherwise
    width, height, aspect (width / height), brightness (mean luma, 0..1): quantiles at 0, 5, 25, 50, 75, 95 and 100 %,
                and a histogram of 20 bins
    modes, formats, orientations    images of each
    left_out    total, images by reason, and the first 200 by name
    examples    up to 6 train images of each of the first 1,000 classes, chosen by their ids alone; of numbers to be
                predicted 6 from the least to the most
    """
    facts = list(subject.facts.values())
    widths = np.array([each.width for each in facts], np.float64)
    heights = np.array([each.height for each in facts], np.float64)
    return {
        **_images(subject),
        "classes": _classes(subject),
        "values": _values(subject),
        "objects": _objects(subject),
        "pixels": _pixels(subject),
        "width": _distribution(widths, bins=20),
        "height": _distribution(heights, bins=20),
        "aspect": _distribution(widths / heights, bins=20),
        "brightness": _distribution(np.array([each.brightness for each in facts]), bins=20, limits=(0.0, 1.0)),
        "modes": _counts(each.mode for each in facts),
        "formats": _counts(each.format for each in facts),
        "orientations": _counts(str(each.orientation) for each in facts),
        **_duplicates(subject),
        "groups": len({row.group for row in subject.manifest.rows if row.group is not None}),
        "left_out": _left_out(subject),
        "examples": _examples(subject),
    }


def _images(subject: AuditSubject) -> dict[str, int]:
    used = len(subject.manifest.rows)
    return {
        "images_found": used + len(subject.left_out),
        "images_used": used,
        "images_left_out": len(subject.left_out),
        **{f"{side}_images": len(subject.manifest.ids(side)) for side in subject.sides},
    }


def _classes(subject: AuditSubject) -> dict[str, Any]:
    shown = list(subject.class_counts.items())[:MAX_CLASSES]
    listed = [
        {"name": name, "total": counts.total(), **{side: counts[side] for side in subject.sides}}
        for name, counts in shown
    ]
    return {"total": len(subject.class_counts), "listed": listed}


def _values(subject: AuditSubject) -> dict[str, Any]:
    sides = {side: subject.manifest.ids(side) for side in subject.sides}
    return {
        name: spread_over_sides(values, sides, bins=20) for name, values in list(subject.values.items())[:MAX_VALUES]
    }


def _objects(subject: AuditSubject) -> dict[str, Any]:
    objects = subject.objects
    if not objects.ids:
        return {}
    most = int(objects.per_image.max(initial=0)) + 1
    sides, sizes = np.maximum(objects.sides, 1e-6), np.sqrt(objects.shares)
    return {
        "total": len(objects),
        "lost": len(subject.listing.lost),
        "classes": [
            {"name": name, "total": counts.total(), **{side: counts[side] for side in subject.sides}}
            for name, counts in list(subject.object_counts.items())[:MAX_CLASSES]
        ],
        "per_image": _distribution(objects.per_image.astype(np.float64), bins=min(20, most), limits=(-0.5, most - 0.5)),
        "size": _distribution(sizes, bins=20, limits=(0.0, float(sizes.max(initial=0.01)))),
        "aspect": _distribution(np.clip(sides[:, 0] / sides[:, 1], 0.125, 8), bins=20),
    }


def _pixels(subject: AuditSubject) -> dict[str, Any]:
    pixels = subject.mask_pixels
    if not pixels.ids:
        return {}
    side_of = np.array([subject.rows[image_id].split for image_id in pixels.ids])
    counts = {side: pixels.counts[side_of == side, :-1].sum(axis=0) for side in subject.sides}
    shares = {side: count / max(1, int(count.sum())) for side, count in counts.items()}
    return {
        "looked_at": len(pixels.ids),
        "total": pixels.total,
        "void": float(pixels.counts[:, -1].sum() / max(1, int(pixels.counts.sum()))),
        "classes": [
            {"name": name, **{side: float(share[i]) for side, share in shares.items()}}
            for i, name in enumerate(subject.manifest.classes[:MAX_CLASSES])
        ],
    }


def _distribution(
    values: npt.NDArray[np.float64], *, bins: int, limits: tuple[float, float] | None = None
) -> dict[str, list[float]]:
    """Quantiles, and a histogram as ``bins`` counts and ``bins + 1`` edges; empty lists without values."""
    if not len(values):
        return {"quantiles": [], "counts": [], "edges": []}
    counts, edges = np.histogram(values, bins=bins, range=limits)
    return {
        "quantiles": [round(float(each), 4) for each in np.quantile(values, _QUANTILES)],
        "counts": counts.tolist(),
        "edges": [round(float(each), 4) for each in edges],
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _duplicates(subject: AuditSubject) -> dict[str, int]:
    sets = clusters(subject.rows, subject.pairs)
    kinds = Counter(pair.kind for pair in subject.pairs)
    return {
        "exact_duplicate_pairs": kinds["exact"],
        "near_duplicate_pairs": kinds["near"],
        "duplicate_sets": len(sets),
        "redundant_images": sum(len(members) - 1 for members in sets),
        "pairs_across_splits": len(leaks(subject.manifest, subject.pairs)),
    }


def _left_out(subject: AuditSubject) -> dict[str, Any]:
    reasons = Counter(each.reason for each in subject.left_out)
    listed = [{"path": each.path, "reason": each.reason} for each in subject.left_out[:MAX_LEFT_OUT]]
    return {"total": len(subject.left_out), "reasons": dict(reasons.most_common(20)), "listed": listed}


def _examples(subject: AuditSubject) -> dict[str, Sequence[str]]:
    """The images with the smallest hashed ids: spread over the listing, and the same whatever its order."""
    if subject.values:
        return _from_least_to_most(subject)
    chosen: dict[str, list[str]] = {name: [] for name in list(subject.class_counts)[:MAX_CLASSES]}
    train = (row for row in subject.manifest.rows if row.split == "train")
    for row in sorted(train, key=lambda row: (keyed_seed("example", row.id), row.id)):
        for label in sorted(set(row.labels)):
            if len(chosen.get(label, range(MAX_EXAMPLES))) < MAX_EXAMPLES:
                chosen[label].append(row.id)
    return dict(chosen)


def _from_least_to_most(subject: AuditSubject) -> dict[str, Sequence[str]]:
    """For each number the train images at 0, 20, 40, 60, 80 and 100 % of its order."""
    chosen: dict[str, Sequence[str]] = {}
    train = set(subject.manifest.ids("train"))
    for name, values in list(subject.values.items())[:MAX_VALUES]:
        ordered = sorted((each for each in values if each in train), key=lambda each: (values[each], each))
        places = np.linspace(0, len(ordered) - 1, MAX_EXAMPLES).round().astype(int)
        chosen[name] = list(dict.fromkeys(ordered[i] for i in places))
    return chosen
