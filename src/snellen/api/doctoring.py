"""The verb ``doctor``: what is wrong with a training, how that is known, and whether a treatment helps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.auditing import features_of, subject_of
from snellen.api.places import cache_of, check_place, fresh_folder
from snellen.api.results import Diagnosis
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.core.files import write_json
from snellen.core.finding import Finding
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.doctor.case import Case, Training
    from snellen.doctor.changes import Change
    from snellen.doctor.examine import Examination
    from snellen.doctor.trial import Trial

_SECONDS = 600.0
_TRAINING_SHARE = 0.5  # of the time limit, that somebody's own training may take; experiments have the rest


@dataclass(frozen=True, kw_only=True)
class _Visit:
    """What was asked for. out: the folder that gets the diagnosis, and the runs of a trial."""

    confirm: bool
    treat: bool
    seconds: float
    seeds: int
    out: Path
    device: str
    seed: int
    console: Console


def doctor(  # noqa: PLR0913  (each of them is an option)
    run: str | Path | None = None,
    *,
    script: str | None = None,
    confirm: bool = False,
    treat: bool = False,
    time_limit: float | str | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Diagnosis:
    """Say what is wrong with a run, or with somebody's own training; writes doctor.json and doctor.html.

    run         the folder that ``train`` wrote; without ``confirm`` its images are not needed
    script      ``train.py:build`` instead: a function that gives a ``Training`` or a mapping of its fields
    confirm     run the experiments that make diagnoses of signs; a script's training is always run and confirmed
    treat       try the first treatment of what was found, beside a placebo (implies ``confirm``)
    time_limit  no experiment is begun after this long, in seconds or as '10m'; 10 minutes. A script's training is ended
                after half of it
    seeds       runs of each arm of the trial, two or more
    out         a folder for the result; by default the run's own, or a fresh one in runs/

    Nothing of the run is changed, and a test holds the bits. Raises SnellenError, and KeyboardInterrupt where Ctrl-C
    ended a run of the trial: what was found until then is written.
    """
    if (run is None) == (script is None):
        raise ConfigError("say what to examine: the folder of a run, or --script train.py:build")
    if seeds < 2:
        raise ConfigError(f"seeds = {seeds} is not allowed: a trial needs two runs or more in each arm")
    if script is not None and device != "auto":
        raise ConfigError(f"--device {device} is for runs: a script puts its model where it is to be, leave it out")
    asked = Config.of(data="any", device=device, seed=seed, time_limit=time_limit)
    if out is not None:
        check_place(out)
    visit = _Visit(
        confirm=confirm or treat or script is not None,
        treat=treat,
        seconds=_SECONDS if asked.time_limit is None else asked.time_limit,
        seeds=seeds,
        out=Path(out) if out is not None else fresh_folder("doctor") if run is None else Path(run),
        device=device,
        seed=seed,
        console=console or Console(),
    )
    if treat:
        _check_free_for_a_trial(visit)
    return _of_script(script, visit) if script is not None else _of_run(RunFolder.open(Path(str(run))), visit)


# --- somebody's own training


def _of_script(script: str, visit: _Visit) -> Diagnosis:
    prepare_process()
    from snellen.doctor.of_script import beside

    with beside(script):  # a script may import what lies beside it as late as in a step
        return _of_training(script, visit)


def _of_training(script: str, visit: _Visit) -> Diagnosis:
    from snellen.doctor.examine import examine
    from snellen.doctor.of_script import case_of, training_of

    console = visit.console
    begun = time.monotonic()
    training = training_of(script)
    console.say(f"{script}: {training.epochs} epochs are trained and examined")
    until = begun + _TRAINING_SHARE * visit.seconds
    case = case_of(training, seed=visit.seed, should_stop=lambda: time.monotonic() > until)
    cut = _what_was_cut(case, training.epochs, visit)
    if cut is not None:
        console.say(f"  {cut}")
    with console.progress("Examining", 1) as advance:
        found = examine(case, seconds=visit.seconds - (time.monotonic() - begun), advance=advance)
    if cut is not None:
        found = replace(found, skipped=[f"the end of the training: {cut}", *found.skipped])
    _tell(console, found)
    diagnosis = _written(script, found, visit, findings=found.findings)
    if not visit.treat:
        return diagnosis
    return _with_trial(diagnosis, _tried(replace(case, training=training), found, visit), visit)


def _what_was_cut(case: Case, epochs: int, visit: _Visit) -> str | None:
    """In words: how much of the training there was no time for; None where all of it was trained."""
    history = case.history
    if history is None or not history.cut:
        return None
    done = len(history.epochs)
    minutes = math.ceil(visit.seconds * epochs / max(1, done) / 60)
    return (
        f"{done} of {epochs} epochs were trained: half of the time limit went into it; --time-limit {minutes}m gives "
        "more"
    )


def _tried(case: Case, found: Examination, visit: _Visit) -> Trial | None:
    """The first change that is known to cure what was diagnosed, beside a placebo, each in the whole training."""
    from snellen.doctor.of_script import failures_told
    from snellen.doctor.trial import Rule, change_to_try, try_change

    console = visit.console
    change = change_to_try(found.diagnoses)
    if change is None:
        console.say("Nothing was diagnosed that a change to this training is known to cure: nothing is tried.")
        return None
    rule = Rule(seeds=visit.seeds)
    _declare(visit.out, rule.sentence(), change.name, console)
    with failures_told("the trial failed"):
        trial = try_change(case, change, rule)
    if trial is None:
        console.say(f"It could not be tried: {_hindrance(case.training, change)}.")
    return trial


def _hindrance(training: Training | None, change: Change) -> str:
    if training is None or training.build is None or not training.epochs:
        return "the script does not say for how many epochs it trains, or how it is built anew"
    return f"'{change.name}' cannot be done to this training from outside"


# --- a run of ours


def _of_run(run: RunFolder, visit: _Visit) -> Diagnosis:
    if run.is_cross_validation:
        raise RunError(f"{run.path} is a cross-validation: examine one of its folds, as {run.fold(1)}")
    from snellen.doctor.examine import examine, ranked

    console = visit.console
    case, of_the_data = _looked_at(run, visit)
    with console.progress("Examining", 1) as advance:
        found = examine(case, confirm=visit.confirm, seconds=visit.seconds, advance=advance)
    findings = ranked([*of_the_data, *found.findings])
    _tell(console, found, findings)
    diagnosis = _written(str(run.path), found, visit, findings=findings)
    return _with_trial(diagnosis, _treated(run, findings, visit), visit) if visit.treat else diagnosis


def _looked_at(run: RunFolder, visit: _Visit) -> tuple[Case, list[Finding]]:
    """The case, and what is known of the data: from the folder; to confirm, from the images and the network as well."""
    from snellen.audit.run_audit import run_audit
    from snellen.doctor.more_data import more_data_would_help
    from snellen.doctor.of_run import case_of_folder, case_of_session

    if not visit.confirm:
        return case_of_folder(run), run.findings
    prepare_process()
    from snellen.train.reading import as_planned, read_data
    from snellen.train.start import reopen

    device = _device_for(run, visit)
    config = run.config.model_copy(update={"device": device})
    cache, console = cache_of(config), visit.console
    data = read_data(as_planned(config, run.plan), cache, console)
    session = reopen(run, config, data, cache, console, device)
    features = features_of(data.survey, config, cache, console)
    subject = subject_of(data.survey, features)
    of_the_data = [*run_audit(subject), *more_data_would_help(subject.labelled, config.seed)]
    return case_of_session(session, console), of_the_data


def _device_for(run: RunFolder, visit: _Visit) -> str:
    """The device that was asked for; else the run's own, where this machine has it. Raises ConfigError."""
    from snellen.core.device import choose_device

    if visit.device == "auto":
        with suppress(ConfigError):
            return choose_device(run.plan.device)
    return choose_device(visit.device)


