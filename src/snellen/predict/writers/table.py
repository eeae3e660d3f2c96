"""Every kind of file that predictions can be written as."""

from __future__ import annotations

from collections.abc import Sequence

from snellen.core.errors import ConfigError, did_you_mean
from snellen.predict.writers.base import Writer, fitting
from snellen.predict.writers.coco import Coco
from snellen.predict.writers.lines import JsonLines
from snellen.predict.writers.masks import Masks
from snellen.predict.writers.pictures import JpegPictures, Pictures, PngPictures
from snellen.predict.writers.rows import Csv
from snellen.predict.writers.yolo import Yolo

WRITERS: dict[str, type[Writer]] = {
    "pictures": Pictures,
    "pictures-jpg": JpegPictures,
    "pictures-png": PngPictures,
    "csv": Csv,
    "jsonl": JsonLines,
    "coco": Coco,
    "yolo": Yolo,
    "masks": Masks,
}


def names_of(wish: str | Sequence[str]) -> list[str]:
    """``'csv,coco'`` or ``['csv', 'coco']`` -> the names, each once. Raises ConfigError for none, and for
    one that is not known."""
    wishes = [wish] if isinstance(wish, str) else list(wish)
    names = [name.strip() for each in wishes for name in each.split(",")]
    if not names:
        raise ConfigError(f"no formats are named for the predictions: use {', '.join(WRITERS)}")
    for name in names:
        if name not in WRITERS:
            raise ConfigError(f"predictions as '{name}' are not known{did_you_mean(name, WRITERS)}")
    return list(dict.fromkeys(names))


def check_fit(names: Sequence[str], task: str) -> None:
    """Raises ConfigError where what ``task`` answers cannot be written as one of ``names``."""
    fit = fitting(WRITERS, task)
    for name in names:
        if name not in fit:
            raise ConfigError(f"predictions of the task '{task}' cannot be written as {name}: use {', '.join(fit)}")
