"""The metric must be best at the truth and must not depend on the order or the batches of the images.

Metamorphic tests (Chen et al. 1998): how a metric's value relates to that of a changed input is known, though the value
itself is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Question, Training
from snellen.doctor.contracts.oracle import (
    VOID,
    OnCpu,
    are_probabilities,
    as_logits,
    as_probabilities,
    indicator,
    shifts,
)
from snellen.doctor.contracts.probing import first
from snellen.doctor.safety import untouched

_MOST_BATCHES = 400
_MOST_VALUES = 2**26  # outputs that are kept: 256 MiB
_EXACT = 1e-5  # relative: sums in another order
_WORTH_A_WARNING = 1e-3  # of all images
_ORDERS = 4  # one may leave the value as it is by chance
_FEWEST = 8  # images


@dataclass(frozen=True, eq=False)
class _Answers:
    """The model's answers for all of validation, in evaluation mode, by batch and together, on the CPU."""

    outputs: list[Tensor]
    targets: list[Tensor]
    whole: bool


def metric_at_the_truth(case: Case) -> Iterator[Finding]:
    """The metric of perfect answers is 1, and not below that of wrong ones; order and duplicates do not change it."""
    training = case.training
    if training is None or training.metric is None:
        return
    with untouched(training):
        answers = _answers(training)
        if answers is None or sum(map(len, answers.targets)) < _FEWEST:
            return
        outputs, targets = torch.cat(answers.outputs), torch.cat(answers.targets)
        truth = indicator(training.question, outputs, targets)
        if truth is None:
            return
        told = as_probabilities if are_probabilities(outputs, training.question) else _logits
        metric = OnCpu(training.metric, targets)
        right = metric(told(truth))
        wrong = [
            value
            for shift in shifts(training.question, outputs)
            if (other := indicator(training.question, outputs, targets, shift)) is not None
            and (value := metric(told(other))) is not None
        ]
        if right is not None:
            yield from _not_best(right, [*wrong, *_value(metric(outputs))])
            yield from _not_invariant(metric, told(_blurred(truth, training.question)), targets)


def _value(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _logits(truth: Tensor) -> Tensor:
    return as_logits(truth, 20.0)


def _blurred(truth: Tensor, question: Question) -> Tensor:
    """Answers that are right for some images and wrong for others, so that the metric lies in between."""
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    mixed = 0.2 * truth + 0.8 * noise
    return mixed if question == "multilabel" else mixed / mixed.sum(1, keepdim=True)


def _not_best(right: float, others: list[float]) -> Iterator[Finding]:
    better = max(others, default=right)
    bounded = all(-1e-9 <= value <= 1 + 1e-9 for value in (right, *others))
    if better > right + _EXACT * max(1.0, abs(right)):
        message = f"The metric of perfect answers is {right:.4g}, and {better:.4g} for others that are worse."
    elif others and bounded and right < 1 - _EXACT:
        message = f"The metric of perfect answers is {right:.4g}, not 1."
    else:
        return
    yield Finding(
        code="metric-wrong",
        severity="serious",
        message=message,
        advice="Look at the axis of the argmax, the order of the arguments, and classes that no image has.",
        evidence={"at_truth": right, "others": others},
        treatment={"change": "house metric"},
    )


def _not_invariant(metric: OnCpu, outputs: Tensor, targets: Tensor) -> Iterator[Finding]:
    num = len(outputs)
    draws = torch.Generator().manual_seed(1)
    orders = [torch.randperm(num, generator=draws) for _ in range(_ORDERS)]
    value = metric(outputs)
    permuted = [metric(outputs[order], targets[order]) for order in orders]
    doubled = metric(torch.cat([outputs, outputs]), torch.cat([targets, targets]))
    known = [each for each in permuted if each is not None]
    if value is None or not known or doubled is None:
        return
    moved = max(known, key=lambda each: abs(each - value))
    scale = max(1.0, abs(value))
    if abs(moved - value) > _EXACT * scale:
        how, other = "when the images come in another order", moved
    elif abs(doubled - value) > (2 / num + _EXACT) * scale:  # what divides by n - 1 moves by less
        how, other = "when each image is there twice", doubled
    else:
        return
    yield Finding(
        code="metric-wrong",
        severity="serious",
        message=f"The metric goes from {value:.4f} to {other:.4f} {how}.",
        advice="Compute it once over all images, not as a mean over parts of them.",
        evidence={"value": value, "changed": other, "images": num},
        treatment={"change": "house metric"},
    )


def evaluation_by_batches(case: Case) -> Iterator[Finding]:
    """``evaluate`` returns the mean over batches where the metric of the whole set is another number.

    Only that very number is told: an ``evaluate`` that returns something else may have its reasons.
    """
    training = case.training
    if training is None or training.evaluate is None:
        return
    with untouched(training):
        training.model.eval()
        told = float(training.evaluate())
    with untouched(training):
        answers = _answers(training)
    if answers is None or not answers.whole or len({len(each) for each in answers.targets}) < 2:
        return
    function = training.metric or (_accuracy if training.question in ("classification", "segmentation") else None)
    if function is None:
        return
    metric = OnCpu(function, None)
    parts = [metric(*each) for each in zip(answers.outputs, answers.targets, strict=True)]
    known = [value for value in parts if value is not None]
    whole = metric(torch.cat(answers.outputs), torch.cat(answers.targets))
    if whole is None or len(known) < len(parts):
        return
    mean = sum(known) / len(known)
    off = abs(told - whole)
    if abs(told - mean) > 1e-6 * max(1.0, abs(mean)) or off <= 2e-6 * max(1.0, abs(whole)):
        return
    yield Finding(
        code="metric-wrong",
        severity="warning" if off >= _WORTH_A_WARNING else "info",
        message=f"Validation returns the mean over its {len(parts)} batches, {told:.4f}; over all images it is "
        f"{whole:.4f}.",
        advice="Weight each batch by its images, or compute the metric once over all: the last batch is smaller.",
        evidence={"told": told, "whole": whole, "batches": len(parts), "last_batch": len(answers.targets[-1])},
        treatment={"change": "house metric"},
    )


def _answers(training: Training) -> _Answers | None:
    """None where outputs or targets are not one tensor a batch."""
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    training.model.eval()
    with torch.no_grad():
        for inputs, target in first(training.val, _MOST_BATCHES):
            output: Any = training.model(inputs)
            if not isinstance(output, Tensor) or not isinstance(target, Tensor) or len(output) != len(target):
                return None
            outputs.append(output.detach().float().cpu())
            targets.append(target.detach().cpu())
            if sum(each.numel() for each in outputs) > _MOST_VALUES:
                return _Answers(outputs, targets, False)
    return _Answers(outputs, targets, len(outputs) < _MOST_BATCHES) if outputs else None


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of right answers, void pixels left out."""
    answered = (targets >= 0) & (targets != VOID)
    return float((outputs.argmax(1) == targets)[answered].double().mean())
