"""Regions of an image as a frozen network sees them, those that are marked and others of their kind that are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snellen.metrics.overlap import box_iou

Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.float16]

ROUND = 1.5  # times a box's sides: what is looked at, so that the box's outside is seen too
_POINTS = 6  # across and down: four of them inside of the box
_TRIES = 20
_APART = 0.3  # intersection over union: places that are shared by less are places of their own


def region_features(seen: Map, boxes: Floats) -> npt.NDArray[np.float32]:
    """The four quarters of each box and what lies round it, [n, 5 d]; boxes [n, 4] in shares of the image's sides.

    seen  [rows, columns, d]; read between its places (Girshick's regions as He et al., Mask R-CNN, 2017, align them)
    """
    steps = ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5) * ROUND
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    across, down = (middle[:, i, None] + steps * sides[:, i, None] for i in (0, 1))
    found = _between(seen.astype(np.float32), across, down)  # [n, down, across, d]
    inner = found[:, 1:-1, 1:-1]
    half = (_POINTS - 2) // 2
    quarters = [inner[:, i : i + half, j : j + half].mean((1, 2)) for i in (0, half) for j in (0, half)]
    outside = (found.sum((1, 2)) - inner.sum((1, 2))) / (_POINTS**2 - (_POINTS - 2) ** 2)
    return np.concatenate([*quarters, outside], 1)


def _between(seen: npt.NDArray[np.float32], across: Floats, down: Floats) -> npt.NDArray[np.float32]:
    """Bilinear, at every pair of ``across`` [n, p] and ``down`` [n, p], shares of the sides: [n, p, p, d]."""
    (top, low, below), (left, right, beyond) = (
        _beside(at, size) for at, size in zip((down, across), seen.shape, strict=False)
    )
    upper = seen[top[:, :, None], left[:, None]] * (1 - beyond) + seen[top[:, :, None], right[:, None]] * beyond
    lower = seen[low[:, :, None], left[:, None]] * (1 - beyond) + seen[low[:, :, None], right[:, None]] * beyond
    return np.asarray(upper * (1 - below.swapaxes(1, 2)) + lower * below.swapaxes(1, 2), np.float32)


def _beside(at: Floats, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    place = np.clip(at * size - 0.5, 0, size - 1)
    first = np.minimum(place.astype(np.intp), max(0, size - 2))
    return first, np.minimum(first + 1, size - 1), (place - first).astype(np.float32)[:, None, :, None]


def empty_regions(boxes: Floats, sizes: Floats, number: int, rng: np.random.Generator) -> Floats:
    """At most ``number`` places that share little with any of ``boxes`` [n, 4]: half of them beside one of these.

    sizes  [m, 2] of boxes of the whole data, from which theirs are drawn; all in shares of the image's sides
    """
    found: list[Floats] = []
    for count in range(number):
        for _ in range(_TRIES):
            if count % 2 and len(boxes):
                box = boxes[rng.integers(len(boxes))]
                size = box[2:] - box[:2]
                turn = rng.uniform(0, 2 * np.pi)
                corner = box[:2] + size * rng.uniform(0.6, 1.1) * np.array([np.cos(turn), np.sin(turn)])
            else:
                size = sizes[rng.integers(len(sizes))]
                corner = rng.uniform(0, np.maximum(1 - size, 1e-9))
            place = np.concatenate([corner, corner + size])
            inside = place.min() >= 0 and place.max() <= 1
            if inside and box_iou(place[None], boxes).max(initial=0) < _APART:
                found.append(place)
                break
    return np.array(found, np.float64).reshape(-1, 4)
