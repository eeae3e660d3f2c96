"""What a model says of one image."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snellen.core.estimate import amount
from snellen.data.image import decode
from snellen.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image. A notebook shows it as the picture with the answer on it.

    path    as it was given
    result  label, confidence and probabilities (one class), labels and probabilities (any number), values (a number by
            name), or what is where and a text about it; None when the image could not be read
    error   why, in that case
    """

    path: str
    result: dict[str, Any] | None
    error: str | None = None
    _draw: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str | None:
        """The class, the labels joined by '|' as in a table, the numbers with their names, or what is where."""
        if self.result is None:
            return None
        if "text" in self.result:
            return str(self.result["text"])
        if "values" in self.result:
            return ", ".join(f"{name} {amount(value)}" for name, value in self.result["values"].items())
        return str(self.result["label"]) if "label" in self.result else "|".join(self.result["labels"])

    @property
    def confidence(self) -> float | None:
        return None if self.result is None else self.result.get("confidence")

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, **(self.result or {"error": self.error})}

    def _repr_png_(self) -> bytes | None:
        if self._draw is None:
            return None
        written = io.BytesIO()
        self._draw().save(written, "PNG")
        return written.getvalue()


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws only when it is looked at; a million predictions keep no pixels."""

    task: Task[Any]
    path: str
    target: Any

    def __call__(self) -> Any:
        return self.task.draw(decode(Path(self.path), min_side=600), self.target)
