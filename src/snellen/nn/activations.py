"""Activations by name, for new networks and swapped into finished ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from snellen.nn.swapping import SwappedIn, swap


class LearntSlope(nn.PReLU, SwappedIn):
    """Leaky ReLU whose slope is learnt (He et al. 2015, arXiv:1502.01852); one for all channels, 0.25 at the start."""

    new = frozenset({"weight"})


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "prelu": LearntSlope,
    "elu": nn.ELU,  # Clevert et al. 2015, arXiv:1511.07289
    "selu": nn.SELU,  # Klambauer et al. 2017, arXiv:1706.02515
    "silu": nn.SiLU,  # Elfwing et al. 2017, arXiv:1702.03118
    "swish": nn.SiLU,  # Ramachandran et al. 2017, arXiv:1710.05941, found the same again
    "hardswish": nn.Hardswish,  # Howard et al. 2019, arXiv:1905.02244
    "none": nn.Identity,
}

# Classes of torch and timm, which writes some of its own. Sigmoid, Hardsigmoid and Softmax are left out: in published
# networks they are gates and attention, not activations.
_SWAPPED = frozenset(
    "ReLU ReLU6 LeakyReLU PReLU LearntSlope RReLU ELU CELU SELU SiLU Swish GELU GELUTanh QuickGELU Mish HardMish "
    "Hardswish HardSwish Softplus Tanh".split()
)


def replace_activations(network: nn.Module, name: str) -> int:
    """Put the activation of that name in place of each one that is a module; returns how many there were.

    A network that calls functions instead keeps them.
    """
    return swap(network, lambda layer: type(layer).__name__ in _SWAPPED, lambda layer: ACTIVATIONS[name]())
