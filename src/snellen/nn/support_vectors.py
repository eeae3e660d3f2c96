"""A linear support vector machine on frozen features, as the weights of a linear head.

Cortes & Vapnik, Support-Vector Networks, 1995; liblinear's squared hinge through scikit-learn, one class against the
rest (Rifkin & Klautau, In Defense of One-Vs-All Classification, 2004). Margins are no probabilities: one factor, fitted
on held-out margins by log loss, makes them logits without changing a single decision (Platt 1999, its slope alone).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.plan import Plan
from snellen.core.seeds import keyed_permutation, keyed_seed
from snellen.nn.held_out import grouped_folds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of standardised features; the most regularised first
_MOST_FOR_CHOOSING = 1000  # images
_MOST_ITERATIONS, _TOLERANCE = 1000, 1e-3
_SCALES = (1e-2, 1e3)
Array = NDArray[np.float64]


def fit_linear_svm(
    features: Tensor, targets: Tensor, num_outputs: int, groups: Sequence[str], plan: Plan
) -> tuple[Tensor, Tensor]:
    """weight [k, d] and bias [k] of logits ``features @ weight.T + bias``, in the features' own units.

    targets int64 [n] (one class each) or float [n, k] in 0..1 (independent labels). C is chosen by cross-validated
    errors, groups kept; equal ones by the stronger regularisation. ``plan.class_weights`` weigh the images of a class.
    """
    x = features.double().numpy()
    mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
    x = (x - mean) / std
    signs = _signs(targets, num_outputs)
    weights = _image_weights(targets, plan)
    chosen = keyed_permutation(len(x), "svm", plan.seed)[:_MOST_FOR_CHOOSING]
    folds = grouped_folds([groups[i] for i in chosen], plan.seed)
    strength, margins = _choose(x[chosen], signs[chosen], weights[chosen], folds, plan.seed)
    slopes, offsets = _fit(x, signs, weights, strength, plan.seed)
    factor = 1.0 if margins is None else _factor(torch.from_numpy(margins), targets[torch.from_numpy(chosen)])
    slopes = factor * slopes / std
    return torch.from_numpy(slopes).float(), torch.from_numpy(factor * offsets - slopes @ mean).float()


def _signs(targets: Tensor, num_outputs: int) -> Array:
    """[n, k]: +1 for what is there, -1 for what is not."""
    there = F.one_hot(targets, num_outputs) if targets.dim() == 1 else targets >= 0.5
    signs: Array = 2.0 * there.double().numpy() - 1
    return signs


def _image_weights(targets: Tensor, plan: Plan) -> Array:
    """[n], their mean near 1. To a linear model, visiting an image more often is a weight."""
    if targets.dim() != 1:
        return np.ones(len(targets))
    classes = targets.numpy()
    weights: Array = np.array(plan.class_weights or (1.0,) * (classes.max() + 1), np.float64)[classes]
    if plan.sampling != "as is":
        counts = np.bincount(classes)
        weights *= len(classes) / (np.count_nonzero(counts) * counts[classes])
    return weights


def _choose(x: Array, signs: Array, weights: Array, folds: np.ndarray, seed: int) -> tuple[float, Array | None]:
    """The best C and its held-out margins [n, k]; without two folds, the middle one and None."""
    if len(np.unique(folds)) < 2:
        return STRENGTHS[len(STRENGTHS) // 2], None
    best, least, kept = STRENGTHS[0], np.inf, np.zeros_like(signs)
    for strength in STRENGTHS:
        margins = np.zeros_like(signs)
        for fold in np.unique(folds):
            out = folds == fold
            slopes, offsets = _fit(x[~out], signs[~out], weights[~out], strength, seed)
            margins[out] = x[out] @ slopes.T + offsets
        errors = _errors(margins, signs)
        if errors > least:  # weaker penalties take ever longer, and only learn by heart
            break
        if errors < least:
            best, least, kept = strength, errors, margins
    return best, kept


def _errors(margins: Array, signs: Array) -> int:
    if (signs > 0).sum(1).max() == 1 and (signs > 0).sum(1).min() == 1:  # one class each
        return int((margins.argmax(1) != signs.argmax(1)).sum())
    return int((np.sign(margins) != signs).sum())


def _fit(x: Array, signs: Array, weights: Array, strength: float, seed: int) -> tuple[Array, Array]:
    """Slopes [k, d] and offsets [k]; a class that is always or never there has a constant margin."""
    slopes, offsets = np.zeros((signs.shape[1], x.shape[1])), signs[0].copy()
    for k in range(signs.shape[1]):
        if k == 1 and signs.shape[1] == 2 and np.array_equal(signs[:, 0], -signs[:, 1]):
            slopes[1], offsets[1] = -slopes[0], -offsets[0]
        elif (signs[:, k] != signs[0, k]).any():
            slopes[k], offsets[k] = _part(x, signs[:, k], weights, strength, keyed_seed("svm", seed, k) % 2**31)
    return slopes, offsets


def _part(x: Array, sign: Array, weights: Array, strength: float, seed: int) -> tuple[Array, float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    settings = {"dual": len(x) < x.shape[1], "tol": _TOLERANCE, "max_iter": _MOST_ITERATIONS, "random_state": seed}
    machine = LinearSVC(C=strength, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # cross-validation judges what it got to
        machine.fit(x, sign, sample_weight=weights)
    return machine.coef_[0], float(machine.intercept_[0])


def _factor(margins: Tensor, targets: Tensor) -> float:
    """The factor on held-out margins with the least log loss."""
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        logits = margins * np.exp(exponent)
        if targets.dim() == 1:
            return float(F.cross_entropy(logits, targets))
        return float(F.binary_cross_entropy_with_logits(logits, targets.double()))

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(_SCALES)), method="bounded").x))
