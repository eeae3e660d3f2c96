"""Parameters into groups, and the optimizer over them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from snellen.core.plan import Plan


def build_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019) with the head and the body at their own rates.

    Biases and the gains of normalisation layers (one-dimensional parameters) are not decayed.
    Each group keeps its ``peak_lr``; the loop sets ``lr`` from the schedule.
    """
    named = dict(model.named_parameters())
    groups = []
    for peak, is_head in ((plan.lr, True), (plan.body_lr, False)):
        chosen = [parameter for name, parameter in named.items() if name.startswith("head.") == is_head]
        for decay, matrices in ((plan.weight_decay, True), (0.0, False)):
            parameters = [parameter for parameter in chosen if (parameter.dim() > 1) == matrices]
            if parameters:
                groups.append({"params": parameters, "lr": peak, "peak_lr": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


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
