"""Classes of very different sizes in a training, and what makes up for them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from snellen.doctor.case import Training
from snellen.doctor.loaders import Balanced

_RATIO = 10  # between the largest and the smallest class: as the audit's ``imbalance``


def class_counts(training: Training) -> Tensor:
    """Training images of each class, [k]; empty where images have no class of their own."""
    batches = training.train if training.plain is None else training.plain
    targets = [targets for _, targets in batches]
    known = training.question == "classification" and all(
        isinstance(each, Tensor) and each.dim() == 1 for each in targets
    )
    return torch.bincount(torch.cat(targets).cpu()) if known and targets else torch.zeros(0, dtype=torch.int64)


def is_imbalanced(training: Training) -> bool:
    """Whether one class has ten times the images of another; classes without any do not count."""
    counts = class_counts(training)
    counts = counts[counts > 0]
    return bool(len(counts) > 1 and counts.max() >= _RATIO * counts.min())


def balance(training: Training) -> Training:
    """Each class seen equally often; an epoch is as long as it was."""
    return replace(training, train=Balanced(training.train, seed=0))


def adjust_logits(training: Training) -> Training:
    """The loss sees logits plus the logarithm of each class's share: what is learnt does without the shares.

    Menon et al., Long-tail learning via logit adjustment, 2021. In the plain step.
    """
    counts = class_counts(training)
    shift = (counts / counts.sum()).clamp(min=1e-6).log().float()
    own = training.loss

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        known = shift.to(outputs)
        missing = max(0, outputs.shape[1] - len(known))  # the last classes may have no image in training
        return own(outputs + nn.functional.pad(known, (0, missing), value=float(known.min())), targets)

    return replace(training, loss=loss, step=None)


def has_classes(training: Training) -> bool:
    """Whether each image has one class of its own."""
    if training.question != "classification":
        return False
    inputs, targets = next(iter(training.train))
    return isinstance(inputs, Tensor) and isinstance(targets, Tensor) and targets.dim() == 1
