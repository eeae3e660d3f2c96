"""Predictions as JSON, an object a line; and the images that could not be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer
from snellen.tasks.base import Task


class JsonLines(Writer):
    """``predictions.jsonl``: each line what ``Prediction.to_json`` gives."""

    makes = "predictions.jsonl"

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        super().__init__(folder, task, kept)
        self._lines = self.lines(self.makes, kept.get("bytes", 0))

    def add(self, answer: Answer) -> None:
        said = json.dumps(answer.prediction.to_json(), ensure_ascii=False, allow_nan=False)
        self._lines.write(said + "\n")

    def keep(self) -> dict[str, int]:
        return {"bytes": self._lines.keep()}


class Errors(JsonLines):
    """``errors.jsonl``: of the images that could not be read alone, ``path`` and ``error``; no file without any."""

    makes = "errors.jsonl"

    def add(self, answer: Answer) -> None:
        if answer.prediction.error is not None:
            super().add(answer)

    @classmethod
    def tidy(cls, folder: Path) -> None:
        path = folder / cls.makes
        if path.exists() and not path.stat().st_size:
            path.unlink()
