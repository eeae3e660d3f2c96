"""What a perfect model would say, in the three ways in which models say it, and a wrong one.

A loss or a metric must like the truth best. Which form it expects (logits, probabilities, their logarithms) is not
known, so the truth is told in each, and a form that is refused is left out.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snellen.doctor.case import Question

SCALES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0)  # half the gap of the logits; smoothing has its own best
PROBABILITIES, LOGARITHMS = "probabilities", "logarithms"
_ALMOST = 1e-6
VOID = 255  # a pixel that is neither learnt nor judged

# What a loss or a metric may raise at outputs of a form that it does not take.
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


def indicator(question: Question, outputs: Any, targets: Any, shift: int = 0) -> Tensor | None:
    """1 where the answer is, 0 elsewhere, in the shape of ``outputs``, on the CPU; None where the shapes do not fit.

    With ``shift`` the answers are wrong: class + shift (modulo the number of classes), or the opposite of each label.
    Rows without an answer (void, ignored) are 0 everywhere.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or outputs.ndim < 2:
        return None
    targets = targets.detach().cpu()
    if question == "multilabel":
        if outputs.shape != targets.shape or not bool(((targets == 0) | (targets == 1)).all()):
            return None
        labels: Tensor = (1 - targets.float()) if shift else targets.float()
        return labels
    if question not in ("classification", "segmentation") or targets.is_floating_point() or outputs.shape[1] < 2:
        return None
    if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        return None
    num = outputs.shape[1]
    answered = (targets >= 0) & (targets < num)
    one_hot: Tensor = F.one_hot(torch.where(answered, (targets.long() + shift) % num, 0), num).float()
    placed: Tensor = (one_hot * answered[..., None]).movedim(-1, 1)
    return placed


def shifts(question: Question, outputs: Tensor) -> list[int]:
    """Ways to be wrong about every image."""
    return [1] if question == "multilabel" or outputs.shape[1] == 2 else [1, outputs.shape[1] - 1]


def as_logits(truth: Tensor, scale: float) -> Tensor:
    return (2 * truth - 1) * scale


def as_probabilities(truth: Tensor) -> Tensor:
    return truth.clamp(_ALMOST, 1 - _ALMOST)


def as_logarithms(truth: Tensor, question: Question) -> Tensor:
    logits = as_logits(truth, 20.0)
    return F.logsigmoid(logits) if question == "multilabel" else logits.log_softmax(1)


def readings(truth: Tensor, question: Question) -> dict[float | str, Tensor]:
    """The same answers as logits of each scale, as probabilities and as logarithms of these."""
    return {
        **{scale: as_logits(truth, scale) for scale in SCALES},
        PROBABILITIES: as_probabilities(truth),
        LOGARITHMS: as_logarithms(truth, question),
    }


def undecided(truth: Tensor, question: Question) -> list[Tensor]:
    """The answers of someone who knows nothing: as logits (or logarithms), and as probabilities."""
    if question == "multilabel":
        return [torch.zeros_like(truth), torch.full_like(truth, 0.5)]
    share = 1.0 / truth.shape[1]
    return [torch.full_like(truth, share).log(), torch.full_like(truth, share)]


def are_probabilities(outputs: Tensor, question: Question) -> bool:
    """Whether outputs lie in 0..1 and, where one class is to be chosen, sum to 1 over the classes."""
    if not bool(((outputs >= 0) & (outputs <= 1)).all()):
        return False
    if question == "multilabel":
        return True
    return outputs.ndim > 1 and outputs.shape[1] > 1 and bool(((outputs.sum(1) - 1).abs() < 1e-2).all())


def are_logarithms(outputs: Tensor) -> bool:
    """Whether outputs are logarithms of probabilities that sum to 1 over the classes."""
    return outputs.ndim > 1 and bool((outputs <= _ALMOST).all()) and bool((outputs.logsumexp(1).abs() < 1e-2).all())


class OnCpu:
    """``loss`` or a metric with targets, asked on the CPU: on a GPU, outputs of a form that is not taken may abort the
    process rather than raise an error."""

    def __init__(self, function: Callable[[Any, Any], Any], targets: Any) -> None:
        self._function = copy.deepcopy(function).cpu() if isinstance(function, nn.Module) else function
        self._targets = targets.detach().cpu() if isinstance(targets, Tensor) else targets

    def __call__(self, outputs: Tensor, targets: Tensor | None = None) -> float | None:
        """The value, or None where it is refused or not finite."""
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of shapes that do not fit: that is what is asked here
                value = float(self._function(outputs, self._targets if targets is None else targets))
        except REFUSALS:
            return None
        return value if abs(value) < float("inf") else None
