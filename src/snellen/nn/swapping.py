"""Layers of a finished network, replaced where they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import nn


class SwappedIn(nn.Module):
    """Base of what stands where another layer was, for which files of weights were made.

    gone   tensors that such a file has for the layer, and that are of no use any more
    new    tensors that such a file lacks
    """

    gone: ClassVar[frozenset[str]] = frozenset()
    new: ClassVar[frozenset[str]] = frozenset()


def swap(network: nn.Module, wanted: Callable[[nn.Module], bool], make: Callable[[nn.Module], nn.Module]) -> int:
    """Replace every ``wanted`` layer below ``network`` by what ``make`` makes of it; returns how many there were."""
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if wanted(child)
    ]
    made = {layer: make(layer) for _, _, layer in places}  # one that stands in two places stays one
    for parent, name, child in places:
        setattr(parent, name, made[child])
    return len(made)
