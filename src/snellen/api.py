"""The verbs, as Python functions with typed results. Heavy libraries are loaded by the verb that needs them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, RunError, StorageError
from snellen.core.estimate import Estimate
from snellen.core.files import write_json
from snellen.core.finding import Finding
from snellen.core.process import prepare_process
from snellen.core.record import SPLITS
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.data.survey import Survey
    from snellen.predict import Prediction
    from snellen.train.session import Session


_RUNS = "runs"


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
    _check_place(out)
    prepare_process()
    from snellen.train.reading import read_data

    cache = _cache_of(config)
    data = read_data(config, cache, console)
    findings, summary = _audited(data.survey)
    _tell(console, data.survey, findings)
    from snellen.train.build import make_plan
    from snellen.train.start import begin

    config = _anchored(config)
    made = make_plan(config, data.choice, data.survey, data.store)
    run = RunFolder.create(out or _fresh_folder(f"{data.survey.name}-{made[0].model}"))
    with _removed_on_failure(run):
        _write_survey(run, config, data.survey, findings, summary)
        session = begin(run, config, data, made, cache, console)
    return _finish(session, resuming=False)


def _anchored(config: Config) -> Config:
    """With absolute paths: a run is resumed and evaluated from other folders than the one it was started in."""
    from snellen.data.samples import PREFIX

    named = {name: getattr(config, name) for name in ("data", "images", "weights", "cache")}
    paths = {name: os.path.abspath(path) for name, path in named.items() if path and not path.startswith(PREFIX)}
    return config.model_copy(update=paths)


def _resume(folder: Path, console: Console) -> Run:
    prepare_process()
    from snellen.train.reading import read_data

    run = RunFolder.open(folder)
    run.sweep()
    known = Run(folder)
    if known.status == "done":
        if known.report.is_file():
            raise RunError(f"{folder} is done, there is nothing to resume: evaluate it, or train with another --out")
        run.last_checkpoint.unlink(missing_ok=True)
        _write_report(run, console)  # it was killed just before that
        return known
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
    cache = Path(config.cache) if config.cache else default_cache()
    os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))  # it would keep its list of fonts elsewhere
    return cache


def _check_place(out: str | Path | None) -> None:
    """Before anything long begins. Raises RunError when ``out`` is taken, StorageError when no folder can be there."""
    if out is not None:
        RunFolder.check_free(Path(out))
    target = Path(os.path.abspath(out or _RUNS))
    above = next(folder for folder in (target, *target.parents) if folder.exists())
    if not above.is_dir():
        raise StorageError(f"cannot write {out or _RUNS}: {above} is a file; choose another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(f"no permission to write in {above}: choose a place you may write to with --out")


@contextmanager
def _removed_on_failure(run: RunFolder) -> Iterator[None]:
    """A folder whose run could not begin could not be resumed either."""
    try:
        yield
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


def _fresh_folder(name: str) -> Path:
    """runs/<time>-<name>-<four letters>: never the folder of another run."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    return Path(_RUNS) / f"{datetime.now():%Y-%m-%d_%H%M%S}-{safe}-{secrets.token_hex(2)}"


def audit(data: str | Path, *, out: str | Path | None = None, console: Console | None = None, **settings: Any) -> Audit:
    """Say what is in ``data`` and whether it is fit to train on; writes a report. Raises SnellenError."""
    from snellen.data.survey import read_listing, survey

    console = console or Console()
    config = Config.of(data=str(data), **settings)
    _check_place(out)
    name, listing = read_listing(config, _cache_of(config))
    known = survey(name, listing, config, console=console, workers=max(2, available_cores()))
    findings, summary = _audited(known)
    _tell(console, known, findings)
    run = RunFolder.create(Path(out) if out else _fresh_folder(f"{name}-audit"))
    with _removed_on_failure(run):
        from snellen.report.build import build_audit_report

        _write_survey(run, config, known, findings, summary)
        build_audit_report(run.path)
        run.set_status("done")
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

    if images is not None and data is None:
        raise ConfigError("images says where the images of other labelled data are: name that data as well")
    folder = _ready(run, device, seed, out)
    labelled = None if data is None else Config.of(data=str(data), images=None if images is None else str(images))
    cache = _cache_of(labelled or folder.config)
    numbers = evaluate_run(folder, labelled, device=device, seed=seed, cache=cache, console=console or Console())
    evaluation = Evaluation(str(folder.path), numbers)
    if out is not None:
        write_json(Path(out) / "evaluation.json", evaluation.to_json())
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

    folder = _ready(run, device, 0, out)
    paths = images_of([images] if isinstance(images, str | Path) else images)
    predictor = Predictor(load_model(Checkpoint.load(folder.best_checkpoint), device=device))
    predictions = []
    with (console or Console()).progress("Predicting", len(paths)) as advance:
        for prediction in predictor.predict(paths):
            predictions.append(prediction)
            advance(len(predictions), len(paths))
    if out is not None:
        write_json(Path(out) / "predictions.json", [prediction.to_json() for prediction in predictions])
    return predictions


def _ready(run: str | Path | Run, device: str, seed: int, out: str | Path | None) -> RunFolder:
    """The folder of a run that has a model. Raises SnellenError for it and for the other three, before any work."""
    Config.of(data="any", device=device, seed=seed)  # what is shared with training is checked as there
    folder = (run if isinstance(run, Run) else Run(run)).folder
    if not folder.best_checkpoint.is_file():
        raise RunError(f"{folder.path} has no model: it was an audit, or ended before there was one")
    if out is not None:
        _check_place(out)
    prepare_process()
    return folder
