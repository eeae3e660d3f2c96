"""Lay one small picture over another by scale and shift, and say how well they agree.

A crop, a resize and a squash of one photograph differ from it by one scale and one shift per axis. Gauss-Newton on the
squared difference of the normalised pictures finds them (Lucas and Kanade 1981; the normalised form is ECC, Evangelidis
and Psarakis 2008), for many pairs at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BLOCKS = 8
_MAX_STEP = 0.05  # of the picture's side: beyond it the linearisation is not worth following


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How well n pairs of pictures agree where they overlap; every field has shape [n].

    correlation  normalised cross-correlation, -1..1
    gain         contrast of the first over that of the second
    shift        mean of the first less that of the second, grey levels
    contrast     the smaller standard deviation of the two, grey levels
    worst        the largest root-mean-square difference within any of 8 x 8 blocks after gain and shift, grey levels
    texture      share of the blocks that aren't flat, 0..1
    overlap      share of the first picture that lies within the second, 0..1
    area         area of the second picture that the first one covers, 0..1
    """

    correlation: Floats
    gain: Floats
    shift: Floats
    contrast: Floats
    worst: Floats
    texture: Floats
    overlap: Floats
    area: Floats


def align(first: Floats, second: Floats, start: Floats, *, blur: float, steps: int) -> Floats:
    """Improve the placement of every first picture within its second.

    first, second  float32 [n, s, s]
    start          float32 [n, 4]: scale and shift along x, scale and shift along y. With u in 0..1 across the first
                   picture, scale * u + shift is the same place in 0..1 across the second
    blur           standard deviation in pixels of a Gaussian blur of both: the coarser, the farther it can see
    """
    placement = start.astype(np.float32).copy()
    first, second = _smoothed(first, blur), _smoothed(second, blur)
    for _ in range(steps):
        placement += _step(first, second, placement)
        placement[:, [0, 2]] = np.clip(placement[:, [0, 2]], 0.7, 1.4)
    return placement


def _step(first: Floats, second: Floats, placement: Floats) -> Floats:
    pairs, side = first.shape[:2]
    warped, inside = _warp(second, placement)
    target, _, _ = _normalised(first, inside)
    current, _, _ = _normalised(warped, inside)
    down, across = np.gradient(current, axis=(1, 2))
    across = across * inside * (side / placement[:, 0, None, None])
    down = down * inside * (side / placement[:, 2, None, None])
    places = _centres(side)
    slopes = np.stack([across * places, across, down * places[:, None], down], axis=1).reshape(pairs, 4, side * side)
    curvature = slopes @ slopes.transpose(0, 2, 1)
    damping = 1e-3 * np.trace(curvature, axis1=1, axis2=2) / 4 + 1e-6  # flat pictures have no curvature at all
    curvature += np.eye(4, dtype=np.float32) * damping[:, None, None]
    pull = slopes @ (target - current).reshape(pairs, side * side, 1)
    return np.asarray(np.clip(np.linalg.solve(curvature, pull)[:, :, 0], -_MAX_STEP, _MAX_STEP), dtype=np.float32)


