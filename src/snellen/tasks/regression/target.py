"""What regression says about one image. The same type holds the truth and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError
from snellen.core.record import Record


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The numbers of an image: float32 [k], in their own units and in the order of the task's outputs."""

    values: NDArray[np.float32]

    @classmethod
    def of(cls, record: Record, names: Sequence[str]) -> Values:
        """The truth of a record. DataError if it has no numbers, or not one for each of ``names``."""
        if record.values is None:
            got = f"the label '{record.labels[0]}'" if record.labels else "none"
            raise DataError(
                f"{record.id}: a number for {', '.join(names)} is needed, got {got}; give --task regression"
            )
        if len(record.values) != len(names):
            raise DataError(
                f"{record.id}: {len(names)} numbers are needed ({', '.join(names)}), got {len(record.values)}; "
                "give a table with these columns"
            )
        return cls(np.array(record.values, np.float32))
