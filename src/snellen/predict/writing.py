"""Predictions as files, written as they come, in a folder that can be gone on with after a kill.

``progress.json`` tells what was asked for, and how far everything is that was written. It is put on the disk every few
seconds, after a whole number of batches; what was written later is cut off when the prediction goes on, and comes
again. So the files are in the end, byte for byte, those of a prediction that was never interrupted, on the same machine
with as many threads.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from snellen.core.console import Advance
from snellen.core.errors import ConfigError, RunError
from snellen.core.files import held, storage_errors, sweep_temporary, write_json
from snellen.predict.images import SourceImage
from snellen.predict.prediction import Answer
from snellen.predict.predictor import Predictor
from snellen.predict.sources import Images
from snellen.predict.writers.base import Writer
from snellen.predict.writers.lines import Errors
from snellen.predict.writers.table import WRITERS, check_fit
from snellen.tasks.base import Task

STATE = "progress.json"
_VERSION = 1
_KEPT_EVERY = 2.0  # seconds: what a kill costs at most


@dataclass(frozen=True, slots=True)
class PredictedFiles:
    """What was written about images.

    formats     name -> the file, or the folder of a file for each image
    num_images  all of them; num_errors: those that could not be read
    """

    folder: Path
    formats: Mapping[str, Path]
    num_images: int
    num_errors: int

    def errors(self) -> Iterator[dict[str, str]]:
        """``path`` and ``error`` of each image that could not be read, as they came."""
        path = self.folder / Errors.makes
        if path.is_file():
            with open(path, encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def to_json(self) -> dict[str, Any]:
        formats = {name: str(path) for name, path in self.formats.items()}
        return {
            "folder": str(self.folder),
            "formats": formats,
            "images": self.num_images,
            "errors": self.num_errors,
        }


def write_predictions(
    predictor: Predictor,
    images: Images,
    folder: Path,
    formats: Sequence[str],
    *,
    asked: Mapping[str, Any],
    resume: bool = False,
    advance: Advance = lambda done, total: None,
) -> PredictedFiles:
    """Write what is said of ``images`` to ``folder``, as each of ``formats`` (names in ``WRITERS``).

    asked    JSON-able: what the answers follow from beside the images
    resume   go on with what is in ``folder``, or begin where there is nothing yet

    Raises ConfigError for a format that does not fit the task, and where ``folder`` was begun with something else;
    RunError where it is damaged, holds anything else, or is being written by another process.
    """
    check_fit(formats, predictor.task.name)
    asked = {"formats": list(formats), "images": [str(path.absolute()) for path in images.given], **asked}
    kinds: dict[str, type[Writer]] = {**{name: WRITERS[name] for name in formats}, "errors": Errors}
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        state = _begun(folder, asked, resume=resume)
        if not state.finished:
            _go_on(predictor, images, folder, kinds, state, advance)
        for kind in kinds.values():
            kind.tidy(folder)
    made = {name: folder / WRITERS[name].makes for name in formats}
    return PredictedFiles(folder, made, state.done, state.broken)


def _go_on(
    predictor: Predictor,
    images: Images,
    folder: Path,
    kinds: Mapping[str, type[Writer]],
    state: _State,
    advance: Advance,
) -> None:
    left = _left(images, state, folder)
    with _Record(folder, predictor.task, kinds, state) as record:
        with closing(predictor.answers(left)) as answers:
            for answer in answers:
                record.add(answer)
                advance(state.done, images.total or 0)
                if state.done % predictor.batch == 0:
                    record.keep_sometimes()
        record.finish()


@dataclass(slots=True)
class _State:
    """How far a prediction is.

    done      images that were written; broken: those of them that could not be read
    names     a hash of the names of those images, in their order
    writers   what each of them needs to go on
    finished  whether nothing is left to do
    """

    asked: dict[str, Any]
    done: int = 0
    broken: int = 0
    names: str = ""
    writers: Mapping[str, Mapping[str, int]] | None = None
    finished: bool = False

    def count(self, name: str) -> None:
        self.done += 1
        self.names = hashlib.sha256(f"{self.names}{name}".encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"version": _VERSION, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def read(cls, path: Path) -> _State:
        """Raises RunError for what ``to_json`` did not make."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("version") != _VERSION:
                raise ValueError("another version of Snellen wrote it")
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error}): begin again with another --out") from None


def _begun(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> _State:
    """The state of ``folder``."""
    known: dict[str, Any] = json.loads(json.dumps(asked))
    path = folder / STATE
    if path.exists() and resume:
        state = _State.read(path)
        _check_same(state.asked, known, folder)
        sweep_temporary(folder)
        return state
    if any(folder.iterdir()):
        why = "and no prediction was begun there" if resume else "and is never overwritten"
        raise RunError(f"{folder} exists {why}: choose another --out" + ("" if resume else ", or --resume it"))
    state = _State(known)
    write_json(path, state.to_json())
    return state


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"{folder} was begun with {name} = {_short(before.get(name))}, and now it is {_short(now.get(name))}: "
                "give the same again, or choose another --out"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _left(images: Images, state: _State, folder: Path) -> Iterator[SourceImage]:
    """The images that are not written yet. Raises ConfigError where those before are not those that were."""
    coming = iter(images)
    seen = _State({})
    for image in islice(coming, state.done):
        seen.count(image.name)
    if (seen.done, seen.names) != (state.done, state.names):
        raise ConfigError(
            f"the first {state.done} images are no longer those that {folder} was begun with: "
            "bring them back, or choose another --out"
        )
    return coming


class _Record:
    """The writers of a prediction and its state, which go on together."""

    def __init__(self, folder: Path, task: Task[Any], kinds: Mapping[str, type[Writer]], state: _State) -> None:
        self._path, self._state = folder / STATE, state
        kept = state.writers or {}
        self._writers = {name: kind(folder, task, kept.get(name, {})) for name, kind in kinds.items()}
        self._last = time.monotonic()

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, answer: Answer) -> None:
        for writer in self._writers.values():
            writer.add(answer)
        self._state.count(answer.image.name)
        self._state.broken += answer.prediction.error is not None

    def keep_sometimes(self) -> None:
        if time.monotonic() - self._last >= _KEPT_EVERY:
            self._keep()

    def _keep(self) -> None:
        self._state.writers = {name: writer.keep() for name, writer in self._writers.items()}
        write_json(self._path, self._state.to_json())
        self._last = time.monotonic()

    def finish(self) -> None:
        self._keep()
        for writer in self._writers.values():
            writer.finish()
        self._state.finished = True
        write_json(self._path, self._state.to_json())
