"""The loop that trains what a plan became, and what is written down on the way."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snellen.doctor.case import History, Training


class _Log:
    """Rates and gradient norms of the steps that the optimizer takes; outputs of the model while it trains."""

    def __init__(self, training: Training) -> None:
        self.series: dict[str, list[float]] = defaultdict(list)
        self.outputs: Tensor | None = None
        self.norm = math.nan
        self.handles: list[Any] = [training.model.register_forward_hook(self._see)]
        if training.optimizer is not None:
            self.handles.append(training.optimizer.register_step_pre_hook(self._measure))

    def _see(self, model: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        self.outputs = outputs.detach()

    def _measure(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        norms = torch._foreach_norm(gradients) if gradients else [torch.tensor(math.nan)]
        self.norm = float(torch.stack(list(norms)).norm())

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def history(self, epochs: int) -> History:
        arrays = {name: np.array(values) for name, values in self.series.items()}
        steps = np.arange(1, len(arrays["step_losses"]) + 1, dtype=np.float64)
        return History(steps=steps, epochs=np.arange(1, epochs + 1, dtype=np.float64), best_epoch=epochs, **arrays)


def fit(training: Training) -> History:
    """Train for ``training.epochs`` with the user's own step and validation; the last weights are kept."""
    log = _Log(training)
    for epoch in range(1, training.epochs + 1):
        losses, scores, sizes = [], [], []
        for batch in training.train:
            loss = _step(training, batch, log)
            losses.append(loss)
            sizes.append(len(batch[0]))
            scores.append(_score(training, log.outputs, batch[1]))
            log.series["step_losses"].append(loss)
            log.series["gradient_norms"].append(log.norm)
            log.series["rates"].append(training.optimizer.param_groups[-1]["lr"] if training.optimizer else math.nan)
            if training.scheduler is not None and training.scheduled == "step":
                _tick(training)
        if training.scheduler is not None and training.scheduled == "epoch":
            _tick(training)
        if training.prepare is not None and epoch == training.epochs:
            training.prepare(training.model)
        log.series["train_losses"].append(float(np.average(losses, weights=sizes)))
        log.series["train_scores"].append(float(np.average(scores, weights=sizes)))
        log.series["val_losses"].append(_val_loss(training))
        log.series["val_scores"].append(training.evaluate() if training.evaluate else math.nan)
    log.close()
    return log.history(training.epochs)


def _step(training: Training, batch: Any, log: _Log) -> float:
    log.outputs = None
    loss = training.step(batch) if training.step is not None else training.take_step(batch)
    if isinstance(loss, Tensor):
        return float(loss)
    outputs = log.outputs
    return math.nan if outputs is None else float(training.loss(outputs, batch[1]))


def _score(training: Training, outputs: Tensor | None, targets: Tensor) -> float:
    if outputs is None or training.metric is None or training.question == "regression":
        return math.nan
    return training.metric(outputs, targets)


def _tick(training: Training) -> None:
    with suppress(
        ValueError
    ):  # OneCycleLR refuses to go on after its last step: a user's loop then leaves the rate alone
        training.scheduler.step()


@torch.no_grad()
def _val_loss(training: Training) -> float:
    training.model.eval()
    total = count = 0.0
    for images, targets in training.val:
        total += float(training.loss(training.model(images), targets)) * len(images)
        count += len(images)
    return total / count


@torch.no_grad()
def answers(model: torch.nn.Module, batches: Any) -> tuple[Tensor, Tensor]:
    """(outputs, targets) of all images, in evaluation mode."""
    model.eval()
    seen = [(model(images).float(), targets) for images, targets in batches]
    outputs, targets = zip(*seen, strict=True)
    return torch.cat(outputs), torch.cat(targets)
