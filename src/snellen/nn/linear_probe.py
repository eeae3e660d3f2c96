"""A linear classifier on frozen features: the baseline in seconds, and where the head starts from.

Penalised maximum likelihood, solved to convergence by L-BFGS (Byrd et al. 1995, SciPy's). The strength of the penalty
is chosen by cross-validated log loss; groups are never parted. What is done about rare classes is done to the images
that are fitted on, never to those that are held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.errors import DivergenceError
from snellen.core.plan import Plan
from snellen.core.seeds import keyed_seed
from snellen.nn.held_out import grouped_folds

# Penalties on the squared weights of standardised features, beside the mean loss; strongest first.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_MAX_STEPS = 200
_EXACT = {"ftol": 2e-9, "gtol": 1e-5}
_ENOUGH = {"ftol": 1e-6, "gtol": 1e-4}  # to tell penalties apart
_WORTH_THREADS = 40_000_000  # numbers in the feature matrix
_MOST_FOR_CHOOSING = 2000  # images: the choice of a penalty gains nothing from more
_NEIGHBOURS = 5  # between which SMOTE puts new images (Chawla et al. 2002)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """logits = features @ weight.T + bias; weight [k, d], bias [k], in the features' own units."""

    weight: Tensor
    bias: Tensor
    penalty: float
    cross_validated_loss: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What models say of the images that they were fitted without, all at the ``penalty`` that suits best.

    logits [n, k], and the mean loss of all; NaN where nothing could be held out
    """

    logits: Tensor
    penalty: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What is done about rare classes; the entries are those of the plan.

    Over- and undersampling are both image weights here: that is what they come to over many epochs, as each epoch draws
    other images. Only images that a model is fitted on are weighted or interpolated, after the folds are parted.
    """

    class_weights: tuple[float, ...] = ()
    sampling: str = "as is"
    smote: bool = False

    @classmethod
    def of(cls, plan: Plan) -> Balance:
        return cls(class_weights=plan.class_weights, sampling=plan.sampling, smote=plan.smote)


AS_IT_IS = Balance()


def fit_linear_probe(
    features: Tensor,
    targets: Tensor,
    num_outputs: int,
    groups: Sequence[str],
    seed: int,
    balance: Balance = AS_IT_IS,
) -> LinearProbe:
    """features float [n, d]; targets int64 [n] (one class each) or float [n, k] in 0..1 (independent labels)."""
    with _few_threads(features):
        space = _Space.of(features)
        chosen = np.flatnonzero(_sample(len(features), seed))
        parted = grouped_folds(groups, seed)[chosen]
        best = _held_out(space.coordinates[chosen], targets[chosen], num_outputs, parted, balance, seed)
        solution = _Problem(space.coordinates, targets, num_outputs, balance, seed).solve(best.penalty)
        weight, bias = space.own_units(solution)
        return LinearProbe(weight, bias, best.penalty, best.loss)


def cross_validated(
    features: Tensor,
    targets: Tensor,
    num_outputs: int,
    groups: Sequence[str],
    seed: int,
    balance: Balance = AS_IT_IS,
) -> HeldOut:
    """What probes say of the images that they were not fitted on; arguments as of ``fit_linear_probe``."""
    with _few_threads(features):
        coordinates = _Space.of(features).coordinates
        return _held_out(coordinates, targets, num_outputs, grouped_folds(groups, seed), balance, seed)


