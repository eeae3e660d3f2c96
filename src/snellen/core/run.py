"""The folder of one run: what is in it, typed reading, and writing that a crash cannot spoil.

config.toml          the settings, as asked; plan.json: what they came to, with reasons
data.json            the manifest with hashes, what was left out, the summary of the audit
overlay.json         the changes to the data that the run was asked for; of an audit: those that it proposes
environment.json     versions, machine, command
metrics.jsonl        one event a line; events.out.tfevents.*: the same for TensorBoard
checkpoints/         best.safetensors: the model to use; last.safetensors: everything needed to go on
predictions/         probabilities and truth of each evaluated split
pictures/            what the report shows; findings/: the images that the findings name, see ``picture_of``
findings.json        what the checks found; results.json: numbers with intervals; report.html
fold-1/, fold-2/     of a cross-validation: the run of each fold, a folder like this one; where it is repeated, the
                     second time in repeat-2/fold-1/, repeat-2/fold-2/, and so on
ensemble.json        of an ensemble: its members and how they are joined; their checkpoints are in members/
STATUS               running, stopped (can be resumed), done, or failed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from snellen.core.config import Config
from snellen.core.errors import RunError
from snellen.core.files import storage_errors, sweep_temporary, write_bytes, write_json, write_text
from snellen.core.finding import Finding
from snellen.core.plan import Plan

RUN_VERSION = 1
OUT_OF_FOLD = "out-of-fold"  # the side of a cross-validation: each image by the models that did not learn from it
Status = Literal["running", "stopped", "done", "failed"]


class RunFolder:
    """Typed access to the files of a run folder. Nothing is read before it is asked for."""

    RECIPE = "ensemble.json"

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def check_free(path: Path, *, resumable: bool = False) -> None:
        """Raises RunError when there is something at ``path``; an empty folder may be used.

        ``resumable``: what is begun there can be gone on with, which is then advised.
        """
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(
                f"{path} exists and is never overwritten: choose another --out"
                + (", or --resume it" if resumable else "")
            )

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new folder. Raises RunError when there is something at ``path`` already, StorageError when it cannot be."""
        cls.check_free(path)
        with storage_errors(path):
            (path / "checkpoints").mkdir(parents=True)
        run = cls(path)
        run.set_status("running")
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises RunError when ``path`` is not one, or was written by a newer Snellen."""
        run = cls(path)
        if not (path / "STATUS").is_file():
            there = "is not a run folder (it has no STATUS file)" if path.exists() else "does not exist"
            raise RunError(f"{path} {there}: give the folder that 'snellen train' wrote")
        environment = run.read_json("environment.json", missing={})
        version = environment.get("run_version", RUN_VERSION) if isinstance(environment, dict) else None
        if not isinstance(version, int):
            raise RunError(f"{path / 'environment.json'} is damaged: it does not say which version wrote it")
        if version > RUN_VERSION:
            raise RunError(
                f"{path} has run format version {version}, newer than the {RUN_VERSION} this Snellen reads: "
                "update Snellen"
            )
        return run

    # --- paths

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    def picture_of(self, image_id: str) -> Path:
        """Where the small picture of an image is that findings name: one file, whichever of them name it."""
        digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()
        return self.pictures / "findings" / f"{digest[:20]}.webp"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def is_cross_validation(self) -> bool:
        """True for the folder of several folds, which has a run in fold-1, another in fold-2, and so on."""
        if not (self.path / "config.toml").is_file():
            return False  # an audit
        config = self.config
        return config.folds is not None and config.fold is None

    def fold(self, number: int, repeat: int = 1) -> Path:
        """Where the run of a fold is; both numbers from 1."""
        return (self.path if repeat == 1 else self.path / f"repeat-{repeat}") / f"fold-{number}"

    def folds(self) -> list[tuple[int, int]]:
        """(repeat, fold) of every run of a cross-validation, both from 1, in the order of training."""
        config = self.config
        repeats, numbers = range(1, config.repeats + 1), range(1, (config.folds or 0) + 1)
        return [(repeat, number) for repeat in repeats for number in numbers]

    @property
    def is_ensemble(self) -> bool:
        """True for what ``snellen ensemble`` wrote, a soup included."""
        return (self.path / self.RECIPE).is_file()

    def models(self) -> list[Path]:
        """The checkpoints that answer together for this run: its best one, those of all of its folds, or the members
        of an ensemble that have a say.

        Raises RunError when there is none, or when a fold has none yet.
        """
        if self.is_ensemble and self.status != "done":
            raise RunError(f"{self.path} is an ensemble that was never finished: remove it, and make it again")
        if self.best_checkpoint.is_file():
            return [self.best_checkpoint]
        if self.is_ensemble:
            return self._members()
        if not self.is_cross_validation:
            raise RunError(f"{self.path} has no model: it was an audit, or ended before there was one")
        folds = [RunFolder(self.fold(number, repeat)) for repeat, number in self.folds()]
        done = [fold for fold in folds if (fold.path / "STATUS").is_file() and fold.status == "done"]
        if len(done) < len(folds):
            raise RunError(
                f"{self.path} has models of {len(done)} of its {len(folds)} folds: "
                f"go on with snellen train --resume {self.path}"
            )
        return [fold.best_checkpoint for fold in done]

    def _members(self) -> list[Path]:
        try:
            files = [member["file"] for member in self.read_json(self.RECIPE)["members"] if member["weight"] > 0]
            return [self.path / file for file in files]
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path / self.RECIPE} is damaged: {error!r}") from None

    # --- reading

    @property
    def status(self) -> Status:
        """Raises RunError when the file is damaged."""
        word = (self.path / "STATUS").read_bytes().decode(errors="replace").strip()
        for status in get_args(Status):
            if word == status:
                return status  # type: ignore[no-any-return]
        raise RunError(
            f"{self.path / 'STATUS'} is damaged: it says {word[:40]!r}, not one of {', '.join(get_args(Status))}"
        )

    @property
    def overlay(self) -> Path:
        return self.path / "overlay.json"

    @property
    def config(self) -> Config:
        """The settings; changes to the data are those that the run keeps, wherever the file is that it was given."""
        config = Config.from_file(self.path / "config.toml", {})
        if config.overlay is None or not self.overlay.is_file():
            return config
        return config.model_copy(update={"overlay": str(self.overlay.absolute())})

    @property
    def plan(self) -> Plan:
        """Raises RunError when there is none, or when it is damaged."""
        content = self.read_json("plan.json")
        try:
            return Plan.from_json(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / 'plan.json'} is damaged: {error!r}") from None

    @property
    def findings(self) -> list[Finding]:
        return [Finding.from_json(fields) for fields in self.read_json("findings.json", missing=[])]

    def read_json(self, name: str, *, missing: Any = None) -> Any:
        """``missing`` is returned when there is no such file; without it, that is a RunError."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if missing is not None:
                return missing
            raise RunError(f"the run folder {self.path} has no {name}: it was stopped before it was written") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} is damaged: {error}") from None

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of metrics.jsonl in order. A last line that a kill cut short is passed over.

        Raises RunError for any other line that is no event.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty, or cut short
            try:
                event = json.loads(line)
            except ValueError as error:
                raise RunError(f"{path} is damaged in line {number}: {error}") from None
            yield event

    # --- writing

    def set_status(self, status: Status) -> None:
        write_text(self.path / "STATUS", status + "\n")

    def write_json(self, name: str, content: Any) -> None:
        write_json(self.path / name, content)

    def write_findings(self, findings: Sequence[Finding]) -> None:
        self.write_json("findings.json", [finding.to_json() for finding in findings])

    def append_event(self, event: Mapping[str, Any]) -> None:
        with (
            storage_errors(self.path / "metrics.jsonl"),
            open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(event, allow_nan=False) + "\n")

    def rewind_events(self, step: int) -> None:
        """Drop the events after ``step``: a resumed run writes them again."""
        kept = [event for event in self.events() if event.get("step", 0) <= step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(event) + "\n" for event in kept))

    def sweep(self) -> None:
        """Remove what a killed process left: temporary files, and half of a last line in metrics.jsonl."""
        sweep_temporary(self.path)
        path = self.path / "metrics.jsonl"
        if path.is_file():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_bytes(path, whole)


def names_of(paths: Sequence[Path]) -> list[str]:
    """What to call runs that lie at ``paths``: the shortest ends that tell them apart."""
    whole = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(parts[-1:])} ({i})" for i, parts in enumerate(whole, start=1)]  # one run given twice
