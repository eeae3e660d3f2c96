"""What is marked in an image, as shares of its places: what a model of places learns and is judged by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snellen.data.image import Pixels

Floats = npt.NDArray[np.float64]
Shares = npt.NDArray[np.float32]

_WITHIN = 4  # pixels across and down that are looked at in each place of a mask


def covered(boxes: Floats, shape: tuple[int, int]) -> Shares:
    """The share of each place that one box covers, the one that covers it most, [..., rows, columns]; 0 without boxes.

    boxes  [..., n, 4] in shares of the image's sides; shape (rows, columns)
    """
    down, right = (_along(boxes[..., i], boxes[..., i + 2], size) for i, size in ((1, shape[0]), (0, shape[1])))
    return np.asarray((down[..., None] * right[..., None, :]).max(axis=-3, initial=0))


def _along(start: Floats, end: Floats, size: int) -> Shares:
    """The share of each of ``size`` steps of a side that lies between, [..., size]."""
    steps = np.arange(size)
    shared = np.minimum(end[..., None] * size, steps + 1) - np.maximum(start[..., None] * size, steps)
    return np.asarray(np.clip(shared, 0, 1), np.float32)


def class_shares(mask: Pixels, num_classes: int, shape: tuple[int, int]) -> Shares:
    """The share of each place that is of each class, [rows, columns, k]; what is void is of none."""
    rows, columns = (
        ((np.arange(new * _WITHIN) + 0.5) * old / (new * _WITHIN)).astype(np.intp)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    small = mask[rows][:, columns]
    hot = (small[..., None] == np.arange(num_classes)).astype(np.float32)
    return np.asarray(hot.reshape(shape[0], _WITHIN, shape[1], _WITHIN, num_classes).mean((1, 3)))
