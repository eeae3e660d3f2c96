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


@dataclass(slots=True)
class _Journal:
    """Numbers of each step and each epoch, as they come."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float, float]] = field(default_factory=list)  # train loss, val loss, val score

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
        )


def learn(
    training: Training, *, seed: int = 0, watched: bool = False, should_stop: Callable[[], bool] = lambda: False
) -> History:
    """Train through all epochs, in place. Ends early where the weights are no numbers any more, or it ``should_stop``.

    watched  whether validation is judged after each epoch; without it the history is of the steps alone
    """
    torch.manual_seed(keyed_seed("fork", seed))
    journal = _Journal()
    for _ in range(training.epochs):
        first = len(journal.losses)
        try:
            for batch in training.train:
                _step(training, batch, journal)
                if training.scheduled == "step":
                    advance(training)
        except DivergenceError:  # Snellen's own loop ends so
            break
        if training.scheduled == "epoch":
            advance(training)
        if watched:
            journal.epochs.append(_end_of_epoch(training, journal.losses[first:]))
        if should_stop() or not all(bool(torch.isfinite(each).all()) for each in training.model.parameters()):
            break
    if training.prepare is not None:
        training.prepare(training.model)
    return journal.history()


def _step(training: Training, batch: Any, journal: _Journal) -> None:
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


def advance(training: Training) -> None:
    """Let the scheduler set the next rates."""
    if training.scheduler is None:
        return
    if isinstance(training.scheduler, ReduceLROnPlateau):
        training.scheduler.step(-score_images(training, training.val).mean)
        return
    with suppress(ValueError):  # a schedule that is shorter than the training says so; what it set last stays
        training.scheduler.step()


def _end_of_epoch(training: Training, losses: list[float]) -> tuple[float, float, float]:
    score = score_images(training, training.val).mean if training.evaluate is None else float(training.evaluate())
    return float(np.mean(losses)) if losses else math.nan, _validation_loss(training), score


def _validation_loss(training: Training) -> float:
    total, count = 0.0, 0
    with in_evaluation(training.model), torch.no_grad():
        for batch in training.val:
            size = len(batch[1])
            total, count = total + float(training.loss_of(batch)) * size, count + size
    return total / max(1, count)
