"""Frozen means frozen: no gradient, and no statistic that moves."""

from __future__ import annotations

from torch import nn

from snellen.nn.stages import parameter_stages


def set_trainable(module: nn.Module, trainable: bool) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(trainable)


def freeze_batch_norms(module: nn.Module) -> None:
    """Gains, biases and (through ``train_mode``) running statistics of every batch norm stay as they are."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            set_trainable(part, False)


def freeze_stages(backbone: nn.Module, count: int) -> None:
    """The parameters of the first ``count`` stages stay as they are, and (through ``train_mode``) their statistics."""
    stages = parameter_stages(backbone)
    for name, parameter in backbone.named_parameters():
        if stages[name] < count:
            parameter.requires_grad_(False)


def train_mode(model: nn.Module) -> None:
    """``model.train()``, except that whatever is wholly frozen stays in evaluation mode.

    A batch norm in training mode updates its running statistics even when its weights are frozen; one Keras user
    lost 16 points of accuracy to that (keras-team/keras#9965).
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
