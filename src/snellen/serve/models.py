"""The models that a server answers with, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.errors import ConfigError
from snellen.predict.answering import Answering

if TYPE_CHECKING:
    from PIL import Image

Explain = Callable[[Answering, np.ndarray, str | None], tuple["Image.Image", str]]
"""(what answers, pixels uint8 [H, W, 3], a class or None for the first of the answer) -> a picture of what the answer
rests on, and a sentence about it."""

MODEL_VERSION = "1"  # a server has one of each model


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model and what there is to know of it.

    card     JSON-able: task, classes, metrics, findings, versions, preprocessing
    explain  None: what its answers rest on cannot be shown
    streams  how many threads may ask it at once, and should
    """

    answering: Answering
    card: Mapping[str, Any]
    explain: Explain | None = None
    streams: int = 1

    @property
    def task(self) -> str:
        return self.answering.task.name


def check_name(name: str) -> str:
    """``name``, which is to be part of an address. Raises ConfigError."""
    if (
        not name
        or len(name) > 200
        or not name.isprintable()
        or set(name) & set("/?#%\\")
        or name in (".", "..", "stats")
    ):
        raise ConfigError(f"{name!r} cannot be the name of a model: give one without / ? # %, as name=path")
    return name
