"""Objects with masks drawn by hand, the task that finds them, and the numbers of answers about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.annotation import Annotation
from snellen.core.masks import mask_box
from snellen.core.record import Record
from snellen.core.sample import Frame
from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.instances.task import Instances

CLASSES = ("circle", "square")
TASK = Instances(CLASSES)
SIZE = (40, 30)  # (width, height)
Mask = NDArray[np.bool_]


def blank_mask(size: tuple[int, int] = SIZE) -> Mask:
    return np.zeros((size[1], size[0]), np.bool_)


def disc_mask(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> Mask:
    across, down = np.arange(size[0]) + 0.5, np.arange(size[1])[:, None] + 0.5
    return np.asarray((across - x) ** 2 + (down - y) ** 2 < radius**2)


def square_mask(x: int, y: int, side: int, size: tuple[int, int] = SIZE) -> Mask:
    mask = blank_mask(size)
    mask[y : y + side, x : x + side] = True
    return mask


def instance_set(
    masks: Sequence[Mask], labels: Sequence[int], size: tuple[int, int] = SIZE, **changes: Any
) -> InstanceSet:
    boxes = np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    scores = np.ones(len(masks), np.float32)
    found = InstanceSet.predicted(
        size, [ObjectMask.of(mask) for mask in masks], boxes, np.array(labels, np.int64), scores
    )
    return replace(found, **{"scores": None, **changes})


def record_of(*objects: Annotation, size: tuple[int, int] = SIZE) -> Record:
    return Record(id="photo.jpg", path=Path("photo.jpg"), objects=objects, size=size)


def whole_mask(target: InstanceSet, index: int = 0) -> Mask:
    return target.stacked()[index]


def frame_of(size: tuple[int, int]) -> Frame:
    return Frame(size=size, matrix=np.eye(3), input_size=size)


def scores_of(predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet]) -> dict[str, float]:
    metrics = TASK.metrics()
    metrics.update(predicted, truth)
    return {name: each.value for name, each in metrics.compute(intervals=False).items()}


TRUTH = instance_set([disc_mask(12, 12, 8), square_mask(24, 10, 12)], [0, 1])
