"""What the members of an ensemble say of the images of one side: asked once, joined in as many ways as are tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.console import Console
from snellen.core.record import Record
from snellen.ensemble.together import Ensemble, Heard
from snellen.tasks.base import Task

_KEPT_BYTES = 2**28  # of raw outputs; what is more is asked for again, which a way does a few times at most

Images = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Side:
    """Images with what is true of them, and what must be resampled together (None: each stands alone)."""

    name: str
    records: Sequence[Record]
    truth: Sequence[Any]
    groups: Sequence[str] | None

    @property
    def num_units(self) -> int:
        return len(self.records) if self.groups is None else len(set(self.groups))


class Panel:
    """The members, all in memory at once as they are for prediction, over the images of ``side``, a batch at a time."""

    def __init__(self, members: Ensemble, side: Side, console: Console) -> None:
        self.members, self.side = members, side
        self._kept: list[Heard] | None = None if members.joins_predictions else []
        alone: list[list[Any]] = [[] for _ in members.members]
        size = 0
        with console.progress(f"Asking {len(alone)} models about {side.name}", len(side.records)) as advance:
            for heard in members.hearings(side.records):
                for number, said in enumerate(alone):
                    said += members.alone(heard, number)
                size += sum(output.nbytes for output in heard.outputs if self._kept is not None)
                self._kept = None if self._kept is None or size > _KEPT_BYTES else [*self._kept, heard]
                advance(len(alone[0]), len(side.records))
        self.alone: list[list[Any]] = alone

    def said_by(self, together: Ensemble, images: Images | None = None) -> list[Any]:
        """The predictions of the same members, joined in any way, for all or some of the images."""
        places = list(range(len(self.side.records))) if images is None else np.flatnonzero(images).tolist()
        if together.joins_predictions:
            return list(together.settle_alone([[said[i] for i in places] for said in self.alone]))
        if self._kept is None and images is not None:
            heard = self.members.hearings([self.side.records[i] for i in places])
            return [each for batch in heard for each in together.settle(batch)]
        every = [each for batch in self.heard() for each in together.settle(batch)]
        return [every[i] for i in places]

    def heard(self) -> Iterator[Heard]:
        """Raw outputs for all images, in order, a batch at a time."""
        yield from self.members.hearings(self.side.records) if self._kept is None else self._kept

    def headline(self, predicted: Sequence[Any], images: Images | None = None) -> float:
        """Of some of the images; minus infinity where it is undefined."""
        return headline(self.members.task, predicted, self.side.truth, images)


def headline(task: Task[Any], predicted: Sequence[Any], truth: Sequence[Any], images: Images | None = None) -> float:
    places = range(len(truth)) if images is None else np.flatnonzero(images).tolist()
    metrics = task.metrics()
    metrics.update([predicted[i] for i in places], [truth[i] for i in places])
    found = metrics.compute(intervals=False).get(task.headline)
    return -np.inf if found is None or not np.isfinite(found.value) else found.value
