"""Models that are wrong together: an ensemble of them gains little."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from snellen.core.errors import DataError
from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.answers.independent import independent
from snellen.doctor.case import Answers
from snellen.metrics.chance import stratified_excess

_FEWEST_ERRORS = 10
_TIMES = 2.0  # as many common errors as independent models would have
_PHI = 0.5


def correlated_errors(several: Sequence[Answers], seed: int = 0) -> Finding | None:
    """How far the errors of models of the same images are from independent ones; None where that is not shown.

    Judged for each pair, within each true class, since classes that are hard are hard for every model. Common errors
    are normal among models of one kind of data, so it is an "info", and only where phi is 0.5 or more on average.
    Raises DataError where the answers are not about the same images.
    """
    if len(several) < 2:
        return None
    first = several[0]
    for other in several[1:]:
        if len(other) != len(first) or not np.array_equal(other.truth, first.truth) or other.ids != first.ids:
            raise DataError("correlated_errors: the answers are not about the same images in the same order")
    rows = independent(first, seed)
    wrong = [~answers.correct[rows] for answers in several]
    if min(int(each.sum()) for each in wrong) < _FEWEST_ERRORS:
        return None
    truth = first.truth[rows]
    pairs = list(combinations(wrong, 2))
    limit = alpha("correlated-errors", len(pairs))
    tested = [stratified_excess(one, other, truth) for one, other in pairs]
    phi = float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))
    both = float(np.mean([np.mean(one & other) for one, other in pairs]))
    apart = float(np.mean([one.mean() * other.mean() for one, other in pairs]))
    if max(each.p for each in tested) > limit or phi < _PHI or both < _TIMES * apart:
        return None
    together = np.mean(wrong, axis=0)
    worst = rows[np.argsort(-together, kind="stable")][: int((together == 1).sum())][:24]
    mean = np.mean([answers.probabilities for answers in several], axis=0)
    joint = float(np.mean(mean.argmax(axis=1)[rows] == truth))
    return Finding(
        code="correlated-errors",
        severity="info",
        message=f"The {len(several)} models are wrong together on {both:.1%} of the images, where independent ones "
        f"would be on {apart:.1%} (phi {phi:.2f}): their mean is right for {joint:.1%}, the best alone for "
        f"{max(1 - float(each.mean()) for each in wrong):.1%}.",
        evidence={"p": max(each.p for each in tested), "phi": phi, "both_wrong": both, "if_independent": apart},
        images=tuple(first.ids[row] for row in worst) if len(first.ids) else (),
        advice="Join models that differ more: another architecture, other pretrained weights or another input size.",
        certainty="observed",
    )
