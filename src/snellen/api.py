"""The verbs, as Python functions with typed results. Heavy libraries are loaded by the verb that needs them."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.core.allocator import keep_memory
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, RunError
from snellen.core.estimate import Estimate
from snellen.core.files import write_json
from snellen.core.finding import Finding
from snellen.core.record import SPLITS
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.data.survey import Survey
    from snellen.predict import Prediction
    from snellen.train.session import Session


def default_cache() -> Path:
    """Where features and samples are kept between runs; safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snellen"


@dataclass(frozen=True, slots=True)
class Audit:
    """What is in the data and whether it is sound."""

    folder: Path
    findings: Sequence[Finding]
    summary: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "findings": [finding.to_json() for finding in self.findings],
            "summary": self.summary,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """By split (or the name of the data), then by metric."""

    run: str
    numbers: Mapping[str, Mapping[str, Estimate]]

    def to_json(self) -> dict[str, Any]:
        splits = {
            split: {name: estimate.to_json() for name, estimate in sides.items()}
            for split, sides in self.numbers.items()
        }
        return {"run": self.run, "splits": splits}


class Run:
    """A finished (or stopped) training run. A notebook shows it as its contact sheet and its numbers."""

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(Path(path))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def status(self) -> str:
        return self.folder.status

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def verdict(self) -> str:
        return str(self.folder.read_json("results.json")["verdict"])

    @property
    def findings(self) -> list[Finding]:
        return self.folder.findings

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """By split, then by metric."""
        splits = self.folder.read_json("results.json")["splits"]
        return {split: {name: Estimate.from_json(e) for name, e in sides.items()} for split, sides in splits.items()}

    def predict(self, images: str | Path | Iterable[str | Path]) -> list[Prediction]:
        return predict(self, images)

    def to_json(self) -> dict[str, Any]:
        results = self.folder.read_json("results.json", missing={})
        keys = ("headline", "verdict", "shipped", "best_epoch", "ended", "seconds", "splits", "baselines")
        return {
            "run": str(self.path),
            "status": self.status,
            "report": str(self.report),
            **{key: results[key] for key in keys if key in results},
            "findings": [finding.to_json() for finding in self.findings],
        }

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        from snellen.report.notebook import run_as_html

        return run_as_html(self.path)


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

    Raises SnellenError. After Ctrl-C the run is returned with the status 'stopped'.
    """
    given = settings if data is None else {**settings, "data": str(data)}
    if resume is not None:
        if given or config or out:
            raise ConfigError("a resumed run keeps its own settings: give --resume alone")
        return _resume(Path(resume), console or Console())
    if config is None and data is None:
        raise ConfigError("say what to train on: a folder of images, a table of labels, or sample:digits")
    resolved = Config.of(**given) if config is None else Config.from_file(Path(config), given)
    return _train(resolved, None if out is None else Path(out), console or Console())


def _train(config: Config, out: Path | None, console: Console) -> Run:
    if out is not None:
        RunFolder.check_free(out)
    _load_ahead()
    keep_memory()
    from snellen.train.reading import read_data

    cache = _cache_of(config)
    data = read_data(config, cache, console)
    findings, summary = _audited(data.survey)
    from snellen.train.build import make_plan
    from snellen.train.start import begin

    made = make_plan(config, data.choice, data.survey, data.store)
    run = RunFolder.create(out or _fresh_folder(f"{data.survey.name}-{made[0].model}"))
    _write_survey(run, config, data.survey, findings, summary)
    _tell(console, data.survey, findings)
    return _finish(begin(run, config, data, made, cache, console), resuming=False)


def _resume(folder: Path, console: Console) -> Run:
    _load_ahead()
    keep_memory()
    from snellen.train.reading import read_data

    run = RunFolder.open(folder)
    if run.status == "done":
        raise RunError(f"{folder} is done, there is nothing to resume: evaluate it, or train anew with another --out")
    run.sweep()
    config = run.config
    cache = _cache_of(config)
    data = read_data(config, cache, console)
    from snellen.train.start import resume

    return _finish(resume(run, config, data, cache, console), resuming=True)


def _finish(session: Session, *, resuming: bool) -> Run:
    from snellen.train.run_training import run_training

    run = run_training(session, resume=resuming)
    if run.status == "done":
        _write_report(run, session.console)
    return Run(run.path)


def _write_report(run: RunFolder, console: Console) -> None:
    from snellen.report.build import build_report

    console.say(f"Report: {build_report(run.path)}   ({console.seconds:.1f} s)")


def _cache_of(config: Config) -> Path:
    return Path(config.cache) if config.cache else default_cache()


def _load_ahead() -> None:
    """Start importing what every training run needs while the images are being read: torch takes seconds."""

    def load() -> None:
        import scipy.optimize  # noqa: F401
        import torch  # noqa: F401

    threading.Thread(target=load, name="snellen-imports", daemon=True).start()


def _fresh_folder(name: str) -> Path:
    """runs/<time>-<name>-<four letters>: never the folder of another run."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    return Path("runs") / f"{datetime.now():%Y-%m-%d_%H%M%S}-{safe}-{secrets.token_hex(2)}"


