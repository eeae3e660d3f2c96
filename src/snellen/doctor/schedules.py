"""A schedule over the steps that a training really takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from snellen.doctor.case import Training
from snellen.doctor.contracts.steps import calls_per_step
from snellen.doctor.loaders import num_batches
from snellen.doctor.safety import untouched


def all_schedules(scheduler: Any) -> Iterator[Any]:
    """A scheduler and those that it is made of; nothing of None."""
    if scheduler is not None:
        yield scheduler
        for inner in getattr(scheduler, "_schedulers", ()):
            yield from all_schedules(inner)


def has_schedule(training: Training) -> bool:
    return training.scheduler is not None


def full_schedule(training: Training) -> Training:
    """The schedule over the steps that are really taken, as it is where it is of a known kind and of another length.

    Any other gives way to a cosine (Loshchilov and Hutter 2017) from the same peak.
    """
    if training.optimizer is None:
        return training
    count = max(1, training.epochs) * (_steps_of_an_epoch(training) if training.scheduled == "step" else 1)
    if _stretched(training.scheduler, count):
        return training
    for group in training.optimizer.param_groups:
        group["lr"] = group.get("max_lr", group.get("initial_lr", group["lr"]))
        group.pop("initial_lr", None)
    return replace(training, scheduler=CosineAnnealingLR(training.optimizer, T_max=count))


def _steps_of_an_epoch(training: Training) -> int:
    """Of the optimizer: several batches may make one."""
    with untouched(training):
        every = calls_per_step(training)
    return max(1, num_batches(training.train) // max(1, every))


def _stretched(scheduler: Any, count: int) -> bool:
    """Make a schedule that has not begun ``count`` steps long; False where its kind is not known or it is already."""
    if type(scheduler) is CosineAnnealingLR and scheduler.T_max != count:
        scheduler.T_max = count
        return True
    if type(scheduler) is OneCycleLR and scheduler.total_steps not in (count, count + 1):  # its first value is a step
        times = (count + 1) / scheduler.total_steps
        for phase in scheduler._schedule_phases:
            phase["end_step"] = (phase["end_step"] + 1) * times - 1
        scheduler.total_steps = count + 1
        return True
    return False
