"""What is exported: one network, or several that answer as one, each with an input of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.ensemble.together import Ensemble
from snellen.predict.answering import Answering, NetworkAnswering
from snellen.tasks.base import shares_of
from snellen.tasks.loading import LoadedModel

Model = LoadedModel | Ensemble

_WAYS = ("mean", "weighted")  # whose answers are one mean; votes and ranks jump, so that no golden can hold them


def members_of(model: Model) -> Sequence[LoadedModel]:
    return model.members if isinstance(model, Ensemble) else (model,)


def weights_of(model: Model) -> Sequence[float]:
    """What each member counts; empty: all alike."""
    return model.weights if isinstance(model, Ensemble) else ()


def plan_of(model: Model) -> Plan:
    """``Manifest.plan``."""
    if not isinstance(model, Ensemble):
        return model.plan
    return replace(model.members[0].plan, preprocessing=model.preprocessing)


def answering_of(model: Model) -> Answering:
    return model if isinstance(model, Ensemble) else NetworkAnswering(model)


def told_members(model: Model) -> tuple[dict[str, Any], ...]:
    """``Manifest.members``."""
    if not isinstance(model, Ensemble):
        return ()
    shares = shares_of(model.weights, len(model.members))
    return tuple(_told(member.plan, share) for member, share in zip(model.members, shares, strict=True))


def _told(plan: Plan, share: float) -> dict[str, Any]:
    return {
        "model": f"{plan.architecture} on {plan.model}" if plan.architecture else plan.model,
        "input_size": list(plan.preprocessing.input_size),
        "fit": plan.preprocessing.fit,
        "weight": share,
        "weights_source": plan.weights_source,
        "weights_license": plan.weights_license,
    }


def in_single_precision(model: Model) -> Model:
    """Whatever it was trained in."""
    members = [replace(each, plan=replace(each.plan, precision="fp32")) for each in members_of(model)]
    return Ensemble(members, model.way, model.weights) if isinstance(model, Ensemble) else members[0]


def check_members(model: Model) -> None:
    """Raises ConfigError for several networks that no one graph answers for."""
    if not isinstance(model, Ensemble):
        return
    if model.way not in _WAYS:
        raise ConfigError(
            f"an ensemble by way = {model.way} counts what its members decide, which no graph is verified to do: make "
            "one by way = mean or weighted, or a soup"
        )
    if model.task.dense and model.task.name != "segmentation":
        raise ConfigError(
            f"an ensemble for {model.task.name} fuses objects one after the other, which no graph does: export a "
            "member, or a soup of them (snellen ensemble --way soup)"
        )
