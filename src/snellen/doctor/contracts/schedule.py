"""The schedule must be as long as the training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.steps import calls_per_step
from snellen.doctor.safety import untouched

_MOST_STEPS = 500_000
_OVER = 0.01  # of the peak: below it next to nothing is learnt
_OVER_BY_DESIGN = 1e-3  # where the shape is the user's own: three steps down by 10 are usual
_EARLY = 0.7  # of the training: a cosine reaches 1 % of its peak after 94 %
_HIGH = 0.5  # of the way from the least to the highest rate

Floats = npt.NDArray[np.float64]


def schedule_length(case: Case) -> Iterator[Finding]:
    """The rate of every step of the whole training, by running the scheduler alone from its beginning."""
    training = case.training
    if training is None or training.scheduler is None or training.epochs <= 0:
        return
    with untouched(training):
        start = _beginning(training, case.seed)
        if start is None or not isinstance(start.scheduler, _KINDS) or start.optimizer is None:
            return
        steps = _num_steps(training)
        if not 10 <= steps <= _MOST_STEPS:
            return
        rates, ended = _rates(start, steps)
    fault = _fault(start.scheduler, rates, ended, steps)
    if fault is None:
        return
    unit = "steps" if training.scheduled == "step" else "epochs"
    yield Finding(
        code="schedule-length",
        severity="warning",
        message=f"The schedule does not fit a training of {steps:,} {unit}: {fault}.",
        advice="Give the schedule the number of times that its step() is really called.",
        evidence={
            "steps": steps,
            "peak": float(rates.max()),
            "last": float(rates[-1]),
            "share_over": float((rates <= _OVER * rates.max()).mean()),
            "kind": type(start.scheduler).__name__,
        },
        treatment={"change": "full schedule"},
    )


_KINDS = (OneCycleLR, CosineAnnealingLR, LinearLR, PolynomialLR, LambdaLR, SequentialLR)


def _beginning(training: Training, seed: int) -> Training | None:
    """The training with a scheduler that has not begun; None where there is none."""
    if training.build is not None:
        return training.build(seed)
    return training if getattr(training.scheduler, "last_epoch", 1) == 0 else None


def _num_steps(training: Training) -> int:
    """How often the scheduler is stepped in the whole training; 0: not known."""
    if training.scheduled == "epoch":
        return training.epochs
    if not isinstance(training.train, Sized):
        return 0
    with untouched(training):
        every = calls_per_step(training)
    return 0 if every == 0 else training.epochs * len(training.train) // every


def _rates(start: Training, steps: int) -> tuple[Floats, bool]:
    """The rate of each step, the highest of all groups, and whether the scheduler refused to go on before the end."""
    assert start.optimizer is not None
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no step is taken between
        for _ in range(steps):
            rates.append(max(float(group["lr"]) for group in start.optimizer.param_groups))
            try:
                start.scheduler.step()
            except ValueError:  # OneCycleLR, after its last step
                break
    return np.array(rates), len(rates) < steps


def _fault(scheduler: Any, rates: Floats, ended: bool, steps: int) -> str | None:
    """What is wrong, as the end of a sentence."""
    peak, least = float(rates.max()), float(rates.min())
    if ended:
        return f"it ends after {len(rates):,}"
    if peak <= 0:
        return None
    tail = rates[int(0.9 * steps) :]
    if rates[0] < _HIGH * peak and rates[-1] >= peak and bool((np.diff(tail) > 0).all()):
        return "its warm-up never ends"
    if (cut := _cut_short(scheduler, rates)) is not None:
        return cut
    if least > 0.99 * peak:
        return None
    limit = (_OVER_BY_DESIGN if isinstance(scheduler, LambdaLR | SequentialLR) else _OVER) * peak
    last_alive = int(np.flatnonzero(rates > limit)[-1])
    if last_alive + 1 < _EARLY * steps:
        return f"after {last_alive + 1:,} of them the rate is below {limit / peak:.1%} of its peak, and stays there"
    if isinstance(scheduler, CosineAnnealingLR):
        share, lowest = (float(rates[-1]) - least) / (peak - least), int(rates.argmin())
        if share > _HIGH and 0 < lowest < _EARLY * steps:
            return f"its rate is lowest after {lowest:,} of them and then rises to {share:.0%} of its range again"
    return None


def _cut_short(scheduler: Any, rates: Floats) -> str | None:
    """A cosine whose training ends in its upper half, before it ever was in the lower."""
    if isinstance(scheduler, OneCycleLR):
        group = scheduler.optimizer.param_groups[0]
        top, bottom = float(group["max_lr"]), float(group["min_lr"])
        begins = int(np.argmax(rates))  # its warm-up is low by design
    elif isinstance(scheduler, CosineAnnealingLR):
        top, bottom, begins = max(map(float, scheduler.base_lrs)), float(scheduler.eta_min), 0
    else:
        return None
    lowest = (float(rates[begins:].min()) - bottom) / max(top - bottom, 1e-30)
    if top <= bottom or lowest <= _HIGH:
        return None
    return f"it ends where the rate has still {lowest:.0%} of its range to fall"
