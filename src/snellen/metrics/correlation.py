"""How far models err alike, and what that leaves of an ensemble's promise.

The textbook's promises hold for errors that are independent: the mean of M models has a variance of sigma^2 / M, and of
M models that are each right with probability p, most are right far more often than one. Models that learnt from the
same images err alike, and what can be hoped for follows from their correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the errors of M models about zero.

    square       mean squared error of one model, mean over the models
    correlation  of two models' errors, mean over the pairs: mean product over ``square``; NaN where no model errs
    """

    square: float
    correlation: float


def pairwise_correlation(values: Floats) -> Floats:
    """Pearson's correlation of every two models, [M, M], of ``values`` [M, n]; NaN beside one that does not vary."""
    centred = values - values.mean(axis=1, keepdims=True)
    return error_correlation(centred)


def error_correlation(errors: Floats) -> Floats:
    """The correlation about zero of every two models' errors, [M, M], of ``errors`` [M, n] with their signs.

    About zero, and not about the mean: a bias that all models share is an error that no mean of them takes away.
    """
    products = errors @ errors.T
    length = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Floats = np.where(np.outer(length, length) > 0, products / np.outer(length, length), np.nan)
    return correlation


def mean_of_pairs(matrix: Floats) -> float:
    """The mean over every two models of a symmetric ``matrix`` [M, M], those that are NaN left out."""
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.mean()) if len(pairs) else float("nan")


def moments(errors: Floats) -> Moments:
    """Of ``errors`` [M, n], two models or more."""
    products = errors @ errors.T / errors.shape[1]
    count = len(errors)
    square = float(np.trace(products)) / count
    shared = float(products.sum() - np.trace(products)) / (count * (count - 1))
    return Moments(square, shared / square if square > 0 else float("nan"))


def square_of_mean(square: float, count: int, correlation: float = 0.0) -> float:
    """The mean squared error of the mean of ``count`` models, sigma^2 (rho + (1 - rho) / M).

    Without ``correlation`` it is the textbook's sigma^2 / M. With what ``moments`` measured it is what the mean of
    these models reaches on the same errors, exactly: the ambiguity decomposition of Krogh and Vedelsby, NIPS 7 (1995)
    231.
    """
    return square * (correlation + (1 - correlation) / count)


def majority_if_independent(rates: Sequence[float]) -> float:
    """The chance that more than half of the models are right, each with its own rate, if they erred independently.

    Among an even number a tie counts half. Of equal rates it is the binomial of Condorcet's jury theorem (1785); for
    three models that err with probability e it is 1 - e^3 - 3 (1 - e) e^2. Where there are more than two classes fewer
    votes may do, since wrong ones are divided.
    """
    chances = np.ones(1)  # of 0, 1, ... models being right
    for rate in rates:
        chances = np.convolve(chances, [1 - rate, rate])
    right = np.arange(len(chances)) * 2
    return float(chances[right > len(rates)].sum() + chances[right == len(rates)].sum() / 2)
