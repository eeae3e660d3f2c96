"""What a classifier says of images that it was fitted without, themselves and all that belongs to them.

Kernel least squares: the class of each image as numbers 0 and 1, regressed on Gaussian bumps about the images (Rifkin,
Yeo and Poggio, Regularized Least-Squares Classification, 2003). Least squares forgives a wrong label more readily than
likelihood does, and what the fit would say without an image, or without a group of images, follows from the fit in
closed form: no folds, no chance, and every image is judged by a model that has seen nearly all others. Beyond
``MOST_WHOLE`` images the bumps stand on a sample of them (Williams and Seeger, NIPS 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.core.seeds import keyed_permutation
from snellen.metrics.interval import group_codes

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_WHOLE = 2_400  # images up to which each has a bump of its own
MOST_BUMPS = 1_500  # beyond: well below the number of images, where least squares would interpolate
_MOST_FOR_CHOOSING = 800  # images: the choice of width and penalty gains nothing from more
WIDTHS = (0.2, 0.5, 1.5, 6.0)  # of a bump: the squared distance of two images, over their mean, at which it is 1/e
PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_JITTER = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutClassifier:
    """Images and a way to tell them apart.

    basis    [n, m]: the inner product of two rows is the kernel of the two images
    parts    rows that belong together, and are left out together
    penalty  on the squared weights
    """

    basis: Floats
    parts: Sequence[Codes]
    penalty: float

    @classmethod
    def of(cls, features: npt.NDArray[Any], codes: Codes, units: Sequence[str | None]) -> HeldOutClassifier:
        """The width and penalty with the least squared error on what is left out.

        features  [n, d], of any scale
        codes     the class of each image, 0..k-1, [n]
        units     images that share one are left out together; None: the image stands alone
        """
        points = _scaled(features)
        chosen = keyed_permutation(len(points), "width and penalty")[:_MOST_FOR_CHOOSING]
        parts = _parts([units[i] for i in chosen])
        wanted = _one_hot(codes[chosen], int(codes.max()) + 1)
        best = (np.inf, WIDTHS[-1], PENALTIES[0])
        for width in WIDTHS:
            errors = _squared_errors(_basis(points[chosen], width), wanted, parts)
            best = min(best, *((error, width, penalty) for error, penalty in zip(errors, PENALTIES, strict=True)))
        return cls(basis=_basis(points, best[1]), parts=_parts(units), penalty=best[2])

    def scores(self, codes: Codes, num_classes: int, kept: Mask | None = None) -> Floats:
        """About the probability of each class, [n, k], rows sum to 1; some may be a little below 0 or above 1.

        codes  whatever is to be learnt of the images, [n]
        kept   images to learn from; the others are only judged. None: all
        """
        wanted = _one_hot(codes, num_classes)
        if kept is None or kept.all():
            half, even = self._half, 1 / num_classes
            fit = _Fit(half @ (self.basis.T @ (wanted - even)) + even, half)
            return _left_out(self.basis, wanted, self.parts, fit, np.ones(len(codes), np.bool_))
        return _left_out(self.basis, wanted, self.parts, _fit(self.basis, wanted, self.penalty, kept), kept)

    def learnt(self, codes: Codes, num_classes: int, kept: Mask) -> Floats:
        """The same of a fit on ``kept``; what is kept is judged by what has seen it."""
        return _fit(self.basis, _one_hot(codes, num_classes), self.penalty, kept).told

    @cached_property
    def _half(self) -> Floats:
        return _half_hat(self.basis, self.basis, self.penalty)


def _left_out(basis: Floats, wanted: Floats, parts: Sequence[Codes], fit: _Fit, kept: Mask) -> Floats:
    """Each part by a fit on the kept images of all others.

    (I - H)^-1 e within a part, of its hat matrix H and its residuals e: Hastie, Tibshirani and Friedman, The Elements
    of Statistical Learning, 2009, section 7.10, for more than one left out.
    """
    told = fit.told.copy()
    single = np.array([part[0] for part in parts if len(part) == 1 and kept[part[0]]], np.int64)
    own = np.einsum("nm,nm->n", fit.half[single], basis[single])[:, None]
    told[single] = wanted[single] - (wanted[single] - told[single]) / np.maximum(1 - own, _JITTER)
    for part in (part for part in parts if len(part) > 1):
        learnt = part[kept[part]]
        hat = fit.half[learnt] @ basis[learnt].T
        change = np.linalg.solve(np.eye(len(learnt)) * (1 + _JITTER) - hat, wanted[learnt] - told[learnt])
        told[part] -= fit.half[part] @ basis[learnt].T @ change
    return told


@dataclass(frozen=True, slots=True)
class _Fit:
    """What it says of every image, [n, k]; half [n, m]: times the transposed basis it is the hat matrix."""

    told: Floats
    half: Floats


def _fit(basis: Floats, wanted: Floats, penalty: float, kept: Mask) -> _Fit:
    """Before it has seen anything, every class is as likely."""
    half = _half_hat(basis, basis[kept], penalty)
    even = 1 / wanted.shape[1]
    return _Fit(half @ (basis[kept].T @ (wanted[kept] - even)) + even, half)


def _half_hat(basis: Floats, learnt: Floats, penalty: float) -> Floats:
    inner = learnt.T @ learnt
    inner[np.diag_indices_from(inner)] += penalty
    return np.asarray(np.linalg.solve(inner, basis.T).T)


def _squared_errors(basis: Floats, wanted: Floats, parts: Sequence[Codes]) -> list[float]:
    """The mean for each of the penalties: one decomposition serves them all."""
    values, vectors = np.linalg.eigh(basis.T @ basis)
    turned, even = basis @ vectors, 1 / wanted.shape[1]
    along, everything = turned.T @ (wanted - even), np.ones(len(wanted), np.bool_)
    errors = []
    for penalty in PENALTIES:
        half = turned / (values + penalty)
        told = _left_out(turned, wanted, parts, _Fit(half @ along + even, half), everything)
        errors.append(float(np.square(told - wanted).mean()))
    return errors


def _scaled(features: npt.NDArray[Any]) -> Floats:
    """About their mean, and the mean squared distance of two is 1."""
    points = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    return np.asarray(points / max(1e-12, np.sqrt(2 * np.square(points).sum(1).mean())))


def _basis(points: Floats, width: float) -> Floats:
    most = len(points) if len(points) <= MOST_WHOLE else MOST_BUMPS
    centres = points[np.sort(keyed_permutation(len(points), "bumps")[:most])]
    inner = _bumps(centres, centres, width)
    inner[np.diag_indices_from(inner)] += 1e-6  # copies of an image would make it singular
    root = np.linalg.cholesky(inner)
    return np.asarray(np.linalg.solve(root, _bumps(centres, points, width)).T)


def _bumps(one: Floats, other: Floats, width: float) -> Floats:
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return np.asarray(np.exp(-np.maximum(squares, 0) / width))


def _one_hot(codes: Codes, num_classes: int) -> Floats:
    return np.asarray(np.eye(num_classes)[codes])


def _parts(units: Sequence[str | None]) -> list[Codes]:
    codes = group_codes(units)
    order = codes.argsort(kind="stable")
    return [np.asarray(part, np.int64) for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)]
