"""A training run to its end, as its own loop would run it, and what is written down meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from snellen.core.errors import DivergenceError
from snellen.core.seeds import keyed_seed
from snellen.doctor.case import History, Training
from snellen.doctor.clipping import gradient_norm
from snellen.doctor.modes import in_evaluation
from snellen.doctor.scores import score_images

# Models that compute their loss themselves may do so in training mode alone: torchvision's detectors give a list of
# boxes in evaluation mode, and what asks that for its terms or its sum fails with one of these.
_NO_LOSS = (AttributeError, TypeError, ValueError, LookupError, AssertionError, RuntimeError)


@dataclass(slots=True)
class _Journal:
    """Numbers of each step and each epoch, as they come."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float, float]] = field(default_factory=list)  # train loss, val loss, val score
    cut: bool = False  # for want of time

    def history(self) -> History:
        ends = np.array(self.epochs).reshape(-1, 3)
        scores = ends[:, 2]
        return History(
            steps=np.arange(1, len(self.losses) + 1, dtype=float),
            step_losses=np.array(self.losses),
            gradient_norms=np.array(self.norms),
            rates=np.array(self.rates),
            epochs=np.arange(1, len(ends) + 1, dtype=float),
            train_losses=ends[:, 0],
            val_losses=ends[:, 1],
            val_scores=scores,
            best_epoch=int(np.nanargmax(scores)) + 1 if np.isfinite(scores).any() else 0,
            cut=self.cut,
        )


def learn(
    training: Training, *, seed: int = 0, watched: bool = False, should_stop: Callable[[], bool] = lambda: False
) -> History:
    """Train through all epochs, in place. Ends early where the weights are no numbers any more, or it ``should_stop``.

    watched      whether validation is judged after each epoch; without it the history is of the steps alone
    should_stop  asked before each step; the history is then ``cut``, and its epochs are those that came to their end
    """
    torch.manual_seed(keyed_seed("fork", seed))
    journal = _Journal()
    for _ in range(training.epochs):
        first = len(journal.losses)
        try:
            _epoch(training, journal, should_stop)
        except DivergenceError:  # Snellen's own loop ends so
            break
        if journal.cut:
            break
        if training.scheduled == "epoch":
            advance(training)
        if watched:
            journal.epochs.append(_end_of_epoch(training, journal.losses[first:]))
        if not all(bool(torch.isfinite(each).all()) for each in training.model.parameters()):
            break
    if training.prepare is not None:
        training.prepare(training.model)
    return journal.history()


def _epoch(training: Training, journal: _Journal, should_stop: Callable[[], bool]) -> None:
    for batch in training.train:
        if should_stop():
            journal.cut = True
            return
        has_stepped = _step(training, batch, journal)
        if has_stepped and training.scheduled == "step":
            advance(training)


def _step(training: Training, batch: Any, journal: _Journal) -> bool:
    """Whether the optimizer took a step: where gradients are accumulated it does so in some batches only."""
    optimizer = training.optimizer
    norms: list[float] = []
    handle = None
    if optimizer is not None:
        journal.rates.append(float(optimizer.param_groups[0]["lr"]))
        handle = optimizer.register_step_pre_hook(lambda *given: norms.append(gradient_norm(training)))
    try:
        loss = training.take_step(batch)
    finally:
        if handle is not None:
            handle.remove()
    journal.losses.append(loss)
    journal.norms.append(norms[0] if norms else math.nan)
    return optimizer is None or bool(norms)


def advance(training: Training) -> None:
    """Let the scheduler set the next rates."""
    if training.scheduler is None:
        return
    if isinstance(training.scheduler, ReduceLROnPlateau):
        training.scheduler.step(_watched_by(training.scheduler, training))
        return
    with suppress(ValueError):  # a schedule that is shorter than the training says so; what it set last stays
        training.scheduler.step()


def _watched_by(scheduler: ReduceLROnPlateau, training: Training) -> float:
    """What such a schedule is usually told: a score, which is to rise, or the validation loss, which is to fall."""
    if scheduler.mode == "max":
        return _validation_score(training)
    loss = _validation_loss(training)
    return -_validation_score(training) if math.isnan(loss) else loss


def _end_of_epoch(training: Training, losses: list[float]) -> tuple[float, float, float]:
    score = _validation_score(training) if training.evaluate is None else float(training.evaluate())
    return float(np.mean(losses)) if losses else math.nan, _validation_loss(training), score


def _validation_score(training: Training) -> float:
    """NaN as ``_validation_loss``: without a question that is known, the loss is the score."""
    try:
        return score_images(training, training.val).mean
    except _NO_LOSS:
        return math.nan


def _validation_loss(training: Training) -> float:
    """NaN where it cannot be had in evaluation mode."""
    total, count = 0.0, 0
    with in_evaluation(training.model), torch.no_grad():
        for batch in training.val:
            size = len(batch[1])
            try:
                loss = float(training.loss_of(batch))
            except _NO_LOSS:
                return math.nan
            total, count = total + loss * size, count + size
    return total / max(1, count)
