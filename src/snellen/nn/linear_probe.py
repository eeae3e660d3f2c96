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
_WORTH_THREADS = 4_000_000  # numbers in the feature matrix
_MOST_FOR_CHOOSING = 2000  # images: the choice of a penalty gains nothing from more

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
    from threadpoolctl import threadpool_limits

    # L-BFGS makes hundreds of tiny calls of torch and BLAS; on several threads they mostly wait for each other, 5 ms
    # a call instead of 0.1 on a busy machine. Matrices that are worth several threads get them.
    threads = torch.get_num_threads() if features.numel() > _WORTH_THREADS else 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads, user_api="blas"):
            return _fit_and_choose(features, targets, num_outputs, groups, seed)
    finally:
        torch.set_num_threads(before)


def _fit_and_choose(
    features: Tensor, targets: Tensor, num_outputs: int, groups: Sequence[str], seed: int
) -> LinearProbe:
    loss: Loss = F.cross_entropy if targets.dim() == 1 else F.binary_cross_entropy_with_logits
    folds = _folds(groups, seed)
    chosen = np.flatnonzero(_sample(len(features), seed))
    penalty, validated = _choose_penalty(features[chosen], targets[chosen], num_outputs, folds[chosen], loss)
    weight, bias = _Problem(features, targets, num_outputs, loss).solve(penalty)
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
    problems = [_Problem(features[~part], targets[~part], num_outputs, loss) for part in parts]
    best_penalty, best_loss = PENALTIES[1], float("nan")
    for penalty in PENALTIES if parts else ():
        total = 0.0
        for problem, held_out in zip(problems, parts, strict=True):
            weight, bias = problem.solve(penalty)
            total += float(loss(features[held_out] @ weight.T + bias, targets[held_out])) * int(held_out.sum())
        if total / len(folds) > best_loss:
            break
        best_penalty, best_loss = penalty, total / len(folds)
    return best_penalty, best_loss


class _Problem:
    """One set of images to fit; each solution is the start of the next.

    Features are standardised. With fewer images than features the solution lies in the images' span and is sought
    there: 5 times as fast for 250 images of 1280 features.
    """

    def __init__(self, features: Tensor, targets: Tensor, num_outputs: int, loss: Loss) -> None:
        self._targets, self._loss = targets, loss
        self._mean, self._std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
        self._coordinates, self._basis = _span((features - self._mean) / self._std)
        self._solution = np.zeros((num_outputs, self._coordinates.shape[1] + 1))

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """weight [k, d] and bias [k] in the features' own units."""
        from scipy.optimize import minimize

        def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = torch.from_numpy(values).float().view(self._solution.shape).requires_grad_()
            total = self._loss(self._coordinates @ weights[:, :-1].T + weights[:, -1], self._targets)
            total = total + penalty * weights[:, :-1].square().sum()
            (gradient,) = torch.autograd.grad(total, weights)
            return float(total.detach()), gradient.double().numpy().ravel()

        settings: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": _MAX_STEPS}}
        found = minimize(objective, self._solution.ravel(), **settings).x
        self._solution = found.reshape(self._solution.shape)
        weights = torch.from_numpy(self._solution).float()
        weight = weights[:, :-1] @ self._basis / self._std
        return weight, weights[:, -1] - weight @ self._mean


def _span(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """``scaled [n, d] = coordinates @ basis`` with orthonormal rows of ``basis``, from the n x n Gram matrix."""
    n, d = scaled.shape
    if n >= d:
        return scaled, torch.eye(d)
    values, vectors = torch.linalg.eigh(scaled.double() @ scaled.double().T)
    kept = values > values[-1].clamp_min(1e-12) * 1e-9
    lengths = values[kept].sqrt()
    return (vectors[:, kept] * lengths).float(), ((vectors[:, kept] / lengths).T @ scaled.double()).float()
