"""A spot at the border that nearly all images of one class share: a mark, a stamp, a frame, and not what they show.

The border of a photograph goes with its class by nature (sky round aeroplanes), but not to within a few grey levels. So
a spot is looked for that has the same grey in most images of a class and hardly anywhere in the borders of the others.
Which spot, and which grey, is learnt on one half of the images and tried on the other, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.audit.shortcuts import chance, enough, halves, members, one_of_each_unit
from snellen.audit.subject import MAX_IMAGES, AuditSubject
from snellen.core.finding import Finding
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import alpha

_DEPTH = 8  # of the fingerprint's 64 rows: an eighth, since marks stand a little inside
_SAME = 4  # grey levels: what compressing and resizing change
_LEAST = 0.6  # Youden's J, as of other shortcuts
_COMMON = 0.2  # of the border of other images: a grey that they have as often is background, and no mark
_SMALLEST = 24  # pixels of an image's shorter side: in smaller ones there is no border beside what they show
_SMALL = 64  # pixels as well: in smaller ones what they show reaches the border, strokes of digits for one
_MOST_IMAGES, _MOST_CLASSES = 2_000, 50

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Spot:
    """A place in the border and its grey; cells: how many places of the border serve as well."""

    place: int
    grey: int
    cells: int


def shortcut_border(subject: AuditSubject) -> Iterator[Finding]:
    """A spot of one grey at the border gives a class away."""
    if subject.is_marked or subject.manifest.numeric:
        return
    ids = _sample(subject)
    if not ids:
        return
    ring = _ring(len(subject.facts[ids[0]].fingerprint.grey))
    values = np.stack([subject.facts[image_id].fingerprint.grey[ring] for image_id in ids]).astype(np.int16)
    half = halves(ids)
    classes = [(name, inside) for name, inside in members(subject, ids).items() if enough(inside, half)]
    classes = sorted(classes, key=lambda each: (-np.count_nonzero(each[1]), each[0]))[:_MOST_CLASSES]
    level = alpha("shortcut-border", 2 * len(classes))  # the doctor asks the network for it
    found = []
    for name, inside in classes:
        spots = [_spot(values[part], inside[part]) for part in (~half, half)]
        if spots[0] is None or spots[1] is None:
            continue
        said = np.where(half, _has(values, spots[0]), _has(values, spots[1]))
        rates = [float(said[each].mean()) for each in (inside, ~inside)]
        if rates[0] - rates[1] >= _LEAST and (p := chance(said, inside, half)) < level:
            found.append((rates[0] - rates[1], name, rates, spots[0], p, inside & said))
    if not found:
        return
    _, name, rates, spot, p, having = max(found, key=lambda each: (each[0], each[1]))
    row, column = (int(each[spot.place]) for each in np.nonzero(ring))
    where = "border as a whole" if spot.cells > ring.sum() / 2 else _where(row, column, len(ring))
    yield Finding(
        code="shortcut-border",
        severity="info" if _are_small(subject, ids) else "warning",
        message=f"The {where} has the same grey ({spot.grey} of 255) in {rates[0]:.0%} of the images of {name} and in "
        f"{rates[1]:.0%} of the others.",
        advice="A mark, a stamp or a frame that goes with a class is learnt instead of it: crop it away or paint it "
        "over in all images, or see that all classes have it.",
        evidence={
            "class": name,
            "youden_j": {each[1]: round(each[0], 3) for each in found[:20]},
            "p": p,
            "grey": spot.grey,
            "place": {"across": round((column + 0.5) / len(ring), 3), "down": round((row + 0.5) / len(ring), 3)},
            "share_of_border": round(spot.cells / float(ring.sum()), 3),
        },
        images=tuple(ids[i] for i in np.flatnonzero(having)[:MAX_IMAGES]),
        certainty="observed",
    )


def _sample(subject: AuditSubject) -> list[str]:
    ids = [
        image_id
        for image_id in one_of_each_unit(subject)
        if min(subject.facts[image_id].width, subject.facts[image_id].height) >= _SMALLEST
    ]
    return sorted(sorted(ids, key=lambda image_id: (keyed_seed("border", image_id), image_id))[:_MOST_IMAGES])


def _are_small(subject: AuditSubject, ids: list[str]) -> bool:
    sides = [min(subject.facts[image_id].width, subject.facts[image_id].height) for image_id in ids]
    return float(np.median(sides)) < _SMALL


def _ring(side: int) -> Mask:
    ring = np.ones((side, side), np.bool_)
    ring[_DEPTH:-_DEPTH, _DEPTH:-_DEPTH] = False
    return ring


def _spot(values: NDArray[np.int16], inside: Mask) -> _Spot | None:
    """The place that tells the class best. values: [n, places]"""
    grey = np.median(values[inside], axis=0).astype(np.int16)
    same = np.abs(values - grey) <= _SAME
    score = same[inside].mean(axis=0) - same[~inside].mean(axis=0)
    others = np.sort(values[~inside].ravel())
    upper, lower = np.searchsorted(others, grey + _SAME, side="right"), np.searchsorted(others, grey - _SAME)
    good = (score >= _LEAST) & ((upper - lower) / len(others) <= _COMMON)
    if not good.any():
        return None
    place = int(np.argmax(np.where(good, score, -1.0)))
    return _Spot(place, int(grey[place]), int(np.count_nonzero(good)))


def _has(values: NDArray[np.int16], spot: _Spot) -> Mask:
    return np.asarray(np.abs(values[:, spot.place] - spot.grey) <= _SAME)


def _where(row: int, column: int, side: int) -> str:
    down = "upper" if row < side / 3 else "lower" if row >= 2 * side / 3 else ""
    across = "left" if column < side / 3 else "right" if column >= 2 * side / 3 else ""
    if down and across:
        return f"spot in the {down} {across} corner"
    return f"spot at the {down or across} border"
