"""How much of a best score is luck."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.core.seeds import keyed_generator
from snellen.doctor.answers.independent import independent
from snellen.doctor.case import Case, Floats
from snellen.doctor.curves.series import is_share, known

_FEWEST_EPOCHS = 8
_TOLD = 0.01  # of all images: one point
_DRAWS = 2000
_WINDOW = 9  # epochs


def selection_bias(case: Case) -> Iterator[Finding]:
    """The best epoch was chosen by the very images whose score is told, so the score flatters: by how much, simulated.

    Silent where there is a test side, whose number is the one to tell, and where the size of validation is not known.
    """
    history, val = case.history, case.answers.get("val")
    if history is None or val is None or "test" in case.answers:
        return
    scores = known(history.val_scores)
    if len(scores) < _FEWEST_EPOCHS or not is_share(scores):
        return
    n = len(independent(val, case.seed))
    flattery = winners_curse(scores, n, case.seed)
    if flattery <= _TOLD:
        return
    best = float(scores.max())
    yield Finding(
        code="selection-bias",
        severity="info",
        message=f"The best of {len(scores)} epochs was chosen by the {n} validation images on which it has {best:.1%}: "
        f"about {100 * flattery:.1f} points of that are the luck of the choice.",
        evidence={"epochs": len(scores), "images": n, "best_score": best, "flattery": flattery},
        advice="Tell the score of test images that no choice was made by, or of a half of validation that did not "
        "choose.",
        certainty="observed",
    )


def winners_curse(scores: Floats, n: int, seed: int = 0) -> float:
    """By how much the highest of ``scores`` [epochs], shares of n images, is expected to exceed what it stands for.

    The course of the scores is taken to be their running median. The luck of an epoch is judged by the differences from
    epoch to epoch, and is no more than n images can cause. It is drawn anew and
    that of the winner averaged. All epochs
    answer the same images, so luck that they share takes no part in the choice and is not counted.
    """
    from scipy.ndimage import median_filter

    course = median_filter(scores, min(_WINDOW, len(scores)), mode="nearest")
    level = float(np.clip(course.max(), 0.5 / n, 1 - 0.5 / n))
    luck = min(float(np.std(np.diff(scores)) / np.sqrt(2)), float(np.sqrt(level * (1 - level) / n)))
    drawn = luck * keyed_generator("winners-curse", seed).normal(size=(_DRAWS, len(scores)))
    winners = (course + drawn).argmax(axis=1)
    return float(drawn[np.arange(_DRAWS), winners].mean())