def _treated(run: RunFolder, findings: Sequence[Finding], visit: _Visit) -> Trial | None:
    """Train the arms beside the run, and compare them on validation images: the test images stay sealed."""
    from snellen.compare.comparison import compare_arms
    from snellen.doctor.trial import Rule, Trial, decide

    chosen = _first_treatment(run, findings, visit)
    if chosen is None:
        visit.console.say("Nothing was found that settings or changes to the data are known to cure: nothing is tried.")
        return None
    finding, settings = chosen
    rule = Rule(seeds=visit.seeds)
    told = ", ".join(f"{name} = {value}" for name, value in settings.items())
    _declare(visit.out, rule.sentence(), f"for {finding.code}: {told}", visit.console)
    base = run.config.model_copy(
        update={
            "test": False,
            "split_seed": run.config.seed_of_sides,
            "time_limit": None,
            "seed": run.config.seed,
            "device": _device_for(run, visit),
        }
    )
    seeds = range(base.seed, base.seed + visit.seeds)
    control = [_arm(base, {}, seed, "control", visit) for seed in seeds]
    treated = [_arm(base, settings, seed, "treated", visit) for seed in seeds]
    placebo = [_arm(base, {}, seed + visit.seeds, "placebo", visit) for seed in seeds]
    helped = compare_arms(control, treated).pairings[0]
    nothing = compare_arms(control, placebo).pairings[0]
    return Trial(
        treatment=told,
        rule=rule,
        word=decide(rule, helped.difference, nothing.difference),
        gain=helped.difference,
        placebo=nothing.difference,
        before=helped.first.value,
        after=helped.second.value,
    )


