"""What a model says of one image."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snellen.core.estimate import amount
from snellen.predict.images import SourceImage
from snellen.tasks.base import Task

if TYPE_CHECKING:
    from PIL import Image

_DRAWN_ON = 600  # pixels of the shorter side that a drawing needs: large photos are decoded at a part of their scale


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image. A notebook shows it as the picture with the answer on it.

    path    as it was given; of a frame of a video with its number, as in clip.mp4#000123
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

    def picture(self) -> Image.Image | None:
        """The image with the answer on it; None when it could not be read. It is read again for it."""
        return None if self._draw is None else self._draw()

    def _repr_png_(self) -> bytes | None:
        picture = self.picture()
        if picture is None:
            return None
        written = io.BytesIO()
        picture.save(written, "PNG")
        return written.getvalue()


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws only when it is looked at; a million predictions keep no pixels."""

    task: Task[Any]
    image: SourceImage
    target: Any

    def __call__(self) -> Any:
        return self.task.draw(self.image.read(_DRAWN_ON)[1], self.target)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A prediction with what those need who write it down.

    target  of the task; None where the image could not be read
    """

    image: SourceImage
    prediction: Prediction
    target: Any = None
