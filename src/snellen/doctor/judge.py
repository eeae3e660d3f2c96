"""Chosen images of a side, judged in the language that all tasks share: the training's own loss of each image, and the
number that its owner goes by. Where targets are plain tensors the experiments know more; this is for boxes and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from snellen.tasks.base import Metrics

Floats = npt.NDArray[np.float64]
Side = Literal["train", "val"]
Moved = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """losses: of each image [n], in evaluation mode. metric: the name of the number; metrics: what computes it."""

    losses: Floats
    metric: str
    metrics: Metrics[object]

    @cached_property
    def score(self) -> float:
        """The number of these images; higher is better, NaN where they have no case that it could judge."""
        found = self.metrics.compute(intervals=False).get(self.metric)
        return float("nan") if found is None else found.value

    @cached_property
    def standard_error(self) -> float:
        """Of ``score``, by bootstrap over the images."""
        return float(np.nanstd(self.metrics.resampled()[self.metric]))

    @property
    def mean(self) -> float:
        """Of the losses."""
        return float(self.losses.mean())


def one_of_each(rows: Iterable[int], units: Sequence[str]) -> list[int]:
    """``rows`` without those whose unit was there before; all of them where no units are known."""
    return list({units[row] if units else str(row): row for row in reversed(list(rows))}.values())[::-1]


class Judge(Protocol):
    """Judges a training by its own loss. ``rows`` are places of images in a side; nothing is augmented."""

    @property
    def metric(self) -> str:
        """The number that its owner goes by."""
        ...

    def count(self, side: Side) -> int:
        """Images of a side."""
        ...

    def images(self, side: Side, rows: Sequence[int]) -> tuple[Any, Any]:
        """These images as one batch, as ``Training.take_step`` takes it."""
        ...

    def judged(
        self, side: Side, rows: Sequence[int], *, moved: Moved | None = None, marks: Sequence[int] | None = None
    ) -> Judged:
        """The model as it is now, in evaluation mode, over these images, one at a time.

        moved  what is done to the inputs [1, c, h, w] before; what leaves the range of inputs is clipped to it
        marks  the places of the images whose targets are taken instead of their own
        """
        ...
