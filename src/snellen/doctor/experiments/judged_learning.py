"""What a training has learnt, by its own loss: of its own images, of others, and with other statistics of its norms."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from scipy import stats

from snellen.core.estimate import is_fraction, spoken
from snellen.core.finding import Finding
from snellen.core.seeds import keyed_seed
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.experiments.batch_norms import ADVICE, BATCH, IN_WORDS, pace_of, severity_of
from snellen.doctor.experiments.judged import Judgements, fall, judgements, told
from snellen.doctor.experiments.measure import batch_statistics, has_trained
from snellen.doctor.experiments.overfit import WAYS, Way, house_step, where
from snellen.doctor.modes import in_evaluation
from snellen.doctor.norms import norms_of, re_estimate
from snellen.doctor.safety import untouched

_LESS_LOSS = 0.2  # the share of the loss that other statistics must take away: smaller ones come and go with a batch
_GAP, _WIDE_GAP = 0.10, 0.30  # of the metric between training and validation images
_IMAGES_OF_NORMS = 128
_BY_HEART, _STEPS, _LOOK_EVERY = 8, 150, 25
_ENOUGH = 0.6  # of the loss by other marks is gone: what is left may be smoothing, or overlap that no box has in full
_LEARNT = 0.5  # of it, in the real training: a network that learnt so much is not asked
_SECONDS = 20.0  # of computing for one way of learning; what takes longer is not known


def batch_norm_statistics_by_loss(case: Case) -> Iterator[Finding]:
    """As ``batch_norm_statistics``: a fifth of the loss and two points of the metric must be gained on one side, and
    nothing lost on the other."""
    seen = judgements(case)
    if seen is None or not norms_of(seen.training.model):
        return
    val, own = seen.side("val"), seen.side("train")
    with untouched(seen.training):
        inputs, targets = seen.images("train", _IMAGES_OF_NORMS)
        re_estimate(seen.training.model, [(part, targets) for part in torch.split(inputs, BATCH)])
        val_after, own_after = seen.again("val"), seen.again("train")
    falls = fall(val, val_after), fall(own, own_after)
    gains = val_after.score - val.score, own_after.score - own.score
    level = alpha("batch-norm-statistics", 2)
    shown = [
        gained
        for fallen, gained in zip(falls, gains, strict=True)
        if fallen.relative >= _LESS_LOSS and fallen.p < level and gained >= FLOORS["accuracy"]
    ]
    if not shown or min(*gains, *(each.mean for each in falls)) < 0:
        return
    pace = pace_of(seen.training.model)
    yield Finding(
        code="batch-norm-statistics",
        severity=severity_of(pace, max(shown), "classification"),
        message=f"With the statistics of its batch norms taken anew from {len(inputs):,} training images, and not one "
        f"weight changed, the model has {told(val_after)} instead of {told(val)} on {len(val.losses)} validation "
        f"images: {IN_WORDS[pace]}.",
        advice=ADVICE,
        evidence={
            "loss_before": val.mean,
            "loss_after": val_after.mean,
            "before": val.score,
            "after": val_after.score,
            "p_validation": falls[0].p,
            "gain_on_training_images": gains[1],
            "p_training": falls[1].p,
            "pace": pace,
        },
        certainty="confirmed",
        treatment={"change": "re-estimated norms"},
    )


def high_variance_by_loss(case: Case) -> Iterator[Finding]:
    """The metric of training images, judged as validation is, exceeds that of validation images by ten points at least,
    by the bootstrap's standard errors; their losses are lower by the test of Mann and Whitney."""
    seen = judgements(case)
    if seen is None or not is_fraction(seen.judge.metric):
        return
    val, own = seen.side("val"), seen.side("train")
    gap, level = own.score - val.score, alpha("high-variance", 2)
    if not gap > _GAP or stats.mannwhitneyu(val.losses, own.losses, alternative="greater").pvalue >= level:
        return
    least = gap - float(stats.norm.isf(level)) * math.hypot(own.standard_error, val.standard_error)
    if not least > _GAP:
        return
    yield Finding(
        code="high-variance",
        severity="warning" if least > _WIDE_GAP else "info",
        message=f"The {spoken(own.metric)} of {len(own.losses)} training images is {own.score:.3f} (a loss of "
        f"{own.mean:.3g}), that of {len(val.losses)} validation images {val.score:.3f} ({val.mean:.3g}).",
        advice="More images help most; else augmentation, weight decay, or a smaller network.",
        evidence={"training": own.score, "validation": val.score, "gap_at_least": least},
        certainty="observed",
    )


# --- a few images by heart


def cannot_overfit_by_loss(case: Case) -> Iterator[Finding]:
    """As ``cannot_overfit``, with eight images. They are known by heart when three fifths of the loss by each other's
    marks are gone by their own: a network that ignores its inputs cannot do that, however far its loss falls.

    Asked only of a model that in its training did not come to half of that.
    """
    seen = judgements(case)
    if seen is None or seen.training.build is None or not has_trained(case):
        return
    if 1 - seen.side("train").mean / seen.by_others("train").mean > _LEARNT:
        return
    rows = seen.rows["train"][:_BY_HEART]
    images, others = seen.judge.images("train", rows), seen.judge.images("train", [*rows[1:], rows[0]])
    learnt: dict[str, float] = {}
    for way in WAYS:
        if way.standardised:  # the network standardises by itself
            continue
        share = _share_learnt(seen, way, images, (images[0], others[1]))
        if share is None:
            return
        learnt[way.says] = share
        if share >= _ENOUGH:
            if len(learnt) > 1:
                yield _observed(learnt, way)
            return
    yield _observed(learnt, None)


def _observed(learnt: dict[str, float], way: Way | None) -> Finding:
    own, best = next(iter(learnt.values())), max(0.0, *learnt.values())
    helped = f"with {'the best of all ways tried' if way is None else way.says} {best:.0%}"
    return Finding(
        code="cannot-overfit",
        severity="warning" if way is None else "info",
        message=f"Given {_BY_HEART} training images {_STEPS} times, the training rids itself of {max(0.0, own):.0%} of "
        f"the loss that the marks of other images give; {helped}.",
        advice=f"Look at {where(way)} first.",
        evidence={"learnt": learnt},
        certainty="observed",
    )


def _share_learnt(seen: Judgements, way: Way, images: Batch, others: Batch) -> float | None:
    """The most at any look; None where it takes too long."""
    build = seen.training.build
    assert build is not None
    with untouched(seen.training):
        fresh = build(seen.seed)
        torch.manual_seed(keyed_seed("overfit", seen.seed))
        step = house_step(fresh, way) if way.rate else fresh.take_step
        begun, best = time.thread_time(), -math.inf
        for number in range(_STEPS):
            step(images)
            if (number + 1) % _LOOK_EVERY == 0:
                best = max(best, _by_heart(fresh, images, others))
                if best >= _ENOUGH:
                    break
            if time.thread_time() - begun > _SECONDS:
                return None
        return best


def _by_heart(fresh: Training, images: Batch, others: Batch) -> float:
    """By the statistics of the batch: those that are kept need time to follow."""
    with in_evaluation(fresh.model), batch_statistics(fresh.model), torch.no_grad():
        own, foreign = float(fresh.loss_of(images)), float(fresh.loss_of(others))
    return 1 - own / foreign if math.isfinite(own) and foreign > 0 else -math.inf
