"""Do boxes and masks belong to the images? The trained model is judged by those of other images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case
from snellen.doctor.experiments.judged import fall, judgements, p_of_no_better

_SHIFTS = (-2, -1, 1, 2)  # rows
_LESS_LOSS = 0.25  # the share of the loss that the marks of a neighbour must take away
_LOOKS = 2  # here and in the audit, which asks the same of the data
_BY_HEART = 1 / 3  # of the loss by the marks of others is gone by the own: these images were learnt


def labels_shifted_by_loss(case: Case) -> Iterator[Finding]:
    """Each validation image is judged by the marks of the image before or after it, by up to two: do they fit better?

    Confirmed where Wilcoxon's signed ranks say so of the losses, and a quarter of the loss is gone.
    """
    seen = judgements(case)
    if seen is None:
        return
    own, rows, last = seen.side("val"), np.array(seen.rows["val"]), seen.judge.count("val") - 1
    shifted = {
        shift: seen.again("val", marks=np.clip(rows + shift, 0, last).tolist())
        for shift in _SHIFTS
        if last > abs(shift)
    }
    shift = min(shifted, key=lambda each: shifted[each].mean)
    found = fall(own, shifted[shift])
    if found.relative < _LESS_LOSS or found.p >= alpha("labels-shifted", _LOOKS * len(_SHIFTS)):
        return
    where = f"{'one' if abs(shift) == 1 else 'two'} {'after' if shift > 0 else 'before'}"
    yield Finding(
        code="labels-shifted",
        severity="serious",
        message=f"The marks of the validation images have slipped: by those of the image {where} the mean loss is "
        f"{shifted[shift].mean:.3g}, by their own {own.mean:.3g}.",
        advice="Join images and marks by a name or number that both have, not by their places in two lists.",
        evidence={"shift": shift, "loss": shifted[shift].mean, "loss_as_given": own.mean, "p": found.p},
        certainty="confirmed",
    )


def labels_carry_nothing_by_loss(case: Case) -> Iterator[Finding]:
    """The training images were learnt, and validation images are judged no worse by the marks of others.

    The mean loss by the own marks is within 5 % of that by those of another image, and by a t-test less than half of
    what the own marks gain on training images is gained. A sign: too few images, learnt by heart, look the same.
    """
    seen = judgements(case)
    if seen is None:
        return
    own, others = seen.side("train").losses, seen.by_others("train").losses
    if not own.mean() <= (1 - _BY_HEART) * others.mean():
        return
    val, val_others = seen.side("val").losses, seen.by_others("val").losses
    half = 1 - 0.5 * (1 - own.mean() / others.mean())
    p = p_of_no_better(val, val_others, half)
    if val.mean() < (1 - FLOORS["loss"]) * val_others.mean() or p >= alpha("labels-carry-nothing", _LOOKS):
        return
    yield Finding(
        code="labels-carry-nothing",
        severity="warning",
        message=f"The model knows its training images (a mean loss of {own.mean():.3g}, and of {others.mean():.3g} by "
        f"the marks of other images), but for {len(val)} validation images their own marks fit no better than those of "
        f"others: {val.mean():.3g} and {val_others.mean():.3g}.",
        advice="Look at thirty images of each side with their marks: they were probably shuffled or joined wrongly.",
        evidence={
            "training": float(own.mean()),
            "training_by_others": float(others.mean()),
            "validation": float(val.mean()),
            "validation_by_others": float(val_others.mean()),
            "p": p,
        },
        certainty="observed",
    )
