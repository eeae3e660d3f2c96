"""One training run, from known data and a plan to a finished run folder: probe, train, evaluate, write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import StorageError
from snellen.core.estimate import Estimate
from snellen.core.run import RunFolder
from snellen.data.loader import steps_per_epoch
from snellen.evaluate import score
from snellen.train.build import training_seconds
from snellen.train.loop import Trainer, headline_value, phases
from snellen.train.observers import Clocked, Journal, Lines, Observer, TensorBoard
from snellen.train.pictures import save_contact_sheet
from snellen.train.probe import Probe, run_probe
from snellen.train.results import write_results
from snellen.train.session import Session
from snellen.train.stopping import INTERRUPTED, OUT_OF_TIME, StopRequests

PROBE, FINE_TUNED, FROM_SCRATCH = "linear probe", "fine-tuned", "trained from scratch"


def run_training(session: Session, *, resume: bool) -> RunFolder:
    """Probe, train, evaluate, write. Raises DivergenceError; returns with status 'stopped' after Ctrl-C."""
    run = session.run
    try:
        probe, reason = _learn(session, resume=resume)
        if reason == INTERRUPTED:
            run.set_status("stopped")
            session.console.say(f"Stopped. Go on with: snellen train --resume {run.path}")
            return run
        write_results(session, probe, ended=reason or "finished")
        run.set_status("done")
    except BaseException as error:
        with suppress(StorageError):  # a full disk is told by the error that is on its way
            run.set_status("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.last_checkpoint.unlink(missing_ok=True)  # nothing is left to resume, and it is three times the model's size
    return run


def _learn(session: Session, *, resume: bool) -> tuple[Probe | None, str | None]:
    """The probe, and why training ended: None where there was none."""
    plan = session.plan
    deadline = None if plan.time_limit is None else session.console.started + plan.time_limit
    with StopRequests(deadline) as stop:
        probe = _probe(session)
        reason = stop()
        # Out of time with nothing to ship: a model that has not learnt is still the one that the results are about.
        if (
            plan.head_epochs + plan.epochs
            and (reason is None or not session.run.best_checkpoint.is_file())
            and reason != INTERRUPTED
        ):
            reason = _fit(session, probe, stop, deadline, resume=resume)
    return probe, reason


def _probe(session: Session) -> Probe | None:
    """The linear probe; its network, where it is one, is the first 'best' and the start of the head."""
    plan, task, console = session.plan, session.task, session.console
    probe = run_probe(session.model, task, session.sides, session.hashes, plan, session.cache, console)
    if probe is None or "val" not in session.sides:
        return probe
    groups = session.groups("val")
    metrics = score(task, probe.predictions["val"], session.sides["val"].targets, groups=groups, seed=plan.seed)
    console.say(f"Linear probe on {plan.probe}: validation {_told(task.headline, metrics)}, {console.seconds:.1f} s")
    if plan.probe == "features":
        with torch.no_grad():
            session.model.load_state_dict(probe.head, strict=False)
        if not session.run.last_checkpoint.is_file():  # from there on the best may be a later one
            _checkpoint(session, PROBE, 0, 0, metrics, session.model.state_dict())
    if not any(event["event"] == "probe" for event in session.run.events()):
        overall = {f"val/{name}": value.value for name, value in metrics.items() if _is_overall(name, value)}
        event = {"event": "probe", "step": 0, "seconds": console.seconds, "val/loss": probe.losses["val"], **overall}
        Journal(session.run)(event)
    return probe


def _is_overall(name: str, estimate: Estimate) -> bool:
    return "/" not in name and bool(np.isfinite(estimate.value))


def _told(metric: str, metrics: Mapping[str, Estimate]) -> str:
    estimate = metrics.get(metric)
    return f"{metric.replace('_', ' ')} {'undefined on these images' if estimate is None else estimate.as_percent()}"


def _checkpoint(
    session: Session,
    origin: str,
    epoch: int,
    step: int,
    metrics: Mapping[str, Estimate],
    weights: Mapping[str, Tensor],
) -> None:
    finite = {name: estimate for name, estimate in metrics.items() if np.isfinite(estimate.value)}
    Checkpoint(weights=weights, plan=session.plan, origin=origin, epoch=epoch, step=step, metrics=finite).save(
        session.run.best_checkpoint
    )


def _fit(
    session: Session, probe: Probe | None, stop: StopRequests, deadline: float | None, *, resume: bool
) -> str | None:
    run, task, console = session.run, session.task, session.console
    resume = resume and run.last_checkpoint.is_file()  # a run that was killed before that begins again
    if not resume:
        _settle_arithmetic(session)
    plan = session.plan
    origin = FINE_TUNED if plan.pretrained else FROM_SCRATCH
    trainer = Trainer(
        session.model,
        task,
        plan,
        session.sides["train"],
        session.sides["val"],
        keep_best=lambda weights, epoch, step, metrics: _checkpoint(session, origin, epoch, step, metrics, weights),
    )
    if probe is not None and plan.probe == "features":
        metrics = score(task, probe.predictions["val"], session.sides["val"].targets, intervals=False)
        trainer.progress.best_value = headline_value(task, metrics)
        trainer.progress.best_loss = probe.losses["val"]
    if resume:
        trainer.load(run.last_checkpoint)
        console.say(f"Resumed at step {trainer.progress.step}.")
    run.rewind_events(trainer.progress.step)
    resumed_at = trainer.progress.step if resume else None
    _announce(session, trainer)
    lines = Lines(console, task.headline, {phase.name: phase.epochs for phase in phases(plan)})
    watchers: list[Observer] = [Journal(run), TensorBoard(run, resumed_at=resumed_at), lines]
    trainer.observers = [Clocked(watcher, console) for watcher in watchers]
    if deadline is not None:
        stop.deadline = deadline - _reserve(session)
    try:
        return _run_saving(trainer, session, stop)
    finally:
        for watcher in trainer.observers:
            watcher.close()


def _run_saving(trainer: Trainer, session: Session, stop: StopRequests) -> str:
    """Train, saving every so often, and once more where it stops."""
    run, progress = session.run, trainer.progress
    saved = time.monotonic()

    def save_sometimes(trainer: Trainer) -> None:
        nonlocal saved
        if time.monotonic() - saved >= session.config.checkpoint_every:
            trainer.save(run.last_checkpoint)
            saved = time.monotonic()

    reason = trainer.run(should_stop=stop, checkpoint=save_sometimes)
    if reason == INTERRUPTED:
        trainer.save(run.last_checkpoint)
    elif reason == OUT_OF_TIME and (progress.loss_count or not run.best_checkpoint.is_file()):
        trainer.validate(progress.best_epoch)  # the part of an epoch since the last validation may be the best
    return reason


def _reserve(session: Session) -> float:
    """Seconds that evaluating, explaining and writing will take at the end."""
    images = sum(len(side) for split, side in session.sides.items() if split != "train")
    return 5.0 + 0.03 * images * (1 if session.plan.device == "cpu" else 0.1)


def _settle_arithmetic(session: Session) -> None:
    seconds = training_seconds(session.config, session.model, session.plan, session.sides["train"])
    reasons = dict(session.plan.reasons)
    precision = session.plan.train_precision
    if seconds:
        precision = min(seconds, key=lambda name: seconds[name])
        ratio = max(seconds.values()) / seconds[precision]
        reasons["train_precision"] = f"measured here: {ratio:.2f} times as fast as the other"
    session.plan = replace(session.plan, train_precision=precision, reasons=reasons)
    session.run.write_json("plan.json", session.plan.to_json())


def _announce(session: Session, trainer: Trainer) -> None:
    plan = session.plan
    steps = steps_per_epoch(len(session.sides["train"]), plan.batch_size)
    session.console.say(
        f"Training {plan.head_epochs + plan.epochs} epochs of {steps} steps in {plan.train_precision} "
        f"on {plan.device}, {plan.threads} threads"
    )
    if trainer.progress.step == 0:
        save_contact_sheet(session.run, session.model, session.task, session.sides["train"], plan)
