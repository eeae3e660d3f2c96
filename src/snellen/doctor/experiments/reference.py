"""A reference that learns in closed form: patches of the images as filters, and ridge regression on what they find.

It has no rate, no schedule and no initialisation that could be wrong, so what it learns is there to be learnt.
Coates and Ng, The Importance of Encoding Versus Training, ICML 2011: filters that are patches drawn at random do nearly
as well as any that are learnt.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from snellen.core.seeds import keyed_generator, keyed_permutation, keyed_seed
from snellen.doctor.case import Case
from snellen.doctor.experiments.measure import Measurements, Seen, measurements
from snellen.nn.ridge import PENALTIES, Ridge

_FILTERS = 96
_SIDE = 5  # pixels of a patch
_PATCHES = 4000  # that the whitening is estimated from
_AT_ONCE = 256
_FOLDS = 5
_MOST_IMAGES = 1200  # that are learnt from: the cost grows with their cube


class Patches:
    """Features of small images [n, c, h, w] -> [n, d]: how strongly each filter answers, at most and on average.

    Vectors [n, d] keep their own values and get random rectified features (Rahimi and Recht, NeurIPS 2007) beside them.
    """

    def __init__(self, images: Tensor, seed: int) -> None:
        self._rng = keyed_generator("patches", seed)
        dims = (0, *range(2, images.dim()))
        self._mean = images.mean(dims, keepdim=True)
        self._std = images.std(dims, keepdim=True, correction=0).clamp(min=1e-6)
        scaled = (images - self._mean) / self._std
        self._filters = self._drawn(scaled) if images.dim() == 4 else self._directions(images.shape[1])

    def __call__(self, images: Tensor) -> Tensor:
        scaled = (images - self._mean) / self._std
        if images.dim() != 4:
            return torch.cat([scaled, (scaled @ self._filters).relu()], 1)
        return torch.cat([self._answers(part) for part in torch.split(scaled, _AT_ONCE)])

    def _answers(self, images: Tensor) -> Tensor:
        maps = nn.functional.conv2d(images, self._filters)
        both = torch.cat([maps, -maps], 1).relu()
        places = nn.functional.adaptive_avg_pool2d(both, 2).flatten(1)
        return torch.cat([both.amax((2, 3)), both.mean((2, 3)), places], 1)

    def _drawn(self, images: Tensor) -> Tensor:
        """Whitened patches of length 1, [filters, c, side, side]."""
        n, c, height, width = images.shape
        side = min(_SIDE, height, width)
        rows = self._rng.integers(0, n, _PATCHES)
        tops = self._rng.integers(0, height - side + 1, _PATCHES)
        lefts = self._rng.integers(0, width - side + 1, _PATCHES)
        patches = torch.stack(
            [images[i, :, y : y + side, x : x + side] for i, y, x in zip(rows, tops, lefts, strict=True)]
        ).flatten(1)
        patches = patches - patches.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        whitening = vectors / (values + 0.1 * values.mean() + 1e-8).sqrt() @ vectors.T
        chosen = patches[:_FILTERS] @ whitening
        chosen = chosen / chosen.norm(dim=1, keepdim=True).clamp(min=1e-8)
        filters: Tensor = chosen @ whitening
        return filters.reshape(_FILTERS, c, side, side)

    def _directions(self, d: int) -> Tensor:
        return torch.from_numpy(self._rng.normal(0, d**-0.5, (d, 4 * _FILTERS))).float()


def learnt(features: Tensor, labels: np.ndarray, asked: Tensor, seed: int) -> np.ndarray:
    """Classes [m] of ``asked`` [m, d], by ridge regression of ``labels`` [n] on ``features`` [n, d]."""
    columns = _columns(labels)
    ridge = Ridge(features.double(), columns)
    errors = [ridge.left_out(penalty, _parts(len(labels), seed)).square().sum() for penalty in PENALTIES]
    penalty = PENALTIES[int(torch.stack(errors).argmin())]
    weight, bias = ridge.solve(torch.full((columns.shape[1],), penalty, dtype=torch.float64))
    return np.asarray((asked.double() @ weight.T + bias).argmax(1).numpy(), np.int64)


def left_out(features: Tensor, labelings: np.ndarray, seed: int) -> np.ndarray:
    """The same for labels of the same images [n, s] in s versions: classes [n, s], each image predicted from the four
    fifths of the images that it is not among. The penalty is chosen for each version by the same folds."""
    columns = [_columns(labels) for labels in labelings.T]
    ridge = Ridge(features.double(), torch.cat(columns, 1))
    widths = [each.shape[1] for each in columns]
    rest = torch.cat(columns, 1)
    best: list[tuple[float, np.ndarray]] = [(np.inf, np.zeros(0))] * len(columns)
    for penalty in PENALTIES:
        residuals = ridge.left_out(penalty, _parts(len(labelings), seed))
        answers = torch.split(rest - residuals, widths, 1)
        for place, (answer, off) in enumerate(zip(answers, torch.split(residuals, widths, 1), strict=True)):
            error = float(off.square().sum())
            if error < best[place][0]:
                best[place] = error, answer.argmax(1).numpy()
    return np.stack([answer for _, answer in best], 1)


def _columns(labels: np.ndarray) -> Tensor:
    return nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), int(labels.max()) + 1).double()


def _parts(n: int, seed: int) -> list[Tensor]:
    folds = np.array([keyed_seed("fold", seed, row) % _FOLDS for row in range(n)])
    return [torch.from_numpy(rows) for fold in range(_FOLDS) if len(rows := np.flatnonzero(folds == fold))]


class Featured(NamedTuple):
    """Features of 1,200 training images at most, [n, d], and of the validation images, [m, d].

    order  [n], the places of the training images in an epoch
    """

    own: Seen
    val: Seen
    order: np.ndarray
    features: Tensor
    asked: Tensor


def featured(case: Case) -> Featured | None:
    """None where there are no classes, no plain training images, or inputs of different sizes on the two sides."""
    seen = measurements(case, "classification")
    return None if seen is None else seen.kept("featured", _featured)


def _featured(seen: Measurements) -> Featured | None:
    own, val = seen.side("plain"), seen.side("val")
    if own is None or val is None or own.small.shape[1:] != val.small.shape[1:] or len(np.unique(own.labels)) < 2:
        return None
    order = keyed_permutation(len(own), "reference", seen.seed)[:_MOST_IMAGES]
    chosen = own.small[order]
    patches = Patches(chosen, seen.seed)
    return Featured(own, val, order, patches(chosen), patches(val.small))


def answers_of_reference(sides: Featured, seed: int) -> np.ndarray:
    """What the reference says of the validation images, having learnt the training images: classes [m]."""
    return learnt(sides.features, sides.own.labels[sides.order], sides.asked, seed)
