"""Classes that are not alike frequent: numbers that flatter, classes never answered, thresholds that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.answers.independent import first_half, independent
from snellen.doctor.case import Answers, Case, Floats
from snellen.metrics.decisions import class_decisions

Mask = npt.NDArray[np.bool_]

_GAP = 0.05  # accuracy above balanced accuracy that flatters
_LARGE_GAP = 0.10
_FEWEST = 20  # images of a class, or of all classes together, that are worth a verdict
_HARDLY = 0.1  # of as often as the class occurs
_SELDOM = 0.25
_COLLAPSED = 0.5  # of the entropy of the classes
_FACTORS = tuple(2.0 ** (i / 4) for i in range(-20, 21))
_MAX_CLASSES = 20  # told by name


def metric_misleads(case: Case) -> Iterator[Finding]:
    """Accuracy is well above the mean of the classes' recalls: frequent classes hide what happens to rare ones."""
    answers = _headline(case)
    if answers is None:
        return
    side, told = answers
    rows = independent(told, case.seed)
    truth, right = told.truth[rows], told.correct[rows]
    present, inverse, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    if len(rows) < _FEWEST or len(present) < 2:
        return
    hits = np.bincount(inverse, right)
    accuracy, balanced = float(right.mean()), float((hits / sizes).mean())
    weights = sizes / len(rows) - 1 / len(present)
    careful = (hits + 1) / (sizes + 2)  # Agresti and Coull: a recall of 0 or 1 is not certain
    error = float(np.sqrt((weights**2 * careful * (1 - careful) / (sizes + 2)).sum()))
    p = _above((accuracy - balanced - _GAP) / error) if error > 0 else 1.0
    if p > alpha("metric-misleads", len(case.answers)):
        return
    worst = int(present[np.argmin(hits / sizes)])
    common = int(present[sizes.argmax()])
    yield Finding(
        code="metric-misleads",
        severity="warning" if accuracy - balanced >= _LARGE_GAP else "info",
        message=f"Accuracy on {side} is {accuracy:.1%}, but the mean over the classes only {balanced:.1%}: "
        f"{case.named(common)} is {sizes.max() / len(rows):.0%} of the images, and {case.named(worst)} is found in "
        f"{float((hits / sizes).min()):.0%} of its images.",
        evidence={"side": side, "p": p, "accuracy": accuracy, "balanced_accuracy": balanced, "images": len(rows)},
        advice="Judge by balanced accuracy or macro-F1, choose checkpoints by it, and do something about the rare "
        "classes.",
        certainty="observed",
    )


def class_collapse(case: Case) -> Iterator[Finding]:
    """Classes with images enough that are never answered, or hardly ever."""
    answers = _headline(case)
    if answers is None:
        return
    from scipy.stats import binom

    side, told = answers
    rows = independent(told, case.seed)
    truth, predicted, num = told.truth[rows], told.predicted[rows], told.probabilities.shape[1]
    sizes, answered = np.bincount(truth, minlength=num), np.bincount(predicted, minlength=num)
    limit = alpha("class-collapse", max(1, int((sizes >= _FEWEST).sum())))
    chances = np.asarray(binom.cdf(answered, len(rows), _SELDOM * sizes / max(1, len(rows))))
    lost = (sizes >= _FEWEST) & (answered <= _HARDLY * sizes) & (chances <= limit)
    if not lost.any():
        return
    names = [case.named(int(index)) for index in np.flatnonzero(lost)]
    share = _entropy(answered) / max(_entropy(sizes), 1e-12)
    whole = f"{lost.sum()} of {int((sizes > 0).sum())} classes are"
    yield Finding(
        code="class-collapse",
        severity="serious" if share < _COLLAPSED else "warning",
        message=f"On {side}, {whole if len(names) > 1 else names[0] + ' is'} never or hardly ever answered: "
        f"{int(answered[lost].sum())} answers for {int(sizes[lost].sum())} images.",
        evidence={
            "side": side,
            "classes": {
                case.named(int(index)): {"images": int(sizes[index]), "answers": int(answered[index])}
                for index in np.flatnonzero(lost)[:_MAX_CLASSES]
            },
            "p": float(chances[lost].max()),
            "entropy_share": share,
        },
        images=_ids(told, rows[lost[truth]]),
        advice="Find the cause: classes too rare to pay for in the loss, labels that carry nothing, or a learning rate "
        "far off; oversampling or weights help only with the first.",
        certainty="observed",
    )


