"""Annotation files that stand beside their images, one for each: which are there, and which image is whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from snellen.data.formats.image_files import ImageFiles

_GLANCE = 2_000  # entries of each folder that are enough to tell the layout
_TRIED = 3
_DEPTH = 3
_HEAD = 4096


def holds(folder: Path, suffix: str, is_one: Callable[[bytes], bool], depth: int = _DEPTH) -> bool:
    """Whether a file with ``suffix`` in the folder, or not far below, begins as ``is_one`` says."""
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in islice(scan, _GLANCE) if not entry.name.startswith(".")]
        files = sorted(entry.path for entry in entries if entry.name.lower().endswith(suffix) and entry.is_file())
        folders = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return False
    if any(is_one(head(Path(file))) for file in files[:_TRIED]):
        return True
    return depth > 0 and any(holds(Path(inner), suffix, is_one, depth - 1) for inner in folders)


def head(file: Path) -> bytes:
    """How a file begins; nothing where it cannot be read. Without zeros, so that UTF-16 is known by its words too."""
    try:
        with open(file, "rb") as stream:
            return stream.read(_HEAD).replace(b"\0", b"")
    except OSError:
        return b""


def files_below(root: Path, suffix: str) -> Iterator[str]:
    """Files with ``suffix``, relative to ``root``, in a stable order; hidden ones are passed over."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(os.path.relpath(os.path.join(folder, name), root)).as_posix()


def folder_of(file: str) -> str:
    """'' for the root."""
    parent = str(PurePosixPath(file).parent)
    return "" if parent == "." else parent


class Namesakes:
    """The image of an annotation file is the one of its own name; what the file says counts where there is none.

    Files are renamed together with their images, and what they say inside stays behind.

    differing  how many files named another image
    """

    def __init__(self, files: ImageFiles) -> None:
        self.differing = 0
        self._files = files
        self._called: dict[tuple[str, str], list[str]] = {}
        for name in files.names:
            self._called.setdefault((folder_of(name), PurePosixPath(name).stem), []).append(name)

    def image(self, file: str, stated: str, within: str) -> str:
        """The image of the annotation ``file``, which says ``stated``, looked for in the folder ``within`` first."""
        stem = PurePosixPath(file).stem
        stated = stated.replace("\\", "/")
        own = self._called.get((within, stem), [])
        if len(own) == 1:
            self.differing += bool(stated) and PurePosixPath(stated).stem != stem
            return own[0]
        if stated and not isinstance(self._files.find(stated, within), str):
            return stated
        return f"{stem}{PurePosixPath(stated).suffix or '.jpg'}"

    def notes(self, what: str) -> list[str]:
        """What to say of the files, which are called ``what``."""
        said = f"{what} files that name another image than the one called like them, which counts: {self.differing}"
        return [said] * bool(self.differing)
