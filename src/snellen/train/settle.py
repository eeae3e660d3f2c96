"""What the evidence decides: choices of the plan that only measurements on these images can make, each with its reason.

After the probe: rare classes, the case of transfer. Just before training: the arithmetic of a step, the learning rate.
After training: confidence and thresholds. Each writes plan.json anew, so that a resumed run finds everything settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from snellen.core.checkpoint import Checkpoint
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.evaluate import assess
from snellen.tasks.base import create_task
from snellen.train.build import build_network, training_seconds
from snellen.train.decision import settle_decision
from snellen.train.imbalance import NEARLY_BALANCED_TOLD, settle_imbalance
from snellen.train.label_safety import heed, label_dangers
from snellen.train.loop import Trainer
from snellen.train.probe import Probe, refit
from snellen.train.rate_finder import settle_rate
from snellen.train.rate_sweep import SWEEP_FILE
from snellen.train.session import Session
from snellen.train.transfer import settle_transfer, svm_probe

_PROBE_LEARNS_FROM = ("class_weights", "sampling", "smote")  # entries of the plan


class Settled(NamedTuple):
    """model: the linear model as the plan wants it now, an SVM perhaps. baseline: the probe that results name."""

    model: Probe | None
    baseline: Probe | None


def begin_again(session: Session) -> None:
    """A run that was stopped before its training began has an SVM's network perhaps; the probe needs the whole one."""
    if session.plan.feature_stage >= 0:
        session.plan = replace(session.plan, feature_stage=-1)
        session.model, _ = build_network(session.plan, session.task)


def settle_plan(session: Session, probe: Probe | None) -> Settled:
    """The probe's evidence decides."""
    before, train = session.plan, session.sides["train"]
    features = None if probe is None else probe.features["train"]
    plan, sentence = settle_imbalance(session.config, before, session.task, features, train.records, train.targets)
    if sentence and not sentence.startswith(NEARLY_BALANCED_TOLD):
        session.console.say(sentence[:1].upper() + sentence[1:])
    model = probe
    if probe is not None:
        if any(getattr(plan, name) != getattr(before, name) for name in _PROBE_LEARNS_FROM):
            probe = refit(probe, session.task, session.sides, plan)
        plan, sentences = settle_transfer(session.config, plan, session.task, session.model, session.sides, probe)
        for sentence in sentences:
            session.console.say(sentence)
        model = probe
        if plan.transfer == "svm":
            model = svm_probe(session.task, session.sides, probe, plan)
            session.model, _ = build_network(plan, session.task)
    adopt(session, _label_preserving(session, plan))
    return Settled(model, probe)


def _label_preserving(session: Session, plan: Plan) -> Plan:
    """``plan`` without the augmentation that would make images of one class look like another."""
    kinds = _kinds(session.sides["train"].records, plan.classes)
    if kinds is None or session.task.dense:
        return plan
    numbers, names = kinds
    dangers = label_dangers(session.model, session.sides["train"], numbers, names, plan)
    plan, sentences = heed(plan, dangers, session.config.augment)
    for sentence in sentences:
        session.console.say(f"Augmentation: {sentence}")
    return plan


def _kinds(records: Sequence[Record], classes: Sequence[str]) -> tuple[np.ndarray, Sequence[str]] | None:
    """The class of each image, int [n], and the names; of numbers, the fifth that the first of them falls into."""
    values = np.array([record.values[0] for record in records if record.values is not None])
    if len(values) == len(records):
        edges = np.quantile(values, (0.2, 0.4, 0.6, 0.8))
        return np.searchsorted(edges, values), [f"fifth {i}" for i in range(1, 6)]
    if all(len(record.labels) == 1 for record in records):
        return np.array([classes.index(record.labels[0]) for record in records]), classes
    return None


def adopt(session: Session, plan: Plan) -> None:
    """``plan`` is the session's from now on, and the run folder's."""
    session.plan = plan
    session.run.write_json("plan.json", plan.to_json())


def settle_arithmetic(session: Session) -> None:
    """fp32 or bf16 for the training step, whichever is faster here."""
    seconds = training_seconds(session.config, session.model, session.plan, session.sides["train"])
    if not seconds:
        return adopt(session, session.plan)
    precision = min(seconds, key=lambda name: seconds[name])
    ratio = max(seconds.values()) / seconds[precision]
    told = f"measured here: {ratio:.2f} times as fast as the other"
    adopt(
        session,
        replace(session.plan, train_precision=precision, reasons={**session.plan.reasons, "train_precision": told}),
    )


def sweep_rates(session: Session, trainer: Trainer) -> None:
    """The learning-rate range test that was asked for; the session's plan then has the rates that came of it."""
    with session.console.progress("Learning rates", 1):
        plan, sweep = settle_rate(trainer)
    if session.config.body_lr != "auto":
        plan = replace(plan, body_lr=session.plan.body_lr)
    session.run.write_json(SWEEP_FILE, sweep.to_json())
    session.console.say(f"Learning rate {plan.lr:.2g}: {plan.reasons['lr']}")
    adopt(session, plan)


def settle_best(session: Session) -> None:
    """Calibrate the best checkpoint and move its thresholds, on validation, as far as the plan asks for it."""
    plan = session.plan
    decides = plan.calibrate == "temperature" or plan.move_thresholds or session.task.dense
    if "val" not in session.sides or not decides:
        return
    best = Checkpoint.load(session.run.best_checkpoint)
    with torch.no_grad():
        session.model.load_state_dict(dict(best.weights))
    seen = assess(session.model, session.task, session.sides["val"], plan)
    fitted = session.task.fit_decision(seen.predicted, seen.truth)
    if fitted is not None:
        settled, sentences = replace(best, decision=fitted[0]), [fitted[1]]
    else:
        settled, sentences = settle_decision(
            plan, session.task, best, seen.predicted, seen.truth, groups=session.groups("val")
        )
    for sentence in sentences:
        session.console.say(sentence)
    settled.save(session.run.best_checkpoint)
    session.task = create_task(plan.task, plan.classes, settled.decision).configured(plan)
