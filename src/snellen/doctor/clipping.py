"""How much of a gradient's length is left when the optimizer steps."""

from __future__ import annotations

import math
from itertools import islice
from statistics import median

import torch
from torch import Tensor

from snellen.doctor.case import Training
from snellen.doctor.safety import untouched

_STEPS = 6
_TIGHT = 0.1  # Godbole et al., Deep learning tuning playbook, 2023: clip at the 90th percentile, so most steps keep all


def clips_hard(training: Training) -> bool:
    """Whether the usual step keeps less than a tenth of its gradient: clipping has then taken over the rate."""
    kept = length_kept(training)
    return kept is not None and kept < _TIGHT


def length_kept(training: Training) -> float | None:
    """Median over a few steps of the gradient's norm at the optimizer's step by that of the batch's own gradient.

    1: nothing was clipped. None where no step was seen. Dropout draws the same both times.
    """
    if training.optimizer is None:
        return None
    norms: list[float] = []
    ratios: list[float] = []
    with untouched(training):
        handle = training.optimizer.register_step_pre_hook(lambda *given: norms.append(gradient_norm(training)))
        try:
            for batch in islice(training.train, _STEPS):
                own = _own_norm(training, batch)
                norms.clear()
                torch.manual_seed(0)
                training.take_step(batch)
                if norms and own > 0 and math.isfinite(own):
                    ratios.append(norms[0] / own)
        finally:
            handle.remove()
    return median(ratios) if ratios else None


def _own_norm(training: Training, batch: tuple[Tensor, Tensor]) -> float:
    training.model.train()
    training.model.zero_grad()
    torch.manual_seed(0)
    training.loss_of(batch).backward()  # type: ignore[no-untyped-call]
    found = gradient_norm(training)
    training.model.zero_grad()
    return found


def gradient_norm(training: Training) -> float:
    """The length of the gradients that the model's parameters hold; 0 where they hold none."""
    squares = [each.grad.detach().square().sum() for each in training.model.parameters() if each.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
