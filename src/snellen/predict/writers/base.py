"""What a writer of predictions fulfils, and files that can be gone on with after a kill."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from snellen.core.errors import RunError
from snellen.core.files import storage_errors
from snellen.predict.images import SourceImage
from snellen.predict.prediction import Answer
from snellen.tasks.base import Task

_LONGEST_NAME = 240  # bytes of a file's name; file systems take 255, of which a temporary name needs some


class Writer(ABC):
    """Writes answers into a folder as they come; nothing of them is kept.

    What it writes follows from the answers and their order alone. It can be killed at any moment and made again with
    what its last ``keep`` returned; it is then given the answers after those again.

    tasks     those whose answers it can write; empty: of every task
    makes     the file that it makes, or the folder of a file for each image
    leftover  files of the folder that only serve the writing
    """

    tasks: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[str]
    leftover: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        """``kept`` is what ``keep`` gave; empty at the beginning."""
        self.folder, self.task = folder, task
        self._opened: list[Lines] = []

    def lines(self, name: str, size: int) -> Lines:
        """A file of the folder, cut back to ``size`` bytes, which ``close`` closes."""
        self._opened.append(Lines(self.folder / name, size))
        return self._opened[-1]

    @abstractmethod
    def add(self, answer: Answer) -> None:
        """The next answer; images that could not be read come as well."""

    def keep(self) -> dict[str, int]:
        """Bring everything to the disk; what is needed to go on from here."""
        return {}

    def finish(self) -> None:
        """After the last answer. It may be called again when a kill came after it."""
        self.keep()

    @classmethod
    def tidy(cls, folder: Path) -> None:
        """Remove what only served the writing, where it is still there; nothing is gone on with any more."""
        for name in cls.leftover:
            (folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of open files."""
        for each in self._opened:
            each.close()


class Lines:
    """A text file that grows, and is cut back to where it was known to be whole when it is opened again."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """``size`` in bytes. Raises RunError when less is there."""
        self.path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            there = path.stat().st_size if path.exists() else 0
            if there < size:
                raise RunError(f"{path} is shorter than when it was left: begin again with another --out")
            self._file = open(path, "r+b" if there else "w+b")
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, text: str) -> None:
        """Names that are not Unicode are written with escapes, which JSON reads back."""
        with storage_errors(self.path):
            self._file.write(text.encode("utf-8", "backslashreplace"))

    def keep(self) -> int:
        """Bring it to the disk; how many bytes it has."""
        with storage_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        with storage_errors(self.path):
            self._file.close()


def file_for(folder: Path, image: SourceImage, suffix: str) -> Path:
    """Where in ``folder`` what is said of an image goes: as the images lie to each other, under their names.

    Whatever an image is called, that is below ``folder``. Names that are too long for a file system end in a hash.
    """
    parts = [part for part in image.place.split("/") if part not in ("", ".", "..")]
    return folder.joinpath(*map(_shortened, parts[:-1]), _shortened(parts[-1], suffix))


def _shortened(name: str, suffix: str = "") -> str:
    encoded = os.fsencode(name)
    if len(encoded) + len(suffix) <= _LONGEST_NAME:
        return name + suffix
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    start = encoded[: _LONGEST_NAME - len(suffix) - len(digest) - 1].decode("utf-8", "ignore")
    return f"{start}-{digest}{suffix}"


def fitting(writers: Mapping[str, type[Writer]], task: str) -> Sequence[str]:
    """The names of the writers that can write what ``task`` answers."""
    return [name for name, writer in writers.items() if not writer.tasks or task in writer.tasks]
