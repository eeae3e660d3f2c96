"""The learning-rate range test: train a little at ever higher rates, look at the losses, and take every bit back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count

import numpy as np
import torch

from snellen.core.errors import DivergenceError
from snellen.core.plan import Plan
from snellen.train.loop import Progress, Trainer
from snellen.train.optim import build_optimizer, set_rates
from snellen.train.rate_sweep import FEWEST_STEPS, RateSweep, read_sweep
from snellen.train.schedule import phases, usual_rates

_BLOWN_UP = 4.0  # times the lowest loss so far, smoothed: nothing is learnt beyond (fastai's sweep ends there too)
_MEMORY = 0.8  # of the running mean that this is seen in
_LARGEST_SHARE = 1 / 3  # of the training to come
_ABOVE_USUAL, _HIGHEST = 100.0, 10.0  # times the optimizer's usual rate; what --lr takes


def settle_rate(trainer: Trainer) -> tuple[Plan, RateSweep]:
    """Sweep for as long as it is worth it, and the trainer's plan with the rates that came of it.

    Head and body keep their ratio. The plan is the trainer's own, but for the reason, when there is no suggestion.
    The trainer is left as it was, bit for bit: train with the returned plan in a new one.
    """
    plan = trainer.plan
    planned = trainer.steps_per_epoch * sum(phase.epochs for phase in phases(plan))
    steps = int(np.clip(planned * _LARGEST_SHARE, 2 * FEWEST_STEPS, 100))
    high = min(_HIGHEST, _ABOVE_USUAL * usual_rates(plan.optimizer).scratch)
    sweep = find_rate(trainer, steps=steps, low=1e-6 * high, high=high)
    if sweep.suggestion is None:
        return replace(plan, reasons={**plan.reasons, "lr": f"{sweep.reason}: the usual one"}), sweep
    factor = sweep.suggestion / plan.lr
    reasons = {**plan.reasons, "lr": sweep.reason, "body_lr": "in proportion to the head's"}
    return replace(plan, lr=sweep.suggestion, body_lr=plan.body_lr * factor, reasons=reasons), sweep


def find_rate(trainer: Trainer, *, steps: int = 100, low: float = 1e-7, high: float = 1.0) -> RateSweep:
    """Train for up to ``steps`` steps while the head's rate rises from ``low`` to ``high`` by the same factor each.

    The last phase of the plan is swept, with momentum and penalties as planned, and the body's rate in proportion.
    Small data is gone through again. Ends early where the loss is no longer finite, or a multiple of its lowest. The
    trainer is left as it was, bit for bit: weights, statistics, the optimizer's memory, averages, counters, modes,
    gradients and the random state, also when this raises. Raises ValueError for rates or steps that make no sweep.
    """
    if not 0 < low < high or steps < 2:
        raise ValueError(f"a sweep needs 0 < low < high and two steps, got {low:g}, {high:g} and {steps}")
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    ended = ""
    with _undone(trainer):
        for rate, loss in zip(rates, _losses_at(trainer, rates), strict=False):
            if not math.isfinite(loss):
                ended = f"the loss was no longer finite at {rate:.2g}"
                break
            losses.append(loss)
            if _is_blown_up(losses):
                ended = f"the loss had blown up at {rate:.2g}"
                break
    return read_sweep(rates[: len(losses)].tolist(), losses, ended)


def _losses_at(trainer: Trainer, rates: np.ndarray) -> Iterator[float]:
    """The loss of a step at each of the rates; infinity where it diverges."""
    remaining = iter(rates)
    for epoch in count():
        with closing(trainer.steps(epoch)) as each:
            for batches in each:
                rate = next(remaining, None)
                if rate is None:
                    return
                set_rates(trainer.optimizer, float(rate) / trainer.plan.lr)
                try:
                    yield trainer.train_on(batches)
                except DivergenceError:
                    yield math.inf


def _is_blown_up(losses: list[float]) -> bool:
    mean, lowest = losses[0], math.inf
    for loss in losses:
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        lowest = min(lowest, mean)
    return mean > _BLOWN_UP * lowest > 0


@contextmanager
def _undone(trainer: Trainer) -> Iterator[None]:
    """Within the block the trainer is at the start of its last phase, and tells nobody; after it, where it was."""
    model = trainer.model
    kept = {name: getattr(trainer, name) for name in ("optimizer", "ema", "lookahead", "progress", "observers")}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    modes = [(module, module.training) for module in model.modules()]
    learning = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with torch.random.fork_rng([trainer.device] if trainer.device.type == "cuda" else [], device_type="cuda"):
        try:
            trainer.optimizer = build_optimizer(model, trainer.plan)
            trainer.ema, trainer.lookahead, trainer.progress, trainer.observers = None, None, Progress(), ()
            trainer.begin(phases(trainer.plan)[-1])
            yield
        finally:
            with torch.no_grad():
                for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
                    tensor.copy_(values[name])
            for module, training in modes:
                module.training = training
            for parameter, learns, gradient in learning:
                parameter.requires_grad_(learns)
                parameter.grad = gradient
            for name, value in kept.items():
                setattr(trainer, name, value)
