"""Small pictures for the report: of each class and of each finding, with what is marked in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from snellen.core.errors import ImageError, SnellenError
from snellen.core.files import write_bytes
from snellen.core.finding import Finding
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.data.image import decode
from snellen.data.survey import Survey
from snellen.draw.boxes import draw_questions
from snellen.draw.pictures import thumbnail
from snellen.tasks.base import Task, create_task

_SIDE, _MARKED_SIDE = 160, 480  # pixels; what is marked must be seen
_MOST_CLASSES = 40
_MARKED_FINDING_SIDE = 320  # pixels; there are more of them
_MOST_OF_A_FINDING, _MOST_OF_ALL = 24, 200
_MOST_BYTES = 4_000_000  # of the pictures of all findings: a run folder stays small


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


def save_pictures(run: RunFolder, known: Survey, findings: Sequence[Finding], task: str = "") -> None:
    """The first images of each finding, where ``run.picture_of`` says: 24 of each, 200 and 4 MB in all.

    The findings come the most severe first, so that what is left without pictures matters least.
    """
    suspects = _suspects(findings)
    named = (image_id for finding in findings for image_id in finding.images[:_MOST_OF_A_FINDING])
    room = _MOST_BYTES
    for image_id in islice(dict.fromkeys(each for each in named if each in known.records), _MOST_OF_ALL):
        record = known.records[image_id]
        try:
            task_of = _drawing(record, known.manifest.classes, task)
            picture = _picture(record, task_of, _MARKED_FINDING_SIDE, suspects.get(image_id, ()))
        except ImageError:
            continue
        room -= len(picture)
        if room < 0:
            return
        write_bytes(run.picture_of(image_id), picture)


def _suspects(findings: Sequence[Finding]) -> dict[str, list[Mapping[str, Any]]]:
    """The objects that findings name in their evidence, by image: ``box``, ``given`` and ``suggested`` of each."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        named = finding.evidence.get("objects")
        for each in named if isinstance(named, list) else ():
            found.setdefault(each["image"], []).append(each)
    return found


def _drawing(record: Record, classes: Sequence[str], task: str) -> Task[Any] | None:
    """The task that draws what is marked in an image; None where nothing can be."""
    if record.objects is None and record.mask is None:
        return None
    return create_task(task or ("detection" if record.mask is None else "segmentation"), classes)


def _picture(
    record: Record, task: Task[Any] | None, marked_side: int = _MARKED_SIDE, suspects: Sequence[Mapping[str, Any]] = ()
) -> bytes:
    if task is None:
        return thumbnail(decode(record.path, min_side=_SIDE), _SIDE)
    pixels = decode(record.path, min_side=marked_side)
    try:
        drawn = task.draw(pixels, task.target(record))
        return thumbnail(_with_suspects(drawn, record, suspects), marked_side)
    except SnellenError:  # a truth that cannot be had is told where it is needed; the picture is there all the same
        return thumbnail(pixels, marked_side)


def _with_suspects(drawn: Image.Image, record: Record, suspects: Sequence[Mapping[str, Any]]) -> Image.Image:
    if not suspects or record.size is None:
        return drawn
    boxes = np.array([each["box"] for each in suspects], np.float64) * (drawn.width / record.size[0])
    return draw_questions(drawn, boxes, [f"{each['suggested']}?" for each in suspects])
