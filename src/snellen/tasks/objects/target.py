"""What is said of the objects of one image, whatever shows where they are. The same type holds truth and prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Annotation, Rle
from snellen.core.errors import DataError, did_you_mean
from snellen.core.geometry import Matrix, Size
from snellen.core.record import Record
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region

Floats = NDArray[np.float32]

NO_ROWS: dict[str, NDArray[Any]] = {
    "boxes": np.zeros((0, 4), np.float32),
    "labels": np.zeros(0, np.int64),
    "scores": np.zeros(0, np.float32),
    "crowd": np.zeros(0, np.bool_),
    "difficult": np.zeros(0, np.bool_),
    "area": np.zeros(0, np.float32),
}
"""The fields of an ``ObjectSet`` that have a row for each object, where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectSet(ABC):
    """The objects of an image, perhaps none.

    boxes      float32 [n, 4] (x0, y0, x1, y1), in pixels of an image of ``size`` (width, height)
    labels     int64 [n], class indices
    scores     float32 [n], 0..1, falling; None for truth
    crowd      bool [n]: regions of many objects, neither learnt nor judged
    difficult  bool [n]: not counted when missed
    area       float32 [n], in square pixels: what makes them small or large to a metric
    """

    size: Size
    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats | None = None
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    area: Floats

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    @abstractmethod
    def of(cls, record: Record, classes: Sequence[str]) -> Self:
        """The truth of a record. Raises DataError as ``objects_of``."""

    @classmethod
    @abstractmethod
    def empty(cls, size: Size) -> Self:
        """The prediction that there is nothing."""

    @classmethod
    @abstractmethod
    def merged(
        cls, parts: Sequence[Self], regions: Sequence[Region], size: Size, *, by: str = "iou", agnostic: bool = False
    ) -> Self:
        """What was found in each of ``regions``, in its own pixels -> what there is in the image of ``size``.

        ``by`` and ``agnostic`` as in ``sightings.found_once``.
        """

    @abstractmethod
    def moved(self, matrix: Matrix, size: Size, field: ElasticField | None = None) -> Self:
        """After ``matrix`` and ``field`` brought the image to ``size``; what is hardly left is dropped."""

    @abstractmethod
    def within(self, region: Region) -> Self:
        """What is seen of them in a region of the image."""

    @abstractmethod
    def covered(self, region: Region) -> Self:
        """What is seen of them around a region that something else covers."""

    def runs(self, size: Size) -> list[Rle] | None:
        """The mask of each in an image of ``size``; None where only boxes are known."""
        return None

    def chosen(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Some of them."""
        rows: dict[str, Any] = {name: column[index] for name, column in self._columns().items()}
        return replace(self, **rows)

    def above(self, thresholds: Sequence[float]) -> Self:
        """Those whose score reaches the threshold of their class; of truth all."""
        return self if self.scores is None else self.chosen(self.scores >= np.asarray(thresholds)[self.labels])

    def joined(self, other: Self) -> Self:
        """The objects of both, for an image that shows both."""
        rows: dict[str, Any] = {
            name: np.concatenate([column, getattr(other, name)]) for name, column in self._columns().items()
        }
        return replace(self, **rows)

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in NO_ROWS if getattr(self, name) is not None}


ObjectsT = TypeVar("ObjectsT", bound=ObjectSet)


def objects_of(record: Record, classes: Sequence[str], lacking: str) -> Sequence[Annotation]:
    """What is marked in a record. DataError if nothing can be, with ``lacking``, or a label is not in ``classes``."""
    if record.objects is None or record.size is None:
        raise DataError(f"{record.id}: {lacking}")
    unknown = next((each.label for each in record.objects if each.label not in classes), None)
    if unknown is not None:
        raise DataError(
            f"{record.id}: label '{unknown}' is not one of the classes {', '.join(classes)}"
            f"{did_you_mean(unknown, classes)}"
        )
    return record.objects
