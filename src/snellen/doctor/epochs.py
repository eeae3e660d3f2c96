"""How many steps a training takes."""

from __future__ import annotations

from torch import Tensor

from snellen.doctor.case import Training

_FEW_STEPS = 150  # of a whole training: with so few, batches may be what is wrong, small as the data may be
_LARGE = 64  # images: smaller batches are not large


def takes_few_steps(training: Training) -> bool:
    """Whether a training of large batches takes few steps in all."""
    sizes = [len(targets) for _, targets in training.train if isinstance(targets, Tensor)]
    return bool(sizes) and max(sizes) >= _LARGE and len(sizes) * training.epochs <= _FEW_STEPS
