"""The masks of many images as flat arrays, for predictions/: the runs of all of them on end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from snellen.tasks.instances.object_mask import ObjectMask


def flat_masks(name: str, masks: Sequence[ObjectMask]) -> dict[str, np.ndarray]:
    """The mask of row k is ``mask_runs[mask_ends[k - 1]:mask_ends[k]]``, lengths of runs down the columns of the piece
    ``mask_region[k]`` (x0, y0, x1, y1) of its image, the first of them outside of the object."""
    return {
        f"{name}_mask_region": np.array([mask.region for mask in masks], np.int64).reshape(-1, 4),
        f"{name}_mask_runs": np.concatenate([np.zeros(0, np.uint32), *(mask.runs for mask in masks)]),
        f"{name}_mask_ends": np.cumsum([len(mask.runs) for mask in masks], dtype=np.int64),
    }


def unflat_masks(name: str, arrays: Mapping[str, np.ndarray]) -> list[ObjectMask]:
    """The masks back from what ``flat_masks`` made. Raises KeyError."""
    ends = [0, *arrays[f"{name}_mask_ends"].tolist()]
    runs = [arrays[f"{name}_mask_runs"][start:stop] for start, stop in pairwise(ends)]
    return [
        ObjectMask(x0, y0, x1 - x0, y1 - y0, of_mask)
        for (x0, y0, x1, y1), of_mask in zip(arrays[f"{name}_mask_region"].tolist(), runs, strict=True)
    ]
