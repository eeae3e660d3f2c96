"""Objects of many images as flat arrays, for predictions/: the rows of all images on end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snellen.tasks.objects.target import NO_ROWS, ObjectSet


def flat(name: str, targets: Sequence[ObjectSet]) -> dict[str, np.ndarray]:
    """Row k of ``<name>_*`` is of image ``<name>_image[k]``; what is not known of all is left out."""
    image = np.repeat(np.arange(len(targets)), [len(each) for each in targets])
    out = {f"{name}_image": image.astype(np.int64)}
    for field, none in NO_ROWS.items():
        parts = [getattr(each, field) for each in targets]
        if all(part is not None for part in parts):
            out[f"{name}_{field}"] = np.concatenate([none, *parts])
    return out


def unflat(name: str, arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The fields of an ``ObjectSet`` for each image, from what ``flat`` made and ``size`` [n, 2]. Raises KeyError."""
    image, sizes = arrays[f"{name}_image"], arrays["size"]
    ends = np.searchsorted(image, np.arange(len(sizes) + 1))
    found = []
    for i, (width, height) in enumerate(sizes.tolist()):
        rows = slice(ends[i], ends[i + 1])
        fields: dict[str, Any] = {
            field: arrays[f"{name}_{field}"][rows] if f"{name}_{field}" in arrays else None for field in NO_ROWS
        }
        found.append({"size": (width, height), **fields})
    return found
