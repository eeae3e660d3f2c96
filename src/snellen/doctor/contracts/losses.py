"""The loss must be least at the truth, and must be given what it expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.oracle import (
    LOGARITHMS,
    PROBABILITIES,
    SCALES,
    OnCpu,
    are_logarithms,
    are_probabilities,
    indicator,
    readings,
    shifts,
    undecided,
)
from snellen.doctor.contracts.probing import first, outputs_of
from snellen.doctor.safety import untouched

# Of the loss of knowing nothing. Label smoothing by 0.3 leaves at most 0.61 of it at the best logits, by 0.6 at least
# 0.70 for up to 1000 classes.
_MOST_AT_TRUTH = 0.68
_GROWS = 1.05  # at larger logits than the best: what is added to a loss whatever the answer does not grow
_SQUASHED = 0.1  # of the way from knowing nothing to the best that a one-hot answer must leave
_BROADCAST = 0.5  # of the loss of always answering the mean
_BATCHES = 3
_ROUNDING = 1e-3
_FEWEST_VALUES = 200  # outputs that lie in 0..1 by chance are fewer

Curve = dict[float | str, float]


def loss_at_the_truth(case: Case) -> Iterator[Finding]:
    """The loss of perfect answers is near 0 and below that of wrong ones."""
    training = case.training
    if training is None or training.run_loss is not None:
        return
    with untouched(training):
        for inputs, targets in first(training.train, 1):
            outputs = outputs_of(training, inputs)
            if not isinstance(outputs, Tensor):
                return
            if training.question == "regression":
                yield from _regression(training, outputs, targets)
            else:
                yield from _classes(training, outputs, targets)


def _classes(training: Training, outputs: Tensor, targets: Any) -> Iterator[Finding]:
    question = training.question
    truth = indicator(question, outputs, targets)
    if truth is None or not bool(truth.any()):
        return
    loss = OnCpu(training.loss, targets)
    right = _curve(loss, truth, question)
    wrong = [
        _curve(loss, other, question)
        for shift in shifts(question, outputs)
        if (other := indicator(question, outputs, targets, shift)) is not None
    ]
    if not right:
        return
    preferred = [curve for curve in wrong if curve.keys() == right.keys() and all(curve[s] < right[s] for s in right)]
    if preferred:
        yield _prefers_wrong(min(right.values()), min(preferred[0].values()))
        return
    neutral = next((value for each in undecided(truth, question) if (value := loss(each)) is not None), None)
    best, largest = min(right.values()), right.get(SCALES[-1])
    if neutral is None or neutral <= 0 or largest is None:
        return
    if best > _MOST_AT_TRUTH * neutral and largest > _GROWS * best:
        yield Finding(
            code="loss-wrong-at-the-truth",
            severity="serious",
            message=f"The loss of perfect answers is {best:.3f} at best, that of knowing nothing {neutral:.3f}: being "
            "right is hardly rewarded.",
            advice="Look for labels that are smoothed too much, or targets that are changed within the loss.",
            evidence={"at_truth": best, "knowing_nothing": neutral},
            treatment={"change": "house loss"},
        )


def _curve(loss: OnCpu, truth: Tensor, question: Any) -> Curve:
    values = {name: loss(outputs) for name, outputs in readings(truth, question).items()}
    return {name: value for name, value in values.items() if value is not None}


def _prefers_wrong(right: float, wrong: float) -> Finding:
    return Finding(
        code="loss-prefers-wrong-answers",
        severity="serious",
        message=f"The loss of wrong answers is below that of perfect ones: {wrong:.3f} and {right:.3f}.",
        advice="Look at the loss's sign, and at whether targets and outputs count the classes alike.",
        evidence={"at_truth": right, "at_wrong": wrong},
        treatment={"change": "house loss"},
    )


def _regression(training: Training, outputs: Tensor, targets: Any) -> Iterator[Finding]:
    """A loss may scale its targets, so that only two faults are certain: what is far off is liked better, and what is
    right of each image alone is wrong of them together (shapes [n] and [n, 1] that are broadcast to [n, n])."""
    if not isinstance(targets, Tensor) or outputs.ndim < 1 or targets.numel() != outputs.numel() or len(targets) < 4:
        return
    targets = targets.detach().cpu()
    truth = targets.reshape(outputs.shape).to(outputs.dtype)
    loss = OnCpu(training.loss, targets)
    spread = max(float(truth.double().std()), 1e-6)
    at_truth, constant = loss(truth), loss(truth.mean(0, keepdim=True).expand_as(truth))
    far = [loss(truth + sign * 1000 * spread) for sign in (1, -1)]
    if at_truth is None or constant is None:
        return
    if all(value is not None and value < min(at_truth, 0.0) - 1e-6 for value in far):
        yield _prefers_wrong(at_truth, min(value for value in far if value is not None))
        return
    alone = [loss(truth[i : i + 1], targets[i : i + 1]) for i in range(min(8, len(truth)))]
    known = [value for value in alone if value is not None]
    if len(known) == len(alone) and at_truth > _BROADCAST * constant > 0 and max(known) < 1e-3 * at_truth:
        yield Finding(
            code="loss-wrong-at-the-truth",
            severity="serious",
            message=f"The loss of perfect answers is {at_truth:.3g} for a batch, though at most {max(known):.1g} for "
            f"an image alone: outputs {list(outputs.shape)} and targets {list(targets.shape)} are broadcast.",
            advice="Give outputs and targets the same shape before the loss.",
            evidence={
                "at_truth": at_truth,
                "alone": max(known),
                "always_the_mean": constant,
                "outputs": list(outputs.shape),
                "targets": list(targets.shape),
            },
            treatment={"change": "house loss"},
        )


def softmax_before_loss(case: Case) -> Iterator[Finding]:
    """Outputs are probabilities and the loss takes logits; or the loss takes logarithms and gets something else."""
    training = case.training
    if training is None or training.run_loss is not None or training.question in ("regression", "other"):
        return
    with untouched(training):
        seen = [
            (outputs_of(training, inputs, learning=learning), targets)
            for inputs, targets in first(training.train, _BATCHES)
            if not isinstance(inputs, Tensor) or len(inputs) > 1
            for learning in (False, True)
        ]
    outputs = [each for each, _ in seen if isinstance(each, Tensor) and bool(torch.isfinite(each).all())]
    if not outputs or len(outputs) < len(seen):
        return
    truth = indicator(training.question, outputs[0], seen[0][1])
    if truth is None or not bool(truth.any()):
        return
    loss = OnCpu(training.loss, seen[0][1])
    right = _curve(loss, truth, training.question)
    if _takes_logarithms(right):
        if training.question != "multilabel" and not all(are_logarithms(each) for each in outputs):
            yield _mismatch(right)
    elif sum(each.numel() for each in outputs) >= _FEWEST_VALUES:
        if all(are_probabilities(each, training.question) for each in outputs):
            yield from _squashed(right, loss, truth, training)


def _takes_logarithms(right: Curve) -> bool:
    """A negative log-likelihood is minus the output of the right class, so it falls without end as that grows."""
    if LOGARITHMS not in right or any(scale not in right for scale in (10.0, 20.0)):
        return False
    return (
        right[20.0] < -1 and abs(right[20.0] - 2 * right[10.0]) < 1e-3 * abs(right[20.0]) and right[LOGARITHMS] > -0.1
    )


def _mismatch(right: Curve) -> Finding:
    return Finding(
        code="loss-head-mismatch",
        severity="serious",
        message=f"The loss takes logarithms of probabilities, and the model does not give them: the loss falls to "
        f"{right[20.0]:.0f} and on as one output grows.",
        advice="Use cross-entropy on logits, or log_softmax before the negative log-likelihood.",
        evidence={"at_logits_of_20": right[20.0], "at_logarithms": right[LOGARITHMS]},
        treatment={"change": "house loss"},
    )


def _squashed(right: Curve, loss: OnCpu, truth: Tensor, training: Training) -> Iterator[Finding]:
    """The best that outputs within 0..1 can come to is well above what the loss could fall to."""
    neutral = loss(undecided(truth, training.question)[1])
    if PROBABILITIES not in right or neutral is None:
        return
    best, one_hot = min(right.values()), right[PROBABILITIES]
    if best < -_ROUNDING:
        return  # logits of the truth are beyond what it is defined for: it takes probabilities
    if one_hot - best <= _SQUASHED * (neutral - best) or neutral <= best:
        return
    kind = "sigmoid" if training.question == "multilabel" else "softmax"
    yield Finding(
        code="softmax-before-loss",
        severity="warning",
        message=f"The model ends in a {kind} and the loss applies another: it cannot fall below {one_hot:.3f}, where "
        f"logits would reach {best:.3f}.",
        advice=f"Give the loss the logits, and apply the {kind} only where probabilities are shown.",
        evidence={"least_loss": one_hot, "with_logits": best, "knowing_nothing": neutral},
        treatment={"change": "logits"},
    )
