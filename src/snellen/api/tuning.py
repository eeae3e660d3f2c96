"""The verb ``tune``: many short trainings, the settings chosen by Optuna, unpromising ones ended early."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import anchored, cache_of, check_place, fresh_folder
from snellen.api.training import train_run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError, SnellenError
from snellen.core.estimate import spoken
from snellen.core.files import held, write_text
from snellen.core.run import RunFolder
from snellen.data.overlay import read_overlay, write_overlay
from snellen.tasks.base import create_task
from snellen.train.search_space import DEFAULT_SPACE, SearchSpace, parse_space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

_JOURNAL = "study.log"
_STUDY = "tune"
_UNPRUNED_TRIALS = 4  # run to their end, so that there is something to compare with
_MOST_FAILURES = 3  # in a row
_ERROR = "error"  # the user attribute of a failed trial
PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search: where it is, the best settings it has seen, and every trial.

    best      settings of the best trial; empty when none has finished
    value     its headline metric on the validation images, which it was chosen by: expect a little less elsewhere
    baseline  the same number for the settings as they were asked for
    trials    number, state ('complete', 'pruned', 'failed'), value, settings and course of each
    """

    folder: Path
    headline: str
    best: Mapping[str, Any]
    value: float | None
    baseline: float | None
    trials: Sequence[Mapping[str, Any]]
    status: str

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def config(self) -> Path:
        """The file that ``snellen train --config`` takes."""
        return self.folder / "best.toml"

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "status": self.status,
            "report": str(self.report),
            "config": str(self.config),
            "headline": self.headline,
            "best": dict(self.best),
            "value": self.value,
            "baseline": self.baseline,
            "trials": [dict(trial) for trial in self.trials],
        }


def tune(
    data: str | Path | None = None,
    *,
    trials: int = 20,
    search: Sequence[str] = (),
    out: str | Path | None = None,
    resume: str | Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Tuning:
    """Search for settings that validate better: tree-structured Parzen estimator, median pruning (Akiba et al. 2019).

    trials  in all, those of a search that is resumed included
    search  what may change, like "lr=1e-4..1e-2" or "optimizer=sgd|adamw"; by default rates and regularisation
    out     the folder of the search, which must not exist; resume: a folder of one to go on with

    The test images stay sealed. Other settings are those of ``Config``. Raises SnellenError.
    """
    if trials < 1:
        raise ConfigError(f"trials = {trials} is not allowed: use a whole number, at least 1")
    console = console or Console()
    if resume is not None:
        if data is not None or settings or search or out:
            raise ConfigError("a resumed search keeps its own settings: give --resume and --trials alone")
        folder = RunFolder.open(Path(resume))
    elif data is None:
        raise ConfigError("say what to train on: a folder of images, a table of labels, or sample:digits")
    else:
        folder = _begin(Config.of(data=str(data), **settings), list(search or DEFAULT_SPACE), out)
    with held(folder.path):
        return _search(folder, trials, console)


def _begin(config: Config, search: list[str], out: str | Path | None) -> RunFolder:
    if config.folds is not None or config.repeats > 1:
        raise ConfigError("a search and cross-validation at once are not supported: leave --folds and --repeats out")
    parse_space(search, config)
    place = None if out is None else Path(out)
    check_place(place, resumable=True)
    cache_of(config)
    changes = None if config.overlay is None else read_overlay(Path(config.overlay))
    folder = RunFolder.create(place or fresh_folder(f"{Path(config.data).name}-tune"))
    (folder.path / "checkpoints").rmdir()
    write_text(folder.path / "config.toml", anchored(config).to_toml())
    if changes is not None:
        write_overlay(folder.overlay, Path(config.data).stem, changes)
    folder.write_json("search.json", {"version": 1, "space": search})
    return folder


def _search(folder: RunFolder, trials: int, console: Console) -> Tuning:
    config = folder.config
    written = folder.read_json("search.json", missing={}).get("space")
    if written is None:
        raise RunError(f"{folder.path} is no search: give a folder that 'snellen tune' wrote")
    space = parse_space(written, config)
    cache_of(config)
    study = _study(folder, config.seed)
    _forget_unfinished(study, folder)
    folder.set_status("running")
    try:
        if "baseline" not in folder.read_json("search.json") and not _baseline(folder, config, console):
            folder.set_status("stopped")
            return _written(study, folder, config, console)
        while _num_finished(study) < trials:
            _check_hope(study)
            if not _trial(study, folder, config, space, console):
                folder.set_status("stopped")
                console.say(f"Stopped. Go on with: snellen tune --resume {folder.path} --trials {trials}")
                return _written(study, folder, config, console)
        folder.set_status("done")
    except BaseException:
        folder.set_status("failed")
        raise
    return _written(study, folder, config, console)


def _study(folder: RunFolder, seed: int) -> Study:
    """The study in the folder's journal: a text file, appended to, that survives a kill at any moment."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder.path / _JOURNAL)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=1)
    study = optuna.create_study(
        storage=storage, study_name=_STUDY, direction="maximize", pruner=pruner, load_if_exists=True
    )
    # Another stream in a resumed search, which would draw the first trials again otherwise.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=_UNPRUNED_TRIALS)
    return study


def _forget_unfinished(study: Study, folder: RunFolder) -> None:
    """A trial that was killed or stopped is told as failed, and its settings are tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
        shutil.rmtree(_run_of(folder, trial.number), ignore_errors=True)


def _num_finished(study: Study) -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED), deepcopy=False))


