"""What is known of why a model answered as it did, for one image."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snellen.core.geometry import Size
from snellen.explain.deletion import Deletion
from snellen.explain.scene import Heat, Region

if TYPE_CHECKING:
    from PIL import Image

MEANING = "A map shows where a change would move the answer, not why the model answers so."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """A map of what an answer hangs on, or a picture of what a network sees. A notebook shows it.

    path      of the image, as it was given; empty where pixels were
    how       'grad-cam', 'occlusion', 'features' or 'filters'
    of        the class or the number that the map is of; of pictures, what they show
    score     of it, for the image as it is: a probability, the number, or as ``explain.asked.Asked`` says; else None
    heat      float32 [H, W], 0..1, over the whole upright image; None where there is no map. As large as the image, or
              reduced where its longer side has more than 1024 pixels or its file was decoded at a reduced scale
    size      (width, height) of the upright image on disk
    seen      the part (x0, y0, x1, y1) of ``heat`` that the model looks at; the rest is 0
    peak      of an occlusion map, the change of the score that 1 stands for, measured as ``scale`` says; else None
    scale     'log-odds' of a probability, 'number', or 'share' of what was found
    deletion  whether the map says anything; None where that was not asked
    error     why there is none, for an image that cannot be read or shows nothing of what was asked
    """

    path: str
    how: str
    of: str = ""
    score: float | None = None
    heat: Heat | None = None
    size: Size | None = None
    seen: Region | None = None
    peak: float | None = None
    scale: str = ""
    deletion: Deletion | None = None
    error: str | None = None
    _draw: Callable[[], Image.Image] | None = field(default=None, repr=False)

    @property
    def caption(self) -> str:
        """``bee 0.97``, or what the picture shows."""
        return self.of if self.score is None else f"{self.of} {_number(self.score)}"

    def picture(self) -> Image.Image:
        """The map over the image beside the image, or the picture. Raises ValueError where there is an ``error``."""
        if self._draw is None:
            raise ValueError(f"there is no picture of an explanation that failed: {self.error}")
        return self._draw()

    def to_json(self) -> dict[str, Any]:
        """All but the pixels."""
        if self.error is not None:
            return {"path": self.path, "how": self.how, "error": self.error}
        told: dict[str, Any] = {"path": self.path, "how": self.how, "of": self.of}
        if self.heat is not None:
            height, width = self.heat.shape
            told |= {"score": self.score, "size": list(self.size or ()), "heat_size": [width, height]}
            told |= {"seen": list(self.seen or ()), "peak": self.peak, "scale": self.scale}
            told |= {"deletion": None if self.deletion is None else self.deletion.to_json()}
        return told

    def _repr_png_(self) -> bytes | None:
        return None if self._draw is None else png(self.picture())


def png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def _number(score: float) -> str:
    from snellen.core.estimate import amount

    return f"{score:.2f}" if 0 <= score <= 1 else amount(score)