def audit(data: str | Path, *, out: str | Path | None = None, console: Console | None = None, **settings: Any) -> Audit:
    """Say what is in ``data`` and whether it is fit to train on; writes a report. Raises SnellenError."""
    from snellen.data.survey import read_listing, survey

    console = console or Console()
    config = Config.of(data=str(data), **settings)
    folder = None if out is None else Path(out)
    if folder is not None:
        RunFolder.check_free(folder)
    name, listing = read_listing(config, _cache_of(config))
    known = survey(name, listing, config, console=console, workers=max(2, available_cores()))
    findings, summary = _audited(known)
    run = RunFolder.create(folder or _fresh_folder(f"{name}-audit"))
    _write_survey(run, config, known, findings, summary)
    run.set_status("done")
    from snellen.report.build import build_audit_report

    build_audit_report(run.path)
    _tell(console, known, findings)
    console.say(f"Report: {run.path / 'report.html'}")
    return Audit(run.path, findings, summary)


def _audited(known: Survey) -> tuple[list[Finding], dict[str, Any]]:
    from snellen.audit.run_audit import run_audit
    from snellen.audit.subject import AuditSubject
    from snellen.audit.summary import summarize

    subject = AuditSubject(
        listing=known.listing,
        facts=known.facts,
        left_out=known.left_out,
        pairs=known.pairs,
        manifest=known.manifest,
    )
    return run_audit(subject), summarize(subject)


def _write_survey(
    run: RunFolder, config: Config, known: Survey, findings: Sequence[Finding], summary: dict[str, Any]
) -> None:
    from snellen.audit.pictures import save_examples
    from snellen.data.survey import task_of

    content = {
        "version": 1,
        "name": known.name,
        "task": task_of(config, known.listing),
        "format": known.listing.format,
        "manifest": known.manifest.to_json(),
        "left_out": [{"path": left.path, "reason": left.reason} for left in known.left_out],
        "notes": list(known.notes),
        "summary": summary,
    }
    run.write_json("data.json", content)
    run.write_findings(findings)
    save_examples(run, known, summary["examples"])


def _tell(console: Console, known: Survey, findings: Sequence[Finding]) -> None:
    """The data in a few lines: nothing that was decided stays unsaid."""
    sizes = ", ".join(f"{len(known.side(split))} {split}" for split in SPLITS if known.side(split))
    console.say(
        f"{known.name}: {len(known.records)} images of {len(known.manifest.classes)} classes ({sizes}), "
        f"{len(known.left_out)} left out"
    )
    for note in known.notes:
        console.say(f"  {note}")
    for finding in findings:
        if finding.severity != "info":
            console.say(f"  {finding.severity}: {finding.message} {finding.advice}")


def evaluate(
    run: str | Path | Run,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Evaluation:
    """Numbers with intervals for a run: on its own validation and test images, or on other labelled ``data``.

    ``out`` is a folder for evaluation.json; ``seed`` is of the bootstrap. Raises SnellenError.
    """
    from snellen.evaluate import evaluate_run

    keep_memory()
    folder = (run if isinstance(run, Run) else Run(run)).folder
    target = _new_folder(out)
    labelled = None if data is None else Config.of(data=str(data), images=None if images is None else str(images))
    numbers = evaluate_run(
        folder, labelled, device=device, seed=seed, cache=default_cache(), console=console or Console()
    )
    evaluation = Evaluation(str(folder.path), numbers)
    if target is not None:
        write_json(target / "evaluation.json", evaluation.to_json())
    return evaluation


def predict(
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Prediction]:
    """One prediction for each image, in order; folders stand for the images in them.

    An image that cannot be read has an ``error``. ``out`` is a folder for predictions.json. Raises SnellenError.
    """
    from snellen.core.checkpoint import Checkpoint
    from snellen.predict import Predictor, images_of
    from snellen.tasks.loading import load_model

    keep_memory()
    folder = (run if isinstance(run, Run) else Run(run)).folder
    target = _new_folder(out)
    paths = images_of([images] if isinstance(images, str | Path) else images)
    predictor = Predictor(load_model(Checkpoint.load(folder.best_checkpoint), device=device))
    predictions = []
    with (console or Console()).progress("Predicting", len(paths)) as advance:
        for prediction in predictor.predict(paths):
            predictions.append(prediction)
            advance(len(predictions), len(paths))
    if target is not None:
        write_json(target / "predictions.json", [prediction.to_json() for prediction in predictions])
    return predictions


def _new_folder(out: str | Path | None) -> Path | None:
    """``out`` when it is free. Raises RunError."""
    if out is None:
        return None
    RunFolder.check_free(Path(out))
    return Path(out)
