"""What can be wrong with a network and with who holds its weights."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from networks import cnn
from plans import Plan
from torch import Tensor, nn
from torch.optim import Optimizer


class Altered(nn.Module):
    """A part whose outputs are altered by a function of (outputs, whether it trains)."""

    def __init__(self, part: nn.Module, alter: Any) -> None:
        super().__init__()
        self.part, self.alter = part, alter

    def forward(self, inputs: Tensor) -> Tensor:
        return self.alter(self.part(inputs), self.training)


def _features(plan: Plan, alter: Any) -> Plan:
    """The outputs of the body altered."""

    def edit(model: Any) -> None:
        model.features = Altered(model.features, alter)

    return replace(plan, edit_model=edit)


def cut(plan: Plan, after: int) -> Plan:
    """The graph is cut after a stage of the body, as ``.detach()`` or ``no_grad`` does."""

    def edit(model: Any) -> None:
        model.features[after] = Altered(model.features[after], lambda outputs, training: outputs.detach())

    return replace(plan, edit_model=edit)


def leave_out(plan: Plan, what: str) -> Plan:
    """The optimizer was made before a part was replaced: it holds the old weights, or none."""

    def edit(model: nn.Module, optimizer: Optimizer) -> Optimizer:
        left = {id(each) for name, each in model.named_parameters() if what == "all" or what in name}
        for group in optimizer.param_groups:
            group["params"] = [
                nn.Parameter(each.detach().clone()) if what == "all" else each
                for each in group["params"]
                if what == "all" or id(each) not in left
            ]
        return optimizer

    return replace(plan, edit_optimizer=edit)


def end_with(plan: Plan, how: str) -> Plan:
    ends: dict[str, Any] = {
        "softmax": lambda outputs: outputs.softmax(1),
        "sigmoid": lambda outputs: outputs.sigmoid(),
        "twice": lambda outputs: outputs.softmax(1).softmax(1),
    }

    def edit(model: Any) -> None:
        model.head = Altered(model.head, lambda outputs, training: ends[how](outputs))

    return replace(plan, edit_model=edit)


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [part.weight for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]


def constant(plan: Plan, value: float) -> Plan:
    def edit(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.constant_(parameter, value if parameter.dim() > 1 else 0.0)

    return replace(plan, edit_model=edit)


def spread(plan: Plan, deviation: float) -> Plan:
    def edit(model: nn.Module) -> None:
        for weight in _weights(model):
            nn.init.normal_(weight, std=deviation)

    return replace(plan, edit_model=edit)


def bias(plan: Plan, value: float) -> Plan:
    """Every norm begins with an offset: below about -3 hardly any unit ever answers."""

    def edit(model: nn.Module) -> None:
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.constant_(part.bias, value)

    return replace(plan, edit_model=edit)


def momentum(plan: Plan, value: float) -> Plan:
    def edit(model: nn.Module) -> None:
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = value

    return replace(plan, edit_model=edit)


def frozen_but_moving(plan: Plan, value: float) -> Plan:
    """The body is frozen by ``requires_grad`` alone: its norms go on following the batches."""
    return replace(momentum(plan, value), frozen=True, body_rate=None)


def always_drop(plan: Plan, share: float) -> Plan:
    """``functional.dropout`` without its ``training`` argument."""
    return _features(plan, lambda outputs, training: nn.functional.dropout(outputs, share))


def deep_sigmoid(plan: Plan, depth: int) -> Plan:
    images, outputs = plan.data.train.images, len(plan.world.classes)

    def edit(model: nn.Module) -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(images[0].size, 48), nn.Sigmoid()]
        for _ in range(depth - 1):
            layers += [nn.Linear(48, 48), nn.Sigmoid()]
        parts = OrderedDict(flat=nn.Flatten(), features=nn.Sequential(*layers), head=nn.Linear(48, outputs))
        return nn.Sequential(parts)

    return replace(plan, edit_model=edit)


def narrow(plan: Plan, width: int) -> Plan:
    """A network whose first layer has one to three channels and whose body ends in one."""
    images, outputs = plan.data.train.images, len(plan.world.classes)

    def edit(model: nn.Module) -> nn.Module:
        small: Any = cnn(images.shape[1], outputs, images.shape[-1], width=width)
        small.pool, small.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4 * width, outputs)
        return small

    return replace(plan, edit_model=edit)


def mix(plan: Plan, strength: float) -> Plan:
    """A sample's features get a part of its neighbour's in the batch, as a wrong ``view`` does it."""
    return _features(plan, lambda outputs, training: outputs + strength * outputs.roll(1, 0))


def pool_first(plan: Plan, factor: int) -> Plan:
    """The images are shrunk before the first layer looks at them."""
    kept = min(factor, plan.data.train.images.shape[-1] // 2)

    def edit(model: nn.Module) -> nn.Module:
        shrink = nn.Sequential(nn.AvgPool2d(kept), nn.Upsample(scale_factor=kept))
        return nn.Sequential(OrderedDict(shrink=shrink, **dict(model.named_children())))

    return replace(plan, edit_model=edit)


def sharpen(plan: Plan, factor: float) -> Plan:
    """In evaluation the outputs are multiplied, as a temperature of training that is left out does it."""

    def edit(model: Any) -> None:
        model.head = Altered(model.head, lambda outputs, training: outputs if training else factor * outputs)

    return replace(plan, edit_model=edit)


def one_bit(plan: Plan, share: float) -> Plan:
    """A share of the body's channels is rounded to 0 or 1; the gradient passes as if it were not."""

    def rounded(outputs: Tensor, training: bool) -> Tensor:
        number = round(share * outputs.shape[1])
        hard = (outputs > outputs.mean(tuple(range(1, outputs.dim())), keepdim=True)).to(outputs.dtype)
        kept = torch.arange(outputs.shape[1]) >= number
        return torch.where(kept.view(1, -1, *[1] * (outputs.dim() - 2)), outputs, outputs + (hard - outputs).detach())

    return _features(plan, rounded)
