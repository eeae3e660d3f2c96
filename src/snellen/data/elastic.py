"""Smooth random displacement fields (Simard et al. 2003), applied in the same resampling as the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, pi, sqrt

import numpy as np
import numpy.typing as npt

from snellen.core.geometry import Points, Size
from snellen.core.seeds import keyed_generator

Floats = npt.NDArray[np.float64]

# Standard deviation of the smoothing Gaussian, as a fraction of the shorter side: 4 of 29 pixels in the paper.
_SMOOTH = 4 / 29
_REACH = 3  # standard deviations: what lies further adds less than a hundredth
# Neighbours may approach each other to a tenth of their distance, so that nothing folds over or tears.
_STEEPEST = 0.9


def pixel_centres(size: Size) -> npt.NDArray[np.float32]:
    """(x, y) of every pixel, [height, width, 2]."""
    across, down = (np.arange(length, dtype=np.float32) + np.float32(0.5) for length in size)
    return np.stack(np.meshgrid(across, down), axis=-1)


@dataclass(frozen=True, slots=True)
class ElasticField:
    """After the matrix, output point p shows what would have been at p + d(p), for the smooth field d of ``at``.

    d is random noise on a grid of nodes, smoothed by a Gaussian. It is known at every point, not at pixels alone, so
    that annotations and pixels move alike.

    weights  [..., 2, rows, columns], the noise along x and y at the nodes, in pixels; a leading axis stacks fields
    spread   standard deviation of the Gaussian and distance between nodes, in pixels; the first node is at -3 spread
    """

    weights: Floats
    spread: float

    def __getitem__(self, index: int) -> ElasticField:
        """One field of a stack."""
        return replace(self, weights=self.weights[index])

    def moved_pixels(self, size: Size) -> npt.NDArray[np.float32]:
        """p + d(p) at the pixel centres p of an output of ``size``, [..., height, width, 2]."""
        along_x = self._kernel(np.arange(0.5, size[0]), -1)
        along_y = self._kernel(np.arange(0.5, size[1]), -2)
        rows = (along_y @ self.weights).astype(np.float32)  # [..., 2, height, columns]
        # Not one product of matrices: BLAS would start threads for it, beside those that load images.
        displacement = sum(rows[..., n, None] * along_x[:, n].astype(np.float32) for n in range(rows.shape[-1]))
        return np.moveaxis(np.asarray(displacement), -3, -1) + pixel_centres(size)

    def at(self, points: npt.ArrayLike) -> Points:
        """d at points [n, 2]; of one field, not of a stack."""
        points = np.asarray(points, np.float64)
        along_y, along_x = self._kernel(points[:, 1], -2), self._kernel(points[:, 0], -1)
        return np.asarray(np.einsum("nr,arc,nc->na", along_y, self.weights, along_x))

    def map_points(self, points: npt.ArrayLike) -> Points:
        """Where points [..., 2] of the output come to lie when the field is applied to it: p with p + d(p) = point."""
        given = np.asarray(points, np.float64)
        target = given.reshape(-1, 2)
        moved = target
        for _ in range(200):  # each step leaves at most nine tenths of the error
            before, moved = moved, target - self.at(moved)
            if np.abs(moved - before).max(initial=0.0) < 1e-7:
                break
        return moved.reshape(given.shape)

    def _kernel(self, coordinates: Floats, axis: int, *, slope: bool = False) -> Floats:
        """[coordinates, nodes]: how much each node counts at each coordinate, or how fast that changes."""
        distance = coordinates[:, None] / self.spread - (np.arange(self.weights.shape[axis]) - _REACH)
        weight = np.exp(-0.5 * distance**2)
        return -distance / self.spread * weight if slope else weight

    def without_folds(self) -> ElasticField:
        """The field, or as much of it as can be undone: its steepest slope is held below 1."""
        places = [
            np.arange(0, self.weights.shape[axis] - 1, 0.5) * self.spread - _REACH * self.spread for axis in (-2, -1)
        ]
        flat = [self._kernel(place, axis) for place, axis in zip(places, (-2, -1), strict=True)]
        steep = [self._kernel(place, axis, slope=True) for place, axis in zip(places, (-2, -1), strict=True)]
        by_x = flat[0] @ self.weights @ steep[1].T  # [..., 2, rows, columns]
        by_y = steep[0] @ self.weights @ flat[1].T
        # The larger singular value of the 2x2 matrix of slopes, from its Frobenius norm and its determinant.
        squares = (by_x**2 + by_y**2).sum(-3)
        determinant = by_x[..., 0, :, :] * by_y[..., 1, :, :] - by_x[..., 1, :, :] * by_y[..., 0, :, :]
        largest = np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * determinant**2, 0.0))) / 2)
        factor = np.minimum(1.0, _STEEPEST / np.maximum(largest.max(axis=(-2, -1), keepdims=True), 1e-9))
        return replace(self, weights=self.weights * factor[..., None, :, :])


def elastic_fields(strength: float, seed: int, epoch: int, sample_ids: Sequence[str], size: Size) -> ElasticField:
    """A field for each sample, stacked; ``strength`` is the mean displacement (its root mean square along x and along
    y) as a fraction of the shorter side of ``size``."""
    spread = _SMOOTH * min(size)
    rows, columns = (ceil(length / spread) + 2 * _REACH + 1 for length in (size[1], size[0]))
    noise = [keyed_generator("elastic", seed, epoch, name).uniform(-1, 1, (2, rows, columns)) for name in sample_ids]
    # Noise from [-1, 1] has the variance 1/3; the squared kernel adds up to sqrt(pi) along each axis.
    weights = np.stack(noise) * (strength * min(size) * sqrt(3.0 / pi))
    return ElasticField(weights, spread).without_folds()
