"""The image files below a folder, found by the names that annotation files give them.

Nothing outside of the folder is ever returned, whatever a name says: names are looked up among the files that are
there, and never opened.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from snellen.core.errors import DataError, ImageError
from snellen.data.image import IMAGE_SUFFIXES, ImageHeader, read_header

_THREADS = 4  # headers wait for the disk, not for the processor


class ImageFiles:
    """Every image below ``root`` by its suffix, hidden files and folders aside, or those that ``names`` tells.

    names  relative to root, with forward slashes, sorted

    Raises DataError when the root is no folder.
    """

    def __init__(self, root: Path, names: Iterable[str] | None = None) -> None:
        self.root = Path(os.path.abspath(root))
        if not self.root.is_dir():
            raise DataError(f"the folder of images, {self.root}, does not exist; give it with --images")
        self.names = tuple(sorted(walk(self.root) if names is None else names))
        self._spelled = {_plain(name): name for name in self.names}
        self._called: dict[str, list[str]] = {}
        for spelled, name in self._spelled.items():
            file = PurePosixPath(spelled)
            for key in {file.name, f"{file.stem}."}:
                self._called.setdefault(key, []).append(name)

    def find(self, name: str, within: str = "") -> tuple[str, bool] | str:
        """The file that ``name`` means and whether it stands just there; or why there is none.

        Looked for, in this order: below the folder ``within``; below the root; the same without its first folders,
        one after the other; the only file of that name anywhere; the only one of that name with another suffix.
        Backslashes are slashes.
        """
        parts: list[str] = []
        for spelling in dict.fromkeys((name, name.strip())):  # a file name may begin with a blank
            parts = [part for part in _plain(spelling).split("/") if part not in ("", ".")]
            for skipped in range(len(parts)):
                spelled = "/".join(parts[skipped:])
                for key in (f"{within}/{spelled}", spelled):
                    if key in self._spelled:
                        return self._spelled[key], skipped == 0
        if not parts:
            return "names no image"
        for key in (parts[-1], f"{PurePosixPath(parts[-1]).stem}."):
            found = self._called.get(key, [])
            found = [name for name in found if within and _plain(name).startswith(f"{within}/")] or found
            if len(found) == 1:
                return found[0], False
            if found:
                return f"several files could be meant: {found[0]}, {found[1]}" + ", ..." * (len(found) > 2)
        return "file not found"

    def headers(self, names: Sequence[str]) -> list[ImageHeader | str]:
        """The header of each, or why it cannot be read."""

        def header(name: str) -> ImageHeader | str:
            try:
                return read_header(self.root / name)
            except ImageError as error:
                return str(error)

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(header, names))


def walk(root: Path) -> Iterable[str]:
    """The images below a folder, relative to it."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            relative = name if below == "." else f"{below}/{name}"
            if not name.startswith(".") and _suffix(name) in IMAGE_SUFFIXES and _is_text(relative):
                yield relative


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_text(name: str) -> bool:
    """Whether a file name is UTF-8; others could not be written into any file of a run."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(name: str) -> str:
    """One spelling of a name: macOS writes letters and their accents apart, Windows writes backslashes."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
