"""Learning rates: what is usual for an optimizer, and the factor on it at every step.

A factor follows from the step alone (and from how often a plateau was met), so that a resumed run needs no history.
No torch: the plan is made, and the report drawn, without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snellen.core.plan import Plan
from snellen.nn.published import is_published

_FLOOR = 0.01  # of the peak, where the cosine ends
_STEPS_DOWN = (1 / 2, 3 / 4)  # of a phase, where 'step' divides the rate by ten
_TENTH = 9.0  # 1 / (1 + 9) is a tenth
_CYCLE_START, _CYCLE_END, _CYCLE_RISE = 1 / 25, 1e-4, 0.3
_CYCLE_MOMENTUM = 0.5  # of what momentum 0.9 lacks to 1: 0.95 at the low rates, 0.85 at the peak
_PLATEAU_FACTOR = 0.1


class UsualRates(NamedTuple):
    """Where to begin when nothing is known: peak rates of a network from scratch, and of the new head and the body of
    a pretrained one, and the decoupled weight decay that goes with them."""

    scratch: float
    head: float
    body: float
    weight_decay: float


# SGD: 0.1 with momentum and a decay of 1e-4 to 5e-4 (He et al., 2015, arXiv:1512.03385), a tenth of it and less on
# pretrained weights (Kornblith et al., 2019, arXiv:1805.08974); without momentum 0.9 steps are ten times shorter.
# Adagrad, Adadelta, RMSprop: the rates of torch and of their papers (Duchi et al., 2011; Zeiler, 2012,
# arXiv:1212.5701; Hinton's lecture 6e, 2012, has 0.001). Adam and its kin: 0.001 (Kingma & Ba, 2015, arXiv:1412.6980).
# Only AdamW comes with a decay (Loshchilov & Hutter, 2019, arXiv:1711.05101); it is multiplied by the rate, which is
# why SGD's is so much smaller.
_USUAL: dict[str, UsualRates] = {
    "sgd": UsualRates(0.5, 0.1, 0.01, 1e-4),
    "momentum": UsualRates(0.1, 0.01, 0.001, 5e-4),
    "nesterov": UsualRates(0.1, 0.01, 0.001, 5e-4),
    "adagrad": UsualRates(0.01, 0.01, 0.001, 0.0),
    "adadelta": UsualRates(1.0, 1.0, 0.1, 0.0),
    "rmsprop": UsualRates(1e-3, 1e-3, 1e-4, 0.0),
    "adam": UsualRates(3e-3, 1e-3, 1e-4, 0.0),
    "adamw": UsualRates(3e-3, 1e-3, 1e-4, 0.05),
    "radam": UsualRates(3e-3, 1e-3, 1e-4, 0.0),
    "nadam": UsualRates(2e-3, 1e-3, 1e-4, 0.0),
}


def usual_rates(optimizer: str) -> UsualRates:
    """``optimizer``: as in ``plan.optimizer``. Raises KeyError for another name."""
    return _USUAL[optimizer]


def first_rate(optimizer: str, model: str, *, pretrained: bool, deep: bool) -> tuple[float, str]:
    """The head's peak rate where nothing is known, and why. ``deep``: the head is a network, not a layer."""
    usual = usual_rates(optimizer)
    whole = is_published(model)
    if not pretrained or (deep and not whole):
        return usual.scratch, f"usual for {optimizer} from scratch"
    if whole:
        return usual.body, f"usual for {optimizer} on a head that has learnt already"
    return usual.head, f"usual for {optimizer} on a new head"


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training. first_epoch counts over the whole run; the body is frozen while only the head learns."""

    name: str
    first_epoch: int
    epochs: int
    body_trains: bool


def phases(plan: Plan) -> list[Phase]:
    both = [
        Phase("head", 0, plan.head_epochs, body_trains=False),
        Phase("body", plan.head_epochs, plan.epochs, body_trains=True),
    ]
    return [phase for phase in both if phase.epochs]


# --- the shapes. Each takes the step after the warm-up, 0 <= step < total, and total.


def _constant(step: int, total: int) -> float:
    return 1.0


def _steps_down(step: int, total: int) -> float:
    return float(0.1 ** sum(step >= math.ceil(share * total) for share in _STEPS_DOWN))


def _inverse(step: int, total: int) -> float:
    return 1 / (1 + _TENTH * step / total)


def _cosine(step: int, total: int) -> float:
    return _between(1.0, _FLOOR, step / total)


def _one_cycle(step: int, total: int) -> float:
    return _cycle(step, total, low=_CYCLE_START, high=1.0, last=_CYCLE_END)


def _momentum_cycle(step: int, total: int) -> float:
    return _cycle(step, total, low=_CYCLE_MOMENTUM, high=-_CYCLE_MOMENTUM, last=_CYCLE_MOMENTUM)


def _no_shift(step: int, total: int) -> float:
    return 0.0


def _cycle(step: int, total: int, *, low: float, high: float, last: float) -> float:
    """Along half a cosine from ``low`` to ``high``, and along another to ``last`` at step total - 1."""
    peak = max(_CYCLE_RISE * total - 1, 0.0)
    if step <= peak:
        return _between(low, high, step / peak if peak else 1.0)
    return _between(high, last, (step - peak) / max(1.0, total - 1 - peak))


def _between(start: float, end: float, done: float) -> float:
    """Half a cosine from ``start`` at done = 0 to ``end`` at 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rate goes, and how far momentum moves: 0 not at all, 1 to 1, and below 0 away from it."""

    factor: Callable[[int, int], float]
    momentum_shift: Callable[[int, int], float] = _no_shift
    waits: bool = False  # for validation to stop getting better, and then divides the rate


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(_constant),
    "step": Schedule(_steps_down),  # He et al., 2015: a tenth at half and at three quarters of their epochs on CIFAR-10
    "inverse": Schedule(_inverse),  # 1 / (1 + decay * step) (Robbins & Monro, 1951); the decay ends it at a tenth
    "cosine": Schedule(_cosine),  # Loshchilov & Hutter, SGDR, 2017 (arXiv:1608.03983), without restarts
    "one-cycle": Schedule(_one_cycle, _momentum_cycle),  # Smith & Topin, 2018 (arXiv:1708.07120), as torch has it
    "plateau": Schedule(_constant, waits=True),
}


def rate_factor(schedule: str, step: int, total_steps: int, warmup_steps: int, reductions: int = 0) -> float:
    """Factor on the peak rate at ``step`` of a phase, 0 <= step < total_steps: linear warm-up, then the schedule.

    The warm-up rises to where the schedule begins, and takes a quarter of the phase at most.
    ``reductions``: how often a plateau was met so far; only the schedule that waits for one looks at it.
    """
    shape = SCHEDULES[schedule]
    warmup_steps = _warmup(total_steps, warmup_steps)
    rest = max(1, total_steps - warmup_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1) * shape.factor(0, rest)
    return shape.factor(step - warmup_steps, rest) * (float(_PLATEAU_FACTOR**reductions) if shape.waits else 1.0)


def momentum_at(momentum: float, schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """``momentum``, 0..1, as the schedule has it at ``step``; exactly as it was where the schedule leaves it alone."""
    warmup_steps = _warmup(total_steps, warmup_steps)
    shift = SCHEDULES[schedule].momentum_shift(max(0, step - warmup_steps), max(1, total_steps - warmup_steps))
    return max(0.0, momentum + (1 - momentum) * shift)


def _warmup(total_steps: int, warmup_steps: int) -> int:
    return min(warmup_steps, max(1, total_steps // 4))


@dataclass(frozen=True, slots=True)
class Plateau:
    """How long validation has not been better in this phase.

    best        lowest validation loss so far, None before any
    waited      epochs since then, or since the last reduction
    reductions  how often the wait was over
    """

    best: float | None = None
    waited: int = 0
    reductions: int = 0

    def after(self, loss: float, patience: int) -> Plateau:
        """After one more validation with this ``loss``: as torch's ReduceLROnPlateau with threshold 0 counts.

        ``patience``: epochs without a better one until training ends (``plan.patience``); after half of them the rate
        is reduced. The loss is watched, not the headline, which a good linear probe may have set too high to be met.
        """
        if self.best is None or loss < self.best:
            return Plateau(loss, 0, self.reductions)
        waited = self.waited + 1
        if waited >= math.ceil(patience / 2):
            return Plateau(self.best, 0, self.reductions + 1)
        return Plateau(self.best, waited, self.reductions)


def planned_rates(plan: Plan, steps_per_epoch: int) -> np.ndarray:
    """The head's rate at every step of the run, float [steps], as if no plateau were ever met."""
    factors = []
    for phase in phases(plan):
        total = phase.epochs * steps_per_epoch
        factors += [rate_factor(plan.schedule, step, total, plan.warmup_steps) for step in range(total)]
    return plan.lr * np.array(factors, float)
