"""Batch norms answer otherwise in evaluation than in training: are their kept statistics to blame?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn

from snellen.core.finding import Finding, Severity
from snellen.core.thresholds import FLOORS
from snellen.doctor.case import Case
from snellen.doctor.experiments.measure import (
    Measurements,
    batch_statistics,
    gain_of,
    in_batches,
    is_shown,
    measurements,
    told,
)
from snellen.doctor.norms import norms_of, re_estimate
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Gain, score_images

Pace = Literal["odd", "short", "usual"]
_IMAGES = 2048
_USUAL_MOMENTUM = 0.01, 0.5
_LEFT_OVER = 0.01  # of the first values, after which statistics have come into their own
_LARGE, _LARGE_SHARE = 0.05, 0.75  # of accuracy; of squared errors
BATCH = 64  # statistics of fewer images are themselves noisy (Wu and He, 2018, arXiv:1803.08494)


def batch_norm_statistics(case: Case) -> Iterator[Finding]:
    """The weights stay, the statistics are taken anew from plain training images: are the same images answered better?

    Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021 (arXiv:2105.07576). Paired over the validation images, and
    over the training images; one of the two must show it, and the other must not deny it.
    """
    seen = measurements(case, "classification", "multilabel", "segmentation", "regression")
    if seen is None or not norms_of(seen.training.model):
        return
    question = seen.training.question
    found = _re_estimated(seen)
    if found is None:
        return
    val, own, scores = found
    least = FLOORS["accuracy"] if question == "regression" else 0.0
    shown = [each for each in (val, own) if is_shown(each, question, "batch-norm-statistics", 2)]
    if not shown or min(val.relative, own.relative) < -least:
        yield from _disagreement(seen)
        return
    pace = pace_of(seen.training.model)
    yield Finding(
        code="batch-norm-statistics",
        severity=severity_of(
            pace, max(each.relative if question == "regression" else each.mean for each in shown), question
        ),
        message=f"With the statistics of its batch norms taken anew from {scores[2]:,} training images, and not one "
        f"weight changed, the model scores {told(scores[1], question)} instead of {told(scores[0], question)} on "
        f"the validation images: {IN_WORDS[pace]}.",
        advice=ADVICE,
        evidence={
            "before": scores[0],
            "after": scores[1],
            "p_validation": val.p,
            "gain_on_training_images": own.mean,
            "p_training": own.p,
            "pace": pace,
        },
        certainty="confirmed",
        treatment={"change": "re-estimated norms"},
    )


ADVICE = (
    "Take the statistics anew before validating, and mend what keeps them from following: a momentum near 0 or 1, "
    "layers that are never in training mode, batches of few images, or a rate that is high to the end."
)
IN_WORDS: dict[Pace, str] = {
    "odd": "their momentum is near 0 or 1, or they never followed training",
    "short": "training was too short for them to leave their first values",
    "usual": "they follow at a usual pace and lag behind the weights, or the batches were too small",
}


def pace_of(model: nn.Module) -> Pace:
    """How the slowest of the norms follows: its momentum, and how much of its first values is left."""
    paces: set[Pace] = set()
    for norm in norms_of(model):
        batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
        momentum = norm.momentum
        if momentum is None:  # torch: the plain mean of all batches
            continue
        if not _USUAL_MOMENTUM[0] <= momentum <= _USUAL_MOMENTUM[1] or not batches:
            return "odd"
        paces.add("short" if (1 - momentum) ** batches > _LEFT_OVER else "usual")
    return "short" if "short" in paces else "usual"


def severity_of(pace: Pace, size: float, question: str) -> Severity:
    """A lag is part of every training that has not come to rest: only one that is large is worth a warning."""
    if pace == "odd":
        return "serious"
    large = size >= (_LARGE_SHARE if question == "regression" else _LARGE)
    return "warning" if pace == "usual" and large else "info"


def _re_estimated(seen: Measurements) -> tuple[Gain, Gain, tuple[float, float, int]] | None:
    """The gains on validation and training images; mean scores of validation before and after, images used."""
    images = seen.some_images(_IMAGES)
    val, own = seen.side("val"), seen.side("plain") or seen.side("train")
    if images is None or val is None or own is None:
        return None
    with untouched(seen.training):
        re_estimate(seen.training.model, in_batches(images, BATCH))
        after = seen.again("val")
        own_after = seen.again("train" if seen.training.plain is None else "plain")
    gains = gain_of(val.scores, after), gain_of(own.scores, own_after)
    if gains[0] is None or gains[1] is None:
        return None
    return gains[0], gains[1], (val.scores.mean, after.mean, len(images[0]))


def _disagreement(seen: Measurements) -> Iterator[Finding]:
    """Better by the statistics of the batch at hand than by any that are kept: batches tell what images do not."""
    images = seen.some_images(_IMAGES)
    if images is None:
        return
    question, batches = seen.training.question, in_batches(images, BATCH)
    with untouched(seen.training):
        before = score_images(seen.training, batches)
        with batch_statistics(seen.training.model):
            after = score_images(seen.training, batches)
    found = gain_of(before, after)
    if found is None or not is_shown(found, question, "train-and-eval-disagree"):
        return
    yield Finding(
        code="train-and-eval-disagree",
        severity="warning",
        message=f"On the same {len(before.values):,} training images the model scores {told(after.mean, question)} "
        f"when its batch norms use the batch at hand, and {told(before.mean, question)} as it is validated; taking "
        "the statistics anew does not help.",
        advice="Look whether training batches hold images that belong together, and try group norms.",
        evidence={"as_in_training": after.mean, "as_in_validation": before.mean, "p": found.p},
        certainty="observed",
    )
