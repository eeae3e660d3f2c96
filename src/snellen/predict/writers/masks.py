"""Predictions as masks: a PNG of the upright image's size, whose values are classes or objects."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.files import write_bytes, write_json
from snellen.draw.palette import colour_of
from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer, file_for
from snellen.tasks.base import Task

_MOST_IN_A_PALETTE = 255


class Masks(Writer):
    """``masks/``: for each image that could be read a PNG.

    Of class maps, a value is a class; ``classes.json`` beside the folder tells which, with its colour in the palette.
    Of objects, a value is the number of one, from 1 in the order of their scores, the surest in front, and 0 is none of
    them; a JSON file beside each mask says what each is. With more than 255 objects a mask has 16 bits and no palette.
    """

    tasks = ("segmentation", "instances")
    makes = "masks"

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        super().__init__(folder, task, kept)
        self._of_objects = task.name == "instances"
        if not self._of_objects:
            told = [
                {"value": value, "class": _told(name), "colour": list(colour_of(value))}
                for value, name in enumerate(task.classes)
            ]
            write_json(folder / "classes.json", told)

    def add(self, answer: Answer) -> None:
        if answer.target is None:
            return
        if self._of_objects:
            self._add_objects(answer)
        else:
            self._save(answer, answer.target.array)

    def _add_objects(self, answer: Answer) -> None:
        objects = (answer.prediction.result or {})["objects"]
        width, height = answer.target.size
        values = np.zeros((height, width), np.uint8 if len(objects) <= _MOST_IN_A_PALETTE else np.uint16)
        shown = answer.target.above(self.task.thresholds)  # type: ignore[attr-defined]
        for number, mask in reversed(list(enumerate(shown.masks, start=1))):
            x0, y0, x1, y1 = mask.region
            values[y0:y1, x0:x1][mask.pixels()] = number
        told = [
            {"value": value, "class": _told(each["label"]), "confidence": each["confidence"], "box": each["box"]}
            for value, each in enumerate(objects, start=1)
        ]
        self._save(answer, values)
        write_json(file_for(self.folder / self.makes, answer.image, ".json"), told)

    def _save(self, answer: Answer, values: NDArray[Any]) -> None:
        picture = Image.fromarray(values)
        if values.dtype == np.uint8:
            picture.putpalette(_palette(first_is_none=self._of_objects))
        written = io.BytesIO()
        picture.save(written, "PNG")
        write_bytes(file_for(self.folder / self.makes, answer.image, ".png"), written.getvalue())


def _told(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _palette(*, first_is_none: bool) -> list[int]:
    """The colours of values 0 to 255, three levels each."""
    colours = [level for value in range(256) for level in colour_of(value)]
    return [0, 0, 0, *colours[:-3]] if first_is_none else colours
