"""A linear classifier on frozen features: the baseline in seconds, and where the head starts from.

Penalised maximum likelihood, solved to convergence by L-BFGS (Byrd et al. 1995, SciPy's). The strength of the penalty
is chosen by cross-validated log loss; groups are never parted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.seeds import keyed_seed

# Penalties on the squared weights of standardised features, beside the mean loss; strongest first.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_FOLDS = 4
_MAX_STEPS = 200
_SMALL = 2_000_000  # numbers in the feature matrix
_MOST_FOR_CHOOSING = 4000  # images: the choice of a penalty gains nothing from more

Loss = Callable[[Tensor, Tensor], Tensor]  # logits [n, k], targets -> mean loss


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """logits = features @ weight.T + bias; weight [k, d], bias [k], in the features' own units."""

    weight: Tensor
    bias: Tensor
    penalty: float
    cross_validated_loss: float


def fit_linear_probe(
    features: Tensor, targets: Tensor, num_outputs: int, groups: Sequence[str], seed: int
) -> LinearProbe:
    """features float [n, d]; targets int64 [n] (one class each) or float [n, k] in 0..1 (independent labels)."""
    # Small matrices lose more to the threads' waiting for each other than they gain; several times on a busy machine.
    threads = torch.get_num_threads()
    if features.numel() < _SMALL:
        torch.set_num_threads(1)
    try:
        return _fit_and_choose(features, targets, num_outputs, groups, seed)
    finally:
        torch.set_num_threads(threads)


def _fit_and_choose(
    features: Tensor, targets: Tensor, num_outputs: int, groups: Sequence[str], seed: int
) -> LinearProbe:
    loss: Loss = F.cross_entropy if targets.dim() == 1 else F.binary_cross_entropy_with_logits
    folds = _folds(groups, seed)
    chosen = np.flatnonzero(_sample(len(features), seed))
    penalty, validated = _choose_penalty(features[chosen], targets[chosen], num_outputs, folds[chosen], loss)
    weight, bias = _fit(features, targets, num_outputs, penalty, loss, None)
    return LinearProbe(weight, bias, penalty, validated)


def _sample(n: int, seed: int) -> np.ndarray:
    ranks = np.array([keyed_seed("probe", seed, i) for i in range(n)]).argsort().argsort()
    return ranks < _MOST_FOR_CHOOSING


def _folds(groups: Sequence[str], seed: int) -> np.ndarray:
    """A fold number for each image, [n]; the images of one group share it."""
    return np.array([keyed_seed("fold", seed, group) % _FOLDS for group in groups])


def _choose_penalty(
    features: Tensor, targets: Tensor, num_outputs: int, folds: np.ndarray, loss: Loss
) -> tuple[float, float]:
    """From strong to weak, each solution the start of the next, until the validated loss turns upwards."""
    parts = [torch.from_numpy(folds == fold) for fold in np.unique(folds)]
    parts = [part for part in parts if 0 < int(part.sum()) < len(folds)]
    starts: list[tuple[Tensor, Tensor] | None] = [None] * len(parts)
    best_penalty, best_loss = PENALTIES[1], float("nan")
    for penalty in PENALTIES if parts else ():
        total = 0.0
        for i, held_out in enumerate(parts):
            weight, bias = _fit(features[~held_out], targets[~held_out], num_outputs, penalty, loss, starts[i])
            starts[i] = weight, bias
            total += float(loss(features[held_out] @ weight.T + bias, targets[held_out])) * int(held_out.sum())
        if total / len(folds) > best_loss:
            break
        best_penalty, best_loss = penalty, total / len(folds)
    return best_penalty, best_loss


def _fit(
    features: Tensor,
    targets: Tensor,
    num_outputs: int,
    penalty: float,
    loss: Loss,
    start: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    from scipy.optimize import minimize

    mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    coordinates, basis = _span((features - mean) / std)
    shape = (num_outputs, coordinates.shape[1] + 1)
    begin = torch.zeros(shape)
    if start is not None:
        begin = torch.cat([start[0] * std @ basis.T, (start[1] + start[0] @ mean)[:, None]], 1)

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(values).float().view(shape).requires_grad_()
        total = loss(coordinates @ weights[:, :-1].T + weights[:, -1], targets)
        total = total + penalty * weights[:, :-1].square().sum()
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), gradient.double().numpy().ravel()

    settings: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": _MAX_STEPS}}
    solution = minimize(objective, begin.double().numpy().ravel(), **settings).x
    weights = torch.from_numpy(solution).float().view(shape)
    weight = weights[:, :-1] @ basis / std
    return weight, weights[:, -1] - weight @ mean


def _span(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """``scaled = coordinates @ basis`` with orthonormal rows of ``basis``.

    The solution lies in the span of the images, so with fewer images than features it is sought there: 5 times as
    fast for 250 images of 1280 features.
    """
    n, d = scaled.shape
    if n >= d:
        return scaled, torch.eye(d)
    left, values, basis = torch.linalg.svd(scaled, full_matrices=False)
    return left * values, basis
