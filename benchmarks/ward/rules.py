"""Published rules at their published thresholds, as far as a run's log and its last weights tell them.

UMLAUT: Schoop et al., CHI 2021. AutoTrainer: Zhang et al., ICSE 2021. DeepDiagnosis: Wardat et al., ICSE 2022.
TheDeepChecker: Ben Braiek and Khomh, TOSEM 2022. Their code is for TensorFlow and was not run: these are the rules as
they are published or as their settings files have them, read into a few lines each, and what they say here is no
verdict on the tools. Left out: what needs TensorFlow's own graph, and TheDeepChecker's thousand steps on 16 samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from snellen.doctor.case import History, Training
from snellen.doctor.safety import untouched

_REFERENCE = 0.6  # AutoTrainer's theta


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One batch looked at: inputs, gradient means and norms by layer, activations after ReLUs by layer, weights."""

    inputs: torch.Tensor
    gradients: list[torch.Tensor]
    weights: list[torch.Tensor]
    activations: list[torch.Tensor]
    loss: float


def _look(training: Training) -> _Look:
    """Forward and backward on the first batch, nothing of it left behind."""
    seen: list[torch.Tensor] = []
    with untouched(training):
        relus = [part for part in training.model.modules() if isinstance(part, nn.ReLU | nn.Sigmoid)]
        handles = [
            part.register_forward_hook(lambda part, inputs, outputs: seen.append(outputs.detach())) for part in relus
        ]
        images, targets = next(iter(training.train))
        training.model.train()
        training.model.zero_grad()
        loss = training.loss(training.model(images), targets)
        if loss.requires_grad:
            loss.backward()
        layers = [part for part in training.model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        none = torch.zeros(1)
        gradients = [none if part.weight.grad is None else part.weight.grad.clone() for part in layers]
        weights = [part.weight.detach().clone() for part in layers]
        for handle in handles:
            handle.remove()
    return _Look(inputs=images, gradients=gradients, weights=weights, activations=seen, loss=float(loss.detach()))


def _best(scores: Any) -> float:
    return float(np.nanmax(scores)) if len(scores) and np.isfinite(scores).any() else math.nan


def umlaut(patient: Any) -> list[str]:
    training, history = patient.case.training, patient.case.history
    return list(_umlaut(training, history))


def _umlaut(training: Training, history: History) -> Iterator[str]:
    images = next(iter(training.train))[0]
    if not np.isfinite(history.step_losses).all():
        yield "loss not finite"
    if float(images.min()) < -1 or float(images.max()) > 1:
        yield "input outside -1..1"
    rates = history.rates[np.isfinite(history.rates)]
    if len(rates) and (rates.max() > 1e-2 or rates.max() < 1e-7):
        yield "rate out of range"
    up = (np.diff(history.val_losses) > 0) & (np.diff(history.train_losses) < 0)
    if up.any():
        yield "overfitting"
    late_val, late_train = history.val_scores[3:], history.train_scores[3:]
    if training.question == "classification" and ((late_val > 0.95) | (late_val > late_train + 0.05)).any():
        yield "validation too good"
    if any(isinstance(part, nn.Dropout) and part.p > 0.5 for part in training.model.modules()):
        yield "dropout above half"


def autotrainer(patient: Any) -> list[str]:
    """With its gate: gradients are only looked at where the accuracy is bad or does not move."""
    return list(_autotrainer(patient.case.training, patient.case.history, gated=True))


def autotrainer_ungated(patient: Any) -> list[str]:
    return list(_autotrainer(patient.case.training, patient.case.history, gated=False))


def _autotrainer(training: Training, history: History, gated: bool) -> Iterator[str]:
    if training.question != "classification":
        return
    if not np.isfinite(history.step_losses).all():
        yield "exploding"
        return
    accuracy = np.fmax(history.train_scores, history.val_scores)
    bad = _best(accuracy) < _REFERENCE
    moves = np.diff(history.train_scores)
    stuck = bool(len(moves)) and moves.max() < 0.01
    if bad or stuck or not gated:
        yield from _gradients(_look(training))
    swings = np.abs(np.diff(history.train_scores)) >= 0.03
    falls = np.diff(history.train_scores) <= -0.03
    if len(swings) and falls.mean() >= 0.2:
        yield "oscillation"
    if stuck:
        yield "slow convergence"
    if bad:
        yield "not converging"


def _gradients(look: _Look) -> Iterator[str]:
    norms = [float(each.norm()) for each in look.gradients]
    first, last = norms[0], norms[-1] + 1e-30
    if first / last < 1e-3 and first < 1e-4:
        yield "vanishing"
    if first / last > 70:
        yield "exploding"
    if float(np.mean([float((each == 0).float().mean()) for each in look.gradients])) >= 0.7:
        yield "dying ReLU"


def deep_diagnosis(patient: Any) -> list[str]:
    return list(_deep_diagnosis(patient.case.training, patient.case.history))


def _deep_diagnosis(training: Training, history: History) -> Iterator[str]:
    look = _look(training)
    if not np.isfinite(history.step_losses).all():
        yield "not finite"
        return
    if len(history.train_losses) > 5 and history.train_losses[-1] >= history.train_losses[-6]:
        yield "loss not decreasing"
    if len(history.train_scores) > 20 and history.train_scores[-1] <= history.train_scores[-21]:
        yield "accuracy not increasing"
    if any(float((each <= 0).float().mean()) >= 0.7 for each in look.activations):
        yield "dead units"
    if any(float(each.abs().mean()) < 1e-7 for each in look.gradients):
        yield "vanishing gradient"
    if float(look.inputs.min()) < -1 or float(look.inputs.max()) > 1:
        yield "input out of range"
    if any(not 1e-5 <= float(each.var()) <= 10 for each in look.weights):
        yield "weight variance"
    yield from _update_ratios(look, history, 1e-5, 1e-1, ("rate too low", "rate too high"))


def _update_ratios(look: _Look, history: History, low: float, high: float, names: tuple[str, str]) -> Iterator[str]:
    """The rate times the gradient by the weights, at the highest rate of the run, for the median layer."""
    rate = _best(history.rates)
    ratios = [float(g.norm() / (w.norm() + 1e-12)) * rate for g, w in zip(look.gradients, look.weights, strict=True)]
    ratio = float(np.median(ratios))
    if ratio < low:
        yield names[0]
    if ratio > high:
        yield names[1]


def the_deep_checker(patient: Any) -> list[str]:
    return list(_the_deep_checker(patient.case.training, patient.case.history))


def _the_deep_checker(training: Training, history: History) -> Iterator[str]:
    yield from _before(training)
    look = _look(training)
    dead = [
        float((torch.quantile(each.flatten(1)[:, :2000].float(), 0.95, 0) < 1e-5).float().mean())
        for each in look.activations
    ]
    if any(share > 0.5 for share in dead):
        yield "dead activations"
    if any(not 0.5 <= float(each.std()) <= 2 for each in look.activations):
        yield "activations out of range"
    yield from _update_ratios(look, history, 1e-4, 1e-1, ("slow updates", "fast updates"))
    losses = history.train_losses
    if len(losses) > 1 and np.isfinite(losses).all() and (losses[0] - losses[-1]) / abs(losses[0] + 1e-12) < 0.05:
        yield "loss decreases too little"
    if (len(losses) > 5 and not np.isfinite(losses).all()) or (len(losses) > 5 and losses[-1] >= 2 * losses.min()):
        yield "loss diverges"
    with untouched(training), torch.no_grad():
        batch = next(iter(training.train))
        training.model.train()
        one = float(training.loss_of(batch))
        training.model.eval()
        other = float(training.loss_of(batch))
    if abs(other - one) / (abs(one) + 1e-12) > 0.5:
        yield "train and evaluation differ"


def _before(training: Training) -> Iterator[str]:
    """What is looked at before the training."""
    images, _ = next(iter(training.train))
    low, high = float(images.min()), float(images.max())
    if not (min(abs(low), abs(low + 1)) < 1e-3 and abs(high - 1) < 1e-3):
        yield "inputs not scaled"
    if training.question != "classification" or training.build is None:
        return
    targets = torch.cat([each for _, each in training.train])
    counts = torch.bincount(targets, minlength=len(training.classes)).double()
    shares = counts[counts > 0] / counts.sum()
    if float(torch.exp(-(shares * shares.log()).sum())) / len(training.classes) < 0.5:
        yield "labels unbalanced"
    fresh = training.build(0)
    with torch.no_grad():
        fresh.model.train()
        first = float(fresh.loss_of(next(iter(fresh.train))))
    expected = math.log(len(training.classes))
    if not 0.5 * expected <= first <= 2 * expected:
        yield "initial loss"
    weights = [part.weight for part in fresh.model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if any(float(each.detach().var()) < 1e-8 for each in weights):
        yield "weights at the start"
