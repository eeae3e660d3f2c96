"""Which images were meant: files, folders of them, lists of them, and videos.

They are gone through one by one, and again from the beginning where that is asked: a million of them take no memory
but the names of one folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from snellen.core.errors import ConfigError, DataError
from snellen.data.image import IMAGE_SUFFIXES
from snellen.predict.images import ImageFile, SourceImage
from snellen.predict.video import VIDEO_SUFFIXES, check_decoder, frames_of

LIST_SUFFIX = ".txt"

_WISH = "give image files, folders of them, a list of their names (.txt) or videos"


class Images:
    """The images that ``given`` names, in its order; those of a folder sorted, with the folders in it.

    every    of a video, each how many-th frame
    without  a folder that is passed over wherever it lies: what is written about images is no image to predict

    total    how many there are; None where a video is among them
    root     the folder that all of them lie in, as an absolute path

    All names are looked up at once. Raises DataError for what is not there, ConfigError for a video that cannot be
    decoded on this machine, and for an ``every`` that is no step or has no video to count in.
    """

    def __init__(self, given: Iterable[str | Path], *, every: int = 1, without: Path | None = None) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"every = {every!r} is no step from frame to frame: give a whole number from 1")
        self._every = every
        self._without = None if without is None else os.path.realpath(without)
        self.given = tuple(_checked(each) for each in given)
        if not self.given:
            raise DataError(f"no images were given: {_WISH}")
        count, videos, folders = 0, 0, _Common()
        for source in self.given:
            before, own = count, source if source.is_dir() else None
            for path in self._files_of(source, check=True):
                count += 1
                if _is_video(path):
                    check_decoder(path)
                    videos += 1
                folders.add(own or path.parent)
            if count == before:
                raise DataError(f"{source} holds no images: {_WISH}")
        if every > 1 and not videos:
            raise ConfigError(f"every = {every} counts frames, and there is no video: leave it out")
        self.total = None if videos else count
        self.root = folders.common

    def __iter__(self) -> Iterator[SourceImage]:
        for source in self.given:
            for path in self._files_of(source, check=False):
                key = os.path.relpath(os.path.abspath(path), self.root).replace(os.sep, "/")
                if _is_video(path):
                    yield from frames_of(path, key, self._every)
                else:
                    yield ImageFile(path, key)

    def _files_of(self, source: Path, *, check: bool) -> Iterator[Path]:
        if source.is_dir():
            return self._walked(source)
        return _listed(source, check=check) if _is_list(source) else iter([source])

    def _walked(self, folder: Path) -> Iterator[Path]:
        """Images below a folder, in the order of ``sorted`` paths. What is hidden is passed over, links to folders are
        not followed."""
        folders: set[str] = set()
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.add(entry.name)
                    elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES or not _is_image(entry):
                        continue
                    names.append(entry.name)
        except OSError as error:
            raise DataError(f"{folder} cannot be read: {error.strerror or error}") from None
        for name in sorted(names):
            path = folder / name
            if name not in folders:
                yield path
            elif self._without is None or os.path.realpath(path) != self._without:
                yield from self._walked(path)


class _Common:
    """The folder that has all the folders in it that were added."""

    def __init__(self) -> None:
        self.common = ""
        self._last: Path | None = None

    def add(self, folder: Path) -> None:
        if folder == self._last:
            return
        self._last, path = folder, os.path.abspath(folder)
        try:
            self.common = os.path.commonpath([self.common or path, path])
        except ValueError:
            raise DataError(f"{folder} is on another drive than other images: give those of one drive") from None


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether there is a file behind a name, or a link to one that is lost: it is told, as all that cannot be read."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def _checked(given: str | Path) -> Path:
    source = Path(given)
    if not str(given):
        raise DataError(f"one of the images has an empty name: {_WISH}")
    if not source.is_dir() and not source.is_file():
        raise DataError(f"{source} does not exist: {_WISH}")
    return source


def _listed(path: Path, *, check: bool) -> Iterator[Path]:
    """The files that the lines of a list name, relative to its folder."""
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                name = line.strip()
                if not name or name.startswith("#"):
                    continue
                file = path.parent / name
                if check:
                    _check_line(file, f"{path}, line {number}")
                yield file
    except UnicodeDecodeError:
        raise DataError(f"{path} is no list of images: give UTF-8 text with a path in each line") from None


def _check_line(file: Path, where: str) -> None:
    if file.is_dir():
        raise DataError(f"{where}: {file} is a folder; a list names files, folders are given by themselves")
    if not file.is_file():
        raise DataError(f"{where}: {file} does not exist; paths in a list are relative to its folder")
    if _is_list(file):
        raise DataError(f"{where}: {file} is a list itself; a list names images and videos")


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == LIST_SUFFIX


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
