"""The rule of the step: parameters in groups, the optimizer over them, penalties, and Lookahead around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.plan import Plan
from snellen.nn.stages import parameter_stages

LOOKAHEAD_STEPS, LOOKAHEAD_SHARE = 5, 0.5  # k and alpha of the paper

# Squares over the last hundred steps, not the last thousand: our runs are short, and RAdam would not get going in them.
_BETAS: dict[str, Any] = {"betas": (0.9, 0.99)}
_DECOUPLED: dict[str, Any] = {"decoupled_weight_decay": True}


def _nothing(plan: Plan) -> dict[str, Any]:
    return {}


def _momentum(plan: Plan) -> dict[str, Any]:
    return {"momentum": plan.momentum}


@dataclass(frozen=True, slots=True)
class _Rule:
    """torch's class and its arguments; ``decouples``: it decays weights beside the gradient, as AdamW does."""

    kind: Callable[..., torch.optim.Optimizer]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    planned: Callable[[Plan], dict[str, Any]] = _nothing
    decouples: bool = False


OPTIMIZERS: dict[str, _Rule] = {
    "sgd": _Rule(torch.optim.SGD),
    "momentum": _Rule(torch.optim.SGD, planned=_momentum),
    "nesterov": _Rule(torch.optim.SGD, {"nesterov": True}, _momentum),
    "adagrad": _Rule(torch.optim.Adagrad),
    "adadelta": _Rule(torch.optim.Adadelta),
    "rmsprop": _Rule(torch.optim.RMSprop),
    "adam": _Rule(torch.optim.Adam, _BETAS | _DECOUPLED, decouples=True),
    "adamw": _Rule(torch.optim.AdamW, _BETAS, decouples=True),
    "radam": _Rule(torch.optim.RAdam, _BETAS | _DECOUPLED, decouples=True),
    "nadam": _Rule(torch.optim.NAdam, _BETAS | _DECOUPLED, decouples=True),
}


def build_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The optimizer that ``plan`` names, with the head and each stage of the body at its own rate.

    A stage learns at body_lr * layer_decay ** (how far it is from the last stage). Weight decay is decoupled for every
    optimizer (Loshchilov & Hutter, 2019, arXiv:1711.05101): weights shrink by 1 - lr * weight_decay before each step,
    whatever their gradients; the penalties ``l1`` and ``l2`` go through the gradient instead. Biases and the gains of
    normalisation layers (one-dimensional parameters) do not shrink.

    Each group keeps its ``peak_lr`` and ``peak_momentum``; the loop sets the current ones from the schedule.
    """
    rule = OPTIMIZERS[plan.optimizer]
    groups = []
    for (_, peak), chosen in _by_rate(model, plan).items():
        for decay, matrices in ((plan.weight_decay, True), (0.0, False)):
            parameters = [parameter for parameter in chosen if (parameter.dim() > 1) == matrices]
            own, ours = (decay, 0.0) if rule.decouples else (0.0, decay)
            if parameters:
                rates = {"lr": peak, "peak_lr": peak, "weight_decay": own, "decoupled_decay": ours}
                groups.append({"params": parameters, **rates})
    optimizer = rule.kind(groups, **rule.fixed, **rule.planned(plan))
    for group in optimizer.param_groups:
        group["peak_momentum"] = group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
    if not rule.decouples:
        optimizer.register_step_pre_hook(_shrink)
    return optimizer


def _by_rate(model: nn.Module, plan: Plan) -> dict[tuple[str, float], list[nn.Parameter]]:
    """Parameters by ('head' or 'body', peak rate), the head first."""
    stages = parameter_stages(model.get_submodule("backbone"))
    last = max(stages.values(), default=0)
    found: dict[tuple[str, float], list[nn.Parameter]] = {("head", plan.lr): []}
    for name, parameter in model.named_parameters():
        stage = stages.get(name.removeprefix("backbone."), last)
        body = ("body", plan.body_lr * plan.layer_decay ** (last - stage))
        found.setdefault(("head", plan.lr) if name.startswith("head.") else body, []).append(parameter)
    return found


@torch.no_grad()
def _shrink(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
    """Decoupled decay for the optimizers that have none of their own."""
    for group in optimizer.param_groups:
        learning = [parameter for parameter in group["params"] if parameter.grad is not None]
        if learning and group["decoupled_decay"]:
            torch._foreach_mul_(learning, 1 - group["lr"] * group["decoupled_decay"])


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def set_momentum(optimizer: torch.optim.Optimizer, at: Callable[[float], float]) -> None:
    """Momentum, or the first of Adam's betas, of every group that has one: ``at`` its usual value."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (at(group["peak_momentum"]), *group["betas"][1:])
        elif group["peak_momentum"]:
            group["momentum"] = at(group["peak_momentum"])


# --- penalties

_PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda weights: weights.abs().sum(),
    "l2": lambda weights: weights.square().sum(),
}


def penalties(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """The penalties that the plan asks for, by name, scalars: lambda * sum |w| and lambda * sum w ** 2.

    Over the weights that learn and that decay applies to as well: those with more than one dimension.
    """
    asked = {name: getattr(plan, name) for name in _PENALTIES if getattr(plan, name)}
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.dim() > 1]
    if not asked or not weights:
        return {}
    return {
        f"{name}_penalty": strength * torch.stack([_PENALTIES[name](each.float()) for each in weights]).sum()
        for name, strength in asked.items()
    }


# --- Lookahead


class Lookahead:
    """Slow weights that the optimizer's fast ones are pulled back to: Zhang et al., 2019 (arXiv:1907.08610).

    Every five steps slow += 0.5 * (fast - slow), and the fast ones start again from there. Not timm's, which keeps the
    count of its steps where a saved state does not hold it, takes the weights after the first five steps, not the
    first weights, for slow ones, and costs an import of many seconds.
    """

    def __init__(self, model: nn.Module) -> None:
        self.slow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def pull(self, model: nn.Module) -> None:
        """Of weights that do not learn the slow ones are the same, and stay so."""
        fast: list[Tensor] = list(model.parameters())
        slow = list(self.slow.values())
        torch._foreach_lerp_(slow, fast, LOOKAHEAD_SHARE)
        torch._foreach_copy_(fast, slow)

    def load(self, slow: Mapping[str, Tensor]) -> None:
        for name, tensor in self.slow.items():
            tensor.copy_(slow[name])


# --- state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as flat named tensors, for safetensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, slots in state.items() for name, value in slots.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Iterable[tuple[str, Tensor]]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
