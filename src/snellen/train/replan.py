"""A plan as it would be with other settings, for whoever tries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snellen.core.plan import Plan
from snellen.train.build import facts_of
from snellen.train.imbalance import settle_imbalance
from snellen.train.resolve import ModelChoice, resolve
from snellen.train.session import Session

_ENTRIES = {"augment": "augmentation"}  # of a plan, where they are not called as the setting is


def replanned(session: Session, plan: Plan, settings: Mapping[str, Any]) -> Plan:
    """``plan`` with these ``settings`` of Config ("auto": what Snellen chooses for the images); all else as it is.

    Settings of the network, of its input and of the data are none of them. Raises ConfigError where they contradict
    the others.
    """
    asked = session.config.model_copy(update=dict(settings))
    choice = ModelChoice(
        model=plan.model, pretrained=plan.pretrained, preprocessing=plan.preprocessing, reasons=plan.reasons
    )
    chosen = resolve(asked, choice, facts_of(asked, session.survey, session.task))
    entries = [_ENTRIES.get(name, name) for name in settings if name != "imbalance"]
    plan = replace(plan, **{entry: getattr(chosen, entry) for entry in entries})
    if "imbalance" in settings:
        train = session.sides["train"]
        plan, _ = settle_imbalance(asked, plan, session.task, None, train.records, train.targets)
    return plan