def _first_treatment(
    run: RunFolder, findings: Sequence[Finding], visit: _Visit
) -> tuple[Finding, dict[str, Any]] | None:
    """The first finding that can be treated, what is known before what is only a sign, and the settings that do it."""
    from snellen.doctor.prescriptions import settings_for

    plan = run.plan
    for finding in findings:
        settings = settings_for(finding, plan) if finding.severity != "info" else None
        if settings is not None:
            return finding, settings
        if finding.treatment.get("overlay") and finding.severity != "info":
            return finding, {"overlay": str(_overlay(run, finding, visit))}
    return None


def _overlay(run: RunFolder, finding: Finding, visit: _Visit) -> Path:
    """What ``finding`` would change in the data, after what the run had changed already."""
    from snellen.data.overlay import merged, proposed, read_overlay, write_overlay

    before = read_overlay(run.overlay) if run.config.overlay is not None and run.overlay.is_file() else ()
    path = _trial_folder(visit) / "overlay.json"
    write_overlay(path.absolute(), run.path.name, merged([*before, *proposed([finding])]))
    return path.absolute()


def _arm(base: Config, settings: dict[str, Any], seed: int, name: str, visit: _Visit) -> RunFolder:
    from snellen.api.training import train_run

    kept = base.model_dump(exclude_none=True)
    config = Config.of(**{**kept, **settings, "seed": seed})
    visit.console.say(f"{name}, seed {seed}:")
    quiet = Console(visit.console.stream, quiet=True)
    run = train_run(config, _trial_folder(visit) / f"{name}-{seed}", quiet, report=False)
    if run.status == "stopped":  # by Ctrl-C, which is meant for the whole trial
        raise KeyboardInterrupt
    return run.folder


def _trial_folder(visit: _Visit) -> Path:
    return visit.out / "trial"


def _check_free_for_a_trial(visit: _Visit) -> None:
    """Before anything is examined, which takes minutes. Raises RunError."""
    folder = _trial_folder(visit)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder} holds an earlier trial, which is never overwritten: choose another place with --out, or remove "
            "that folder"
        )


def _declare(out: Path, rule: str, treatment: str, console: Console) -> None:
    """Before anything is run."""
    console.say(f"Treatment: {treatment}")
    console.say(f"Rule: {rule}")
    write_json(out / "rule.json", {"version": 1, "treatment": treatment, "rule": rule})


# --- what is said and written


def _tell(console: Console, found: Examination, findings: Sequence[Finding] | None = None) -> None:
    told = [each for each in findings or found.findings if each.severity != "info"]
    for finding in told:
        sure = "" if finding.is_diagnosis else " (a sign, not a proof)"
        console.say(f"  {finding.severity}: {finding.message}{sure} {finding.advice}")
    if not told:
        console.say("  Nothing was found that needs mending.")
    for name in found.skipped:
        console.say(f"  not examined: {name}")


def _written(subject: str, found: Examination, visit: _Visit, *, findings: Sequence[Finding]) -> Diagnosis:
    diagnosis = Diagnosis(
        folder=visit.out,
        subject=subject,
        findings=list(findings),
        skipped=list(found.skipped),
        confirmed=visit.confirm,
        seconds=round(found.seconds, 1),
        trial=None,
    )
    _write(diagnosis, visit)
    return diagnosis


def _with_trial(diagnosis: Diagnosis, trial: Trial | None, visit: _Visit) -> Diagnosis:
    """The same once more with what came of the trial: it was written before, for a trial takes long and may fail."""
    if trial is None:
        return diagnosis
    visit.console.say(trial.sentence())
    told = replace(diagnosis, trial=trial.to_json())
    _write(told, visit)
    return told


def _write(diagnosis: Diagnosis, visit: _Visit) -> None:
    from snellen.report.doctor import build_doctor_report

    write_json(visit.out / "doctor.json", {"version": 1, **diagnosis.to_json()})
    with suppress(FileNotFoundError):
        build_doctor_report(visit.out)
    visit.console.say(f"Report: {diagnosis.report}")
