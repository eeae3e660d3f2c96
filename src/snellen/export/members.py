"""What is exported: one network, or several that answer as one, each with an input of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.ensemble.together import Ensemble
from snellen.predict.answering import Answering, NetworkAnswering
from snellen.tasks.base import shares_of
from snellen.tasks.loading import LoadedModel
from snellen.tasks.objects.task import ObjectTask

if TYPE_CHECKING:
    from torch import Tensor

    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

Model = LoadedModel | Ensemble

_WAYS = ("mean", "weighted")  # whose answers are one mean; votes and ranks jump, so that no golden can hold them


def members_of(model: Model) -> Sequence[LoadedModel]:
    return model.members if isinstance(model, Ensemble) else (model,)


def plan_of(model: Model) -> Plan:
    """``Manifest.plan``."""
    if not isinstance(model, Ensemble):
        return model.plan
    return replace(model.members[0].plan, preprocessing=model.preprocessing)


def graph_answers(
    model: Model, outputs: Sequence[Any], placed: Sequence[Placed], suppress: Suppress
) -> dict[str, Tensor]:
    """What the raw outputs of the members say of a batch: in a graph what ``Ensemble.settle`` is without.

    placed  how images became the input of each member
    """
    if not isinstance(model, Ensemble):
        return model.task.graph_answers(outputs[0], placed[0], suppress)
    if isinstance(model.task, ObjectTask):  # each member finds objects by its own rules
        every = zip(model.members, outputs, placed, strict=True)
        found = [member.task.graph_answers(each, where, suppress) for member, each, where in every]
        return model.task.graph_fused(found, outputs[0].shape[0], model.weights)
    return model.task.graph_answers_together(outputs, placed, suppress, model.weights)


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
    if isinstance(model.task, ObjectTask) and not model.task.fused_in_graphs:
        raise ConfigError(
            f"an ensemble for {model.task.name} votes about the pixels of each object, which no graph does: export a "
            "member, or a soup of them (snellen ensemble --way soup)"
        )
