"""An image that something is to be said of: a file, or a frame of a video. What it is called, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from snellen.core.errors import ImageError
from snellen.core.geometry import Size
from snellen.data.image import IMAGE_SUFFIXES, Pixels, read_header, read_image


class SourceImage(Protocol):
    """name    as the user gave it, or found in the folder that was given
    key     its path below the folder that all images of a prediction share, with '/'; no two images have the same
    place   the same without the suffix, where no other image's would be the same then: what is written about the image
            is called so
    holds_pixels  whether its pixels are in memory until it is read
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def place(self) -> str: ...

    @property
    def holds_pixels(self) -> bool: ...

    def size(self) -> Size:
        """(width, height), upright. Raises ImageError."""
        ...

    def read(self, min_side: int | None = None) -> tuple[Size, Pixels]:
        """Its size, and uint8 [h, w, 3], RGB; with ``min_side`` perhaps smaller, as in ``data.image.decode``.

        Raises ImageError.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    path: Path
    key: str

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def place(self) -> str:
        folder, slash, name = self.key.rpartition("/")
        stem = Path(name).stem
        shared = stem.casefold() in shared_stems(str(self.path.parent))
        return f"{folder}{slash}{name if shared else stem}"

    @property
    def holds_pixels(self) -> bool:
        return False

    def size(self) -> Size:
        header = read_header(self.path)
        return header.width, header.height

    def read(self, min_side: int | None = None) -> tuple[Size, Pixels]:
        header, pixels = read_image(self.path, min_side=min_side)
        return (header.width, header.height), pixels


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a file in which no image is found."""

    name: str
    key: str
    why: str

    @property
    def place(self) -> str:
        return self.key

    @property
    def holds_pixels(self) -> bool:
        return False

    def size(self) -> Size:
        raise ImageError(f"{self.name} {self.why}")

    def read(self, min_side: int | None = None) -> tuple[Size, Pixels]:
        raise ImageError(f"{self.name} {self.why}")


@lru_cache(maxsize=16)
def shared_stems(folder: str) -> frozenset[str]:
    """What is left of the names of a folder's images without suffix, where that alone does not tell them from each
    other, or from the whole name of another; without regard to case. Empty where the folder cannot be read."""
    once: set[str] = set()
    more: set[str] = set()
    whole: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name.casefold())
                if suffix in IMAGE_SUFFIXES:
                    (more if stem in once else once).add(stem)
                if suffix in IMAGE_SUFFIXES and os.path.splitext(stem)[1] in IMAGE_SUFFIXES:
                    whole.add(stem)  # "x.jpg" of "x.jpg.png", beside which "x.jpg" may be
    except OSError:
        return frozenset()
    return frozenset(more | whole)
