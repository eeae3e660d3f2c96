"""Weights as a network should begin with."""

from __future__ import annotations

from torch import nn


def draw_again(model: nn.Module) -> None:
    """He et al., Delving deep into rectifiers, 2015 (arXiv:1502.01852), for convolutions and linear layers; the rest as
    torch makes it. The last linear layer, which gives the answers, has a tenth of that."""
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    if layers:
        layers[-1].weight.data.mul_(0.1)