@contextmanager
def _few_threads(features: Tensor) -> Iterator[None]:
    """L-BFGS makes hundreds of tiny calls of torch and BLAS; on several threads they mostly wait for each other.

    That is 5 ms a call instead of 0.1 on a busy machine. Matrices that are worth several threads get them.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    threads = before if features.numel() > _WORTH_THREADS else 1
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _sample(n: int, seed: int) -> np.ndarray:
    ranks = np.array([keyed_seed("probe", seed, i) for i in range(n)]).argsort().argsort()
    return ranks < _MOST_FOR_CHOOSING


def _held_out(
    coordinates: Tensor, targets: Tensor, num_outputs: int, folds: np.ndarray, balance: Balance, seed: int
) -> HeldOut:
    """From strong to weak, each solution the start of the next, until the validated loss turns upwards."""
    parts = [torch.from_numpy(folds == fold) for fold in np.unique(folds)]
    parts = [part for part in parts if 0 < int(part.sum()) < len(folds)]
    problems = [_Problem(coordinates[~part], targets[~part], num_outputs, balance, seed) for part in parts]
    best = HeldOut(torch.full((len(coordinates), num_outputs), torch.nan), PENALTIES[1], float("nan"))
    for penalty in PENALTIES if parts else ():
        logits, total = torch.empty(len(coordinates), num_outputs), 0.0
        for problem, held_out in zip(problems, parts, strict=True):
            solution = problem.solve(penalty, _ENOUGH)
            logits[held_out] = coordinates[held_out] @ solution[:, :-1].T + solution[:, -1]
            total += problem.loss_of(logits[held_out], targets[held_out]) * int(held_out.sum())
        if total / len(folds) > best.loss:
            break
        best = HeldOut(logits, penalty, total / len(folds))
    return best


@dataclass(frozen=True, slots=True)
class _Space:
    """Standardised features along their principal axes: ``(features - mean) / std = coordinates @ basis``.

    The turn changes no distance and no penalty. With fewer images than features there are fewer axes than features: 5
    times as fast for 250 images of 1280 features. Axes also tell the solver how steep its problem is along each. One
    space serves all folds: it knows nothing of the targets.

    mean, std [d]; coordinates [n, r]; basis [r, d] with orthonormal rows
    """

    mean: Tensor
    std: Tensor
    coordinates: Tensor
    basis: Tensor

    @classmethod
    def of(cls, features: Tensor) -> _Space:
        """From the Gram matrix of the images, or of the features where these are fewer. Raises DivergenceError."""
        if not bool(torch.isfinite(features).all()):
            raise DivergenceError(
                "the network's features are not all finite numbers: its weights are damaged, or overflow in this "
                "arithmetic; try --precision fp32, or other --weights"
            )
        mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
        scaled = (features - mean) / std
        if len(scaled) >= scaled.shape[1]:
            _, vectors = torch.linalg.eigh((scaled.T @ scaled).double())
            return cls(mean, std, scaled @ vectors.float(), vectors.T.float())
        values, vectors = torch.linalg.eigh(scaled.double() @ scaled.double().T)
        kept = values > values[-1].clamp_min(1e-12) * 1e-9
        lengths = values[kept].sqrt()
        basis = (vectors[:, kept] / lengths).T @ scaled.double()
        return cls(mean, std, (vectors[:, kept] * lengths).float(), basis.float())

    def own_units(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """weight [k, d] and bias [k] for plain features, of a solution [k, r + 1] for coordinates."""
        weight = solution[:, :-1] @ self.basis / self.std
        return weight, solution[:, -1] - weight @ self.mean


class _Problem:
    """One set of images to fit, by their coordinates [n, r]; each solution is the start of the next."""

    def __init__(self, coordinates: Tensor, targets: Tensor, num_outputs: int, balance: Balance, seed: int) -> None:
        self._coordinates, self._targets = coordinates, targets
        self._balance, self._present = balance, _counts(targets, num_outputs)
        self._weights = self._importance(targets, evened=balance.sampling != "as is")
        if balance.smote and targets.dim() == 1:
            self._coordinates, self._targets = _interpolated(coordinates, targets, seed)
            self._weights = self._importance(self._targets, evened=False)
        share = 1 / max(2, num_outputs) if targets.dim() == 1 else 0.5
        steepness = share * (1 - share) / (1 if targets.dim() == 1 else num_outputs)
        lengths = torch.einsum("nr,nr->r", self._coordinates, self._coordinates).double().numpy()
        self._curvature = steepness * lengths / max(1, len(self._coordinates))  # of the loss, at the start
        self._bias_curvature = steepness
        self._solution = np.zeros((num_outputs, self._coordinates.shape[1] + 1))

    def loss_of(self, logits: Tensor, targets: Tensor) -> float:
        """Of images that were held out, weighted as the images that were fitted on."""
        evened = self._balance.smote or self._balance.sampling != "as is"
        weights = self._importance(targets, evened=evened)
        return _loss(logits.numpy(), targets.numpy(), None if weights is None else weights.numpy())[0]

    def solve(self, penalty: float, tolerance: Mapping[str, float] = _EXACT) -> Tensor:
        """Weights and, last, the bias: float32 [k, r + 1].

        Sought in units in which the problem is about equally steep along every axis: less than half of the evaluations.
        """
        from scipy.optimize import minimize

        coordinates, targets = self._coordinates, self._targets.numpy()
        importance = None if self._weights is None else self._weights.numpy()
        units = np.append(self._curvature + 2 * penalty, self._bias_curvature) ** -0.5

        def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights, bias = np.split(values.reshape(self._solution.shape) * units, [-1], axis=1)
            logits = (coordinates @ torch.from_numpy(weights.T).float()).numpy() + bias.T
            total, slope = _loss(logits, targets, importance)
            upwards = torch.from_numpy(slope).float().T @ coordinates
            gradient = np.hstack([upwards.numpy(), slope.sum(0)[:, None]])
            gradient[:, :-1] += 2 * penalty * weights
            return total + penalty * float(np.square(weights).sum()), (gradient * units).ravel().astype(np.float64)

        settings: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": _MAX_STEPS, **tolerance}}
        found = minimize(objective, (self._solution / units).ravel(), **settings).x
        self._solution = found.reshape(self._solution.shape) * units
        return torch.from_numpy(self._solution).float()

    def _importance(self, targets: Tensor, *, evened: bool) -> Tensor | None:
        """A weight for each loss, [n] or [n, k]; None: all the same. ``evened``: each class or label counts alike."""
        if not self._balance.class_weights and not evened:
            return None
        factors = torch.tensor(self._balance.class_weights or (1.0,) * len(self._present))
        if targets.dim() == 1:
            return (factors / self._present if evened else factors)[targets]
        shares = 1 + targets * (factors - 1)  # a label's weight counts where it is present
        if not evened:
            return shares
        visits = (targets / self._present.sqrt()).amax(1).clamp_min(float(self._present.max()) ** -0.5)
        return visits[:, None] * shares


def _loss(logits: Floats, targets: NDArray[Any], weights: NDArray[Any] | None) -> tuple[float, Floats]:
    """The (weighted) mean and its slope [n, k]: cross-entropy for classes [n], binary cross-entropy for labels [n, k].

    By hand, as autograd takes four times as long on matrices so small.
    """
    outputs = logits.astype(np.float64)
    if targets.ndim == 1:
        true = np.arange(len(targets)), targets
        highest = outputs.max(1, keepdims=True)
        normal = highest + np.log(np.exp(outputs - highest).sum(1, keepdims=True))
        each, slope = normal[:, 0] - outputs[true], np.exp(outputs - normal)
        slope[true] -= 1
    else:
        each = np.logaddexp(0, outputs) - targets * outputs
        slope = np.exp(-np.logaddexp(0, -outputs)) - targets
    shares = np.full(each.shape, 1 / each.size) if weights is None else weights / weights.sum(dtype=np.float64)
    return float((each * shares).sum()), slope * (shares[:, None] if targets.ndim == 1 else shares)


def _counts(targets: Tensor, num_outputs: int) -> Tensor:
    """Images of each class or label, float [k]; at least 1."""
    counts = torch.bincount(targets, minlength=num_outputs) if targets.dim() == 1 else targets.sum(0)
    return counts.float().clamp_min(1)


def _interpolated(coordinates: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """SMOTE (Chawla et al. 2002): every class as large as the largest, by images between neighbours of one class.

    A class of a single image has no neighbour, and stays as it is.
    """
    from imblearn.over_sampling import SMOTE

    classes, counts = torch.unique(targets, return_counts=True)
    wanted = {int(name): int(counts.max()) for name, n in zip(classes, counts, strict=True) if 1 < n < counts.max()}
    if not wanted:
        return coordinates, targets
    smallest = min(int(n) for n in counts if n > 1)
    smote = SMOTE(
        sampling_strategy=wanted,
        random_state=keyed_seed("smote", seed) % 2**32,
        k_neighbors=min(_NEIGHBOURS, smallest - 1),
    )
    found, labels = smote.fit_resample(coordinates.numpy(), targets.numpy())
    return torch.from_numpy(found).float(), torch.from_numpy(labels)
