"""The training loop: one for every task. It minimises what the task calls its losses, and knows nothing more of it.

Everything that is random at a step follows from (seed, step), everything scheduled from the step: the state that a
resumed run needs is the weights, the optimizer's memory, and a few counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.checkpoint import load_tensors, save_tensors
from snellen.core.estimate import Estimate
from snellen.core.plan import Plan
from snellen.core.sample import Batch
from snellen.core.seeds import keyed_seed
from snellen.data.augment import Augmentation
from snellen.data.loader import ImageSet, Variation, steps_per_epoch, training_batches
from snellen.evaluate import assess, score
from snellen.nn.ema import MovingAverage
from snellen.nn.freeze import freeze_batch_norms, set_trainable, train_mode
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic
from snellen.tasks.base import Task
from snellen.train.divergence import explain_divergence, explain_validation
from snellen.train.observers import Observer
from snellen.train.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors, set_rates
from snellen.train.schedule import rate_factor


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training. first_step counts over the whole run; the body is frozen while only the head learns."""

    name: str
    first_epoch: int
    epochs: int
    body_trains: bool


@dataclass(slots=True)
class Progress:
    """The counters that a resumed run continues from. best_* are of the best validation so far (None before any)."""

    step: int = 0
    best_value: float | None = None
    best_loss: float | None = None
    best_epoch: int = 0
    epochs_since_best: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0


def phases(plan: Plan) -> list[Phase]:
    both = [
        Phase("head", 0, plan.head_epochs, body_trains=False),
        Phase("body", plan.head_epochs, plan.epochs, body_trains=True),
    ]
    return [phase for phase in both if phase.epochs]


def headline_value(task: Task[Any], metrics: Mapping[str, Estimate]) -> float:
    """Below every value when it is missing: these images have no case that it could judge."""
    headline = metrics.get(task.headline)
    return headline.value if headline is not None else float("-inf")


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
        self.ema = MovingAverage(model, plan.ema) if plan.ema else None
        self.progress = Progress()
        self.variation = Variation(
            augmentation=Augmentation(**plan.augmentation), by_batch=plan.vary_by_batch, seed=plan.seed
        )
        self.steps_per_epoch = steps_per_epoch(len(train), plan.batch_size)

    # --- the loop

    def run(self, *, should_stop: Callable[[], str | None], checkpoint: Callable[[Trainer], None]) -> str:
        """Train to the end; returns why it ended: 'finished', 'early stopping', or what ``should_stop`` said.

        ``checkpoint`` is called after each step; it decides how often to save.
        """
        for phase in phases(self.plan):
            set_trainable(self.model, phase.body_trains)
            if self.plan.freeze_norm:
                freeze_batch_norms(self.model)
            set_trainable(self.model.get_submodule("head"), True)
            for epoch in range(phase.first_epoch, phase.first_epoch + phase.epochs):
                if self.progress.step < (epoch + 1) * self.steps_per_epoch:
                    reason = self._epoch(phase, epoch, should_stop, checkpoint)
                else:  # done before this run was resumed, perhaps just then and for the last time
                    reason = self._stale(phase)
                if reason is not None:
                    return reason
        return "finished"

    def _epoch(
        self,
        phase: Phase,
        epoch: int,
        should_stop: Callable[[], str | None],
        checkpoint: Callable[[Trainer], None],
    ) -> str | None:
        first_of_phase = phase.first_epoch * self.steps_per_epoch
        for batch in self._batches(epoch):
            reason = should_stop()
            if reason is not None:
                return reason
            step_of_phase = self.progress.step - first_of_phase
            factor = rate_factor(step_of_phase, phase.epochs * self.steps_per_epoch, self.plan.warmup_steps)
            set_rates(self.optimizer, factor)
            self.train_on(batch)
            if self.progress.step < (epoch + 1) * self.steps_per_epoch:
                checkpoint(self)
        self._end_epoch(phase, epoch)
        checkpoint(self)
        return self._stale(phase)

    def _batches(self, epoch: int) -> Iterator[Batch[Any]]:
        return training_batches(
            self.train_images,
            self.variation,
            epoch=epoch,
            batch_size=self.plan.batch_size,
            workers=self.plan.workers,
            first=self.progress.step - epoch * self.steps_per_epoch,
        )

    def train_on(self, batch: Batch[Any]) -> None:
        """One step: forward, backward, clip, update. Raises DivergenceError."""
        torch.manual_seed(keyed_seed("step", self.plan.seed, self.progress.step))
        train_mode(self.model)
        batch = to_device(batch, self.plan)
        with arithmetic(self.device, self.plan.train_precision):
            losses = self.task.losses(self.model, batch, self.plan)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.plan.clip_norm)
        loss = float(total.detach())
        if not bool(torch.isfinite(total + norm)):
            raise explain_divergence(self.model, self.task, batch, self.plan, step=self.progress.step)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)
        self.progress.step += 1
        self.progress.loss_sum += loss * len(batch)
        self.progress.loss_count += len(batch)
        self._tell(
            {
                "event": "step",
                "step": self.progress.step,
                "train/step_loss": loss,
                "train/gradient_norm": float(norm.detach()),
                "lr": self.optimizer.param_groups[0]["lr"],
                **{f"train/{name}": float(value.detach()) for name, value in losses.items() if len(losses) > 1},
            }
        )

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
        self.progress.loss_sum, self.progress.loss_count = 0.0, 0
        self._tell({**event, **self.validate(epoch + 1)})

    def validate(self, epoch: int) -> dict[str, Any]:
        """Validate the averaged weights, keep them if they are the best, and say how it went."""
        with _weights_of(self.model, self.ema):
            assessment = assess(self.model, self.task, self.val_images, self.plan)
            if not math.isfinite(assessment.loss):
                raise explain_validation(self.model, self.plan, step=self.progress.step)
            metrics = score(self.task, assessment.predicted, assessment.truth, intervals=False)
            value = headline_value(self.task, metrics)
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
        is_stale = phase.body_trains and self.progress.epochs_since_best >= self.plan.patience
        return "early stopping" if is_stale else None

    def _tell(self, event: Mapping[str, Any]) -> None:
        for observer in self.observers:
            observer(event)

    # --- state

    def save(self, path: Path) -> None:
        """Everything that ``load`` needs to go on to the same bits."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.average.items()}
        save_tensors(path, tensors, {"version": 1, "progress": asdict(self.progress), "plan": self.plan.to_json()})

    def load(self, path: Path) -> None:
        """Raises RunError when the file is damaged."""
        tensors, header = load_tensors(path)
        self.model.load_state_dict(_part(tensors, "model."))
        load_optimizer_tensors(self.optimizer, _part(tensors, "optimizer.").items())
        self.progress = Progress(**header["progress"])
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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _finite_only(numbers: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN; a metric that is undefined on this validation set is left out."""
    return {name: value for name, value in numbers.items() if value == value and abs(value) != float("inf")}
