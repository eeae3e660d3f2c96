"""Photographs that one camera took within seconds of each other, on both sides of the split: frames of one scene.

The times are those of the EXIF data. Close in time is not yet the same scene: a camera above a conveyor sees another
thing each second. So the test asks of each burst whether the train image that looks most like the burst's image on the
other side is of the burst as well. Only images of one class are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snellen.audit.capture_times import BURST_SECONDS
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted
from snellen.core.finding import Finding
from snellen.core.record import Split
from snellen.core.thresholds import alpha

_LEAST_RECOGNISED = 0.75  # of the bursts

Floats = npt.NDArray[np.float64]


def bursts_across_splits(subject: AuditSubject) -> Iterator[Finding]:
    """Bursts with images on train and on another side that are recognised, by an exact binomial over bursts."""
    from scipy.special import bdtrc

    found = subject.bursts
    if not found:
        return
    train = {image_id for image_id, row in subject.rows.items() if row.split == "train"}
    others = [side for side in subject.sides if side != "train"]
    for side in others:
        there = {name: [each for each in ids if subject.rows[each].split == side] for name, ids in found.items()}
        shared = {
            name: (own, trained)
            for name, own in there.items()
            if own and (trained := [each for each in found[name] if each in train])
        }
        right, trials, chance = _recognised(subject, shared, sorted(train))
        if not trials or right < _LEAST_RECOGNISED * trials:
            continue
        p = float(bdtrc(right - 1, trials, chance))
        if p < alpha("bursts-across-splits", len(others)):
            yield _finding(subject, side, shared, (right, trials, p))


def _recognised(
    subject: AuditSubject, shared: Mapping[str, tuple[list[str], list[str]]], train: Sequence[str]
) -> tuple[int, int, float]:
    """(bursts that are recognised, bursts that are tried, the most that the chance of one can be).

    The first image of each burst on the other side is compared with all train images of its class but its copies,
    which ``leak_across_splits`` tells. If bursts meant nothing, the nearest would be of its own with the chance of any
    other.
    """
    told = not (subject.is_marked or subject.manifest.numeric)
    kinds = {image_id: frozenset(row.labels if told else ()) for image_id, row in subject.rows.items()}
    pictures = {image_id: _picture(subject, image_id) for image_id in train} if shared else {}
    right = trials = 0
    chance = 0.0
    for own, trained in shared.values():
        asked = min(own)
        cluster = subject.rows[asked].cluster
        rivals = [each for each in train if kinds[each] == kinds[asked] and not _is_copy(subject, each, cluster)]
        mates = set(trained) & set(rivals)
        if not mates or len(rivals) < 2 * len(mates):
            continue
        apart = [float(np.abs(pictures[each] - _picture(subject, asked)).mean()) for each in rivals]
        right += rivals[int(np.argmin(apart))] in mates
        trials += 1
        chance = max(chance, len(mates) / len(rivals))
    return right, trials, chance


def _is_copy(subject: AuditSubject, image_id: str, cluster: str | None) -> bool:
    return cluster is not None and subject.rows[image_id].cluster == cluster


def _picture(subject: AuditSubject, image_id: str) -> Floats:
    return subject.facts[image_id].fingerprint.grey.astype(np.float64)


def _finding(
    subject: AuditSubject,
    side: Split,
    shared: Mapping[str, tuple[list[str], list[str]]],
    test: tuple[int, int, float],
) -> Finding:
    right, trials, p = test
    images = sorted(each for own, _ in shared.values() for each in own)
    size = len(subject.manifest.ids(side))
    return Finding(
        code="bursts-across-splits",
        severity="serious" if len(images) >= 0.01 * size else "warning",
        certainty="confirmed",
        message=f"{len(images):,} of {size:,} {side} images belong to {counted(len(shared), 'burst')} that train has "
        f"as well (one camera, at most {BURST_SECONDS:g} seconds between frames), and of {trials} bursts {right} are "
        "recognised by the picture.",
        advice="They show one scene, so the result rewards memory: keep each burst on one side, as the proposed groups "
        "do, and let Snellen divide the data.",
        evidence={
            "side": side,
            "num_images": len(images),
            "num_bursts": len(shared),
            "num_recognised": right,
            "num_tried": trials,
            "p": p,
            "bursts": {name: [*own[:6], *trained[:6]] for name, (own, trained) in list(shared.items())[:12]},
        },
        images=tuple(each for own, trained in shared.values() for each in (own[0], trained[0]))[:MAX_IMAGES],
        treatment={
            "overlay": [
                {"image": image_id, "action": "group", "value": name}
                for name in shared
                for image_id in subject.bursts[name]
            ]
        },
    )