def compare(first: Floats, second: Floats, placement: Floats) -> Agreement:
    """How well first and second, float32 [n, s, s], agree at a placement, float32 [n, 4]; see ``align``."""
    pairs, side = first.shape[:2]
    blur = side / 100  # a crop is sharper than the same part of its original: level that out
    warped, inside = _warp(_smoothed(second, blur), placement)
    one, mean_one, spread_one = _normalised(_smoothed(first, blur), inside)
    two, mean_two, spread_two = _normalised(warped, inside)
    count = np.maximum(inside.sum(axis=(1, 2)), 1.0)
    spread = np.sqrt(spread_one * spread_two)[:, None, None]
    cells = np.maximum(_in_blocks(inside), 1.0)
    known = _in_blocks(inside) * 2 >= (side // _BLOCKS) ** 2
    differences = np.where(known, np.sqrt(_in_blocks(((one - two) * spread) ** 2) / cells), 0.0)
    level = _in_blocks(one * spread) / cells
    local = np.sqrt(np.maximum(_in_blocks((one * spread) ** 2) / cells - level**2, 0.0))
    textured = (local > 3.0) & known
    return Agreement(
        correlation=(one * two).sum(axis=(1, 2)) / count,
        gain=spread_one / spread_two,
        shift=mean_one - mean_two,
        contrast=np.minimum(spread_one, spread_two),
        worst=differences.reshape(pairs, _BLOCKS**2).max(axis=1),
        texture=textured.mean(axis=(1, 2), dtype=np.float32),
        overlap=inside.mean(axis=(1, 2)),
        area=np.minimum(placement[:, 0], 1.0) * np.minimum(placement[:, 2], 1.0),
    )


def largest_difference(first: Floats, second: Floats, placement: Floats) -> Floats:
    """The largest absolute difference of n pairs of blurred pictures, [n, s, s], where they overlap; [n]."""
    warped, inside = _warp(_smoothed(second, 1.0), placement)
    return np.asarray((np.abs(_smoothed(first, 1.0) - warped) * inside).max(axis=(1, 2)))


def _in_blocks(values: Floats) -> Floats:
    """Sums over 8 x 8 blocks: [n, s, s] -> [n, 8, 8]."""
    rows = np.repeat(np.eye(_BLOCKS, dtype=np.float32), values.shape[1] // _BLOCKS, axis=1)
    return np.asarray(rows @ values @ rows.T)  # products: summing over pieces of axes takes several times as long


def _warp(pictures: Floats, placement: Floats) -> tuple[Floats, Floats]:
    """The second pictures seen in the frame of the first, and 1 where they reach, 0 elsewhere; [n, s, s] both."""
    side = pictures.shape[1]
    places = _centres(side)
    x = placement[:, 0:1] * places + placement[:, 1:2]
    y = placement[:, 2:3] * places + placement[:, 3:4]
    warped = np.matmul(_interpolation(y, side), pictures) @ _interpolation(x, side).transpose(0, 2, 1)
    inside = ((y >= 0) & (y <= 1))[:, :, None] & ((x >= 0) & (x <= 1))[:, None, :]
    return np.asarray(warped, np.float32), inside.astype(np.float32)


def _interpolation(places: Floats, side: int) -> Floats:
    """Linear interpolation at ``places`` (0..1, [n, s]) as matrices [n, s, s]."""
    pixels = np.clip(places * side - 0.5, 0.0, side - 1.0)
    weights: Floats = np.maximum(1.0 - np.abs(pixels[:, :, None] - np.arange(side, dtype=np.float32)), 0.0)
    return weights


def _normalised(pictures: Floats, inside: Floats) -> tuple[Floats, Floats, Floats]:
    """Zero mean and unit variance where ``inside`` is 1, zero elsewhere; and the mean and standard deviation, [n]."""
    shape = (len(pictures), pictures.shape[1] * pictures.shape[2])  # -1 would have no answer for no pictures
    flat, known = pictures.reshape(shape), inside.reshape(shape)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1.0)
    mean = (flat * known).sum(axis=1, keepdims=True) / count
    centred = (flat - mean) * known
    spread = np.sqrt((centred * centred).sum(axis=1, keepdims=True) / count)
    spread = np.maximum(spread, 1e-3)
    return (centred / spread).reshape(pictures.shape), mean[:, 0], spread[:, 0]


@cache
def _centres(side: int) -> Floats:
    return ((np.arange(side) + 0.5) / side).astype(np.float32)


def _smoothed(pictures: Floats, blur: float) -> Floats:
    kernel = _blur(pictures.shape[1], blur)
    return np.asarray(kernel @ pictures @ kernel.T, np.float32)


@cache
def _blur(side: int, spread: float) -> Floats:
    """A Gaussian blur along one axis as a matrix [s, s] whose rows sum to 1."""
    places = np.arange(side)
    kernel = np.exp(-((places[:, None] - places[None, :]) ** 2) / (2 * spread * spread))
    kernel[kernel < 1e-6] = 0.0  # such tails are denormal in float32, and products with them many times slower
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True), dtype=np.float32)
