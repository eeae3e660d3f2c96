"""What classification says about one image. The same types hold the truth (``scores=None``) and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError, did_you_mean
from snellen.core.record import Record


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """The one class of an image.

    index   class id, 0 to num_classes - 1; of a prediction: the decision
    scores  float32 [num_classes], probabilities that sum to 1; None for the truth
    """

    index: int
    scores: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> Label:
        """The truth of a record. DataError if it has no label, several, or one that is not among ``classes``."""
        if len(record.labels) != 1:
            got = f"{len(record.labels)} ({', '.join(record.labels)})" if record.labels else "none"
            raise DataError(
                f"{record.id}: one label per image is needed, got {got}; correct it, or use multi-label data"
            )
        return cls(_class_id(record.labels[0], classes, record))


@dataclass(frozen=True, slots=True, eq=False)
class LabelSet:
    """The labels of an image, any number of them.

    present  bool [num_labels]; of a prediction: the decision
    scores   float32 [num_labels], each an independent probability in 0..1; None for the truth
    """

    present: NDArray[np.bool_]
    scores: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> LabelSet:
        """The truth of a record, which may have no label. DataError if it has one that is not among ``classes``."""
        present = np.zeros(len(classes), dtype=bool)
        for label in record.labels:
            present[_class_id(label, classes, record)] = True
        return cls(present)


def _class_id(label: str, classes: Sequence[str], record: Record) -> int:
    try:
        return classes.index(label)
    except ValueError:
        raise DataError(
            f"{record.id}: label '{label}' is not one of the classes{did_you_mean(label, classes)}"
        ) from None
