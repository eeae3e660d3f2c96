"""Do validation images come to the network as training images do, and does it look at them at all?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import softmax

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case, Floats
from snellen.doctor.experiments.channels import Channels, Prepared, beyond_nature, cause_of_difference, channels_differ
from snellen.doctor.experiments.measure import (
    Measurements,
    Seen,
    gain_of,
    has_trained,
    is_shown,
    look,
    measurements,
    told,
)
from snellen.doctor.scores import Gain, Scores
from snellen.metrics.log_loss import log_losses

_GAP, _HALF = 0.05, 0.5  # of accuracy between the sides; of the gap
_FEWEST = 100  # images for a t-test of losses, which are skewed
_IMAGES_OF_MEAN = 2048
_LITTLE = 0.1  # of the errors of guessing are gone: beyond that something in the images is surely used


class _Trial(NamedTuple):
    scores: Scores
    gain: Gain


def inputs_differ(case: Case) -> Iterator[Finding]:
    """Validation inputs are given the channel means and deviations of the training inputs, or their channels in
    reverse order, or both: are they answered better? Paired over images.

    Any slight push may help a model that leans to one side. So this is asked only where validation is clearly worse
    than training, the push must close half of that gap, and, if it is one of units, the statistics must differ.
    """
    seen = measurements(case, "classification", "multilabel", "segmentation", "regression")
    if seen is None:
        return
    val, own = seen.side("val"), _training_side(seen)
    if val is None or own is None or val.means.shape[1] != own.means.shape[1] or not _is_worse(val, own):
        return
    question = seen.training.question
    theirs, ours = _channels(val), _channels(own)
    half = val.scores.mean + _HALF * (own.scores.mean - val.scores.mean)
    straight = _trial(seen, val, Prepared(theirs, ours, reverse=False, match=True))
    turned = None
    if val.small.dim() == 4 and val.means.shape[1] == 3:
        tried = [_trial(seen, val, Prepared(theirs, ours, reverse=True, match=match)) for match in (False, True)]
        turned = max((each for each in tried if each is not None), key=lambda each: each.gain.mean, default=None)
    if turned is not None and turned.scores.mean >= half and is_shown(turned.gain, question, "channels-swapped", 2):
        beyond = None if straight is None else gain_of(straight.scores, turned.scores)
        if beyond is None or is_shown(beyond, question, "channels-swapped", 2):
            yield _channels_swapped(question, val, turned)
            return
    if straight is not None and straight.scores.mean >= half and channels_differ(theirs, ours):
        if is_shown(straight.gain, question, "inputs-differ"):
            yield _inputs_differ(question, val, own, straight)


def _training_side(seen: Measurements) -> Seen | None:
    """Training images as the model answers them best: where they are prepared otherwise for validation, that is as it
    got them in training, augmentation and all."""
    sides = [each for each in (seen.side("plain"), seen.side("train")) if each is not None]
    return max(sides, key=lambda side: side.scores.mean, default=None)


def _is_worse(val: Seen, own: Seen) -> bool:
    """By five points or twice the squared error, and beyond what Mann and Whitney's test at 1 % leaves to chance."""
    if val.question == "regression":
        clearly = val.scores.mean < 2 * own.scores.mean  # both are minus a squared error
    else:
        clearly = val.scores.mean < own.scores.mean - _GAP
    return clearly and bool(stats.mannwhitneyu(val.scores.values, own.scores.values, alternative="less").pvalue < 0.01)


def _channels(side: Seen) -> Channels:
    return Channels(means=side.means, squares=side.squares)


def _trial(seen: Measurements, val: Seen, prepared: Prepared) -> _Trial | None:
    scores = seen.again("val", prepared)
    found = gain_of(val.scores, scores)
    return None if found is None else _Trial(scores, found)


def _channels_swapped(question: str, val: Seen, turned: _Trial) -> Finding:
    return Finding(
        code="channels-swapped",
        severity="serious",
        message=f"With their three channels in reverse order the validation images score "
        f"{told(turned.scores.mean, question)} instead of {told(val.scores.mean, question)}.",
        advice="Read training and validation images by the same function: one of them gives RGB, the other BGR.",
        evidence={"before": val.scores.mean, "after": turned.scores.mean, "p": turned.gain.p},
        certainty="confirmed",
        treatment={"change": "channels reversed"},
    )


def _inputs_differ(question: str, val: Seen, own: Seen, straight: _Trial) -> Finding:
    theirs, ours = _channels(val), _channels(own)
    (mean, std), (own_mean, own_std) = theirs.pooled, ours.pooled
    return Finding(
        code="inputs-differ",
        severity="serious",
        message=f"Given the channel means and deviations of the training inputs, the validation images score "
        f"{told(straight.scores.mean, question)} instead of {told(val.scores.mean, question)}; "
        f"{cause_of_difference(theirs, ours)}.",
        advice="Use one function to prepare the images of both sides, without what is random in training.",
        evidence={
            "before": val.scores.mean,
            "after": straight.scores.mean,
            "p": straight.gain.p,
            "validation_mean": mean[:8].tolist(),
            "validation_deviation": std[:8].tolist(),
            "training_mean": own_mean[:8].tolist(),
            "training_deviation": own_std[:8].tolist(),
            "beyond_nature": beyond_nature(theirs, ours),
        },
        certainty="confirmed",
        treatment={"change": "plain validation"},
    )


def inputs_ignored(case: Case) -> Iterator[Finding]:
    """Every training image is replaced by their mean: does the model answer as well as with the images themselves?

    Karpathy, A Recipe for Training Neural Networks, 2019, calls it the input-independent baseline. Told where the log
    loss with the images is shown to be less than 5 % below that without, by a t-test over images.
    """
    seen = measurements(case, "classification")
    if seen is None or not has_trained(case):
        return
    own = seen.side("plain")
    if own is None or len(own) < _FEWEST or own.share_learnt > _LITTLE:
        return
    real, blind = _losses(own.outputs, own), _losses_without_images(seen, own)
    if blind is None:
        return
    excess = real - (1 - FLOORS["loss"]) * blind
    p = float(stats.ttest_1samp(excess, 0.0, alternative="greater").pvalue) if excess.std() > 0 else 0.0
    if excess.mean() <= 0 or not p < alpha("inputs-ignored"):
        return
    yield Finding(
        code="inputs-ignored",
        severity="warning",
        message=f"The model does no better with the training images than without: its mean log loss is "
        f"{real.mean():.3g} with them and {blind.mean():.3g} when each is replaced by their mean.",
        advice="Look for where the signal of the image is lost: in its preparation, in dead units, or in the weights "
        "that training never moved.",
        evidence={"loss": float(real.mean()), "loss_without_images": float(blind.mean()), "p": p, "images": len(own)},
        certainty="observed",
    )


def _losses(outputs: Floats, own: Seen) -> Floats:
    return log_losses(softmax(outputs, axis=1), own.labels)


def _losses_without_images(seen: Measurements, own: Seen) -> Floats | None:
    images = seen.some_images(_IMAGES_OF_MEAN)
    if images is None:
        return None
    mean = images[0].float().mean(0, keepdim=True).to(images[0].dtype)
    blind = look(seen.training, [(mean, images[1][:1])])
    return None if blind is None else _losses(np.repeat(blind.outputs, len(own), 0), own)
