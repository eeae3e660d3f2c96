"""Answers that exact tests may count: one of each group, and halves that no group lies in both of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snellen.core.seeds import keyed_generator
from snellen.doctor.case import Answers

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


def independent(answers: Answers, seed: int = 0) -> Rows:
    """Rows of one image of each group, drawn by ``seed``, in order; all rows where there are no groups.

    What images of one group share is then counted once. Information is lost, but the tests stay exact.
    """
    n = len(answers)
    if not len(answers.groups):
        return np.arange(n)
    order = keyed_generator("one-of-each-group", seed).permutation(n)
    _, first = np.unique(np.asarray(answers.groups, np.str_)[order], return_index=True)
    return np.sort(order[first])


def first_half(answers: Answers, seed: int = 0, key: str = "half") -> Mask:
    """Which rows are of the first half, [n]: drawn by ``seed``, groups undivided, about as many of each class."""
    n = len(answers)
    generator = keyed_generator(key, seed)
    if len(answers.groups):
        _, codes = np.unique(np.asarray(answers.groups, np.str_), return_inverse=True)
        order = generator.permutation(int(codes.max(initial=-1)) + 1)
        return np.asarray(order[codes] < len(order) / 2, np.bool_)
    half = np.zeros(n, np.bool_)
    order = generator.permutation(n)
    ranked = order[np.argsort(answers.truth[order], kind="stable")]
    half[ranked[::2]] = True
    return half
