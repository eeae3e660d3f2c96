"""Random images with true objects, and what a middling model finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Rle
from snellen.metrics.matching import Detections, ImageResult, Objects

SIDE = 200


def runs(pixels: NDArray[np.bool_]) -> Rle:
    """The mask [h, w] as run lengths, written out plainly."""
    counts, at = [], False
    for value, run in groupby(pixels.T.ravel().tolist()):
        if value != at:
            counts.append(0)
        counts.append(len(list(run)))
        at = not value
    return Rle(size=(pixels.shape[0], pixels.shape[1]), counts=tuple(counts))


def random_image(rng: np.random.Generator, num_classes: int, *, most: int = 6, difficult: bool = False) -> ImageResult:
    """Some objects, crowds among them; found twice or not at all, with scores that tie, and false alarms beside."""
    count = int(rng.integers(0, most + 1))
    corner = rng.uniform(0, SIDE * 0.6, (count, 2))
    boxes = np.concatenate(
        [corner, corner + rng.choice([20, 60, 120], (count, 1)) * rng.uniform(0.6, 1, (count, 2))], 1
    )
    labels = rng.integers(0, num_classes, count)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.uniform(0.5, 1, count)
    again = np.repeat(np.arange(count), rng.integers(0, 3, count))
    sides = np.tile(boxes[again, 2:] - boxes[again, :2], 2)
    near = boxes[again] + np.clip(rng.normal(0, 0.07, sides.shape), -0.3, 0.3) * sides
    lost = rng.uniform(0, SIDE / 2, (int(rng.integers(0, 4)), 2))
    found = np.concatenate([near, np.concatenate([lost, lost + rng.uniform(5, 60, lost.shape)], axis=1)])
    said = np.concatenate([labels[again], rng.integers(0, num_classes, len(lost))])
    said = np.where(rng.random(len(said)) < 0.15, rng.integers(0, num_classes, len(said)), said)
    scores = np.round(rng.random(len(said)), 1)
    return ImageResult(
        Detections(found, scores, said.astype(np.int64)),
        Objects(
            boxes,
            labels,
            crowd=rng.random(count) < 0.15,
            difficult=rng.random(count) < 0.2 if difficult else None,
            areas=areas,
        ),
    )


def random_images(seed: int, n: int, num_classes: int, **how: Any) -> list[ImageResult]:
    """Images as above; the last class is never in the truth."""
    rng = np.random.default_rng(seed)
    images = [random_image(rng, num_classes, **how) for _ in range(n)]
    for image in images:
        image.true.labels[image.true.labels == num_classes - 1] = 0
    return images


def one_image(
    found: Sequence[tuple[tuple[float, ...], float, int]], true: Sequence[tuple[tuple[float, ...], int]], **marks: Any
) -> ImageResult:
    """An image of (box, score, label) and (box, label)."""
    return ImageResult(
        Detections(
            np.array([box for box, _, _ in found], float).reshape(-1, 4),
            np.array([score for _, score, _ in found], float),
            np.array([label for _, _, label in found], int),
        ),
        Objects(
            np.array([box for box, _ in true], float).reshape(-1, 4),
            np.array([label for _, label in true], int),
            **{name: np.array(values) for name, values in marks.items()},  # type: ignore[arg-type]
        ),
    )
