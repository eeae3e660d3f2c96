"""One training run, from settings to a finished run folder. Cross-validation and searches are made of these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.api.auditing import audited, look_at_labels, tell, write_survey
from snellen.api.places import anchored, cache_of, check_place, fresh_folder, removed_on_failure
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import RunError
from snellen.core.files import held
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.train.observers import Observer
    from snellen.train.session import Session
    from snellen.train.stopping import StopQuestion


def train_run(
    config: Config,
    out: Path | None,
    console: Console,
    *,
    watch: Sequence[Observer] = (),
    should_stop: StopQuestion | None = None,
    report: bool = True,
) -> Run:
    """Train as ``config`` says and write a run folder at ``out``, by default a fresh one in runs/.

    watch        observers of the training events, beside those that write and print them
    should_stop  asked between steps; a reason ends training in good order, and the run is then evaluated and done
    report       False: no report.html

    After Ctrl-C the run is returned with the status 'stopped'. Raises SnellenError.
    """
    check_place(out, resumable=True)
    prepare_process()
    from snellen.data.overlay import write_overlay
    from snellen.train.reading import read_data

    cache = cache_of(config)
    data = read_data(config, cache, console)
    findings, summary = audited(data.survey)
    tell(console, data.survey, findings)
    from snellen.train.build import make_plan
    from snellen.train.resolve import TINY_SIDE
    from snellen.train.start import begin

    config = anchored(config)
    made = make_plan(config, data.choice, data.survey, data.store)
    run = RunFolder.create(out or fresh_folder(f"{data.survey.name}-{made[0].model}"))
    with held(run.path):
        with removed_on_failure(run):
            write_survey(run, config, data.survey, findings, summary)
            if config.overlay is not None:
                write_overlay(run.overlay, data.survey.name, data.survey.listing.changes)
            session = begin(run, config, data, made, cache, console)
        session.watch, session.should_stop = watch, should_stop
        plan, by_network = session.plan, session.plan.probe == "features"
        is_tiny = max(plan.preprocessing.input_size) <= TINY_SIDE
        if config.test and (by_network or is_tiny):  # folds and trials are of the same images each time
            session.on_features = partial(look_at_labels, run, data.survey, console, by_network=by_network)
        return _finish(session, resuming=False, report=report)


def resume_run(
    folder: Path,
    console: Console,
    *,
    watch: Sequence[Observer] = (),
    should_stop: StopQuestion | None = None,
    report: bool = True,
) -> Run:
    """Go on with a stopped run, with its own settings. Raises RunError when it is done, its data has changed, or
    another process is at it."""
    run = RunFolder.open(folder)
    with held(folder):
        return _gone_on(run, console, watch, should_stop, report)


def _gone_on(
    run: RunFolder, console: Console, watch: Sequence[Observer], should_stop: StopQuestion | None, report: bool
) -> Run:
    prepare_process()
    from snellen.train.reading import as_planned, read_data

    run.sweep()
    folder, known = run.path, Run(run.path)
    if known.status == "done":
        if known.report.is_file() or not report:
            raise RunError(f"{folder} is done, there is nothing to resume: evaluate it, or train with another --out")
        run.last_checkpoint.unlink(missing_ok=True)
        _write_report(run, console)  # it was killed just before that
        return known
    config = run.config
    cache = cache_of(config)
    data = read_data(as_planned(config, run.plan), cache, console)
    from snellen.train.start import resume

    session = resume(run, config, data, cache, console)
    session.watch, session.should_stop = watch, should_stop
    return _finish(session, resuming=True, report=report)


def _finish(session: Session, *, resuming: bool, report: bool) -> Run:
    from snellen.train.run_training import run_training

    run = run_training(session, resume=resuming)
    if run.status == "done" and report:
        _write_report(run, session.console)
    return Run(run.path)


def _write_report(run: RunFolder, console: Console) -> None:
    from snellen.report.build import build_report

    console.say(f"Report: {build_report(run.path)}   ({console.seconds:.1f} s)")