def _check_hope(study: Study) -> None:
    """Raises ConfigError when the last trials have all failed: the next ones would as well."""
    last = study.get_trials(deepcopy=False)[-_MOST_FAILURES:]
    told = [trial.user_attrs.get(_ERROR) for trial in last]
    if len(last) == _MOST_FAILURES and all(told):
        raise ConfigError(f"{_MOST_FAILURES} trials in a row have failed, the last with: {told[-1]}")


def _baseline(folder: RunFolder, config: Config, console: Console) -> bool:
    """What the search has to beat: the settings as they are. False when the user stopped it."""
    place = folder.path / "trials" / "as-asked"
    shutil.rmtree(place, ignore_errors=True)
    run = train_run(_asked(config, {}), place, _silent(), report=False)
    if run.status == "stopped":
        return False
    headline = run.folder.read_json("results.json")["headline"]
    value = run.metrics["val"][headline].value
    console.say(f"Without a search: validation {spoken(headline)} {value:.4f}")
    folder.write_json("search.json", {**folder.read_json("search.json"), "headline": headline, "baseline": value})
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    return True


def _run_of(folder: RunFolder, number: int) -> Path:
    return folder.path / "trials" / f"{number:04d}"


def _trial(study: Study, folder: RunFolder, config: Config, space: SearchSpace, console: Console) -> bool:
    """One training; False when the user stopped it."""
    from optuna.trial import TrialState

    trial = study.ask()
    chosen = {name: values.suggest(trial, name) for name, values in space.items()}
    told = ", ".join(f"{name} {_shown(value)}" for name, value in chosen.items())
    console.say(f"Trial {trial.number}: {told}")
    place = _run_of(folder, trial.number)
    watcher = _Pruner(trial, place)
    try:
        asked = _asked(config, chosen)
        run = train_run(asked, place, _silent(), watch=[watcher], should_stop=watcher.should_stop, report=False)
    except SnellenError as error:
        trial.set_user_attr(_ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
        console.say(f"  failed: {error}")
        return True
    if run.status == "stopped":
        return False
    headline = run.folder.read_json("results.json")["headline"]
    found = run.metrics["val"].get(headline)
    value = float("nan") if found is None else found.value
    if found is None:  # the validation images have no case that it could judge
        trial.set_user_attr(_ERROR, f"{headline} is undefined on the validation images")
        study.tell(trial, state=TrialState.FAIL)
    elif watcher.should_stop() is None:
        study.tell(trial, value)
        console.say(f"  validation {spoken(headline)} {value:.4f}")
    else:
        study.tell(trial, state=TrialState.PRUNED)  # its value is then the last one that was reported
        console.say(f"  ended early at a validation {spoken(headline)} of {value:.4f}")
    _drop_weights(study, folder)
    return True


def _asked(config: Config, chosen: Mapping[str, Any]) -> Config:
    """A trial's settings. The loop always runs: trials that end with the same probe could not be told apart."""
    transfer = "full" if config.transfer == "auto" else config.transfer
    return Config.of(**{**config.model_dump(), "transfer": transfer, **chosen, "test": False})


def _silent() -> Console:
    """Its clock starts now: a time limit is a trial's own."""
    return Console(quiet=True)


def _drop_weights(study: Study, folder: RunFolder) -> None:
    """Of all trials only the best keeps its weights: a search of a hundred would fill the disk."""
    best = _best(study)
    for trial in study.get_trials(deepcopy=False):
        if best is not None and trial.number != best.number:
            shutil.rmtree(_run_of(folder, trial.number) / "checkpoints", ignore_errors=True)


def _best(study: Study) -> FrozenTrial | None:
    from optuna.trial import TrialState

    complete = study.get_trials(states=(TrialState.COMPLETE,), deepcopy=False)
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


class _Pruner:
    """Tells Optuna of each validation, and asks it whether the trial is worth going on with."""

    def __init__(self, trial: Trial, run: Path) -> None:
        self._trial, self._run = trial, run
        self._reason: str | None = None
        self._epochs = 0
        self._best = float("-inf")

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "epoch":
            return
        self._epochs += 1
        plan = RunFolder(self._run).plan
        value = event.get(f"val/{create_task(plan.task, plan.classes).headline}")
        if value is not None:
            self._best = max(self._best, value)
            self._trial.report(self._best, self._epochs)
        if self._trial.should_prune():
            self._reason = PRUNED

    def should_stop(self) -> str | None:
        return self._reason

    def close(self) -> None:
        pass


def _written(study: Study, folder: RunFolder, config: Config, console: Console) -> Tuning:
    """best.toml, search.json and the report."""
    best = _best(study)
    content = folder.read_json("search.json")
    content["trials"] = [_told(trial) for trial in study.get_trials(deepcopy=False)]
    folder.write_json("search.json", content)
    headline = content.get("headline", "")
    if best is not None:
        write_text(
            folder.path / "best.toml", _asked(config, best.params).model_copy(update={"test": config.test}).to_toml()
        )
        from snellen.report.tuning import build_tuning_report

        console.say(
            f"Best of {_num_finished(study)}: trial {best.number}, validation {spoken(headline)} "
            f"{best.value:.4f}. It was chosen by that number: expect a little less on other images."
        )
        console.say(f"Train with it: snellen train --config {folder.path / 'best.toml'}")
        console.say(f"Report: {build_tuning_report(folder.path)}   ({console.seconds:.1f} s)")
    else:
        console.say("No trial has run to its end: go on with more --trials.")
    value = None if best is None else best.value
    params = {} if best is None else best.params
    return Tuning(folder.path, headline, params, value, content.get("baseline"), content["trials"], folder.status)


def _told(trial: FrozenTrial) -> dict[str, Any]:
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    return {
        "number": trial.number,
        "state": state,
        "value": trial.value,
        "settings": dict(trial.params),
        "course": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
    }


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
