"""Inputs of boxes and masks: are they looked at, and do validation images come as training images do?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scipy import stats

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case
from snellen.doctor.experiments.channels import Channels, Prepared, beyond_nature, cause_of_difference, channels_differ
from snellen.doctor.experiments.judged import Judgements, fall, judgements, p_of_no_better, told
from snellen.doctor.experiments.measure import has_trained
from snellen.doctor.judge import Judged
from snellen.doctor.scores import Gain

_WORSE = 1.25  # the loss of validation over that of training, from which something may be wrong with the inputs
_HALF = 0.5  # of the difference
_RGB = 3


class _Trial(NamedTuple):
    judged: Judged
    fall: Gain


def inputs_ignored_by_loss(case: Case) -> Iterator[Finding]:
    """As ``inputs_ignored``: the loss stays within 5 % when every training image is replaced by their mean.

    A network that has hardly begun may be right of images and unsure. So the marks of other images must fit as well.
    """
    seen = judgements(case)
    if seen is None or not has_trained(case):
        return
    own = seen.side("train")
    mean = seen.images("train")[0].mean(0, keepdim=True)
    blind = seen.again("train", moved=mean.expand_as)
    others = seen.by_others("train")
    p = p_of_no_better(own.losses, blind.losses, 1 - FLOORS["loss"])
    if own.mean < (1 - FLOORS["loss"]) * others.mean or not p < alpha("inputs-ignored"):
        return
    yield Finding(
        code="inputs-ignored",
        severity="warning",
        message=f"The model does no better with the training images than without: {told(own)} with {len(own.losses)} "
        f"of them and {told(blind)} when each is replaced by their mean; the marks of other images fit as well.",
        advice="Look for where the signal of the image is lost: in its preparation, in dead units, or in the weights "
        "that training never moved.",
        evidence={"loss": own.mean, "loss_without_images": blind.mean, "loss_by_others": others.mean, "p": p},
        certainty="observed",
    )


def inputs_differ_by_loss(case: Case) -> Iterator[Finding]:
    """As ``inputs_differ``: validation inputs with the channel statistics of the training inputs, or their channels in
    reverse order, or both. Asked where the loss of validation is a quarter above that of training; half of that must be
    gone."""
    seen = judgements(case)
    if seen is None:
        return
    val, own = seen.side("val"), seen.side("train")
    if not val.mean > _WORSE * own.mean or stats.mannwhitneyu(val.losses, own.losses, alternative="greater")[1] >= 0.01:
        return
    theirs, ours = (Channels.of(seen.images(side)[0]) for side in ("val", "train"))
    half = val.mean - _HALF * (val.mean - own.mean)
    straight = _trial(seen, Prepared(theirs, ours, reverse=False, match=True))
    if theirs.means.shape[1] == _RGB:
        tried = [_trial(seen, Prepared(theirs, ours, reverse=True, match=match)) for match in (False, True)]
        turned = min(tried, key=lambda each: each.judged.mean)
        level = alpha("channels-swapped", 2)
        beyond = fall(straight.judged, turned.judged)
        if turned.judged.mean <= half and turned.fall.p < level and beyond.p < level and beyond.mean > 0:
            yield _channels_swapped(val, turned)
            return
    if straight.judged.mean <= half and straight.fall.p < alpha("inputs-differ") and channels_differ(theirs, ours):
        yield _inputs_differ(val, straight, theirs, ours)


def _trial(seen: Judgements, prepared: Prepared) -> _Trial:
    judged = seen.again("val", moved=prepared)
    return _Trial(judged, fall(seen.side("val"), judged))


def _channels_swapped(val: Judged, turned: _Trial) -> Finding:
    return Finding(
        code="channels-swapped",
        severity="serious",
        message=f"With their three channels in reverse order the validation images have {told(turned.judged)} instead "
        f"of {told(val)}.",
        advice="Look at the files of both sides: those of one were written as BGR where RGB was meant.",
        evidence={
            "loss_before": val.mean,
            "loss_after": turned.judged.mean,
            "before": val.score,
            "after": turned.judged.score,
            "p": turned.fall.p,
        },
        certainty="confirmed",
    )


def _inputs_differ(val: Judged, straight: _Trial, theirs: Channels, ours: Channels) -> Finding:
    return Finding(
        code="inputs-differ",
        severity="serious",
        message=f"Given the channel means and deviations of the training inputs, the validation images have "
        f"{told(straight.judged)} instead of {told(val)}; {cause_of_difference(theirs, ours)}.",
        advice="Prepare the files of both sides alike, or train on images of the light that will be met.",
        evidence={
            "loss_before": val.mean,
            "loss_after": straight.judged.mean,
            "before": val.score,
            "after": straight.judged.score,
            "p": straight.fall.p,
            "validation_mean": theirs.pooled[0].tolist(),
            "validation_deviation": theirs.pooled[1].tolist(),
            "training_mean": ours.pooled[0].tolist(),
            "training_deviation": ours.pooled[1].tolist(),
            "beyond_nature": beyond_nature(theirs, ours),
        },
        certainty="confirmed",
    )
