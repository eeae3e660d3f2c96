"""How much was learnt of the training images, and how much of that holds for others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats
from scipy.special import bdtr, bdtri

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case
from snellen.doctor.experiments.measure import Seen, has_trained, measurements, told
from snellen.metrics.interval import wilson

_LITTLE, _QUARTER = 0.1, 0.25  # of the errors of guessing: what is gone at most, and what is shown not to be
_GAP, _WIDE_GAP = 0.10, 0.30  # of accuracy between training and validation images
_FEWEST = 30  # images for a t-test


def not_learning(case: Case) -> Iterator[Finding]:
    """The trained model answers its own training images no better than one answer for all of them would.

    Classes: exact binomial test that at most a quarter of the errors of guessing the most frequent class are gone.
    Pixels and numbers: t-test over images of the same. A symptom: the experiments and forks say of what.
    """
    if case.history is not None and case.history.cut:  # it had no time to
        return
    seen = measurements(case, "classification", "multilabel", "segmentation", "regression")
    own = None if seen is None or not has_trained(case) else seen.side("plain")
    if own is None or not own.share_learnt <= _LITTLE or _sees_classes(own):
        return
    p = _p_of_little(own)
    if not p < alpha("not-learning"):
        return
    guess = float(own.constant.mean())
    yield Finding(
        code="not-learning",
        severity="warning",
        message=f"After training the model scores {told(own.scores.mean, own.question)} on its {len(own):,} training "
        f"images; one answer for all of them would score {told(guess, own.question)}.",
        advice="Nothing else about this model is worth a look before it learns its own training images.",
        evidence={"score": own.scores.mean, "guess": guess, "share_learnt": own.share_learnt, "p": p},
        certainty="observed",
    )


def _sees_classes(own: Seen) -> bool:
    """Whether rare classes are found although the frequent one is not beaten: then something was learnt."""
    if own.question != "classification":
        return False
    recalls = [own.scores.values[own.labels == label].mean() for label in np.unique(own.labels)]
    return len(recalls) > 1 and float(np.mean(recalls)) > 1 / len(recalls) + _LITTLE


def _p_of_little(own: Seen) -> float:
    guess = own.constant
    best = 0.0 if own.question == "regression" else 1.0
    limit = guess + _QUARTER * (best - guess)
    if own.question == "classification":
        return float(bdtr(int(own.scores.values.sum()), len(own), limit.mean()))
    short = limit - own.scores.values
    if len(own) < _FEWEST:
        return 1.0
    return float(stats.ttest_1samp(short, 0.0, alternative="greater").pvalue) if short.std() > 0 else 0.0


def high_variance(case: Case) -> Iterator[Finding]:
    """Accuracy on training images, measured as validation is, exceeds that on validation images by ten points at least.

    Shown by exact bounds: Clopper and Pearson, Biometrika 26 (1934) 404, one of each side, half of the error each.
    """
    seen = measurements(case, "classification")
    own, val = (None, None) if seen is None else (seen.side("plain"), seen.side("val"))
    if own is None or val is None:
        return
    share = alpha("high-variance", 2)
    least = _lowest(own, share) - _highest(val, share)
    if not least > _GAP:
        return
    low, high = wilson(float(val.scores.values.sum()), len(val)) if len(val) else (0.0, 1.0)
    yield Finding(
        code="high-variance",
        severity="warning" if least > _WIDE_GAP else "info",
        message=f"The model is right for {own.scores.mean:.1%} of {len(own):,} training images and for "
        f"{val.scores.mean:.1%} of {len(val):,} validation images ({low:.0%} to {high:.0%}).",
        advice="More images help most; else augmentation, weight decay, or a smaller network.",
        evidence={"training": own.scores.mean, "validation": val.scores.mean, "gap_at_least": least},
        certainty="observed",
    )


def _lowest(side: Seen, share: float) -> float:
    right, n = int(side.scores.values.sum()), len(side)
    return 0.0 if not right else float(bdtri(right - 1, n, 1 - share))


def _highest(side: Seen, share: float) -> float:
    right, n = int(side.scores.values.sum()), len(side)
    return 1.0 if right == n else float(bdtri(right, n, share))


def validation_above_training_explained(case: Case) -> Iterator[Finding]:
    """Validation was written down as better than training: is it still, once training images are judged likewise?"""
    history = case.history
    if history is None or not len(history.val_scores) or len(history.train_scores) != len(history.val_scores):
        return
    seen = measurements(case, "classification", "segmentation")
    own, val = (None, None) if seen is None else (seen.side("plain"), seen.side("val"))
    last = min(history.best_epoch or len(history.val_scores), len(history.val_scores)) - 1
    written, told_val = float(history.train_scores[last]), float(history.val_scores[last])
    if own is None or val is None or not _is_above(written, told_val) or own.scores.mean < val.scores.mean - 0.01:
        return
    yield Finding(
        code="validation-above-training-explained",
        severity="info",
        message=f"Validation was written down as better than training ({told_val:.1%} and {written:.1%}); judged "
        f"without dropout and augmentation, the training images reach {own.scores.mean:.1%} and the validation images "
        f"{val.scores.mean:.1%}.",
        advice="Nothing is wrong: training scores are taken while dropout and augmentation make it harder.",
        evidence={"written": [written, told_val], "judged_alike": [own.scores.mean, val.scores.mean]},
        certainty="confirmed",
    )


def _is_above(training: float, validation: float) -> bool:
    known = math.isfinite(training) and math.isfinite(validation)
    return known and 0 <= training <= 1 and validation <= 1 and validation - training > 2.5 * FLOORS["accuracy"]
