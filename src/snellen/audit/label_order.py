"""Labels that belong to other images, or to other classes: shuffled, moved by a row, or numbered in another order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import Codes, Labelled, Mask
from snellen.audit.other_side import OtherSide
from snellen.audit.subject import MAX_IMAGES, AuditSubject, listed
from snellen.core.finding import Finding
from snellen.core.record import Split
from snellen.core.seeds import keyed_permutation, keyed_seed
from snellen.core.thresholds import alpha
from snellen.data.overlay import renamed
from snellen.metrics.confusion import best_renaming

_LITTLE = 0.05  # above chance: labels that mean anything to a network are told oftener than that
_LITTLE_BESIDE = 0.15  # the same, where the labels of another side show that the network does see the classes
_SHIFTS = (1, -1, 2, -2)  # rows
_JUMP = 0.20  # of all images, told rightly, by which labels that were moved back must be better
_PERMUTED = 0.30  # the same, for classes that were numbered in another order
_FEWEST_JUDGED = 20  # images on a side, in each half


def labels_carry_nothing(subject: AuditSubject) -> Iterator[Finding]:
    """The labels cannot be told from what a network sees; or only after all were moved by a row or two.

    As many images of each class are asked about, so that always naming the largest class gains nothing.
    """
    seen = subject.labelled
    if seen is None:
        return
    asked, k = _evenly(seen, seen.codes), len(seen.classes)
    if subject.other_side is not None and _carry_nothing_here(subject.other_side, asked & seen.on("train")):
        yield from list(_shifted(subject, seen, 1 / k))[:1] or [_nothing_on_train(subject.other_side)]
        return
    right, n = _told(seen, seen.codes, asked), int(asked.sum())
    if _at_most(right, n, min(0.99, 1 / k + _LITTLE)) > alpha(
        "labels-carry-nothing", 1 if subject.other_side is None else 2
    ):
        return
    shifted = list(_shifted(subject, seen, right / n))
    if shifted:
        yield shifted[0]
        return
    yield Finding(
        code="labels-carry-nothing",
        severity="warning",
        certainty="observed",
        message=f"A model on what a network sees in the images tells the class of {right} of {n:,} images, and "
        f"{n / k:.0f} would be right by chance: the labels may belong to other images.",
        advice="Look at some images beside their labels. If these fit, the classes differ in something that this "
        "network does not see, and training will show it; if not, correct how labels and images were joined.",
        evidence={"num_right": right, "num_asked": n, "by_chance": 1 / k, "at_most": 1 / k + _LITTLE},
        images=tuple(seen.ids[i] for i in np.flatnonzero(asked)[:MAX_IMAGES]),
    )


def _carry_nothing_here(other: OtherSide, asked: Mask) -> bool:
    """Whether training labels are told no oftener than by chance, and those of the other side are."""
    level, k = alpha("labels-carry-nothing", 2), len(other.seen.classes)
    right, n = int((asked & (other.by_train == other.seen.codes)).sum()), int(asked.sum())
    return _at_most(right, n, min(0.99, 1 / k + _LITTLE_BESIDE)) <= level and other.told().are_worse(level)


def _nothing_on_train(other: OtherSide) -> Finding:
    told = other.told()
    by_chance = told.num_train / len(other.seen.classes)
    return Finding(
        code="labels-carry-nothing",
        severity="serious",
        certainty="confirmed",
        message="The labels of training say next to nothing of its images: a model of the others tells "
        f"{told.of_train_by_train} of {told.num_train:,}, where {by_chance:.0f} would be by "
        f"chance; of the {told.side} labels {told.of_side} of {told.num_side:,} are told.",
        advice="Find out how images and labels of training were joined, by name or by their order; those of "
        f"{told.side} are in order.",
        evidence={**told.evidence(), "by_chance": 1 / len(other.seen.classes)},
        images=tuple(np.array(other.seen.ids)[other.seen.on("train")][:MAX_IMAGES].tolist()),
    )


def _shifted(subject: AuditSubject, seen: Labelled, before: float) -> Iterator[Finding]:
    """The most telling of the shifts, if one makes the labels fit."""
    from scipy.special import bdtrc

    k, best = len(seen.classes), (0.0, 0, 0, 1)
    for shift in _SHIFTS:
        codes = _moved(subject, seen, shift)
        asked = _evenly(seen, codes)
        right, n = _told(seen, codes, asked), int(asked.sum())
        p = float(bdtrc(right - 1, n, 1 / k)) if right else 1.0
        if p <= alpha("labels-shifted", len(_SHIFTS)) and right / n >= max(before, 1 / k) + _JUMP:
            best = max(best, (right / n, shift, right, n))
    share, shift, right, n = best
    if not shift:
        return
    rows, label_of = subject.manifest.rows, [row.labels for row in subject.manifest.rows]
    num, way = len(rows), "following" if shift > 0 else "preceding"
    inside = range(max(0, -shift), num - max(0, shift))
    yield Finding(
        code="labels-shifted",
        severity="serious",
        certainty="confirmed",
        message=f"Images seem to have each other's labels: with the label {abs(shift)} "
        f"{'row' if abs(shift) == 1 else 'rows'} {way} it, a model tells {right} of {n:,} rightly ({share:.0%}), with "
        f"its own {before:.0%}.",
        advice="Join labels and images by name and not by their place in a list.",
        evidence={"shift": shift, "share": share, "share_as_given": before, "num_asked": n},
        images=tuple(seen.ids[:MAX_IMAGES]),
        treatment={
            "overlay": [
                {"image": rows[i].id, "action": "relabel", "value": label_of[i + shift][0]}
                for i in inside
                if len(label_of[i + shift]) == 1 and label_of[i + shift] != label_of[i]
            ]
        },
    )


def class_map_permuted(subject: AuditSubject) -> Iterator[Finding]:
    """On a side that came with the data the classes are numbered in another order than on the training side.

    Which class is meant by which is read off one half of that side, and tried on the other half.
    """
    seen = subject.labelled
    if seen is None or subject.manifest.origin != "user":
        return
    sides = [side for side in subject.sides if side != "train"]
    train = seen.on("train")
    if not sides or len(np.unique(seen.codes[train])) < len(seen.classes):
        return
    said = seen.classifier.learnt(seen.codes, len(seen.classes), train).argmax(1)
    for side in sides:
        yield from _permuted(seen, said, side, looks=2 * len(sides))


def _permuted(seen: Labelled, said: Codes, side: Split, looks: int) -> Iterator[Finding]:
    from snellen.metrics.paired import mcnemar

    there = seen.on(side) & seen.first_of_units()
    half = np.array([keyed_seed("half", unit) % 2 == 0 for unit in seen.units], np.bool_)
    if min(int((there & half).sum()), int((there & ~half).sum())) < _FEWEST_JUDGED:
        return
    as_given = as_matched = 0
    p = 1.0
    for learnt, tried in ((there & half, there & ~half), (there & ~half, there & half)):
        matched = _matched(seen, said, learnt)[seen.codes[tried]] == said[tried]
        given = seen.codes[tried] == said[tried]
        as_given, as_matched = as_given + int(given.sum()), as_matched + int(matched.sum())
        if matched.sum() > given.sum():
            p = min(p, mcnemar(int((given & ~matched).sum()), int((matched & ~given).sum())))
    n = int(there.sum())
    if as_matched - as_given < _PERMUTED * n or p > alpha("class-map-permuted", looks):
        return
    meant = _matched(seen, said, there)
    moved = {seen.classes[i]: seen.classes[j] for i, j in enumerate(meant.tolist()) if i != j}
    wrong = np.flatnonzero(seen.on(side) & (meant[seen.codes] != seen.codes)).tolist()
    yield Finding(
        code="class-map-permuted",
        severity="serious",
        certainty="confirmed",
        message=f"On {side} the classes mean something else than on train: what is called "
        f"{listed((f'{name} looks like {other}' for name, other in moved.items()), 4)}; so read, {as_matched} of {n:,} "
        f"images are told rightly, as given {as_given}.",
        advice=f"Number the classes of {side} in the order of train: the two lists of names were sorted differently.",
        evidence={"side": side, "meant": moved, "num_right": as_matched, "num_right_as_given": as_given, "p": p},
        images=tuple(seen.ids[i] for i in wrong[:MAX_IMAGES]),
        treatment={
            "overlay": renamed([seen.ids[i] for i in wrong], [seen.classes[seen.codes[i]] for i in wrong], moved)
        },
    )


def _matched(seen: Labelled, said: Codes, among: Mask) -> Codes:
    """What each class is meant to be, [k]."""
    return best_renaming(seen.codes[among], said[among], len(seen.classes))


def _moved(subject: AuditSubject, seen: Labelled, shift: int) -> Codes:
    """The class of each image if its label is that of ``shift`` rows on; at the ends and for other classes its own."""
    place = {name: i for i, name in enumerate(seen.classes)}
    rows = subject.manifest.rows
    row_of = {row.id: i for i, row in enumerate(rows)}
    codes = seen.codes.copy()
    for i, image_id in enumerate(seen.ids):
        other = row_of[image_id] + shift
        if 0 <= other < len(rows) and len(rows[other].labels) == 1:
            codes[i] = place.get(rows[other].labels[0], codes[i])
    return codes


def _evenly(seen: Labelled, codes: Codes) -> Mask:
    """As many images of every class, one of each unit, [n]."""
    order = keyed_permutation(len(codes), "evenly")
    order = order[seen.first_of_units()[order]]
    fewest = int(np.bincount(codes[order], minlength=len(seen.classes)).min())
    asked = np.zeros(len(codes), np.bool_)
    for code in range(len(seen.classes)):
        asked[order[codes[order] == code][:fewest]] = True
    return asked


def _told(seen: Labelled, codes: Codes, asked: Mask) -> int:
    """How many of those that are asked are told rightly, every class being as likely beforehand."""
    if not asked.any():
        return 0
    scores = seen.scores if codes is seen.codes else seen.classifier.scores(codes, len(seen.classes))
    shares: npt.NDArray[np.float64] = np.bincount(codes, minlength=len(seen.classes)) / len(codes)
    said = (np.maximum(scores, 0) / np.maximum(shares, 1e-9)).argmax(1)
    return int((asked & (said == codes)).sum())


def _at_most(right: int, n: int, share: float) -> float:
    """The probability that no more than ``right`` of n are right, where ``share`` of all are."""
    from scipy.special import bdtr

    return float(bdtr(right, n, share)) if n else 1.0
