"""The verb ``train``: a run of its own, one that goes on, or a cross-validation made of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snellen.api.folds import resume_folds, train_folds
from snellen.api.training import resume_run, train_run
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.run import RunFolder
from snellen.data.folds import check_folds


def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Train a model on ``data`` and write a run folder with a report.

    data, settings  the fields of ``Config``; ``config`` is a TOML file of them, which they override
    out             the run folder, which must not exist; by default a fresh one in runs/
    resume          a stopped run folder to go on with, instead of all of these

    With ``folds`` and without ``fold`` every fold is trained, in a folder of its own in the run folder, ``repeats``
    times, and the run answers with the ensemble of the fold models. Raises SnellenError. After Ctrl-C the run is
    returned with the status 'stopped'.
    """
    given = settings if data is None else {**settings, "data": str(data)}
    console = console or Console()
    if resume is not None:
        if given or config or out:
            raise ConfigError("a resumed run keeps its own settings: give --resume alone")
        folder = Path(resume)
        return (
            resume_folds(folder, console) if RunFolder.open(folder).is_cross_validation else resume_run(folder, console)
        )
    if config is None and data is None:
        raise ConfigError("say what to train on: a folder of images, a table of labels, or sample:digits")
    asked = Config.of(**given) if config is None else Config.from_file(Path(config), given)
    check_folds(asked)
    several = asked.folds is not None and asked.fold is None
    return (train_folds if several else train_run)(asked, None if out is None else Path(out), console)
