"""Which images were meant: files, or folders of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from snellen.core.errors import DataError
from snellen.data.image import IMAGE_SUFFIXES


def images_of(sources: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, folders as the images in them, sorted. Raises DataError for what is not there."""
    found: list[Path] = []
    for given in sources:
        source = Path(given)
        if not str(given):
            raise DataError("one of the images has an empty name: give image files, or a folder of them")
        if source.is_dir():
            inside = sorted(
                path for path in source.rglob("*") if _is_image(path.relative_to(source)) and path.is_file()
            )
            if not inside:
                raise DataError(f"{source} holds no images: give image files, or a folder of them")
            found.extend(inside)
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f"{source} does not exist: give image files, or a folder of them")
    if not found:
        raise DataError("no images were given: name image files, or a folder of them")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
