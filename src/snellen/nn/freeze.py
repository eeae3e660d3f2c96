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
    for part in _frozen(model)[1]:
        part.eval()


def _frozen(module: nn.Module) -> tuple[set[bool], list[nn.Module]]:
    """What its parameters say to whether they learn; and the largest parts, or itself, in which all say no.

    Each parameter is asked once, as this comes before every step: to ask all that are in a module, for every module,
    takes an eighth of the step of a small detector.
    """
    said = {parameter.requires_grad for parameter in module.parameters(recurse=False)}
    parts: list[nn.Module] = []
    for child in module.children():
        told, frozen = _frozen(child)
        said |= told
        parts += frozen
    return said, [module] if said == {False} else parts
