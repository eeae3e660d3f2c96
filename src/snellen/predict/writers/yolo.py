"""Predictions as YOLO writes them: a text file for each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snellen.core.files import write_text
from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer, file_for
from snellen.tasks.base import Task


class Yolo(Writer):
    """``labels/``: for each image that could be read a line ``class cx cy w h confidence`` for each box, as shares of
    the upright image's width and height; and beside it ``classes.txt``, the name of class 0 in its first line, and so
    on."""

    tasks = ("detection", "instances")
    makes = "labels"

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        super().__init__(folder, task, kept)
        names = (" ".join(name.split()) for name in task.classes)
        text = "".join(f"{name}\n" for name in names).encode("utf-8", "backslashreplace").decode()
        write_text(folder / "classes.txt", text)

    def add(self, answer: Answer) -> None:
        result = answer.prediction.result
        if result is None:
            return
        width, height = result["size"]
        lines = []
        for each in result["objects"]:
            x0, y0, x1, y1 = each["box"]
            shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            numbers = " ".join(f"{number:.6f}" for number in (*shares, each["confidence"]))
            lines.append(f"{self.task.classes.index(each['label'])} {numbers}\n")
        write_text(file_for(self.folder / self.makes, answer.image, ".txt"), "".join(lines))
