"""Labels that are wrong, as a model sees it that was fitted without the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from snellen.audit.label_habits import called_otherwise
from snellen.audit.label_order import class_map_permuted, labels_carry_nothing
from snellen.audit.labelled import Codes, Labelled, Mask
from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.finding import Finding
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import alpha
from snellen.metrics.label_errors import LabelErrors, find_label_errors

_FEWEST = 3  # suspects
_MOST_FALSE = 0.25  # of the suspects, may be right after all: a longer list is no help
_MUCH = 0.10  # share of wrong labels from which no result can be trusted
_FEWEST_OF_PAIR = 6  # suspects between two classes
_ASYMMETRY = 3.0  # how much oftener one way than the other
_SHARE_OF_CLASS = 0.05  # of a class that is called the other: less is no habit


def suspect_labels(subject: AuditSubject) -> Iterator[Finding]:
    """Labels that are denied as confidently as right ones are affirmed.

    Confirmed when a model learns better without them (suspects are found in one half of the images by that half alone,
    and the model is judged on all of the other half by the labels as given, which prefers neither), or when the labels
    of another side are told far oftener.
    """
    seen = _speaking(subject)
    if seen is None:
        return
    errors = seen.errors
    order = np.flatnonzero(errors.suspect)[np.argsort(-errors.doubt[errors.suspect], kind="stable")]
    between = Counter(f"{seen.classes[seen.codes[i]]} -> {seen.classes[errors.suggested[i]]}" for i in order)
    better, worse, p = without_suspects(seen)
    told = None if subject.other_side is None else subject.other_side.told()
    confirmed = better > worse and p <= alpha("suspect-labels", 3)
    confirmed = confirmed or (told is not None and told.are_worse(alpha("suspect-labels", 3)))
    n, noise = len(seen.ids), errors.noise
    first = order[0]
    yield Finding(
        code="suspect-labels",
        severity="serious" if noise.low > _MUCH else "warning",
        certainty="confirmed" if confirmed else "observed",
        message=f"About {noise.rate:.1%} of the labels look wrong ({noise.low:.1%} to {noise.high:.1%}): "
        f"{counted(len(order), 'image')} of {n:,} are named, first {seen.ids[first]}, which is labelled "
        f"{seen.classes[seen.codes[first]]} and looks like {seen.classes[errors.suggested[first]]}.",
        advice="Look at the images that are named, the most doubtful first, and correct their labels; about "
        f"{errors.false_share:.0%} of them are expected to be right as they are.",
        evidence={
            "num_suspects": len(order),
            "num_images": n,
            "rate": noise.rate,
            "low": noise.low,
            "high": noise.high,
            "num_wrong": [round(noise.low * n), round(noise.rate * n), round(noise.high * n)],
            "tolerated": noise.tolerated,
            "false_share": errors.false_share,
            "p": noise.p,
            "between": dict(between.most_common(12)),
            "doubt": [round(float(errors.doubt[i]), 3) for i in order[:MAX_IMAGES]],
            "without_them": {"better": better, "worse": worse, "p": p},
            **({} if told is None else {"other_side": told.evidence()}),
        },
        images=tuple(seen.ids[i] for i in order[:MAX_IMAGES]),
        treatment=_relabelled(seen, errors, order),
    )


def classes_confused(subject: AuditSubject) -> Iterator[Finding]:
    """Wrong labels that go from one class to another far oftener than back: a habit and no slip of the hand.

    Confirmed where the labels of another side show no such habit.
    """
    if subject.other_side is not None:
        k = len(subject.other_side.seen.classes)
        shown = list(subject.other_side.habits(alpha("classes-confused", 2 * (k * k - k))))
        if shown:
            yield called_otherwise(subject.other_side, shown)
            return
    seen = _speaking(subject)
    if seen is None:
        return
    k, errors = len(seen.classes), seen.errors
    truth = np.where(errors.suspect, errors.suggested, seen.codes)
    sizes = np.bincount(truth, minlength=k)
    wrong = np.zeros((k, k), np.int64)  # [what it is, what it is called]
    np.add.at(wrong, (truth[errors.suspect], seen.codes[errors.suspect]), 1)
    habits = []
    for one, other in zip(*np.nonzero(wrong >= _FEWEST_OF_PAIR), strict=True):
        p = max(_one_way(wrong, sizes, int(one), int(other)), _apart(wrong, sizes, int(one), int(other)))
        lopsided = wrong[one, other] / sizes[one] >= _ASYMMETRY * wrong[other, one] / max(1, sizes[other])
        if (
            lopsided
            and wrong[one, other] >= _SHARE_OF_CLASS * sizes[one]
            and p <= alpha("classes-confused", 2 * (k * k - k))
        ):
            habits.append((p, int(one), int(other)))
    if habits:
        yield _confused(seen, wrong, sizes, sorted(habits))


def _confused(seen: Labelled, wrong: Codes, sizes: Codes, habits: list[tuple[float, int, int]]) -> Finding:
    names, told = seen.classes, []
    for _, one, other in habits:
        told.append(
            f"{wrong[one, other]} of {sizes[one]:,} images that look like {names[one]} are called {names[other]}, "
            f"{wrong[other, one]} the other way"
        )
    is_part = np.zeros(len(seen.ids), np.bool_)
    for _, one, other in habits:
        is_part |= seen.errors.suspect & (seen.codes == other) & (seen.errors.suggested == one)
    order = np.flatnonzero(is_part)[np.argsort(-seen.errors.doubt[is_part], kind="stable")]
    return Finding(
        code="classes-confused",
        severity="warning",
        certainty="observed",
        message=f"Labels go wrong in one direction: {listed(told, 3)}.",
        advice="Ask who labelled these what the difference is: a rule that two people read differently, or a class "
        "that was merged or renamed, is corrected as a whole.",
        evidence={
            "pairs": [
                {
                    "looks_like": names[one],
                    "called": names[other],
                    "count": int(wrong[one, other]),
                    "back": int(wrong[other, one]),
                    "p": p,
                }
                for p, one, other in habits
            ]
        },
        images=tuple(seen.ids[i] for i in order[:MAX_IMAGES]),
    )


def _speaking(subject: AuditSubject) -> Labelled | None:
    """The images, where it is shown that labels are wrong, and by no fault that has a name of its own."""
    seen = subject.labelled
    if seen is None:
        return None
    errors = seen.errors
    shown = errors.noise.p <= alpha("suspect-labels") and errors.noise.low > errors.noise.tolerated
    if not shown or int(errors.suspect.sum()) < _FEWEST or errors.false_share > _MOST_FALSE:
        return None
    return None if any(class_map_permuted(subject)) or any(labels_carry_nothing(subject)) else seen


def _one_way(wrong: Codes, sizes: Codes, one: int, other: int) -> float:
    """That so many go one way and so few back, if every image of both classes is as likely to be called the other."""
    from scipy.special import bdtrc

    there, total = int(wrong[one, other]), int(wrong[one, other] + wrong[other, one])
    return float(bdtrc(there - 1, total, sizes[one] / (sizes[one] + sizes[other])))


def _apart(wrong: Codes, sizes: Codes, one: int, other: int) -> float:
    """That so many of one class's wrong labels are this one, if each other class is as likely; 1 for two classes.

    With two classes there is but one other: what tells a habit there is its direction alone.
    """
    from scipy.special import bdtrc

    if len(sizes) == 2:
        return 0.0
    there, total = int(wrong[one, other]), int(wrong[one].sum())
    return float(bdtrc(there - 1, total, 1 / (len(sizes) - 1)))


def without_suspects(seen: Labelled) -> tuple[int, int, float]:
    """Images named rightly only by a model that learnt without the suspects, only by one that learnt with them, and p.

    The p-value is that of the exact McNemar test (metrics/paired.py), of one image for each unit.
    """
    from snellen.metrics.paired import mcnemar

    half = np.array([keyed_seed("half", unit) % 2 == 0 for unit in seen.units], np.bool_)
    first, k = seen.first_of_units(), len(seen.classes)
    better = worse = 0
    for learnt in (half, ~half):
        suspect = find_label_errors(seen.classifier, seen.codes, k, learnt).suspect
        with_them = seen.classifier.learnt(seen.codes, k, learnt).argmax(1) == seen.codes
        without = seen.classifier.learnt(seen.codes, k, learnt & ~suspect).argmax(1) == seen.codes
        judged: Mask = first & ~learnt
        better += int((judged & without & ~with_them).sum())
        worse += int((judged & with_them & ~without).sum())
    return better, worse, mcnemar(worse, better)


def _relabelled(seen: Labelled, errors: LabelErrors, order: Codes) -> dict[str, Any]:
    """Of the training side alone: whoever corrects what a model is judged by, with a model, judges it by itself."""
    return {
        "overlay": [
            {"image": seen.ids[i], "action": "relabel", "value": seen.classes[errors.suggested[i]]}
            for i in order
            if seen.sides[i] == "train"
        ]
    }
