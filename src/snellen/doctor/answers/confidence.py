"""Is the confidence earned? Told only where chance cannot be the reason, and a temperature is shown to help."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.answers.independent import first_half, independent
from snellen.doctor.case import Case, Floats
from snellen.metrics.calibration import calibration_errors
from snellen.metrics.chance import at_least
from snellen.metrics.log_loss import CLIP, log_losses

_FEWEST = 60  # images, in both halves together
_COLDEST, _HOTTEST = 0.1, 10.0
_LARGE_ERROR = 0.05
_CURED = 0.01  # p of the cure: the verdict has its own, smaller one from the number of right answers


def miscalibrated(case: Case) -> Iterator[Finding]:
    """Fewer answers are right than their confidences add up to, or more; and a temperature helps images it never saw.

    The number of right answers of a calibrated model is a sum of independent events with known chances, so its tail is
    bounded without any bins, at every number of images. The temperature (Guo et al. 2017) is fitted on each half and
    must lower the log loss of the other, both ways, by the floor together and beyond chance (paired t). That only
    confirms the cure; the verdict hangs on the tail.
    """
    told = case.answers.get("val")
    if told is None:
        return
    rows = independent(told, case.seed)
    if len(rows) < _FEWEST:
        return
    scores, truth, right = told.probabilities[rows], told.truth[rows], told.correct[rows]
    confidence = scores.max(axis=1)
    over = float(right.sum()) < float(confidence.sum())
    chances, count = (1 - confidence, np.sum(~right)) if over else (confidence, np.sum(right))
    p = at_least(float(count), chances)
    limit = alpha("miscalibrated", 2)
    if p > limit:
        return
    half = first_half(told, case.seed, "miscalibrated")[rows]
    lowered, temperatures = _across(scores, truth, half)
    loss = float(log_losses(scores, truth).mean())
    error = float(calibration_errors(confidence[:, None], right[:, None])[0])
    if not _is_cured(lowered, half, loss) or error < FLOORS["accuracy"]:
        return
    word = "sure" if over else "unsure"
    yield Finding(
        code="miscalibrated",
        severity="warning" if over and error >= _LARGE_ERROR else "info",
        message=f"The model is too {word} of itself: its mean confidence on validation is {confidence.mean():.1%} and "
        f"{right.mean():.1%} are right; a temperature of about {np.mean(temperatures):.2g} lowers the log loss of "
        f"images it was not fitted on from {loss:.3g} to {loss - lowered.mean():.3g}.",
        evidence={
            "p": p,
            "images": len(rows),
            "confidence": float(confidence.mean()),
            "accuracy": float(right.mean()),
            "calibration_error": error,
            "temperatures": temperatures,
            "log_loss": [loss, loss - float(lowered.mean())],
        },
        advice="Fit a temperature on validation before the probabilities are used; no answer changes.",
        certainty="confirmed",
        treatment={"settings": {"calibrate": "temperature"}},
    )


def temperature_of(scores: Floats, truth: npt.NDArray[np.int64]) -> float:
    """The temperature, 0.1 to 10, that gives probabilities [n, k] the lowest log loss; above 1: they were too sure."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: float(log_losses(tempered(scores, float(np.exp(log_t))), truth).mean()),
        bounds=(np.log(_COLDEST), np.log(_HOTTEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def tempered(scores: Floats, temperature: float) -> Floats:
    """Probabilities [n, k] with their logarithms divided by a temperature."""
    logits = np.log(np.clip(scores, CLIP**2, 1)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _across(scores: Floats, truth: npt.NDArray[np.int64], half: npt.NDArray[np.bool_]) -> tuple[Floats, list[float]]:
    """By how much each image's log loss is lowered by the temperature of the other half, [n], and both temperatures."""
    lowered, temperatures = np.zeros(len(truth)), []
    for fitted, judged in ((half, ~half), (~half, half)):
        temperature = temperature_of(scores[fitted], truth[fitted])
        before = log_losses(scores[judged], truth[judged])
        lowered[judged] = before - log_losses(tempered(scores[judged], temperature), truth[judged])
        temperatures.append(temperature)
    return lowered, temperatures


def _is_cured(lowered: Floats, half: npt.NDArray[np.bool_], loss: float) -> bool:
    from scipy.stats import ttest_1samp

    if min(lowered[half].mean(), lowered[~half].mean()) <= 0 or lowered.mean() < FLOORS["loss"] * loss:
        return False
    if float(lowered.std()) == 0:
        return False
    return bool(ttest_1samp(lowered, 0, alternative="greater").pvalue <= _CURED)
