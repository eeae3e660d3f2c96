"""Small pictures of a few images of each class, for the report; with what is marked in them, where that is the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from snellen.core.errors import ImageError, SnellenError
from snellen.core.files import write_bytes
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.data.image import decode
from snellen.data.survey import Survey
from snellen.draw.pictures import thumbnail
from snellen.tasks.base import Task, create_task

_SIDE, _MARKED_SIDE = 160, 480  # pixels; what is marked must be seen
_MOST_CLASSES = 40


def save_examples(run: RunFolder, known: Survey, examples: Mapping[str, Sequence[str]], task: str = "") -> None:
    """pictures/example-<class index>-<number>.webp for the first classes; ``examples`` names image ids by class.

    task  whose truth is drawn on marked images; '': boxes, or masks, as the data has them
    """
    for index, name in enumerate(islice(known.manifest.classes, _MOST_CLASSES)):
        for number, image_id in enumerate(examples.get(name, ())):
            record = known.records[image_id]
            try:
                picture = _picture(record, _drawing(record, known.manifest.classes, task))
            except ImageError:  # the file went away since it was scanned
                continue
            write_bytes(run.pictures / f"example-{index}-{number}.webp", picture)


def _drawing(record: Record, classes: Sequence[str], task: str) -> Task[Any] | None:
    """The task that draws what is marked in an image; None where nothing can be."""
    if record.objects is None and record.mask is None:
        return None
    return create_task(task or ("detection" if record.mask is None else "segmentation"), classes)


def _picture(record: Record, task: Task[Any] | None) -> bytes:
    if task is None:
        return thumbnail(decode(record.path, min_side=_SIDE), _SIDE)
    pixels = decode(record.path, min_side=_MARKED_SIDE)
    try:
        return thumbnail(task.draw(pixels, task.target(record)), _MARKED_SIDE)
    except SnellenError:  # a truth that cannot be had is told where it is needed; the picture is there all the same
        return thumbnail(pixels, _MARKED_SIDE)
