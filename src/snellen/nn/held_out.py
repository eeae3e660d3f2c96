"""What a linear model says of images that it was fitted without: least squares, cheap enough to be asked often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snellen.core.seeds import keyed_permutation, keyed_seed
from snellen.nn.ridge import PENALTIES, Ridge

NUM_FOLDS = 4
MOST_HELD_OUT = 1000  # images: a share of 90 % is then known to 2 points, and the answer is there in half a second


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Predictions for ``indices`` [m], in that order, each by a model that was fitted without its fold.

    outputs  float32 [m, k]
    penalty  that suits best, on squared weights of standardised features, beside the sum of squared errors
    """

    indices: np.ndarray
    outputs: Tensor
    penalty: float


def held_out(features: Tensor, numbers: Tensor, groups: Sequence[str], seed: int) -> HeldOut | None:
    """Cross-validate features [n, d] -> numbers [n, k]; at most 1000 images, whole groups. None for a single group."""
    indices = keyed_groups(groups, MOST_HELD_OUT, "held out", seed)
    folds = grouped_folds([groups[i] for i in indices], seed)
    parts = [torch.from_numpy(np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    if len(parts) < 2:
        return None
    x, y = features[indices].double(), numbers[indices].double()
    best, least = None, float("inf")
    with one_thread():
        ridge = Ridge(x, y)
        for penalty in PENALTIES[::2]:  # from strong to weak; past the best one there is nothing to find
            residuals = ridge.left_out(penalty, parts)
            error = float(residuals.square().mean())
            if error > least:
                break
            best, least = HeldOut(indices, (y - residuals).float(), penalty * x.numel()), error
    return best


def fit_linear(features: Tensor, numbers: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """weight [k, d] and bias [k]: ``features @ weight.T + bias`` is about numbers [n, k]; ``penalty`` as in HeldOut."""
    mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    scaled, center = (features - mean) / std, numbers.mean(0)
    n, d = scaled.shape
    inner = scaled @ scaled.T if n < d else scaled.T @ scaled
    inner.diagonal().add_(penalty)
    rest = numbers - center
    slopes = scaled.T @ torch.linalg.solve(inner, rest) if n < d else torch.linalg.solve(inner, scaled.T @ rest)
    weight = slopes.T / std
    return weight, center - weight @ mean


def grouped_folds(groups: Sequence[str], seed: int) -> np.ndarray:
    """A fold number for each image, [n]; the images of one group share it."""
    return np.array([keyed_seed("fold", seed, group) % NUM_FOLDS for group in groups])


def keyed_groups(groups: Sequence[str], most: int, *key: int | str) -> np.ndarray:
    """Indices of at most ``most`` images, whole groups in keyed order; one group at least.

    They are nested: the fewer are the first of the more.
    """
    names, members = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    rank = keyed_permutation(len(names), *key).argsort()
    order = rank[members].argsort(kind="stable")
    ends = np.flatnonzero(np.diff(rank[members][order], append=-1)) + 1  # where a whole group has been seen
    fitting = ends[ends <= most]
    return order[: fitting[-1] if len(fitting) else ends[0]]


@contextmanager
def one_thread() -> Iterator[None]:
    """For the block: on several threads, small decompositions mostly wait for each other."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
