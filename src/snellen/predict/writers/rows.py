"""Predictions as a table, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer
from snellen.tasks.base import Task

Result = Mapping[str, Any]
Row = Sequence[object]
_BOX = ("x0", "y0", "x1", "y1")


class Csv(Writer):
    """``predictions.csv``: a row for each image, or for each object where objects are found, with the columns of
    ``_KINDS`` between ``image`` and ``error``. An image that cannot be read has one row, with the error."""

    makes = "predictions.csv"

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        super().__init__(folder, task, kept)
        columns, self._rows = _KINDS[task.name]
        self._columns = columns(task.classes)
        self._lines = self.lines(self.makes, kept.get("bytes", 0))
        if not kept:
            self._write("image", self._columns, "error")

    def add(self, answer: Answer) -> None:
        prediction = answer.prediction
        if prediction.result is None:
            self._write(prediction.path, [""] * len(self._columns), prediction.error or "")
            return
        for row in self._rows(prediction.result, self.task.classes):
            self._write(prediction.path, row, "")

    def _write(self, image: str, row: Row, error: str) -> None:
        text = io.StringIO()
        told = [f"{cell:.7g}" if isinstance(cell, float) else cell for cell in row]
        csv.writer(text, lineterminator="\n").writerow([image, *told, error])
        self._lines.write(text.getvalue())

    def keep(self) -> dict[str, int]:
        return {"bytes": self._lines.keep()}


def _label_columns(classes: Sequence[str]) -> list[str]:
    return ["label", "confidence", *(f"p:{name}" for name in classes)]


def _label_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [[result["label"], result["confidence"], *(result["probabilities"][name] for name in classes)]]


def _labels_columns(classes: Sequence[str]) -> list[str]:
    return ["labels", *(f"p:{name}" for name in classes)]


def _labels_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [["|".join(result["labels"]), *(result["probabilities"][name] for name in classes)]]


def _value_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [[result["values"][name] for name in classes]]


def _box_columns(classes: Sequence[str]) -> list[str]:
    return ["label", "confidence", *_BOX]


def _box_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [[each["label"], each["confidence"], *each["box"]] for each in result["objects"]]


def _mask_columns(classes: Sequence[str]) -> list[str]:
    return [*_box_columns(classes), "area"]


def _mask_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [[each["label"], each["confidence"], *each["box"], each["area"]] for each in result["objects"]]


def _share_columns(classes: Sequence[str]) -> list[str]:
    return ["width", "height", "confidence", *(f"share:{name}" for name in classes)]


def _share_rows(result: Result, classes: Sequence[str]) -> list[Row]:
    return [[*result["size"], result["confidence"], *(result["shares"].get(name, 0.0) for name in classes)]]


_KINDS: dict[str, tuple[Callable[[Sequence[str]], list[str]], Callable[[Result, Sequence[str]], list[Row]]]] = {
    "classification": (_label_columns, _label_rows),
    "multilabel": (_labels_columns, _labels_rows),
    "regression": (list, _value_rows),
    "detection": (_box_columns, _box_rows),
    "instances": (_mask_columns, _mask_rows),
    "segmentation": (_share_columns, _share_rows),
}
"""For each task: classes -> the columns, and a result with the classes -> its rows. Boxes are in pixels of the upright
image, areas in its pixels; shares are of its pixels."""
