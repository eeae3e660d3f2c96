"""One training run, from known data and a plan to a finished run folder: probe, train, evaluate, write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import StorageError
from snellen.core.estimate import Estimate, spoken
from snellen.core.run import RunFolder
from snellen.evaluate import score
from snellen.train.loop import Trainer, chosen_by
from snellen.train.observers import Clocked, Journal, Lines, Observer, TensorBoard
from snellen.train.pictures import save_contact_sheet
from snellen.train.probe import Probe, run_probe
from snellen.train.results import write_learning_curve, write_results
from snellen.train.schedule import phases
from snellen.train.session import Session
from snellen.train.settle import begin_again, settle_arithmetic, settle_best, settle_plan, sweep_rates
from snellen.train.stopping import INTERRUPTED, OUT_OF_TIME, StopRequests

PROBE, SVM, FINE_TUNED, FROM_SCRATCH = "linear probe", "linear SVM", "fine-tuned", "trained from scratch"


def run_training(session: Session, *, resume: bool) -> RunFolder:
    """Probe, train, evaluate, write. Raises DivergenceError; returns with status 'stopped' after Ctrl-C."""
    run = session.run
    try:
        probe, reason = _learn(session, resume=resume)
        if reason == INTERRUPTED:
            run.set_status("stopped")
            session.console.say(f"Stopped. Go on with: snellen train --resume {run.path}")
            return run
        settle_best(session)
        write_results(session, probe, ended=reason or "finished")
        if probe is not None and session.config.test and reason != OUT_OF_TIME:  # not for each fold and trial
            write_learning_curve(session, probe)
        run.set_status("done")
    except BaseException as error:
        with suppress(StorageError):  # a full disk is told by the error that is on its way
            run.set_status("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.last_checkpoint.unlink(missing_ok=True)  # nothing is left to resume, and it is three times the model's size
    return run


def _learn(session: Session, *, resume: bool) -> tuple[Probe | None, str | None]:
    """The probe, and why training ended: None where there was none."""
    limit = session.plan.time_limit
    deadline = None if limit is None else session.console.started + limit
    resume = resume and session.run.last_checkpoint.is_file()  # a run that was killed before that begins again
    with StopRequests(deadline, session.should_stop) as stop:
        probe = _probe(session, resume=resume)
        reason = stop()
        # Out of time with nothing to ship: a model that has not learnt is still the one that the results are about.
        trains = session.plan.head_epochs + session.plan.epochs > 0
        if trains and (reason is None or not session.run.best_checkpoint.is_file()) and reason != INTERRUPTED:
            reason = _fit(session, probe, stop, deadline, resume=resume)
    return probe, reason


def _probe(session: Session, *, resume: bool) -> Probe | None:
    """The linear probe, and what its evidence decides; its network is the first 'best' and the start of the head."""
    if not resume:
        begin_again(session)
    plan = session.plan
    probe = run_probe(session.model, session.task, session.sides, session.hashes, plan, session.cache, session.console)
    if resume:  # everything was settled, and from there on the best may be a later one
        if probe is not None and plan.probe == "features":
            _load_head(session, probe)
        return probe
    if probe is not None and session.on_features is not None:
        session.on_features(_by_id(session, probe))
    _judge(session, probe, PROBE)
    settled = settle_plan(session, probe)
    if settled.model is not probe:
        _judge(session, settled.model, SVM if session.plan.transfer == "svm" else PROBE)
    elif probe is not None and session.plan.probe == "features":  # the same weights, and the plan as it is now
        best = Checkpoint.load(session.run.best_checkpoint)
        replace(best, plan=session.plan).save(session.run.best_checkpoint)
    return settled.baseline


def _by_id(session: Session, probe: Probe) -> dict[str, npt.NDArray[np.float32]]:
    sides = ((images.records, probe.features[split].numpy()) for split, images in session.sides.items())
    return {record.id: row for records, rows in sides for record, row in zip(records, rows, strict=True)}


def _judge(session: Session, probe: Probe | None, name: str) -> None:
    """Say how good it is, and keep it as the best so far where it is a head of the network."""
    plan, task, console = session.plan, session.task, session.console
    if probe is None or "val" not in session.sides:
        return
    groups = session.groups("val")
    metrics = score(task, probe.predictions["val"], session.sides["val"].targets, groups=groups, seed=plan.seed)
    told = f"{name[:1].upper()}{name[1:]} on {plan.probe}"
    console.say(f"{told}: validation {_told(task.headline, metrics)}, {console.seconds:.1f} s")
    if plan.probe == "features":
        _load_head(session, probe)
        _checkpoint(session, name, 0, 0, metrics, session.model.state_dict())
    if not any(event["event"] == "probe" for event in session.run.events()):
        overall = {f"val/{name}": value.value for name, value in metrics.items() if _is_overall(name, value)}
        event = {"event": "probe", "step": 0, "seconds": console.seconds, "val/loss": probe.losses["val"], **overall}
        Journal(session.run)(event)


def _load_head(session: Session, probe: Probe) -> None:
    with torch.no_grad():
        session.model.load_state_dict(probe.head, strict=False)


def _is_overall(name: str, estimate: Estimate) -> bool:
    return "/" not in name and bool(np.isfinite(estimate.value))


def _told(metric: str, metrics: Mapping[str, Estimate]) -> str:
    estimate = metrics.get(metric)
    return f"{spoken(metric)} {'undefined on these images' if estimate is None else estimate.told(metric)}"


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
    if not resume:
        settle_arithmetic(session)
        if session.config.lr == "find":
            sweep_rates(session, _trainer(session))
    plan, trainer = session.plan, _trainer(session)
    if probe is not None and plan.probe == "features":
        metrics = score(task, probe.predictions["val"], session.sides["val"].targets, intervals=False)
        trainer.progress.best_value = chosen_by(plan, task, metrics)
        trainer.progress.best_loss = probe.losses["val"]
    if resume:
        trainer.load(run.last_checkpoint)
        console.say(f"Resumed at step {trainer.progress.step}.")
    run.rewind_events(trainer.progress.step)
    resumed_at = trainer.progress.step if resume else None
    _announce(session, trainer)
    lines = Lines(console, task.headline, {phase.name: phase.epochs for phase in phases(plan)})
    watchers: list[Observer] = [Journal(run), TensorBoard(run, resumed_at=resumed_at), lines, *session.watch]
    trainer.observers = [Clocked(watcher, console) for watcher in watchers]
    if deadline is not None:
        stop.deadline = deadline - _reserve(session)
    try:
        return _run_saving(trainer, session, stop)
    finally:
        for watcher in trainer.observers:
            watcher.close()


def _trainer(session: Session) -> Trainer:
    origin = FINE_TUNED if session.plan.pretrained else FROM_SCRATCH
    return Trainer(
        session.model,
        session.task,
        session.plan,
        session.sides["train"],
        session.sides["val"],
        keep_best=lambda weights, epoch, step, metrics: _checkpoint(session, origin, epoch, step, metrics, weights),
    )


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


def _announce(session: Session, trainer: Trainer) -> None:
    plan = session.plan
    epochs, steps = plan.head_epochs + plan.epochs, trainer.steps_per_epoch
    session.console.say(
        f"Training {epochs} epoch{'s' * (epochs > 1)} of {steps} step{'s' * (steps > 1)} in {plan.train_precision} "
        f"on {plan.device}, {plan.threads} threads"
    )
    if trainer.progress.step == 0:
        save_contact_sheet(session.run, session.model, session.task, session.sides["train"], plan)
