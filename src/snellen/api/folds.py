"""Cross-validation: each fold a run of its own, in a folder inside the run folder; then the ensemble of them all."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from snellen.api.places import anchored, cache_of, check_place, fresh_folder
from snellen.api.training import resume_run, train_run
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import RunError
from snellen.core.files import held, write_text
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder
from snellen.data.overlay import read_overlay, write_overlay

_BEGUN = ("config.toml", "plan.json", "environment.json")  # a run that lacks one was killed before it could be resumed
_LEAST_SECONDS = 1.0


def train_folds(config: Config, out: Path | None, console: Console) -> Run:
    """Train every fold of ``config`` in ``out``/fold-1 and so on, then judge the ensemble once on the test images.

    Repeats train them again, in ``out``/repeat-2/fold-1 and so on, with the next seed: other folds, other weights.
    After Ctrl-C the run is returned with the status 'stopped'. Raises SnellenError.
    """
    check_place(out, resumable=True)
    prepare_process()
    config = anchored(config)
    changes = None if config.overlay is None else read_overlay(Path(config.overlay))
    run = RunFolder.create(out or fresh_folder(f"{Path(config.data).stem}-{config.folds}-folds"))
    try:
        (run.path / "checkpoints").rmdir()  # the models are in the folders of the folds
        write_text(run.path / "config.toml", config.to_toml())
        if changes is not None:
            write_overlay(run.overlay, Path(config.data).stem, changes)
        with held(run.path):
            return _go_on(run, run.config, console)
    except BaseException:
        if not run.fold(1).exists():  # nothing to go on with
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def resume_folds(folder: Path, console: Console) -> Run:
    """Go on where it stopped: finished folds are kept. Raises RunError when all is done."""
    run = RunFolder.open(folder)
    with held(folder):
        run.sweep()
        if run.status == "done":
            raise RunError(f"{folder} is done, there is nothing to resume: evaluate it, or train with another --out")
        run.set_status("running")
        return _go_on(run, run.config, console)


def _go_on(run: RunFolder, config: Config, console: Console) -> Run:
    prepare_process()
    try:
        if not _learn(run, config, console):
            run.set_status("stopped")
            console.say(f"Stopped. Go on with all folds: snellen train --resume {run.path}")
            return Run(run.path)
        from snellen.report.folds import build_folds_report
        from snellen.train.fold_results import write_fold_results

        write_fold_results(run, config, cache_of(config), console)
        report = build_folds_report(run.path)
        run.set_status("done")
    except BaseException as error:
        if run.fold(1).exists():
            run.set_status("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    console.say(f"Report: {report}   ({console.seconds:.1f} s)")
    return Run(run.path)


def _learn(run: RunFolder, config: Config, console: Console) -> bool:
    """Bring every fold to its end; False when one was stopped."""
    for repeat, number in run.folds():
        place = run.fold(number, repeat)
        known = place / "STATUS"
        if known.is_file() and Run(place).status == "done" and (place / "report.html").is_file():
            continue
        again = "" if config.repeats == 1 else f", repeat {repeat} of {config.repeats}"
        console.say(f"Fold {number} of {config.folds}{again}")
        clock = Console(console.stream, quiet=console.quiet)  # a fold counts its own seconds
        if all((place / name).is_file() for name in _BEGUN):
            fold = resume_run(place, clock)
        else:
            shutil.rmtree(place, ignore_errors=True)
            fold = train_run(_config_of(run, config, number, console, repeat), place, clock)
        if fold.status == "stopped":
            return False
    return True


def _config_of(run: RunFolder, config: Config, number: int, console: Console, repeat: int = 1) -> Config:
    """The settings of one fold: the test images stay sealed, and what is left of the time is shared.

    Each repeat has a seed of its own; the test side is that of the first.
    """
    num_folds = config.folds or 0
    past = (repeat - 1) * num_folds + number - 1
    limit = config.time_limit
    if limit is not None:
        left = limit - (time.monotonic() - console.started)
        limit = max(_LEAST_SECONDS, left / (config.repeats * num_folds - past))
    chosen = {} if past == 0 else _seen_by(RunFolder(run.fold(1)))
    if config.repeats > 1:
        chosen |= {"repeats": 1, "seed": config.seed + repeat - 1, "split_seed": config.seed_of_sides}
    return config.model_copy(update={"fold": number, "test": False, "time_limit": limit, **chosen})


def _seen_by(first: RunFolder) -> dict[str, object]:
    """What the models must share to answer together, as the first fold chose it."""
    plan = first.plan
    return {"model": plan.model, "input_size": plan.preprocessing.input_size, "fit": plan.preprocessing.fit}
