"""Batch norms: their statistics taken anew, or kept as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snellen.doctor.case import Batch
from snellen.doctor.modes import in_evaluation


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def re_estimate(model: nn.Module, batches: Iterable[Batch], most: int = 100) -> None:
    """Replace the statistics by their plain mean over ``most`` batches at most, the weights being what they are now.

    Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021 (arXiv:2105.07576), section 3. The modes are put back.
    """
    norms = norms_of(model)
    momenta = [norm.momentum for norm in norms]
    with in_evaluation(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: the cumulative mean
            norm.train()
        try:
            for inputs, _ in islice(batches, most):
                if isinstance(inputs, Tensor) and len(inputs) > 1:
                    model(inputs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@contextmanager
def freeze_frozen(model: nn.Module) -> Iterator[None]:
    """Norms whose own parameters are all frozen neither follow statistics nor can be put into training mode."""
    frozen = [norm for norm in norms_of(model) if not any(each.requires_grad for each in norm.parameters())]
    before = [(norm, norm.momentum, norm.track_running_stats) for norm in frozen]
    handles = [norm.register_forward_pre_hook(_to_evaluation) for norm in frozen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum, tracked in before:
            norm.momentum, norm.track_running_stats = momentum, tracked


def _to_evaluation(norm: nn.Module, inputs: object) -> None:
    norm.eval()
