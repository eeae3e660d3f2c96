"""A run of Snellen's own as a case: from its folder alone, or with its images and its network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from snellen.core.checkpoint import Checkpoint
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.core.sample import Batch as ImageBatch
from snellen.data.image_sets import ImageSet
from snellen.data.loader import steps_per_epoch
from snellen.data.sampling import epoch_length
from snellen.doctor.case import Answers, Batch, Case, Floats, History, Training
from snellen.doctor.prescriptions import settings_of
from snellen.doctor.run_batches import Epochs, InOrder, as_batch, asks_for_one_class
from snellen.doctor.run_judge import RunJudge
from snellen.doctor.shortening import fewer, share_of, shortened
from snellen.evaluate import assess
from snellen.nn.ema import MovingAverage
from snellen.tasks.base import create_task
from snellen.train.build import build_network
from snellen.train.loop import Trainer
from snellen.train.probe import run_probe
from snellen.train.replan import replanned
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


def _asks_for_any(config: Config, settings: Iterable[str]) -> bool:
    """Whether the user said something about one of these settings."""
    return any(getattr(config, name) != Config.model_fields[name].default for name in settings)


def _is_nearer(plan: Plan, than: Plan, to: Plan) -> bool:
    """Whether the rate of ``plan`` is fewer times that of ``to``, or the reverse, than the rate of ``than`` is."""
    return abs(math.log(plan.lr / to.lr)) < abs(math.log(than.lr / to.lr))


def _put_in(model: nn.Module, average: MovingAverage | None) -> None:
    """The averaged weights, which are what the run validates and ships."""
    if average is not None:
        model.load_state_dict(dict(average.average))


class _Steps:
    """The run's own steps, a batch at a time: those that make one step together wait for the last of them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._seen, self._loss = trainer, 0, math.nan
        self._waiting: list[ImageBatch[Any]] = []
        num_images = epoch_length(trainer.train_images.records, trainer.plan.sampling)
        self._num_batches = steps_per_epoch(num_images, trainer.plan.batch_size)

    def __call__(self, batch: Batch) -> float:
        """The loss of the step, or of the last one where none is taken yet."""
        self._waiting.append(as_batch(*batch))
        self._seen += 1
        ends = self._seen % self._num_batches == 0
        if ends or len(self._waiting) == self._trainer.plan.accumulate:
            together = list(self._waiting)
            self._waiting.clear()
            self._loss = self._trainer.step_in_turn(together)
        return self._loss


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
            step=_Steps(trainer),
            epochs=plan.head_epochs + plan.epochs,
            build=lambda seed: self.training(replace(plan, seed=plan.seed + seed), train),
            build_short=None if self._share == 1 else lambda seed: self.short(replace(plan, seed=plan.seed + seed)),
            shortened=self._share,
            run_loss=None if one_class else run_loss,
            judge=None if one_class else RunJudge(model=model, task=task, plan=plan, sides=session.sides),
            units={
                side: [record.unit for record in images.records]
                for side, images in {"train": train, "val": session.sides["val"]}.items()
            },
            changed=lambda name: self._changed(name, plan, train, of_the_user=not one_class),
            prepare=None if trainer.ema is None else lambda model: _put_in(model, trainer.ema),
        )

    def _changed(self, name: str, plan: Plan, train: ImageSet, of_the_user: bool) -> Training | None:
        """of_the_user: only settings that somebody gave, and rates nearer to what Snellen would have chosen. Where
        its choice is the usual training, the fault lies there."""
        session, settings = self._session, settings_of(name, plan)
        if settings is None or "pretrained" in settings:  # pretrained networks take other inputs
            return None
        if of_the_user and not _asks_for_any(session.config, settings):
            return None
        changed = replanned(session, plan, settings)
        if of_the_user and name.startswith("rate") and not _is_nearer(changed, plan, self._at_usual_rates(plan)):
            return None
        if "warmup_steps" in settings:  # as of all the steps of the run, of which ``plan`` may have fewer
            share = (plan.epochs + plan.head_epochs) / (session.plan.epochs + session.plan.head_epochs)
            changed = replace(changed, warmup_steps=round(share * changed.warmup_steps))
        return None if changed == plan else self.training(changed, train)

    def _at_usual_rates(self, plan: Plan) -> Plan:
        return replanned(self._session, plan, {"lr": "auto", "body_lr": "auto"})

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
