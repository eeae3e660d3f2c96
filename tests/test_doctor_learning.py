"""A training run to its end as its own loop would run it: its schedule, its validation, and an end before that."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from doctor_cases import tiny_training
from snellen.doctor.case import Batch, Training
from snellen.doctor.learning import advance, learn
from snellen.doctor.scores import score_images


def _accumulating(training: Training, every: int) -> Training:
    """Steps of the optimizer for every so many batches, as a user's own step takes them."""
    optimizer, calls = training.optimizer, 0
    assert optimizer is not None

    def step(batch: Batch) -> float:
        nonlocal calls
        calls += 1
        training.model.train()
        loss = training.loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if calls % every == 0:
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.detach())

    training.step = step
    return training


@pytest.mark.parametrize(("every", "times"), [(1, 16), (4, 4)])
def test_a_schedule_advances_with_the_steps_of_the_optimizer(every: int, times: int) -> None:
    training = _accumulating(tiny_training("mlp", num=64, epochs=4, batch=16, scheduler="cosine"), every)
    history = learn(training)
    assert len(history.steps) == 16 and training.scheduler.last_epoch == times
    assert np.isfinite(history.gradient_norms).sum() == times


def test_where_no_optimizer_is_given_a_schedule_advances_with_each_batch() -> None:
    training = tiny_training("mlp", num=64, epochs=1, batch=16, scheduler="cosine")
    training.optimizer, training.step = None, lambda batch: 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps before its schedule does
        learn(training)
    assert training.scheduler.last_epoch == 4


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_plateau_is_told_a_score_that_is_to_rise_or_a_loss_that_is_to_fall(mode: Any) -> None:
    training = tiny_training("mlp", num=64, epochs=1)
    assert training.optimizer is not None
    training.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(training.optimizer, mode)
    advance(training)
    training.model.eval()
    with torch.no_grad():
        losses = [(float(training.loss_of(batch)), len(batch[1])) for batch in training.val]
    loss = sum(value * size for value, size in losses) / sum(size for _, size in losses)
    told = score_images(training, training.val).mean if mode == "max" else loss
    assert told > 0 and training.scheduler.best == pytest.approx(told)


class _Detector(nn.Module):
    """As torchvision's: terms of a loss while it trains, a list of answers in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs: Tensor, targets: Any = None) -> Any:
        outputs = self.layer(inputs)
        if self.training:
            return {"loss": nn.functional.cross_entropy(outputs, targets)}
        return [{"scores": each} for each in outputs]


def test_a_loss_that_is_known_in_training_mode_alone_is_no_number_in_validation() -> None:
    model = _Detector()
    batches = [(torch.randn(8, 3), torch.arange(8) % 2) for _ in range(2)]
    training = Training(
        model=model,
        loss=nn.CrossEntropyLoss(),
        train=batches,
        val=batches,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        question="other",
        epochs=2,
        run_loss=lambda net, inputs, targets: sum(net(inputs, targets).values()),
    )
    history = learn(training, watched=True)
    assert len(history.epochs) == 2 and np.isfinite(history.step_losses).all()
    assert np.isnan(history.val_losses).all() and np.isnan(history.val_scores).all() and history.best_epoch == 0


def _after(asked: int) -> Callable[[], bool]:
    left = iter(range(asked))
    return lambda: next(left, None) is None


@pytest.mark.parametrize(("steps", "epochs"), [(0, 0), (3, 0), (4, 1), (6, 1)])
def test_a_training_that_is_cut_says_so_and_has_the_epochs_that_came_to_their_end(steps: int, epochs: int) -> None:
    training = tiny_training("mlp", num=64, epochs=3, batch=16)
    history = learn(training, watched=True, should_stop=_after(steps))
    assert history.cut and len(history.steps) == steps and len(history.epochs) == epochs


def test_a_training_that_ends_in_time_was_not_cut() -> None:
    training = tiny_training("mlp", num=64, epochs=3, batch=16)
    history = learn(training, watched=True, should_stop=_after(12))
    assert not history.cut and len(history.epochs) == 3
