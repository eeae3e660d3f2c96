"""What the loaders give: two epochs of training, two passes over validation, one over the plain training images.

Images are told apart by a hash of their values, so that nothing large is kept. Loaders are read once for all contracts
that look at the same case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.safety import untouched

_MOST_IMAGES = 20_000  # of a pass; what comes after them is not looked at
_MOST_BYTES = 2 * 2**30  # of a pass: hashing them takes a few seconds
_SAME_SKETCH = 1e-5  # of a sketch's spread: rounding moves less, another preprocessing more

Floats = npt.NDArray[np.float64]


@dataclass(kw_only=True, eq=False)
class Pass:
    """What one pass over a loader gave, in its order.

    images    hash of each input, [n]; empty where inputs are not one tensor a batch
    targets   hash of each target, [n]; empty where targets are not one tensor a batch
    labels    [n] classes; None where targets are something else
    sketches  mean, standard deviation, least and largest value of each input, [n, 4]; NaN or infinite where one is
    values    the different values of targets that are integers; else the least and the largest
    sizes     images in each batch
    whole     whether the loader was read to its end
    """

    images: list[bytes] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)
    labels: npt.NDArray[np.int64] | None = None
    sketches: Floats = field(default_factory=lambda: np.zeros((0, 4)))
    values: Floats = field(default_factory=lambda: np.zeros(0))
    sizes: list[int] = field(default_factory=list)
    whole: bool = True

    @property
    def telling(self) -> list[bool]:
        """Which images show anything, [n]: blank ones are equal without being copies."""
        return [bool(spread > 0) for spread in self.sketches[:, 1]]

    @property
    def shown(self) -> set[bytes]:
        """Hashes of the images that show anything."""
        return {image for image, telling in zip(self.images, self.telling, strict=True) if telling}


class Passes:
    """The passes over one training's loaders, each made when it is first asked for."""

    def __init__(self, training: Training) -> None:
        self._training = training

    @cached_property
    def train(self) -> tuple[Pass, Pass]:
        """Two epochs, one after the other."""
        with untouched(self._training):
            return read(self._training.train), read(self._training.train)

    @cached_property
    def val(self) -> tuple[Pass, Pass]:
        with untouched(self._training):
            return read(self._training.val), read(self._training.val)

    @cached_property
    def plain(self) -> Pass | None:
        if self._training.plain is None:
            return None
        with untouched(self._training):
            return read(self._training.plain)

    @property
    def repeats(self) -> bool:
        """Whether the second epoch shows the images of the first, value for value: nothing is augmented.

        Less than a batch may be new, since ``drop_last`` leaves out other images in each epoch.
        """
        first, second = self.train
        if not first.images or not first.whole:
            return False
        seen = set(first.images)
        new = sum(image not in seen for image in second.images)
        return new < max(first.sizes) and new < 0.5 * len(second.images)


_KNOWN: WeakKeyDictionary[Case, Passes] = WeakKeyDictionary()


def passes(case: Case) -> Passes:
    """The passes over the loaders of ``case.training``, shared by everyone who asks with the same case."""
    if case.training is None:
        raise ValueError("this case has no training")
    if case not in _KNOWN:
        _KNOWN[case] = Passes(case.training)
    return _KNOWN[case]


def read(loader: Iterable[Batch]) -> Pass:
    """One pass, as far as ``_MOST_IMAGES`` and ``_MOST_BYTES`` allow."""
    found = Pass()
    sketches, labels, values = [], [], []
    num, size = 0, 0
    for inputs, targets in loader:
        if num >= _MOST_IMAGES or size >= _MOST_BYTES:
            found.whole = False
            break
        if isinstance(inputs, Tensor) and inputs.ndim:
            rows = _rows(inputs)
            found.images += [_hash(row, inputs.shape[1:]) for row in rows]
            sketches.append(_sketch(rows))
            size += rows.nbytes
        if isinstance(targets, Tensor) and targets.ndim:
            rows = _rows(targets)
            found.targets += [_hash(row, targets.shape[1:]) for row in rows]
            values.append(_values(rows))
            if targets.ndim == 1 and not targets.is_floating_point():
                labels.append(rows.astype(np.int64).ravel())
        found.sizes.append(_num_images(inputs, targets))
        num += found.sizes[-1]
    if sketches:
        found.sketches = np.concatenate(sketches)
    if labels and sum(map(len, labels)) == num:
        found.labels = np.concatenate(labels)
    if values:
        found.values = np.unique(np.concatenate(values))
    return found


def same_but_for_rounding(some: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Which sketches [n, 4] have one among ``others`` [m, 4] that is the same but for rounding, [n]."""
    from scipy.spatial import cKDTree

    spread = np.maximum(others.std(0), 1e-12)
    distance, _ = cKDTree(others / spread).query(some / spread)
    return np.asarray(distance < _SAME_SKETCH, np.bool_)


def _num_images(inputs: Any, targets: Any) -> int:
    for each in (inputs, targets):
        if isinstance(each, Tensor) and each.ndim:
            return len(each)
    return len(targets) if hasattr(targets, "__len__") else 1


def _rows(tensor: Tensor) -> npt.NDArray[Any]:
    """[n, ...] -> [n, values], in a type that numpy knows."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.reshape(len(tensor), -1).numpy())


def _hash(row: npt.NDArray[Any], shape: Iterable[int]) -> bytes:
    return hashlib.blake2b(repr((tuple(shape), row.dtype.str)).encode() + row.tobytes(), digest_size=16).digest()


def _sketch(rows: npt.NDArray[Any]) -> Floats:
    if rows.shape[1] == 0:
        return np.zeros((len(rows), 4))
    with np.errstate(invalid="ignore", over="ignore"):
        exact = rows.astype(np.float64)
        return np.stack([exact.mean(1), exact.std(1), exact.min(1), exact.max(1)], 1)


def _values(rows: npt.NDArray[Any]) -> Floats:
    if np.issubdtype(rows.dtype, np.floating):
        return np.array([rows.min(), rows.max()], np.float64) if rows.size else np.zeros(0)
    return np.unique(rows).astype(np.float64)
