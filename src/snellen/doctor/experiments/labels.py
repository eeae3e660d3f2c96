"""Do the labels belong to the images?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import bdtr, bdtrc

from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.case import Case
from snellen.doctor.experiments.reference import answers_of_reference, featured, left_out
from snellen.metrics.paired import mcnemar

_SHIFTS = (-2, -1, 1, 2)  # rows
_LEAST_JUMP = 0.10  # of accuracy
_LOOKS = 2  # here and in the audit, which asks the same of the data

# The network has learnt its training images (of the errors of guessing, half at least are gone), and guesses others.
_LEARNT = 0.5
_SECOND_WITNESS = 0.05  # p-value: the reference alone keeps to the budget
_MORE_THAN_NOTHING = 0.15  # of accuracy above the most frequent class: this much is shown not to be there
# With fewer images of a class, networks learn them by heart and tell nothing of others although all labels are right.
_FEWEST_OF_A_CLASS = 40


def labels_shifted(case: Case) -> Iterator[Finding]:
    """Each image gets the label of the row before or after it, by up to two rows: can it be predicted then?

    Labels as they are and shifted are predicted from the same images, each from four fifths that it is not among.
    Confirmed where McNemar's test says that a shift is predicted better and the binomial test that it is above the
    most frequent class.
    """
    sides = featured(case)
    if sides is None:
        return
    n = len(sides.own)
    # No wrapping round: an image without a neighbour keeps its label, and is not judged.
    rows = np.clip(np.arange(n)[:, None] + np.array((0, *_SHIFTS)), 0, n - 1)
    labelings = sides.own.labels[rows][sides.order]
    inside = (sides.order >= 2) & (sides.order < n - 2)
    right = (left_out(sides.features, labelings, case.seed) == labelings)[inside]
    shares = right.mean(0)
    best = 1 + int(shares[1:].argmax())
    p = _p_of_shift(right[:, 0], right[:, best], float(np.bincount(labelings[inside, best]).max()) / len(right))
    if shares[best] - shares[0] < _LEAST_JUMP or p >= alpha("labels-shifted", _LOOKS * len(_SHIFTS)):
        return
    shift = _SHIFTS[best - 1]
    yield Finding(
        code="labels-shifted",
        severity="serious",
        message=f"The labels have slipped: given the label of the row {_told(shift)}, {shares[best]:.1%} of the "
        f"training images can be predicted from the others; with their own, {shares[0]:.1%}.",
        advice="Join images and labels by a name or number that both have, not by their places in two lists.",
        evidence={"shift": shift, "accuracy": float(shares[best]), "accuracy_as_given": float(shares[0]), "p": p},
        certainty="confirmed",
    )


def _p_of_shift(given: np.ndarray, shifted: np.ndarray, guess: float) -> float:
    """The larger of the two p-values: both must speak."""
    worse, better = int((given & ~shifted).sum()), int((shifted & ~given).sum())
    paired = mcnemar(worse, better) / 2 if better > worse else 1.0
    return max(paired, float(bdtrc(int(shifted.sum()) - 1, len(shifted), guess)))


def _told(shift: int) -> str:
    return f"{'one' if abs(shift) == 1 else 'two'} {'below' if shift > 0 else 'above'}"


def labels_carry_nothing(case: Case) -> Iterator[Finding]:
    """The network knows its training images, yet neither it nor a reference tells anything of others.

    Exact binomial test that the accuracy of the reference is less than 15 points above the most frequent class, over
    training images that it was not fitted to, and over the validation images. The network is a second witness.
    """
    sides = featured(case)
    if sides is None or not sides.own.share_learnt >= _LEARNT:
        return
    own, val = sides.own, sides.val
    if np.bincount(own.labels, minlength=own.outputs.shape[1]).min() < _FEWEST_OF_A_CLASS:
        return
    labels = own.labels[sides.order]
    probe = answers_of_reference(sides, case.seed) == val.labels
    within = left_out(sides.features, labels[:, None], case.seed)[:, 0] == labels
    net = val.scores.values > 0.5
    guess = max(_most_frequent(val.labels), _most_frequent(labels))
    p = _p_of_nothing(np.concatenate([probe, within]), guess)
    if p >= alpha("labels-carry-nothing", _LOOKS) or _p_of_nothing(net, guess) >= _SECOND_WITNESS:
        return
    yield Finding(
        code="labels-carry-nothing",
        severity="serious",
        message=f"The network is right for {own.scores.mean:.1%} of its training images and for {net.mean():.1%} of "
        f"{len(val):,} validation images, where guessing the most frequent class gives "
        f"{guess:.1%}; a reference that learns otherwise reaches {probe.mean():.1%}.",
        advice="Look at thirty training images beside their labels: labels were probably shuffled or joined wrongly.",
        evidence={
            "training": own.scores.mean,
            "validation": float(net.mean()),
            "reference": float(probe.mean()),
            "reference_within_training": float(within.mean()),
            "guess": guess,
            "p": p,
        },
        certainty="confirmed",
    )


def _p_of_nothing(right: np.ndarray, guess: float) -> float:
    limit = guess + _MORE_THAN_NOTHING
    return float(bdtr(int(right.sum()), len(right), limit)) if limit < 1 else 1.0


def _most_frequent(labels: np.ndarray) -> float:
    return float(np.bincount(labels).max()) / len(labels)