def threshold_unfit(case: Case) -> Iterator[Finding]:
    """Factors on the classes, chosen on one half of validation, are better on the other half.

    Better means both: balanced accuracy beyond chance and by the floor, and macro-F1 by the floor.
    """
    told = case.answers.get("val")
    if told is None or told.probabilities.shape[1] < 2:
        return
    half = first_half(told, case.seed, "threshold-unfit")
    factors = _best_factors(told.probabilities[half], told.truth[half])
    judged = independent(told, case.seed)
    judged = judged[~half[judged]]
    truth, scores = told.truth[judged], told.probabilities[judged]
    sizes = np.bincount(truth, minlength=scores.shape[1])
    if np.count_nonzero(sizes) < 2 or sizes[sizes > 0].min() < _FEWEST // 2:
        return
    before, after = class_decisions(scores), class_decisions(scores, factors)
    gain, p = _balanced_gain(before == truth, after == truth, truth)
    f1_before, f1_after = _macro_f1(before, truth), _macro_f1(after, truth)
    floor = FLOORS["accuracy"]
    if p > alpha("threshold-unfit") or gain < floor or f1_after - f1_before < floor:
        return
    yield Finding(
        code="threshold-unfit",
        severity="warning" if f1_after - f1_before >= 2 * floor else "info",
        message=f"Other thresholds, chosen on one half of validation, raise macro-F1 on the other half from "
        f"{f1_before:.1%} to {f1_after:.1%}, and balanced accuracy by {100 * gain:.1f} points.",
        evidence={
            "p": p,
            "images": len(judged),
            "macro_f1": [f1_before, f1_after],
            "balanced_accuracy_gain": gain,
            "factors": {case.named(i): round(factor, 3) for i, factor in enumerate(factors[:_MAX_CLASSES])},
        },
        advice="Let the thresholds be chosen on validation; the rare classes are then found more often, and the "
        "frequent ones a little less.",
        certainty="confirmed",
        treatment={"settings": {"imbalance": "thresholds"}},
    )


def _headline(case: Case) -> tuple[str, Answers] | None:
    """The side whose number is told: test, else validation."""
    for side in ("test", "val"):
        if side in case.answers and len(case.answers[side]):
            return side, case.answers[side]
    return None


def _best_factors(scores: Floats, truth: npt.NDArray[np.int64]) -> list[float]:
    """One factor for each class, chosen in turn, the rarest class first, for the highest macro-F1. Of equal ones, the
    first that is nearest to 1."""
    factors = np.ones(scores.shape[1])
    sizes = np.bincount(truth, minlength=scores.shape[1])
    grid = sorted(_FACTORS, key=lambda factor: abs(np.log(factor)))
    turns = [index for index in np.argsort(sizes, kind="stable") if sizes[index] > 0][:_MAX_CLASSES]
    best = _macro_f1(class_decisions(scores), truth)
    for index in turns[: 1 if scores.shape[1] == 2 else None]:
        chosen = factors[index]
        for factor in grid:
            factors[index] = factor
            score = _macro_f1(class_decisions(scores, factors.tolist()), truth)
            if score > best + 1e-12:
                best, chosen = score, factor
        factors[index] = chosen
    return [float(factor) for factor in factors]


def _macro_f1(predicted: npt.NDArray[Any], truth: npt.NDArray[np.int64]) -> float:
    """The mean F1 of the classes that occur."""
    num = int(max(predicted.max(initial=0), truth.max(initial=0))) + 1
    sizes, answered = np.bincount(truth, minlength=num), np.bincount(predicted, minlength=num)
    hits = np.bincount(truth[predicted == truth], minlength=num)
    present = sizes > 0
    return float((2 * hits[present] / (sizes[present] + answered[present])).mean())


def _balanced_gain(before: Mask, after: Mask, truth: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Gain of balanced accuracy, and its one-sided p: a mean of classes, each with one image more won and one more lost
    in its variance, so that a handful of changes is not certain."""
    change = after.astype(np.float64) - before
    _, inverse, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, change) / sizes
    squares = (np.bincount(inverse, change**2) + 2) / (sizes + 2)
    error = float(np.sqrt(((squares - means**2).clip(0) / sizes).sum())) / len(sizes)
    gain = float(means.mean())
    return gain, _above(gain / error) if error > 0 else 1.0


def _above(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))


def _entropy(counts: npt.NDArray[Any]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())


def _ids(answers: Answers, rows: npt.NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(answers.ids[row] for row in rows[:_MAX_CLASSES]) if len(answers.ids) else ()
