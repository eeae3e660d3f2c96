"""Losses that do not fall, that are still falling at the end, and that stopped when the learning rate did."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case, Floats, History
from snellen.doctor.curves.series import both_known, is_share, known, level_at_end
from snellen.metrics.trend import block_means, trend

_FEWEST_EPOCHS = 5
_FEWEST_STEPS = 64
_LAST_SHARE = 0.25
_SHORTEST_WINDOW = 10  # epochs whose trend is judged
_FLAT = 0.02  # of the first level: a smaller fall is none
_FEWEST_ANSWERS = 20
_NOTHING_LEFT = 0.02  # of the start: a loss below this has no room to fall
_PEAK_SHARE, _TIME_SHARE = 0.01, 0.70


def flat_loss(case: Case) -> Iterator[Finding]:
    """The training loss stays where a model starts that knows how frequent the classes are and nothing else.

    A flat loss far below that level is a finished training, so nothing is said where the level is not known. Nor is it
    of a training that was cut: it may have begun to fall later.
    """
    history, level = case.history, _prior_entropy(case)
    if history is None or history.cut or level is None or _beats_the_prior(case):
        return
    losses = known(history.train_losses)
    if len(losses) < _FEWEST_EPOCHS:
        losses = known(history.step_losses)
        if len(losses) < _FEWEST_STEPS:
            return
        losses = block_means(losses, 10)
    start, least = float(losses[0]), float(losses[1:].min())
    if least < (1 - _FLAT) * start or level_at_end(losses) < (1 - _FLAT) * level:
        return
    yield Finding(
        code="flat-loss",
        severity="warning",
        message=f"The training loss never fell by {_FLAT:.0%}: it went from {start:.3g} to {losses[-1]:.3g}, and "
        f"{level:.3g} is reached without looking at the images.",
        evidence={"first_loss": start, "least_loss": least, "last_loss": float(losses[-1]), "prior_entropy": level},
        advice="Find out which it is: labels that do not belong to the images, inputs that carry nothing, a learning "
        "rate far off, or weights that are not trained; the doctor's experiments tell them apart.",
        certainty="observed",
    )


def _prior_entropy(case: Case) -> float | None:
    """The loss, in nats, of always answering with the frequencies of the classes."""
    for side in ("train", "val", "test"):
        answers = case.answers.get(side)
        if answers is not None and len(answers) >= _FEWEST_ANSWERS:
            shares = np.bincount(answers.truth) / len(answers)
            return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()) or None
    return math.log(len(case.classes)) if len(case.classes) > 1 else None


def _beats_the_prior(case: Case) -> bool:
    """Whether a side's answers are more often right than the most frequent class is, at the level of 5 %."""
    from scipy.stats import binomtest

    for answers in case.answers.values():
        if len(answers):
            prior = float(np.bincount(answers.truth).max()) / len(answers)
            right = int(answers.correct.sum())
            if prior < 1 and binomtest(right, len(answers), prior, alternative="greater").pvalue < 0.05:
                return True
    return False


def still_falling(case: Case) -> Iterator[Finding]:
    """The validation loss would fall by another 5 % if the training went on for a quarter longer.

    The forecast is a straight line with the lower slope of the window's two halves, since curves flatten. Nothing is
    said where the learning rate was falling too, or where the end is not that of the training.
    """
    history = case.history
    if history is None or history.cut or _rate_falls(history):
        return
    losses, epochs = both_known(history.val_losses, history.epochs)
    window = max(_SHORTEST_WINDOW, math.ceil(len(losses) * _LAST_SHARE))
    if len(losses) < 1.5 * window or int(losses.argmin()) < (1 - _LAST_SHARE) * (len(losses) - 1):
        return
    if history.best_epoch and history.best_epoch < (1 - _LAST_SHARE) * epochs[-1]:
        return
    scores = known(history.val_scores)
    if is_share(scores) and level_at_end(scores) > 1 - FLOORS["accuracy"]:
        return
    last = losses[-window:]
    ahead = _forecast(last, len(losses) * _LAST_SHARE)
    falls = trend(last)
    if falls.p_fall > alpha("still-falling") or ahead < FLOORS["loss"] * last[-1]:
        return
    longer = math.ceil(1.25 * float(epochs[-1]))
    yield Finding(
        code="still-falling",
        severity="info",
        message=f"The validation loss was still falling when training ended: going on to epoch {longer} would take it "
        f"from {last[-1]:.3g} to about {last[-1] - ahead:.3g}.",
        evidence={"p": falls.p_fall, "slope_per_epoch": falls.slope, "window": window, "forecast_fall": ahead},
        advice="Train longer, or raise the learning rate if it is low.",
        certainty="observed",
        treatment={"settings": {"epochs": math.ceil(1.5 * float(epochs[-1]))}},
    )


def _forecast(last: Floats, ahead: float) -> float:
    """How far the loss will fall in ``ahead`` epochs."""
    half = len(last) // 2
    slope = max(trend(last[:half]).slope, trend(last[half:]).slope, trend(last).slope)
    return max(0.0, -slope * ahead)


def _rate_falls(history: History) -> bool:
    """Whether the rate at the end is less than half of what it was within the last half of the steps: a loss that
    follows it down does not say how it would go on."""
    rates = known(history.rates)
    return bool(len(rates) and rates[-1] < 0.5 * rates[len(rates) // 2 :].max())


def rate_fell_early(case: Case) -> Iterator[Finding]:
    """The learning rate is spent long before the end, and the loss stands still from there, though it could fall.

    Silent where the loss is next to nothing, and where the rate falls in steps and each answers a loss that had come
    to rest, as reducing on a plateau does. Silent as well where the end is not that of the training: the rate of a
    cycle may rise again.
    """
    history = case.history
    if history is None or history.cut:
        return
    rates, losses = both_known(history.rates, history.step_losses)
    if len(rates) < 2 * _FEWEST_STEPS:
        return
    spent = int(np.flatnonzero(rates > _PEAK_SHARE * rates.max())[-1]) + 1
    if spent >= _TIME_SHARE * len(rates) or spent < _FEWEST_STEPS:
        return
    before, after = block_means(losses[spent // 2 : spent], 20), block_means(losses[spent:], 20)
    start, end = float(losses[: len(losses) // 20].mean()), float(after.mean())
    if end < _NOTHING_LEFT * start or _falls_in_steps(rates[:spent]) or _saturated(history):
        return
    falling, stalled = trend(before), trend(after)
    fell = float(before[:5].mean() - before[-5:].mean()) / max(float(before[-5:].mean()), 1e-12)
    if falling.p_fall > alpha("rate-fell-early") or fell < FLOORS["loss"]:
        return
    if -stalled.slope * len(after) > _FLAT * end:
        return
    share = spent / len(rates)
    yield Finding(
        code="rate-fell-early",
        severity="warning",
        message=f"The learning rate was below 1 % of its peak from {share:.0%} of the steps on, and the training loss, "
        f"which had been falling, has stood at {end:.3g} since.",
        evidence={"p": falling.p_fall, "spent_at": share, "fell_before": fell, "loss_since": end},
        advice="Make the schedule as long as the training: give it the number of steps that are really taken, and step "
        "it once for each step or once for each epoch, as it was built for.",
        certainty="observed",
    )


def _falls_in_steps(rates: Floats) -> bool:
    """Whether the rate stays the same for most of the time between its falls."""
    return bool(np.mean(np.diff(rates) == 0) > 0.9 and len(np.unique(rates)) <= 10)


def _saturated(history: History) -> bool:
    scores = known(history.train_scores)
    return is_share(scores) and level_at_end(scores) > 1 - FLOORS["accuracy"]
