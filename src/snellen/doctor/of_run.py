"""A run of Snellen's own as a case: from its folder alone, or with its images and its network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from snellen.core.checkpoint import Checkpoint
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.data.image_sets import ImageSet
from snellen.doctor.case import Answers, Batch, Case, Floats, History, Training
from snellen.doctor.run_batches import Epochs, InOrder, as_batch, asks_for_one_class
from snellen.doctor.run_judge import RunJudge
from snellen.doctor.shortening import fewer, share_of, shortened
from snellen.evaluate import assess
from snellen.tasks.base import create_task
from snellen.train.build import build_network
from snellen.train.loop import Trainer
from snellen.train.probe import run_probe
from snellen.train.session import Session

# --- from the folder alone


def case_of_folder(run: RunFolder) -> Case:
    """What it wrote down, and what its model said of validation and test images. Raises RunError."""
    plan = run.plan
    return Case(history=history_of(run), answers=answers_of_folder(run, plan), classes=plan.classes, seed=plan.seed)


def history_of(run: RunFolder) -> History:
    """The events of metrics.jsonl as series."""
    steps = [event for event in run.events() if event["event"] == "step"]
    epochs = [event for event in run.events() if event["event"] == "epoch"]
    headline = run.read_json("results.json", missing={}).get("headline", "")
    best = [number for number, event in enumerate(epochs, 1) if event.get("best")]
    return History(
        steps=_series(steps, "step"),
        step_losses=_series(steps, "train/step_loss"),
        gradient_norms=_series(steps, "train/gradient_norm"),
        rates=_series(steps, "lr"),
        epochs=np.arange(1, len(epochs) + 1, dtype=float),
        train_losses=_series(epochs, "train/loss"),
        val_losses=_series(epochs, "val/loss"),
        val_scores=_series(epochs, f"val/{headline}"),
        best_epoch=best[-1] if best else 0,
    )


def _series(events: Sequence[Mapping[str, Any]], name: str) -> Floats:
    values: Floats = np.array([event.get(name, math.nan) for event in events], dtype=float)
    return values if np.isfinite(values).any() else np.zeros(0)


def answers_of_folder(run: RunFolder, plan: Plan) -> dict[str, Answers]:
    """Of validation and test, where each image has one class; empty elsewhere."""
    found = {}
    groups = {row["id"]: row.get("group") for row in run.read_json("data.json")["manifest"]["rows"]}
    for side in ("val", "test"):
        path = run.predictions / f"{side}.safetensors"
        if path.is_file():
            ids = run.read_json(f"predictions/{side}.json")
            answers = _answers(load_file(path), ids, groups)
            if answers is not None:
                found[side] = answers
    return found


def _answers(arrays: Mapping[str, np.ndarray], ids: Sequence[str], groups: Mapping[str, str | None]) -> Answers | None:
    scores, truth = arrays.get("scores"), arrays.get("truth")
    if scores is None or truth is None or scores.ndim != 2 or truth.ndim != 1:
        return None
    named = [groups.get(image_id) for image_id in ids]
    return Answers(
        probabilities=scores.astype(np.float64),
        truth=truth.astype(np.int64),
        ids=tuple(ids),
        groups=[group or image_id for group, image_id in zip(named, ids, strict=True)] if any(named) else (),
    )


# --- with its images and its network


def case_of_session(session: Session, console: Console) -> Case:
    """The same with the training itself, what its model says of the training images, and what is known of each image.

    The network has the weights that the run ships.
    """
    run = session.run
    known = case_of_folder(run)
    share = share_of(list(run.events()), session.plan)
    training = Trainings(session, console, share).training(session.plan)
    best = Checkpoint.load(run.best_checkpoint)
    with torch.no_grad():
        training.model.load_state_dict(dict(best.weights))
    answers = dict(known.answers)
    if answers:
        seen = assess(training.model, session.task, session.sides["train"], session.plan)
        ids = [record.id for record in session.sides["train"].records]
        train = _answers(session.task.arrays(seen.predicted, seen.truth), ids, {})
        if train is not None:
            answers["train"] = train
    answers = {side: replace(each, facts=_facts(session, each.ids)) for side, each in answers.items()}
    return replace(known, training=training, answers=answers)


def _facts(session: Session, ids: Sequence[str]) -> dict[str, Sequence[Any]]:
    """What slices may be made of."""
    facts = [session.survey.facts[image_id] for image_id in ids]
    return {
        "width": [each.width for each in facts],
        "height": [each.height for each in facts],
        "brightness": [each.brightness for each in facts],
        "kind of pixels": [each.mode for each in facts],
        "format": [each.format for each in facts],
    }


class Trainings:
    """Makes the run's training anew, from its beginning, as often as it is asked to.

    share  of its steps that a fork can afford
    """

    def __init__(self, session: Session, console: Console, share: float = 1.0) -> None:
        self._session, self._console, self._share = session, console, share
        self._head: Mapping[str, Tensor] | None = None

    def short(self, plan: Plan) -> Training:
        """The same with fewer steps."""
        short = shortened(plan, self._share)
        return self.training(short, fewer(self._session.sides["train"], plan, short, self._share))

    def training(self, plan: Plan, train: ImageSet | None = None) -> Training:
        """train: images to learn from; all of the run's where they are not given."""
        session = self._session
        train = session.sides["train"] if train is None else train
        task = create_task(plan.task, plan.classes).configured(plan)
        model, _ = build_network(plan, task)
        self._load_probe(model, plan)
        trainer = Trainer(model, task, plan, train, session.sides["val"], keep_best=lambda *given: None)
        one_class = asks_for_one_class(task) and not (plan.mixup or plan.cutmix)

        def step(batch: Batch) -> float:
            return trainer.step_in_turn([as_batch(*batch)])

        def run_loss(model: nn.Module, inputs: Tensor, targets: Any) -> Tensor:
            losses = task.losses(model, as_batch(inputs, targets), plan)
            return torch.stack([loss.float() for loss in losses.values()]).sum()

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            terms = task.criterion(outputs, as_batch(outputs, targets), plan)
            return torch.stack(list(terms.values())).sum()

        return Training(
            model=model,
            loss=loss,
            train=Epochs(train, plan, task),
            val=InOrder(session.sides["val"], plan, task),
            plain=InOrder(train, plan, task),
            optimizer=trainer.optimizer,
            question="classification" if one_class else "other",
            classes=plan.classes,
            step=step,
            epochs=plan.head_epochs + plan.epochs,
            build=lambda seed: self.training(replace(plan, seed=plan.seed + seed), train),
            build_short=None if self._share == 1 else lambda seed: self.short(replace(plan, seed=plan.seed + seed)),
            shortened=self._share,
            run_loss=None if one_class else run_loss,
            judge=None if one_class else RunJudge(model=model, task=task, plan=plan, sides=session.sides),
        )

    def _load_probe(self, model: nn.Module, plan: Plan) -> None:
        """The head begins as the probe, as in the run."""
        session = self._session
        if plan.probe != "features" or session.task.dense:
            return
        if self._head is None:
            probe = run_probe(
                session.model, session.task, session.sides, session.hashes, plan, session.cache, self._console
            )
            self._head = {} if probe is None else probe.head
        with torch.no_grad():
            model.load_state_dict(self._head, strict=False)
