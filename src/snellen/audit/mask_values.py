"""Values of masks that stand only in seams between a lower and a higher one: averages, and no classes.

They come in where a mask is resized as pictures are (bilinear), or its outlines are smoothed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.audit.subject import MAX_IMAGES, AuditSubject, counted, listed
from snellen.core.errors import ImageError
from snellen.core.finding import Finding
from snellen.data.mask_files import distinct, read_raw

_LEAST_VALUES = 3  # that stand in seams only: one or two may well be classes for borders
_SEAM = 2  # pixels of the mask
_NEARLY_ALL = 0.99
_LEAST_PIXELS, _LEAST_MASKS = 20, 3


def mask_values_between(subject: AuditSubject) -> Iterator[Finding]:
    """Three values or more that stand only in the seams between a lower and a higher one, in masks of values.

    One or two may be meant: a class for the borders of objects looks so.
    """
    seen = Counter[int]()
    in_seams = Counter[int]()
    holders: dict[int, list[str]] = {}
    for image_id in subject.small_images:
        record = subject.records[image_id]
        if record.mask is None or record.mask.colour:
            continue
        try:
            raw = read_raw(record.mask.path)
        except ImageError:
            continue
        if raw.colour or raw.lossy:
            continue
        for value, (pixels, between) in _seams(raw.values).items():
            seen[value] += pixels
            in_seams[value] += between
            holders.setdefault(value, []).append(image_id)
    found = [
        value
        for value in sorted(seen)
        if seen[value] >= _LEAST_PIXELS
        and len(holders[value]) >= _LEAST_MASKS
        and in_seams[value] >= _NEARLY_ALL * seen[value]
    ]
    if len(found) < _LEAST_VALUES:
        return
    images = tuple(dict.fromkeys(image_id for value in found for image_id in holders[value]))
    yield Finding(
        code="mask-values-between",
        severity="serious",
        message=f"{len(found)} values of the masks ({listed(map(str, found))}) stand nowhere but in the seams between "
        f"a lower and a higher value, in {counted(len(images), 'image')} of {len(subject.small_images):,} looked at.",
        advice="Make the masks anew from their originals without smoothing: resize them by the nearest value.",
        evidence={
            "values": found[:MAX_IMAGES],
            "num_values": len(found),
            "pixels": {str(value): seen[value] for value in found[:MAX_IMAGES]},
        },
        images=images[:MAX_IMAGES],
    )


def _seams(values: NDArray[Any]) -> dict[int, tuple[int, int]]:
    """For each value: its pixels, and how many of them have a lower and a higher value within 2
    pixels."""
    from scipy.ndimage import maximum_filter, minimum_filter

    occurring = distinct(values)
    codes = np.searchsorted(occurring, values).astype(np.int32)
    side = 2 * _SEAM + 1
    low, high = minimum_filter(codes, side, mode="nearest"), maximum_filter(codes, side, mode="nearest")
    between = (low < codes) & (codes < high)
    pixels = np.bincount(codes.ravel(), minlength=len(occurring))
    seams = np.bincount(codes[between], minlength=len(occurring))
    return {value: (int(pixels[i]), int(seams[i])) for i, value in enumerate(occurring)}
