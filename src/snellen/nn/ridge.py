"""Ridge regression on frozen features: the baseline in seconds for numbers, and where the head starts from.

Hoerl and Kennard, Technometrics 12 (1970) 55. One decomposition serves all penalties, outputs and folds: the residuals
that a fold would have if it were left out follow from those of the whole fit. (scikit-learn's RidgeCV leaves out single
images only, which is no check where images come in groups, and its import would cost every run seconds.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snellen.core.seeds import keyed_seed

# Beside the mean squared error, on weights of standardised features whose squares sum up to one an image: with the
# first nothing is learnt, with the last nothing is held back.
PENALTIES = tuple(10.0**exponent for exponent in np.arange(2.0, -5.5, -0.5))
_FOLDS = 10
_MOST_FOR_CHOOSING = 1500  # images: the choice of a penalty gains nothing from more


@dataclass(frozen=True, slots=True)
class RidgeProbe:
    """predictions = features @ weight.T + bias; weight [k, d], bias [k] in the features' and targets' own units.

    penalties  as chosen, one for each of the k outputs
    """

    weight: Tensor
    bias: Tensor
    penalties: tuple[float, ...]


def fit_ridge(features: Tensor, targets: Tensor, groups: Sequence[str], seed: int) -> RidgeProbe:
    """features float [n, d], targets float [n, k]; groups [n] name what cross-validation must not part."""
    x, y = features.double(), targets.double()
    folds = np.array([keyed_seed("fold", seed, group) % _FOLDS for group in groups])
    ridge = Ridge(x, y)
    if len(x) <= _MOST_FOR_CHOOSING:
        penalties = ridge.best_penalties(folds)
    else:
        chosen = np.array([keyed_seed("probe", seed, i) for i in range(len(x))]).argsort()[:_MOST_FOR_CHOOSING]
        penalties = Ridge(x[chosen], y[chosen]).best_penalties(folds[chosen])
    weight, bias = ridge.solve(penalties)
    return RidgeProbe(weight.float(), bias.float(), tuple(penalties.tolist()))


class Ridge:
    """x float64 [n, d] and y float64 [n, k], decomposed: a penalty more costs a multiplication.

    With fewer images than features the images' Gram matrix [n, n] is decomposed, else the features' [d, d].
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        n, d = x.shape
        self._mean, self._center = x.mean(0), y.mean(0)
        self._unit = x.std(0, correction=0).clamp_min(1e-6) * d**0.5
        self._rest = y - self._center
        scaled = (x - self._mean) / self._unit
        values, vectors = torch.linalg.eigh(scaled @ scaled.T if n < d else scaled.T @ scaled)
        kept = values > values[-1].clamp_min(1e-12) * 1e-12
        lengths = values[kept].sqrt()
        other = (scaled.T if n < d else scaled) @ vectors[:, kept] / lengths
        self._left, self._right = (vectors[:, kept], other) if n < d else (other, vectors[:, kept])  # [n, r], [d, r]
        self._lengths = lengths  # scaled = left @ diag(lengths) @ right.T
        self._along = self._left.T @ self._rest  # [r, k]

    def solve(self, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """weight [k, d] and bias [k] for a penalty of each output [k]."""
        shrunk = self._along * self._lengths[:, None] / (self._lengths.square()[:, None] + len(self._rest) * penalties)
        weight = (self._right @ shrunk).T / self._unit
        return weight, self._center - weight @ self._mean

    def best_penalties(self, folds: np.ndarray) -> Tensor:
        """The penalty of each output [k] with the smallest squared error on folds [n] that are left out."""
        parts = [torch.from_numpy(np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
        penalties = torch.tensor(PENALTIES, dtype=torch.float64)
        if len(parts) < 2:  # nothing to judge by: a middling one
            return penalties[len(penalties) // 2].expand(self._rest.shape[1])
        errors = torch.stack([self.left_out(penalty, parts).square().sum(0) for penalty in PENALTIES])
        return penalties[errors.argmin(0)]

    def left_out(self, penalty: float, parts: Sequence[Tensor]) -> Tensor:
        """Residuals [n, k] of each part (indices, together all n) predicted from the others.

        (I - H)^-1 e within a part, with the hat matrix H and the residuals e of the whole fit: Hastie, Tibshirani and
        Friedman, The Elements of Statistical Learning, 2009, section 7.10, for more than one left out.
        """
        n = len(self._rest)
        kept = self._lengths.square() / (self._lengths.square() + n * penalty)
        residuals = self._rest - self._left @ (kept[:, None] * self._along)
        found = torch.empty_like(residuals)
        for part in parts:
            hat = (self._left[part] * kept) @ self._left[part].T + 1 / n
            found[part] = torch.linalg.solve(torch.eye(len(part), dtype=hat.dtype) - hat, residuals[part])
        return found
