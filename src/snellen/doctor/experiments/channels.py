"""The numbers in the channels of inputs: how two sides differ in them, and one side given those of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtr
from torch import Tensor

from snellen.core.thresholds import alpha
from snellen.doctor.case import Floats
from snellen.doctor.loaders import Affine

# Ratios of deviations that light and weather do not reach between two sets of photographs of the same things: between
# day and night they differ by about two.
_UNNATURAL_RATIO = 3.0
_MOVED = 0.1  # of a deviation, or of its logarithm
_CONSTANT = 1e-5  # deviation of a channel that says nothing: it is moved, not stretched


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """means, squares: mean and mean square of each channel of each input, [n, c]."""

    means: Floats
    squares: Floats

    @classmethod
    def of(cls, inputs: Tensor) -> Channels:
        """Of inputs [n, c, ...]."""
        flat = inputs.detach().cpu().double().flatten(2)
        return cls(means=flat.mean(2).numpy(), squares=flat.square().mean(2).numpy())

    @property
    def pooled(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation [c] over all inputs."""
        mean = self.means.mean(0)
        return mean, np.sqrt(np.maximum(self.squares.mean(0) - mean**2, 1e-12))


def channels_differ(val: Channels, own: Channels) -> bool:
    """Whether the mean or the mean square of a channel differs between the sides: Welch's test over images."""
    (mean, std), (own_mean, own_std) = val.pooled, own.pooled
    moved = np.maximum(np.abs(mean - own_mean) / own_std, np.abs(np.log(std / own_std)))
    p = np.minimum(_welch(val.means, own.means), _welch(val.squares, own.squares))
    return bool(((p < alpha("inputs-differ", 2 * len(moved))) & (moved > _MOVED)).any())


def _welch(first: Floats, second: Floats) -> Floats:
    """Two-sided p-values of equal means of the columns of [n, c] and [m, c], with the fewer degrees of freedom."""
    error = np.sqrt(first.var(0) / len(first) + second.var(0) / len(second) + 1e-24)
    freedom = max(1, min(len(first), len(second)) - 1)
    return np.asarray(2 * stdtr(freedom, -np.abs(first.mean(0) - second.mean(0)) / error), np.float64)


def beyond_nature(val: Channels, own: Channels) -> bool:
    """Whether deviations differ by more than light explains, or the mean is that of no training image."""
    ratio = val.pooled[1] / own.pooled[1]
    mean = val.pooled[0]
    outside = (mean < own.means.min(0)) | (mean > own.means.max(0))
    return bool((np.maximum(ratio, 1 / ratio) > _UNNATURAL_RATIO).all() or outside.all())


class Prepared:
    """Inputs [n, c, ...] with their channels in reverse, or with the channel statistics of the training side."""

    def __init__(self, val: Channels, own: Channels, *, reverse: bool, match: bool) -> None:
        (mean, std), (own_mean, own_std) = val.pooled, own.pooled
        if reverse:
            mean, std = mean[::-1], std[::-1]
        scale = np.where(np.minimum(std, own_std) > _CONSTANT, own_std / std, 1.0)
        self._reverse = reverse
        self._affine = (
            Affine(scale=torch.tensor(scale), offset=torch.tensor(own_mean - mean * scale)) if match else None
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        turned = inputs.flip(1) if self._reverse else inputs
        return turned if self._affine is None else self._affine(turned)


def cause_of_difference(theirs: Channels, ours: Channels) -> str:
    """In words: what makes inputs of validation (``theirs``) differ from those of training."""
    if beyond_nature(theirs, ours):
        return "no light does that to images: they are prepared otherwise"
    return "they are either prepared otherwise or taken in another light"
