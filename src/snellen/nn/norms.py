"""Normalisation layers in place of batch norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from snellen.nn.swapping import SwappedIn, swap

_GROUPS = 32  # Wu & He 2018
_RUNNING = frozenset({"running_mean", "running_var", "num_batches_tracked"})

BatchNorm = nn.modules.batchnorm._BatchNorm


class SwappedNorm(SwappedIn):
    """A group norm over [n, c, ...], with the gains and biases of the batch norm that it stands for.

    One group makes it a layer norm over channels and places, as many groups as channels an instance norm. ``drop`` and
    ``act`` are what some norms of timm have inside; in the place of others they do nothing.
    """

    gone = _RUNNING

    def __init__(self, replaced: BatchNorm, num_groups: int) -> None:
        super().__init__()
        self.num_groups, self.num_channels, self.eps = num_groups, replaced.num_features, replaced.eps
        self.weight, self.bias = replaced.weight, replaced.bias
        self.drop, self.act = _inside(replaced)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)))
        return y

    def extra_repr(self) -> str:
        return f"{self.num_channels} channels in {self.num_groups} groups, eps={self.eps}"


class RemovedNorm(SwappedIn):
    """Nothing where a batch norm was, but for what a norm of timm has inside."""

    gone = _RUNNING

    def __init__(self, replaced: BatchNorm) -> None:
        super().__init__()
        self.drop, self.act = _inside(replaced)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(x))
        return y


def _inside(norm: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Dropout and activation of timm's BatchNormAct2d."""
    return getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())


def num_groups(channels: int) -> int:
    """32, or the largest number below that divides ``channels``."""
    return max(groups for groups in range(1, _GROUPS + 1) if channels % groups == 0)


NORMS: Mapping[str, Callable[[BatchNorm], nn.Module]] = {
    "batch": lambda norm: norm,  # Ioffe & Szegedy 2015, arXiv:1502.03167
    "layer": lambda norm: SwappedNorm(norm, 1),  # Ba et al. 2016, arXiv:1607.06450
    "group": lambda norm: SwappedNorm(norm, num_groups(norm.num_features)),  # Wu & He 2018, arXiv:1803.08494
    "instance": lambda norm: SwappedNorm(norm, norm.num_features),  # Ulyanov et al. 2016, arXiv:1607.08022
    "none": RemovedNorm,
}


def replace_norms(network: nn.Module, kind: str) -> int:
    """Put the norm of that kind in place of each batch norm, with its gains and biases; returns how many there were.

    An instance norm of a map of one pixel is constant: nothing is learnt through it.
    """

    def make(norm: nn.Module) -> nn.Module:
        assert isinstance(norm, BatchNorm)
        return NORMS[kind](norm)

    return swap(network, lambda layer: isinstance(layer, BatchNorm), make)
