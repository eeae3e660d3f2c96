"""The training loop: one for every task. It minimises what the task calls its losses, and knows nothing more of it.

Everything that is random at a step follows from (seed, step), everything scheduled from the step: the state that a
resumed run needs is the weights, the optimizer's memory, and a few counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.checkpoint import load_tensors, save_tensors
from snellen.core.errors import ConfigError
from snellen.core.estimate import Estimate
from snellen.core.plan import Plan
from snellen.core.sample import Batch
from snellen.core.seeds import keyed_seed
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.loader import steps_per_epoch, training_batches
from snellen.data.sampling import epoch_length
from snellen.evaluate import assess, score
from snellen.nn.ema import MovingAverage
from snellen.nn.freeze import freeze_batch_norms, freeze_stages, set_trainable, train_mode
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic
from snellen.tasks.base import Task
from snellen.train.divergence import explain_divergence, explain_validation
from snellen.train.observers import Observer
from snellen.train.optim import (
    LOOKAHEAD_STEPS,
    Lookahead,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    penalties,
    set_momentum,
    set_rates,
)
from snellen.train.schedule import Phase, Plateau, momentum_at, phases, rate_factor


@dataclass(slots=True)
class Progress:
    """The counters that a resumed run continues from. best_* are of the best validation so far (None before any).

    step  counts updates of the weights, however many batches each was made of
    objects, cut_away  of this epoch's images so far, as ``num_objects`` and ``num_cut_away`` of core.sample.Batch
    """

    step: int = 0
    best_value: float | None = None
    best_loss: float | None = None
    best_epoch: int = 0
    epochs_since_best: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    objects: int = 0
    cut_away: int = 0
    plateau: Plateau = field(default_factory=Plateau)


def chosen_by(plan: Plan, task: Task[Any], metrics: Mapping[str, Estimate]) -> float:
    """The number that the best checkpoint has most of: the headline, or where rare classes were made to count more,
    the balanced accuracy. Below every value when it is missing: these images have no case that it could judge."""
    evened = bool(plan.class_weights) or plan.sampling != "as is" or plan.smote
    name = "balanced_accuracy" if evened and "balanced_accuracy" in metrics else task.headline
    found = metrics.get(name)
    return found.value if found is not None else float("-inf")


class Trainer:
    """One model being trained.

    keep_best   called with (weights, epoch, step, metrics) whenever validation is better than ever before
    should_stop asked before every step; a reason ends training there
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[Any],
        plan: Plan,
        train: ImageSet,
        val: ImageSet,
        *,
        observers: Sequence[Observer] = (),
        keep_best: Callable[[Mapping[str, Tensor], int, int, Mapping[str, Estimate]], None],
    ) -> None:
        self.model, self.task, self.plan = model, task, plan
        self.train_images, self.val_images = train, val
        self.observers, self.keep_best = observers, keep_best
        self.device = torch.device(plan.device)
        self.optimizer = build_optimizer(model, plan)
        self.lookahead = Lookahead(model) if plan.lookahead else None
        self.ema = MovingAverage(model, plan.ema) if plan.ema else None
        self.progress = Progress()
        self.variation = Variation.of(plan)
        num_batches = steps_per_epoch(epoch_length(train.records, plan.sampling), plan.batch_size)
        self.steps_per_epoch = math.ceil(num_batches / plan.accumulate)

    # --- the loop

    def run(self, *, should_stop: Callable[[], str | None], checkpoint: Callable[[Trainer], None]) -> str:
        """Train to the end; returns why it ended: 'finished', 'early stopping', or what ``should_stop`` said.

        ``checkpoint`` is called after each step; it decides how often to save.
        """
        for phase in phases(self.plan):
            self.begin(phase)
            for epoch in range(phase.first_epoch, phase.first_epoch + phase.epochs):
                if self.progress.step < (epoch + 1) * self.steps_per_epoch:
                    reason = self._epoch(phase, epoch, should_stop, checkpoint)
                else:  # done before this run was resumed, perhaps just then and for the last time
                    reason = self._stale(phase)
                if reason is not None:
                    return reason
        return "finished"

    def begin(self, phase: Phase) -> None:
        """What learns in ``phase``, and what stays as it is."""
        set_trainable(self.model, phase.body_trains)
        freeze_stages(self.model.get_submodule("backbone"), self.plan.frozen_stages)
        if self.plan.freeze_norm:
            freeze_batch_norms(self.model)
        set_trainable(self.model.get_submodule("head"), True)

    def _epoch(
        self,
        phase: Phase,
        epoch: int,
        should_stop: Callable[[], str | None],
        checkpoint: Callable[[Trainer], None],
    ) -> str | None:
        for batches in self.steps(epoch):
            reason = should_stop()
            if reason is not None:
                return reason
            self._set_pace(phase)
            self.train_on(batches)
            if self.progress.step < (epoch + 1) * self.steps_per_epoch:
                checkpoint(self)
        self._end_epoch(phase, epoch)
        checkpoint(self)
        return self._stale(phase)

    def step_in_turn(self, batches: Sequence[Batch[Any]]) -> float:
        """The step that is due, with what learns then and at the rate that it has then; as ``train_on``."""
        epoch = self.progress.step // self.steps_per_epoch
        planned = phases(self.plan)
        phase = next((each for each in planned if epoch < each.first_epoch + each.epochs), planned[-1])
        if self.progress.step == phase.first_epoch * self.steps_per_epoch:
            self.begin(phase)
        self._set_pace(phase)
        return self.train_on(batches)

    def _set_pace(self, phase: Phase) -> None:
        """Rates and momentum of the step to come."""
        step = self.progress.step - phase.first_epoch * self.steps_per_epoch
        total, warmup = phase.epochs * self.steps_per_epoch, self.plan.warmup_steps
        schedule, reductions = self.plan.schedule, self.progress.plateau.reductions
        set_rates(self.optimizer, rate_factor(schedule, step, total, warmup, reductions))
        at = partial(momentum_at, schedule=schedule, step=step, total_steps=total, warmup_steps=warmup)
        set_momentum(self.optimizer, at)

    def steps(self, epoch: int) -> Generator[list[Batch[Any]], None, None]:
        """The batches of each step of ``epoch`` that is still to come; the last step may have fewer."""
        batches = training_batches(
            self.train_images,
            self.variation,
            epoch=epoch,
            batch_size=self.plan.batch_size,
            workers=self.plan.workers,
            first=(self.progress.step - epoch * self.steps_per_epoch) * self.plan.accumulate,
        )
        while together := list(islice(batches, self.plan.accumulate)):
            yield together

    def train_on(self, batches: Sequence[Batch[Any]]) -> float:
        """One step by the mean gradient over all images of ``batches``: forward, backward, clip, update.

        Returns the task's loss. Penalties on weights are not in it, so that it compares with validation's.
        Raises DivergenceError, and ConfigError where a batch of one image cannot be normalised.
        """
        torch.manual_seed(keyed_seed("step", self.plan.seed, self.progress.step))
        train_mode(self.model)
        self.optimizer.zero_grad()
        num_images = sum(map(len, batches))
        parts = [self._backward(batch, len(batch) / num_images) for batch in batches]
        extra = penalties(self.model, self.plan)
        for penalty in extra.values():
            penalty.backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.plan.clip_norm or math.inf)
        losses = _sum(parts)
        loss = float(torch.stack(list(losses.values())).sum())
        if not math.isfinite(loss + float(norm)):
            raise self._diverged(batches, parts)
        self._update()
        self.progress.loss_sum += loss * num_images
        self.progress.loss_count += num_images
        self.progress.objects += sum(batch.num_objects for batch in batches)
        self.progress.cut_away += sum(batch.num_cut_away for batch in batches)
        terms = {**(losses if len(losses) > 1 else {}), **extra}
        self._tell(
            {
                "event": "step",
                "step": self.progress.step,
                "train/step_loss": loss,
                "train/gradient_norm": float(norm),
                "lr": self.optimizer.param_groups[0]["lr"],
                **{f"train/{name}": float(value.detach()) for name, value in terms.items()},
            }
        )
        return loss

    def _backward(self, batch: Batch[Any], share: float) -> dict[str, Tensor]:
        """Add ``share`` of the gradients; returns as much of the loss terms."""
        batch = to_device(batch, self.plan)
        try:
            with arithmetic(self.device, self.plan.train_precision):
                losses = self.task.losses(self.model, batch, self.plan)
        except ValueError as error:
            raise _one_value(error) from error
        terms = {name: share * loss.float() for name, loss in losses.items()}
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _diverged(self, batches: Sequence[Batch[Any]], parts: Sequence[Mapping[str, Tensor]]) -> Exception:
        """The error about the first batch whose loss is not finite; where all losses are, about the last."""
        bad = [not math.isfinite(sum(map(float, terms.values()))) for terms in parts]
        batch = to_device(batches[bad.index(True) if any(bad) else -1], self.plan)
        return explain_divergence(self.model, self.task, batch, self.plan, step=self.progress.step)

    def _update(self) -> None:
        self.optimizer.step()
        self.progress.step += 1
        step = self.progress.step
        if self.lookahead is not None and (step % LOOKAHEAD_STEPS == 0 or step % self.steps_per_epoch == 0):
            self.lookahead.pull(self.model)  # after each epoch as well: the slow weights are what is validated
        if self.ema is not None:
            self.ema.update(self.model)

    # --- validation

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        event = {
            "event": "epoch",
            "phase": phase.name,
            "epoch": epoch + 1 - phase.first_epoch,
            "step": self.progress.step,
            "train/loss": self.progress.loss_sum / max(1, self.progress.loss_count),
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if self.progress.objects:
            event |= {"objects": self.progress.objects, "objects_cut_away": self.progress.cut_away}
        self.progress.loss_sum, self.progress.loss_count = 0.0, 0
        self.progress.objects, self.progress.cut_away = 0, 0
        validated = self.validate(epoch + 1)
        is_last = epoch + 1 == phase.first_epoch + phase.epochs
        plateau = self.progress.plateau.after(validated["val/loss"], self.plan.patience)
        self.progress.plateau = Plateau() if is_last else plateau
        if is_last:  # the next phase has its own patience
            self.progress.epochs_since_best = 0
        self._tell({**event, **validated})

    def validate(self, epoch: int) -> dict[str, Any]:
        """Validate the averaged weights, keep them if they are the best, and say how it went."""
        with _weights_of(self.model, self.ema):
            assessment = assess(self.model, self.task, self.val_images, self.plan)
            if not math.isfinite(assessment.loss):
                raise explain_validation(self.model, self.plan, step=self.progress.step)
            metrics = score(self.task, assessment.predicted, assessment.truth, intervals=False)
            value = chosen_by(self.plan, self.task, metrics)
            better = self._is_better(value, assessment.loss)
            if better:
                self.progress.best_value, self.progress.best_loss = value, assessment.loss
                self.progress.best_epoch, self.progress.epochs_since_best = epoch, 0
                self.keep_best(self.model.state_dict(), epoch, self.progress.step, metrics)
            else:
                self.progress.epochs_since_best += 1
        overall = {f"val/{name}": estimate.value for name, estimate in metrics.items() if "/" not in name}
        return {"val/loss": assessment.loss, **_finite_only(overall), "best": better}

    def _is_better(self, value: float, loss: float) -> bool:
        """By the headline; equal headlines, which are common on few images, by the lower loss."""
        best_value, best_loss = self.progress.best_value, self.progress.best_loss
        if best_value is None or best_loss is None:
            return True
        return value > best_value or (value == best_value and loss < best_loss)

    def _stale(self, phase: Phase) -> str | None:
        is_stale = (phase.body_trains or not self.plan.epochs) and self.progress.epochs_since_best >= self.plan.patience
        return "early stopping" if is_stale else None

    def _tell(self, event: Mapping[str, Any]) -> None:
        for observer in self.observers:
            observer(event)

    # --- state

    def save(self, path: Path) -> None:
        """Everything that ``load`` needs to go on to the same bits."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        if self.lookahead is not None:
            tensors |= {f"slow.{name}": tensor for name, tensor in self.lookahead.slow.items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.average.items()}
        save_tensors(path, tensors, {"version": 1, "progress": asdict(self.progress), "plan": self.plan.to_json()})

    def load(self, path: Path) -> None:
        """Raises RunError when the file is damaged."""
        tensors, header = load_tensors(path)
        self.model.load_state_dict(_part(tensors, "model."))
        load_optimizer_tensors(self.optimizer, _part(tensors, "optimizer.").items())
        counters = header["progress"]
        self.progress = Progress(**{**counters, "plateau": Plateau(**counters.get("plateau", {}))})
        if self.lookahead is not None:
            self.lookahead.load(_part(tensors, "slow."))
        if self.ema is not None:
            self.ema.load(_part(tensors, "ema."), self.progress.step)


class _weights_of:
    """The model with its averaged weights, for as long as the block lasts."""

    def __init__(self, model: nn.Module, ema: MovingAverage | None) -> None:
        self._model, self._ema = model, ema

    def __enter__(self) -> None:
        if self._ema is not None:
            self._own = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
            self._model.load_state_dict(self._ema.average)

    def __exit__(self, *exception: object) -> None:
        if self._ema is not None:
            self._model.load_state_dict(self._own)


def _sum(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each term over all batches of a step; a batch may lack one."""
    names = dict.fromkeys(name for terms in parts for name in terms)
    return {name: torch.stack([terms[name] for terms in parts if name in terms]).sum() for name in names}


def _one_value(error: ValueError) -> ValueError | ConfigError:
    """Says what to do where torch was given a single value to normalise; any other error as it is."""
    if "Expected more than 1" not in str(error):
        return error
    return ConfigError(
        "a batch of one image leaves a normalisation layer with one value to normalise: use --norm group, or a "
        "--batch-size of 2 or more"
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _finite_only(numbers: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN; a metric that is undefined on this validation set is left out."""
    return {name: value for name, value in numbers.items() if value == value and abs(value) != float("inf")}
