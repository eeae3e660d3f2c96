"""Members that know the same classes in another order, brought to one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from snellen.core.errors import RunError
from snellen.core.plan import Plan
from snellen.tasks.base import Task, create_task
from snellen.tasks.loading import LoadedModel


class Reordered(nn.Module):
    """A network whose raw outputs are put into another order of the classes (``Task.in_order``)."""

    def __init__(self, network: nn.Module, task: Task[Any], order: Sequence[int]) -> None:
        super().__init__()
        self.network, self.order = network, tuple(order)
        self._task = task

    @property
    def backbone(self) -> nn.Module:
        """That of the network: what looks into it asks for it by this name."""
        return self.network.get_submodule("backbone")

    def forward(self, images: Tensor) -> Any:
        return self._task.in_order(self.network(images), self.order)


def aligned(members: Sequence[LoadedModel], question: Plan | None = None) -> tuple[LoadedModel, ...]:
    """All of them with the classes in the order of ``question``; None: of the first.

    Raises RunError when they answer different questions: other tasks or other classes, which are named.
    """
    return tuple(_in_order_of(question or members[0].plan, member) for member in members)


def _in_order_of(question: Plan, member: LoadedModel) -> LoadedModel:
    known, own = question.classes, member.plan.classes
    if member.plan.task != question.task or sorted(own) != sorted(known):
        odd = ", ".join(sorted(set(known) ^ set(own))[:5]) or f"{question.task} and {member.plan.task}"
        raise RunError(
            f"the models of an ensemble must answer one question: their tasks or their classes differ ({odd})"
        )
    if own == known:
        return member
    order = [own.index(name) for name in known]
    decision = [member.task.decision[place] for place in order] if member.task.decision else ()
    mean, std = member.plan.target_mean, member.plan.target_std
    plan = replace(
        member.plan,
        classes=known,
        target_mean=tuple(mean[place] for place in order) if mean else mean,
        target_std=tuple(std[place] for place in order) if std else std,
    )
    task = create_task(plan.task, known, decision).configured(plan)
    return LoadedModel(Reordered(member.network, task, order).eval(), task, plan)
