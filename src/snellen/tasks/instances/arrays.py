"""Objects of many images as flat arrays, for predictions/: rows of all images, and the runs of all masks on end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet

_FIELDS = ("boxes", "labels", "scores", "crowd", "difficult", "area")


def flat(name: str, targets: Sequence[InstanceSet]) -> dict[str, np.ndarray]:
    """Row k of ``<name>_*`` is of image ``<name>_image[k]``.

    The mask of a row is ``mask_runs[mask_ends[k - 1]:mask_ends[k]]``, lengths of runs down the columns of the piece
    ``mask_region[k]`` (x0, y0, x1, y1) of the image, the first of them outside of the object.
    """
    empty = InstanceSet.empty((0, 0))
    masks = [mask for each in targets for mask in each.masks]
    out = {
        f"{name}_image": np.repeat(np.arange(len(targets)), [len(each) for each in targets]).astype(np.int64),
        f"{name}_mask_region": np.array([mask.region for mask in masks], np.int64).reshape(-1, 4),
        f"{name}_mask_runs": np.concatenate([np.zeros(0, np.uint32), *(mask.runs for mask in masks)]),
        f"{name}_mask_ends": np.cumsum([len(mask.runs) for mask in masks], dtype=np.int64),
    }
    for field in _FIELDS:
        parts = [getattr(each, field) for each in targets]
        if all(part is not None for part in parts):
            out[f"{name}_{field}"] = np.concatenate([getattr(empty, field), *parts])
    return out


def unflat(name: str, arrays: Mapping[str, np.ndarray]) -> list[InstanceSet]:
    """The targets back from what ``flat`` made, and ``size`` [n, 2] of the images. Raises KeyError."""
    sizes = arrays["size"]
    rows = np.searchsorted(arrays[f"{name}_image"], np.arange(len(sizes) + 1))
    ends = [0, *arrays[f"{name}_mask_ends"].tolist()]
    runs = [arrays[f"{name}_mask_runs"][start:stop] for start, stop in pairwise(ends)]
    masks = [
        ObjectMask(x0, y0, x1 - x0, y1 - y0, of_mask)
        for (x0, y0, x1, y1), of_mask in zip(arrays[f"{name}_mask_region"].tolist(), runs, strict=True)
    ]
    found = []
    for (width, height), start, stop in zip(sizes.tolist(), rows[:-1], rows[1:], strict=True):
        fields: dict[str, Any] = {
            f: arrays[f"{name}_{f}"][start:stop] if f"{name}_{f}" in arrays else None for f in _FIELDS
        }
        found.append(InstanceSet(size=(width, height), masks=tuple(masks[start:stop]), **fields))
    return found
