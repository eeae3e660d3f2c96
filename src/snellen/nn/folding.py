"""Networks as they are run where nothing is learnt: features, validation, evaluation and prediction all ask here.

One place for all of them, so that a number that was told once is the number that is found again.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from snellen.nn.efficientnet_lite import EfficientNetLite0


def for_inference(network: nn.Module) -> nn.Module:
    """The same function in evaluation mode, faster where a backbone knows how. ``network`` stays as it is.

    Of a network that knows no faster way, it is ``network`` itself, put into evaluation mode.
    """
    if isinstance(network, EfficientNetLite0):
        return network.folded()
    if not any(isinstance(module, EfficientNetLite0) for module in network.modules()):
        return network.eval()
    return _folded(network, EfficientNetLite0)


def for_a_graph(network: nn.Module) -> nn.Module:
    """The same function for a graph, whose tools fold the norm of every plain convolution by themselves, and not those
    of convolutions that several norms share."""
    from snellen.nn.detection.dense import SharedConv

    return _folded(for_inference(network), SharedConv)


def _folded(network: nn.Module, kind: type[Any]) -> nn.Module:
    """A twin in evaluation mode in which every part of a kind is folded."""
    twin = copy.deepcopy(network).eval()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, child.folded())
    return twin
