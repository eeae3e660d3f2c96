"""What a model answers for changed copies of one image: all that a black box can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from snellen.core.geometry import Size
from snellen.data.store import frame_of
from snellen.explain.asked import Asked, asked_of
from snellen.explain.scene import MOST_SIDE, Fill, Pixels, Region, seen_region, shrunk, stand_in
from snellen.predict.answering import Answering

_FINEST = 320  # pixels of the longer side in which places are told to each other: masks of a photo cost seconds


class Trials:
    """An image at the smallest scale at which its input loses nothing, and the scores of copies of it.

    pixels      uint8 [h, w, 3]: what copies are made of
    stand_in    the same size: what takes the place of what is removed
    seen        the part (x0, y0, x1, y1) of ``pixels`` that the model looks at
    """

    def __init__(self, answering: Answering, pixels: Pixels, size: Size, *, fill: Fill = "blur") -> None:
        least = answering.min_side
        self.pixels = shrunk(pixels, longest=MOST_SIDE) if least is None else shrunk(pixels, shortest=least)
        self.stand_in = stand_in(self.pixels, fill)
        self._answering = answering
        self._size = _told_in(size) if answering.task.dense else size
        own = (self.pixels.shape[1], self.pixels.shape[0])
        self.seen: Region = seen_region(frame_of(self._size, answering.preprocessing), own)
        [self._answer] = answering.decide([answering.prepare(self.pixels, self._size)])

    def asked(self, of: str | None) -> list[Asked]:
        """What is explained of the answer for ``pixels``. Raises as ``asked_of``."""
        return asked_of(self._answering.task, self._answer, of)

    def score(self, asked: Asked) -> float:
        """Of ``pixels`` as they are."""
        return asked.score(self._answer)

    def scores(self, copies: Iterable[Pixels], asked: Sequence[Asked]) -> NDArray[np.float64]:
        """Copies like ``pixels`` -> float64 [n, len(asked)]."""
        found, waiting = list[list[float]](), iter(copies)
        while batch := [self._answering.prepare(each, self._size) for each in islice(waiting, self._answering.batch)]:
            found += [[each.score(answer) for each in asked] for answer in self._answering.decide(batch)]
        return np.array(found).reshape(-1, len(asked))

    def without(self, removed: NDArray[np.bool_]) -> Pixels:
        """``pixels`` with the stand-in where ``removed`` [h, w] says."""
        return np.where(removed[..., None], self.stand_in, self.pixels)


def _told_in(size: Size) -> Size:
    scale = min(1.0, _FINEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
