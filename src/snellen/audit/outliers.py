"""Images unlike all others, and images in an order that shows what they show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import FEWEST, Codes, Floats
from snellen.audit.neighbours import nearest
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha

_NEIGHBOURS = 5  # an image is as unlike the others as the fifth most similar is
_FAR = 1.7  # quartile ranges above the upper quartile: cleanlab's default for features (1 / 0.37 - 1)
_TAIL = 0.1  # of the images, the most unlike ones, from which it is told how unlike images become
_MOST = 0.05  # of the images: more are no outliers but a kind of their own
_ORDERED = ("table", "coco")  # formats that list images in an order of their own
_BESIDE = 2  # places in the list
_LEAST_BESIDE = 0.20  # of the pairs of most similar images
_TIMES = 5.0  # as often as by chance


def outliers(subject: AuditSubject) -> Iterator[Finding]:
    """Images whose nearest neighbours are farther than the tail of all distances leads one to expect."""
    if subject.features is None or len(subject.features) < FEWEST:
        return
    ids = sorted(subject.features)
    distance = nearest(_stacked(subject, ids), [subject.unit_of(image_id) for image_id in ids], _NEIGHBOURS).distance
    far = np.flatnonzero(distance > _limit(distance))
    far = far[np.argsort(-distance[far], kind="stable")]
    if not len(far) or len(far) > _MOST * len(ids):
        return
    usual = float(np.median(distance))
    yield Finding(
        code="outliers",
        severity="info",
        certainty="observed",
        message=f"{counted(len(far), 'image is', 'images are')} unlike all others: {ids[far[0]]} is "
        f"{distance[far[0]] / usual:.1f} times as far from its nearest neighbours as images usually are.",
        advice="Look at them: what does not belong is left out, what is rare but real needs more of its kind.",
        evidence={
            "num_images": len(far),
            "usual_distance": usual,
            "distance": [round(float(value), 4) for value in distance[far[:MAX_IMAGES]]],
        },
        images=tuple(ids[i] for i in far[:MAX_IMAGES]),
    )


def _limit(distance: Floats) -> float:
    """The distance that is beyond both rules: that of quartiles, and that of the tail of the logarithms.

    The logarithms' excess over their 90 % quantile is taken to fall off exponentially, at the rate that its median
    tells, which the outliers themselves hardly move; beyond the limit one image in all is expected with a chance of
    the check's share of the budget.
    """
    low, high = np.quantile(distance, (0.25, 0.75))
    logs = np.log(np.maximum(distance, 1e-12))
    edge = float(np.quantile(logs, 1 - _TAIL))
    scale = float(np.median(logs[logs > edge] - edge)) / np.log(2)
    expected = len(distance) * _TAIL / alpha("outliers")
    return max(float(high + _FAR * (high - low)), float(np.exp(edge + scale * np.log(expected))))


def order_not_random(subject: AuditSubject) -> Iterator[Finding]:
    """The most similar images of a class stand beside each other in the list, as the frames of a film do.

    Pairs that are each other's most similar image share no image, so that in an order by chance each is a draw of its
    own; the chance to stand within two places of each other is counted exactly for each class.
    """
    if subject.features is None or subject.listing.format not in _ORDERED or len(subject.features) < FEWEST:
        return
    ids = sorted(subject.features)
    label = ["\n".join(subject.rows[image_id].labels) if not subject.is_marked else "" for image_id in ids]
    kinds = np.unique(np.array(label, np.str_), return_inverse=True)[1]
    place, sizes = _places(kinds), np.bincount(kinds)
    beside = total = 0
    chance = 0.0
    pairs: list[tuple[int, int]] = []
    found = nearest(_stacked(subject, ids), [subject.rows[image_id].cluster or image_id for image_id in ids], 1, kinds)
    for i, j in enumerate(found.index[:, 0].tolist()):
        if j > i and found.index[j, 0] == i and sizes[kinds[i]] > 2 * _BESIDE:
            close = abs(int(place[i] - place[j])) <= _BESIDE
            beside, total, chance = beside + close, total + 1, chance + _by_chance(int(sizes[kinds[i]]))
            pairs.extend([(i, j)] * close)
    if (
        not total
        or beside < max(_LEAST_BESIDE * total, _TIMES * chance)
        or _p(beside, total, chance) > alpha("order-not-random")
    ):
        return
    images = dict.fromkeys(ids[i] for pair in pairs for i in pair)
    yield Finding(
        code="order-not-random",
        severity="info",
        certainty="observed",
        message=f"Images that look alike stand beside each other in the list: {beside} of {total} pairs, and by chance "
        f"{chance:.1f} would.",
        advice="If they are frames of a film or shots of one thing, name the groups so that each stays on one side of "
        "the split: a column 'group', or --groups.",
        evidence={"num_beside": beside, "num_pairs": total, "by_chance": chance},
        images=tuple(images)[:MAX_IMAGES],
    )


def _p(beside: int, total: int, chance: float) -> float:
    """Of so many or more. Draws of unequal chances spread less than equal ones of the same mean (Hoeffding 1956)."""
    from scipy.special import bdtrc

    return float(bdtrc(beside - 1, total, chance / total))


def _by_chance(size: int) -> float:
    """The chance that two of ``size`` places in a row are within ``_BESIDE`` of each other."""
    return sum(size - step for step in range(1, _BESIDE + 1)) / (size * (size - 1) / 2)


def _places(kinds: Codes) -> Codes:
    """Of each image among those of its kind, in the order in which they are listed."""
    place = np.zeros(len(kinds), np.int64)
    for kind in np.unique(kinds):
        inside = np.flatnonzero(kinds == kind)
        place[inside] = np.arange(len(inside))
    return place


def _stacked(subject: AuditSubject, ids: list[str]) -> npt.NDArray[np.float32]:
    assert subject.features is not None
    return np.stack([subject.features[image_id] for image_id in ids])
