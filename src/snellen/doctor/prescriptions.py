"""A treatment as settings of the next training with Snellen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snellen.core.finding import Finding
from snellen.core.plan import Plan

Settings = dict[str, Any]

# What Snellen chooses by itself where nothing is asked for, and what a training can be spoilt by.
USUAL = (
    "optimizer",
    "schedule",
    "lr",
    "body_lr",
    "weight_decay",
    "dropout",
    "clip_norm",
    "warmup_steps",
    "layer_decay",
    "augment",
)


def _rates(factor: float) -> Callable[[Plan], Settings]:
    return lambda plan: {"lr": min(10.0, plan.lr * factor), "body_lr": min(10.0, plan.body_lr * factor)}


_OF_CHANGES: dict[str, Callable[[Plan], Settings]] = {
    "rate/100": _rates(0.01),
    "rate/10": _rates(0.1),
    "rate/3": _rates(1 / 3),
    "rate*3": _rates(3),
    "rate*10": _rates(10),
    "rate*100": _rates(100),
    "rate*1000": _rates(1000),
    "no decay": lambda plan: {"weight_decay": 0.0},
    "no dropout": lambda plan: {"dropout": 0.0},
    "batch/4": lambda plan: {"batch_size": max(1, plan.batch_size // 4)},
    "batch/16": lambda plan: {"batch_size": max(1, plan.batch_size // 16)},
    "adjusted logits": lambda plan: {"imbalance": "weights"},
    "balanced classes": lambda plan: {"imbalance": "oversample"},
    "plain images": lambda plan: {"augment": "none", "mixup": 0.0, "cutmix": 0.0},
    "batch*8": lambda plan: {"batch_size": 8 * plan.batch_size},
    "twice as long": lambda plan: {"epochs": 2 * plan.epochs, "patience": max(1, 2 * plan.patience)},
    "body rate/10": lambda plan: {"body_lr": plan.body_lr / 10},
    "house step": lambda plan: {"clip_norm": "auto"},
    "full schedule": lambda plan: {"schedule": "auto", "warmup_steps": "auto"},
    "house loss": lambda plan: {"loss": "auto"},
    "load weights": lambda plan: {"pretrained": True},
    "frozen norms": lambda plan: {"freeze_norm": True},
    "usual training": lambda plan: dict.fromkeys(USUAL, "auto"),
}


def settings_of(change: str, plan: Plan) -> Settings | None:
    """The settings that make a change (``changes.CHANGES``) to a run with ``plan``; None where none do."""
    prescribe = _OF_CHANGES.get(change)
    return None if prescribe is None else prescribe(plan)


def settings_for(finding: Finding, plan: Plan) -> Settings | None:
    """The settings that treat ``finding`` in a run with ``plan``; None where settings cannot."""
    settings = finding.treatment.get("settings")
    if isinstance(settings, Mapping):
        return dict(settings)
    return settings_of(str(finding.treatment.get("change", "")), plan)
